"""Compiling ahead of time, and what the compiler says of the result."""

import queue
import sys
import threading
from collections.abc import Callable
from typing import Any, TypeVar

import jax
from tqdm import tqdm

# Of XLA's compilers only the one for TPUs knows it: 4 to 10 times faster, memory a little larger.
FAST = {"exec_time_optimization_effort": -1.0}


T = TypeVar("T")


class DoesNotFitError(ValueError):
    """The program needs more memory than a chip has."""


def compile_program(lowered: jax.stages.Lowered, fast: bool) -> jax.stages.Compiled:
    """Compile a program for the devices that it was lowered for.

    Args:
        lowered: the program.
        fast: for TPUs only: optimise less.

    Raises:
        DoesNotFitError: if the compiler finds that the chip's memory does not suffice.
    """
    options: Any = FAST if fast else None  # JAX's annotation knows of no numbers
    try:
        return lowered.compile(compiler_options=options)
    except jax.errors.JaxRuntimeError as error:
        said = " ".join(str(error).split())
        if not said.startswith("RESOURCE_EXHAUSTED"):
            raise
        raise DoesNotFitError(
            said.removeprefix("RESOURCE_EXHAUSTED: ").partition(". ")[0]
        ) from None


def mesh_of(compiled: jax.stages.Compiled) -> jax.sharding.Mesh | None:
    """Return the mesh that a program's arguments are laid out on, if any."""
    for sharding in jax.tree.leaves(compiled.input_shardings):
        if isinstance(sharding, jax.sharding.NamedSharding):
            mesh = sharding.mesh
            return mesh if isinstance(mesh, jax.sharding.Mesh) else None
    return None


def elapsing(what: str, work: Callable[[], T]) -> T:
    """Do some work while standard error shows what is going on and for how long.

    The work is done in a thread, as the compiler would not hear of Ctrl-C before it is done.

    Args:
        what: the work, in a few words.
        work: what to call.

    Returns:
        What `work` returns; what it raises is raised.
    """
    done: queue.SimpleQueue[T | BaseException] = queue.SimpleQueue()

    def call() -> None:
        try:
            done.put(work())
        except BaseException as error:  # for the thread that waits
            done.put(error)

    interval = 1.0 if sys.stderr.isatty() else 60.0  # a log wants no line a second
    with tqdm(desc=what, bar_format="{desc} {elapsed}", total=1) as shown:
        threading.Thread(target=call, daemon=True).start()
        while True:
            try:
                result = done.get(timeout=interval)
            except queue.Empty:
                shown.refresh()
            else:
                break
    if isinstance(result, BaseException):
        raise result
    return result
