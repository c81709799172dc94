"""How blocks run in training: parameters fetched when needed, activations made again.

A device holds a part of each kernel. A block's kernels are put together as it begins, in the dtype
that it computes in, and dropped as it ends; the backward pass fetches them again, makes the block's
activations again, and leaves on each device the sum of its own part's gradient, in float32.
"""

import functools
from dataclasses import dataclass
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jax.typing import DTypeLike

from flashface_jax.models.attention.attend import ATTENDED
from flashface_jax.models.network import Network
from flashface_jax.training.parallel.sharding import FSDP, Layout

Recompute = Literal["nothing", "blocks", "all but attention"]
"""What the backward pass makes again: nothing; all but what enters a block; or that, except what
fused attention returned, without which the whole attention would run twice."""

DIMENSION = "split_dimension"  # a parameter's metadata


@dataclass(frozen=True)
class TrainingBlocks:
    """A `RunBlock` within `shard_map`.

    Attributes:
        dtype: of fetched kernels.
        recompute: what the backward pass makes again.
    """

    dtype: DTypeLike
    recompute: Recompute = "nothing"

    def __post_init__(self) -> None:
        if self.recompute not in get_args(Recompute):
            known = ", ".join(map(repr, get_args(Recompute)))
            raise ValueError(f"recompute is {self.recompute!r}; choose among {known}.")

    def __call__(self, block: nnx.Module, *arguments: Any) -> Any:
        """Run a block whose parameters are this device's parts."""
        structure, parts = nnx.split(block)

        def run(parts: Any, *arguments: Any) -> Any:
            whole = jax.tree.map(self._fetched, parts, is_leaf=_is_variable)
            return nnx.merge(structure, whole)(*arguments)

        match self.recompute:
            case "blocks":
                run = jax.checkpoint(run)
            case "all but attention":
                keep = jax.checkpoint_policies.save_only_these_names(ATTENDED)
                run = jax.checkpoint(run, policy=keep)
        return run(parts, *arguments)

    def _fetched(self, part: nnx.Variable) -> nnx.Variable:
        dimension = part.get_metadata().get(DIMENSION)
        if dimension is None:
            return part
        return part.replace(fetch(part.get_value(), dimension, self.dtype))


def split_as(part: str, network: Network, layout: Layout) -> Network:
    """Note in a network's structure how its parameters are split, for `TrainingBlocks` to read."""

    def note(name: str, shape: tuple[int, ...]) -> dict[str, int | None]:
        return {DIMENSION: layout.dimension(f"{part}/{name}", shape)}

    return network.noted(note)


def _is_variable(x: Any) -> bool:
    return isinstance(x, nnx.Variable)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def fetch(part: jax.Array, dimension: int, dtype: DTypeLike) -> jax.Array:
    """Put the parts of all devices that share a kernel together, in `dtype`.

    Its gradient is summed over them in the kernel's own dtype, as master weights are.
    """
    return lax.all_gather(part.astype(dtype), FSDP, axis=dimension, tiled=True)


def _fetch(part: jax.Array, dimension: int, dtype: DTypeLike) -> tuple[jax.Array, jax.Array]:
    # Nothing but the dtype of the part is kept.
    return fetch(part, dimension, dtype), jnp.zeros((), part.dtype)


def _scatter(
    dimension: int, dtype: DTypeLike, like: jax.Array, gradient: jax.Array
) -> tuple[jax.Array]:
    whole = gradient.astype(like.dtype)
    return (lax.psum_scatter(whole, FSDP, scatter_dimension=dimension, tiled=True),)


fetch.defvjp(_fetch, _scatter)
