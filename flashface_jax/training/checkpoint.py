"""Checkpoints of a run: parameters, average, optimizer, step, random key, data position.

Every part's tree is an item of its own ("average-flashface"), so that sampling reads no more
than it needs.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from flashface_jax.models.network import Params
from flashface_jax.training.state import TrainState


class Checkpoints:
    """The checkpoints below a run's directory."""

    def __init__(self, workdir: Path, keep: int = 2):
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, enable_async_checkpointing=False)
        self._manager = ocp.CheckpointManager((workdir / "checkpoints").absolute(), options=options)

    @property
    def latest_step(self) -> int | None:
        """Step of the newest checkpoint, or None."""
        return self._manager.latest_step()

    def save(self, state: TrainState, data_state: dict[str, Any]) -> None:
        """Save at the state's step; `data_state` is the iterator's before its next batch."""
        items = {name: ocp.args.StandardSave(tree) for name, tree in _items(state).items()}
        data = ocp.args.JsonSave(data_state)
        self._manager.save(int(state.step), args=ocp.args.Composite(**items, data=data))

    def restore(self, like: TrainState) -> tuple[TrainState, dict[str, Any]]:
        """Read the newest checkpoint into a state of the same structure, and the data state."""
        items = {
            name: ocp.args.StandardRestore(jax.tree.map(_abstract, tree))
            for name, tree in _items(like).items()
        }
        data = ocp.args.JsonRestore()
        read = self._manager.restore(self.latest_step, args=ocp.args.Composite(**items, data=data))

        def parts(kind: str, trees: dict[str, Params]) -> dict[str, Params]:
            return {part: read.get(f"{kind}-{part}", tree) for part, tree in trees.items()}

        state = replace(
            like,
            step=read["progress"]["step"],
            key=jax.random.wrap_key_data(read["progress"]["key"]),
            params=parts("params", like.params),
            average=None if like.average is None else parts("average", like.average),
            optimizer=read["optimizer"],
            frozen=parts("frozen", like.frozen),
        )
        return state, read["data"]

    def read_part(self, part: str, shapes: Params) -> Params:
        """Read one part's parameters as samples are drawn with them (the average, if any).

        Raises:
            KeyError: if the checkpoint does not hold that part.
        """
        step = self.latest_step
        place = self._manager.directory / str(step)
        for kind in ("average", "params", "frozen"):
            item = f"{kind}-{part}"
            if (place / item).exists():
                wanted = ocp.args.StandardRestore(jax.tree.map(_abstract, shapes))
                return self._manager.restore(step, args=ocp.args.Composite(**{item: wanted}))[item]
        raise KeyError(part)

    def close(self) -> None:
        """Wait for writes and release the directory."""
        self._manager.close()


def _items(state: TrainState) -> dict[str, Any]:
    """What is saved, by item name; parts without parameters are not."""
    kinds = {"params": state.params, "average": state.average or {}, "frozen": state.frozen}
    trees = {
        f"{kind}-{part}": tree for kind, parts in kinds.items() for part, tree in parts.items()
    }
    trees["optimizer"] = state.optimizer
    trees["progress"] = {"step": state.step, "key": jax.random.key_data(state.key)}
    return {name: tree for name, tree in trees.items() if jax.tree.leaves(tree)}


def _abstract(leaf: jax.Array | jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=device)
