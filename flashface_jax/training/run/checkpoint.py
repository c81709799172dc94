"""Checkpoints of a run: parameters, average, optimizer, step, random key, data position.

Every part's tree is an item of its own ("average-flashface"), so that sampling reads no more
than it needs. Every process writes what it holds; a checkpoint counts once all of it is written.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging
from jax.experimental import multihost_utils

from flashface_jax.models.network import Params
from flashface_jax.training.computation.state import TrainState
from flashface_jax.training.run.checkpoint_files import damage, note_sizes
from flashface_jax.weights.run_files import CHECKPOINTS, UNREADABLE

SET_ASIDE = "damaged"
MOST_LISTED = 64  # checkpoints that processes agree on


class CheckpointError(ValueError):
    """A run none of whose checkpoints can be read; the message names them."""


@dataclass(frozen=True)
class Restored:
    """What a checkpoint holds.

    Attributes:
        state: of training, where the run's layout wants it.
        data: of the data iterator.
    """

    state: TrainState
    data: dict[str, Any]


class Checkpoints:
    """The checkpoints below a run's directory, written while training goes on.

    Attributes:
        place: where they are.
    """

    def __init__(self, workdir: Path, keep: int = 2):
        self.place = (workdir / CHECKPOINTS).absolute()
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, enable_async_checkpointing=True)
        self._writes = False
        self._manager = ocp.CheckpointManager(self.place, options=options)

    @property
    def latest_step(self) -> int | None:
        """Step of the newest checkpoint, or None."""
        return self._manager.latest_step()

    def save(self, state: TrainState, step: int, data_state: dict[str, Any]) -> None:
        """Begin to write the state after a step; returns as soon as the state may change.

        Args:
            state: of training.
            step: which step that is.
            data_state: the data iterator's after that step's batch.
        """
        self.wait()
        self._writes = True
        items = {name: ocp.args.StandardSave(tree) for name, tree in _items(state).items()}
        data = ocp.args.JsonSave(data_state)
        self._manager.save(step, args=ocp.args.Composite(**items, data=data))

    def restore(self, shapes: TrainState, shardings: TrainState) -> Restored | None:
        """Read the newest checkpoint that can be read; None if there is none at all.

        Those that cannot are named in a warning, and put aside once an older one has been read.

        Args:
            shapes: of the run's state.
            shardings: where its leaves belong, whatever devices it was saved from.

        Raises:
            CheckpointError: there are checkpoints, and none can be read.
        """
        wanted = jax.tree.map(
            lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
            shapes,
            shardings,
        )
        damaged: list[int] = []
        for step in _agreed(sorted(self._manager.all_steps(), reverse=True)):
            read, reason = self._attempt(step, wanted)
            if read is not None:
                self._put_aside(damaged)
                return read
            damaged.append(step)
            logging.warning("%s cannot be read: %s", self.place / str(step), reason)
        if damaged:
            raise CheckpointError(
                f"No checkpoint of {self.place} can be read ({', '.join(map(str, damaged))}): "
                "restore one from a copy, or remove them to begin anew."
            )
        return None

    def _attempt(self, step: int, wanted: TrainState) -> tuple[Restored | None, str]:
        """What a checkpoint holds, or why it cannot be read, on which all processes agree."""
        reason = damage(self.place / str(step))
        if not _all_say(reason is None):
            return None, reason or "another process finds it damaged"
        read = None
        try:
            read = self._read(step, wanted)
        except jax.errors.JaxRuntimeError:  # no memory left, say: the files are not to blame
            raise
        except UNREADABLE as error:
            reason = str(error).strip().split("\n")[0][:200] or type(error).__name__
        if not _all_say(read is not None):
            return None, reason or "another process could not read its part"
        return read, ""

    def _read(self, step: int, wanted: TrainState) -> Restored:
        trees = _items(wanted)
        items = {name: ocp.args.StandardRestore(tree) for name, tree in trees.items()}
        data = ocp.args.JsonRestore()
        read = self._manager.restore(step, args=ocp.args.Composite(**items, data=data))

        def parts(kind: str, trees: dict[str, Params]) -> dict[str, Params]:
            return {part: read.get(f"{kind}-{part}", tree) for part, tree in trees.items()}

        state = replace(
            wanted,
            step=read["progress"]["step"],
            healthy=read["progress"]["healthy"],
            key=jax.random.wrap_key_data(read["progress"]["key"]),
            params=parts("params", wanted.params),
            average=None if wanted.average is None else parts("average", wanted.average),
            optimizer=read["optimizer"],
            frozen=parts("frozen", wanted.frozen),
        )
        return Restored(state, read["data"])

    def _put_aside(self, steps: list[int]) -> None:
        """Move damaged checkpoints out of the way of those that the run will write again."""
        if not steps:
            return
        if jax.process_index() == 0:
            for step in steps:
                aside = _free_name(self.place.parent / SET_ASIDE / str(step))
                aside.parent.mkdir(exist_ok=True)
                (self.place / str(step)).rename(aside)
                logging.warning("put %s aside as %s", self.place / str(step), aside)
        if jax.process_count() > 1:
            multihost_utils.sync_global_devices("damaged checkpoints are put aside")
        self._manager.reload()

    def wait(self) -> None:
        """Wait until what is being written is written, and note which files that made."""
        self._manager.wait_until_finished()
        if self._writes and jax.process_index() == 0:
            for step in self._manager.all_steps():
                note_sizes(self.place / str(step))

    def close(self) -> None:
        """Wait for writes and release the directory."""
        self.wait()
        self._manager.close()


def _agreed(steps: list[int]) -> list[int]:
    """The first process' list: a mounted bucket may show the others an older one."""
    if jax.process_count() == 1:
        return steps
    room = np.full(MOST_LISTED, -1)
    room[: len(steps)] = steps[:MOST_LISTED]
    return [int(step) for step in multihost_utils.broadcast_one_to_all(room) if step >= 0]


def _all_say(yes: bool) -> bool:
    """Whether every process says so."""
    if jax.process_count() == 1:
        return yes
    return bool(multihost_utils.process_allgather(np.array(yes)).all())


def _items(state: TrainState) -> dict[str, Any]:
    """What is saved, by item name; parts without parameters are not."""
    kinds = {"params": state.params, "average": state.average or {}, "frozen": state.frozen}
    trees = {
        f"{kind}-{part}": tree for kind, parts in kinds.items() for part, tree in parts.items()
    }
    trees["optimizer"] = state.optimizer
    trees["progress"] = {"step": state.step, "healthy": state.healthy, "key": _key_data(state.key)}
    return {name: tree for name, tree in trees.items() if jax.tree.leaves(tree)}


def _key_data(key: jax.Array | jax.ShapeDtypeStruct) -> jax.Array | jax.ShapeDtypeStruct:
    if isinstance(key, jax.ShapeDtypeStruct):
        data = jax.eval_shape(jax.random.key_data, key)
        return jax.ShapeDtypeStruct(data.shape, data.dtype, sharding=key.sharding)
    return jax.random.key_data(key)


def _free_name(path: Path) -> Path:
    return next(place for place in _numbered(path) if not place.exists())


def _numbered(path: Path) -> Iterator[Path]:
    yield path
    number = 2
    while True:
        yield path.with_name(f"{path.name}-{number}")
        number += 1
