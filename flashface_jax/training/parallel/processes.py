"""Several processes that train together, and how they agree."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

NOBODY = "coordinator_address should be defined"
"""What JAX says where nothing tells of other processes."""


def join(coordinator: str = "", processes: int = 0, process: int = -1) -> None:
    """Join the run's other processes, before anything else asks JAX for devices.

    With no arguments, the machine says where the others are: TPU slices, Slurm and Open MPI do.
    Where nothing does, the process is alone.

    Args:
        coordinator: address and port of process 0, "10.0.0.2:1234".
        processes: how many there are.
        process: number of this one, from 0.

    Raises:
        ValueError: some of the three are given and not all, or the others cannot be reached.
    """
    if coordinator and not coordinator.rpartition(":")[2].isdecimal():
        raise ValueError(f"coordinator is {coordinator}: give its port, too, as in host:1234.")
    if process >= processes > 0:
        raise ValueError(
            f"process is {process}; of {processes} processes the last is {processes - 1}."
        )
    given = [bool(coordinator), processes > 0, process >= 0]
    if any(given) and not all(given):
        raise ValueError("Give all of --coordinator, --processes and --process, or none.")
    try:
        if all(given):
            jax.distributed.initialize(coordinator, processes, process)
        else:
            jax.distributed.initialize()
    except ValueError as error:
        if all(given) or NOBODY not in str(error):
            raise ValueError(f"The other processes cannot be joined: {error}") from error
    except RuntimeError as error:
        raise ValueError(f"The other processes cannot be joined: {error}") from error


def are_several() -> bool:
    """Whether the run has more than one process."""
    return bool(jax.distributed.is_initialized() and jax.process_count() > 1)


def is_first() -> bool:
    """Whether this process is the one that writes and speaks for all."""
    return jax.process_index() == 0


def say(text: str) -> None:
    """Print a line, once for all processes."""
    if is_first():
        print(text, flush=True)


def wait_for_all(what: str) -> None:
    """Wait until every process has come as far as this."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(what)


def total(count: int) -> int:
    """The sum over all processes; every one must call it."""
    if jax.process_count() == 1:
        return count
    return int(multihost_utils.process_allgather(np.array(count)).sum())


class StopRequest:
    """Whether somebody wants the run to stop: SIGTERM, which machines get before they are taken."""

    def __init__(self) -> None:
        self._asked = False

    def heard(self, step: int) -> bool:
        """Whether to stop after this step; every process gives the same answer.

        One that alone was told to stop tells the others, and all stop after the same step.
        """
        if jax.process_count() > 1:
            return bool(multihost_utils.reached_preemption_sync_point(step))
        return self._asked

    @contextmanager
    def listening(self) -> Iterator["StopRequest"]:
        """Listen; several processes leave that to JAX, which told of them listens itself."""
        if jax.process_count() > 1:
            yield self
            return
        before = signal.signal(signal.SIGTERM, self._ask)
        try:
            yield self
        finally:
            signal.signal(signal.SIGTERM, before)

    def _ask(self, number: int, frame: FrameType | None) -> Any:
        self._asked = True
