"""Saves a state on some devices, or checks what others saved there."""

import dataclasses
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from flashface_jax.models.network import flatten
from flashface_jax.training.computation.program import Program
from flashface_jax.training.parallel.sharding import ShardingConfig
from flashface_jax.training.run.checkpoint import Checkpoints
from tests.small import AVERAGING

CONFIG = dataclasses.replace(AVERAGING, batch_size=8, sharding=ShardingConfig(smallest=256))


def leaves(state):
    """Everything of a state but its key, on the host."""
    parts = ("step", "params", "average", "optimizer", "frozen")
    return {
        name: np.asarray(x) for name, x in flatten({p: getattr(state, p) for p in parts}).items()
    }


def save(folder: Path) -> None:
    """Save a state with something in every leaf."""
    program = Program.over(CONFIG)
    state = program.fresh_state()
    filled = jax.tree.map(lambda leaf: leaf + jnp.asarray(3, leaf.dtype), state.optimizer)
    state = dataclasses.replace(state, optimizer=filled, step=state.step + 7)
    checkpoints = Checkpoints(folder)
    checkpoints.save(state, 7, {"next": 5})
    checkpoints.close()
    np.savez(folder / "state.npz", **leaves(state))


def require_same(folder: Path, state) -> None:
    """Fail unless a state is the saved one, bit for bit."""
    saved, read = np.load(folder / "state.npz"), leaves(state)
    assert set(saved) == set(read)
    for name, value in read.items():
        np.testing.assert_array_equal(value, saved[name], err_msg=name)


def restore(folder: Path) -> None:
    """Restore, and fail unless everything is as it was and lies where it belongs."""
    program = Program.over(CONFIG)
    checkpoints = Checkpoints(folder)
    read = checkpoints.restore(program.shapes, program.shardings)
    checkpoints.close()
    assert read is not None and read.data == {"next": 5}
    require_same(folder, read.state)
    for leaf, wanted in zip(
        jax.tree.leaves(read.state), jax.tree.leaves(program.shardings), strict=True
    ):
        assert leaf.sharding.is_equivalent_to(wanted, leaf.ndim), (leaf.sharding, wanted)


if __name__ == "__main__":
    {"save": save, "restore": restore}[sys.argv[1]](Path(sys.argv[2]))
