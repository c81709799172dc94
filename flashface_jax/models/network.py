"""A module taken apart into structure and parameters, which is how jitted code uses it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

import jax
from flax import nnx

from flashface_jax.models.blocks import ParameterKeys

Params = dict[Any, Any]
"""Nested dicts of arrays (or of their shapes); lists of modules have integer keys."""

M = TypeVar("M", bound=nnx.Module)


@dataclass(frozen=True)
class Network(Generic[M]):
    """The structure of a module, without values.

    Attributes:
        build: makes the module from a source of keys.
        graphdef: the static structure.
        shapes: parameters as `jax.ShapeDtypeStruct`.
    """

    build: Callable[[nnx.Rngs], M]
    graphdef: nnx.GraphDef[M]
    shapes: Params

    def init(self, key: jax.Array) -> Params:
        """Draw fresh parameters, op by op; jit it to have them born sharded."""
        return nnx.to_pure_dict(nnx.split(self.build(ParameterKeys(key)))[1])

    def noted(self, notes: Callable[[str, tuple[int, ...]], Mapping[str, Any]]) -> "Network[M]":
        """The same network whose parameters carry metadata, by name and shape.

        Modules that are bound, and their blocks, carry it too.
        """
        module = nnx.merge(self.graphdef, self.shapes)
        for path, parameter in nnx.to_flat_state(nnx.state(module)):
            name = "/".join(map(str, path))
            parameter.set_metadata(**notes(name, parameter.get_value().shape))
        return replace(self, graphdef=nnx.split(module)[0])

    def bind(self, params: Params) -> M:
        """Return the module with these parameters; cheap, and free under `jit`."""
        return nnx.merge(self.graphdef, params)


def network(build: Callable[[nnx.Rngs], M]) -> Network[M]:
    """Take a module apart without allocating its parameters."""
    module = nnx.eval_shape(lambda: build(ParameterKeys(jax.random.key(0))))
    graphdef, state = nnx.split(module)
    return Network(build, graphdef, nnx.to_pure_dict(state))


def path_name(path: tuple[Any, ...]) -> str:
    """Readable name of a parameter: "denoiser/encoder/0/kernel"."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def flatten(params: Params) -> dict[str, Any]:
    """Parameters by name, in tree order."""
    leaves = jax.tree_util.tree_flatten_with_path(params)[0]
    return {path_name(path): leaf for path, leaf in leaves}


def unflatten(named: dict[str, Any], like: Params) -> Params:
    """Inverse of `flatten` for the tree `like`."""
    return jax.tree_util.tree_map_with_path(lambda path, _: named[path_name(path)], like)
