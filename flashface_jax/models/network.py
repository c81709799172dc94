"""A module taken apart into structure and parameters, which is how jitted code uses it."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar

import jax
from flax import nnx

from flashface_jax.models.blocks import ParameterKeys

Params = dict[Any, Any]
"""Nested dicts of arrays (or of their shapes); lists of modules have integer keys."""

M = TypeVar("M", bound=nnx.Module)
P = ParamSpec("P")
R = TypeVar("R")


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
        """Draw fresh parameters.

        Op by op, as a program for every shape compiles sooner than one for all parameters; jit it
        to have them born sharded. Layers that begin at zero, such as the last one of a denoiser,
        which therefore predicts 0 until it is trained, do so here.
        """
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
        """Return the module with these parameters; cheap, and free under `jit`.

        Its methods called outside of `jit` compile every operation by itself, which takes longer
        than the whole: see `jit`.
        """
        return nnx.merge(self.graphdef, params)

    def jit(
        self, method: Callable[Concatenate[M, P], R], **options: Any
    ) -> Callable[Concatenate[Params, P], R]:
        """Return a method of the module as a jitted pure function.

        Keep what this returns: it compiles once for each shape of its arguments.

        Args:
            method: of the module's class, such as `FlashFace.denoise`.
            **options: of `jax.jit`, such as `static_argnames`.

        Returns:
            The same function, of parameters in place of the module.
        """

        @functools.wraps(method)
        def function(params: Params, /, *args: P.args, **kwargs: P.kwargs) -> R:
            return method(self.bind(params), *args, **kwargs)

        return jax.jit(function, **options)


def network(build: Callable[..., M], *arguments: Any) -> Network[M]:
    """Take a module apart without allocating its parameters.

    Args:
        build: makes the module: a function, or its class.
        *arguments: what it is called with before the source of keys, for most classes a
            configuration and `Compute()`.
    """

    def made(keys: nnx.Rngs) -> M:
        return build(*arguments, keys)

    module = nnx.eval_shape(lambda: made(ParameterKeys(jax.random.key(0))))
    graphdef, state = nnx.split(module)
    return Network(made, graphdef, nnx.to_pure_dict(state))


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
