"""Wrong arrays told by the name of the argument, before JAX meets them somewhere deep inside.

Annotations say what shape and dtype each array has, in the vocabulary of `common/shapes.py`. The
public functions are `checked`: they compare what they are given with their annotations. That takes
microseconds, and nothing at all in a compiled function, since shapes are known when it is traced.

This is no type checker: it looks at arrays alone, and at the dataclasses and mappings that they
come in, takes NumPy's for JAX's, and knows sizes that no annotation can say, such as a
configuration's.
"""

import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping
from types import NoneType, UnionType
from typing import Any, ParamSpec, TypeVar, Union, get_args, get_origin

from jaxtyping import AbstractArray

P = ParamSpec("P")
R = TypeVar("R")

Sizes = Mapping[str, int]
"""Dimension -> size."""


def checked(
    sizes: Callable[[Any], Sizes] | None = None,
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorate a function so that it refuses arrays that are not as it annotates them.

    The arguments share their dimensions: where one has a batch of 2, all have.

    Args:
        sizes: from the function's first argument to the sizes that it decides, say by its
            configuration.

    Returns:
        What decorates the function. It then raises a ValueError for a wrong shape, and a TypeError
        for a wrong dtype or another type, in one sentence that names the argument.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        signature = inspect.signature(function)
        annotations = {
            name: parameter.annotation
            for name, parameter in signature.parameters.items()
            if parameter.annotation is not inspect.Parameter.empty
        }

        @functools.wraps(function)
        def checking(*args: P.args, **kwargs: P.kwargs) -> R:
            given = signature.bind(*args, **kwargs).arguments
            first = next(iter(given.values()), None)
            dimensions = _Dimensions(function.__qualname__, {} if sizes is None else sizes(first))
            for name, value in given.items():
                if name in annotations:
                    dimensions.check(name, annotations[name], value)
            return function(*args, **kwargs)

        return checking

    return decorate


def check_fields(record: Any) -> None:
    """Refuse arrays that are not as the fields of their dataclass are annotated; as `checked`."""
    dimensions = _Dimensions(type(record).__name__, {})
    for field in dataclasses.fields(record):
        dimensions.check(field.name, field.type, getattr(record, field.name))


def require(holds: bool, argument: str, function: str, got: str, wanted: str) -> None:
    """Raise a ValueError, in the words of `checked`, where what no annotation can say is not so."""
    if not holds:
        raise ValueError(f"argument `{argument}` of {function} has {got}; wanted {wanted}.")


class _Dimensions:
    """Sizes of dimensions, as the arguments of one call tell them one after the other."""

    def __init__(self, function: str, configured: Sizes):
        self.function = function
        self.sizes = {name: (size, "configured") for name, size in configured.items()}

    def check(self, name: str, annotation: Any, value: Any) -> None:
        """Check an argument, or every array in it."""
        union = get_origin(annotation) in (Union, UnionType)
        kinds = get_args(annotation) if union else (annotation,)
        if value is None and NoneType in kinds:
            return
        records = tuple(kind for kind in kinds if _is_record(kind))
        if isinstance(value, records):
            for field in dataclasses.fields(value):
                self.check(f"{name}.{field.name}", field.type, getattr(value, field.name))
        elif records:
            wanted = " or ".join(kind.__name__ for kind in records)
            raise TypeError(
                f"argument `{name}` of {self.function} has type {type(value).__name__}; "
                f"wanted {wanted}."
            )
        for kind in kinds:
            if _is_array(kind):
                self._check_kind(name, kind, value)
                self._check_shape(name, kind.dim_str.split(), tuple(value.shape))
            elif get_origin(kind) in (dict, Mapping) and _is_array(get_args(kind)[1]):
                for key, array in value.items():
                    self.check(f"{name}[{key!r}]", get_args(kind)[1], array)

    def _check_kind(self, name: str, wanted: type[AbstractArray], array: Any) -> None:
        if isinstance(array, _of_any_shape(wanted)):
            return
        is_array = hasattr(array, "shape") and hasattr(array, "dtype")
        got = f"dtype {array.dtype}" if is_array else f"type {type(array).__name__}"
        kind, shape = wanted.dtype.__name__.lower(), _shape_words(wanted.dim_str.split())
        raise TypeError(
            f"argument `{name}` of {self.function} has {got}; wanted an array of {kind}, {shape}."
        )

    def _check_shape(self, name: str, wanted: list[str], shape: tuple[int, ...]) -> None:
        sizes, fits = dict(self.sizes), len(wanted) == len(shape)
        for dimension, size in zip(wanted, shape, strict=False):
            if dimension.isdigit():
                fits &= int(dimension) == size
            elif dimension != "_":
                fits &= sizes.setdefault(dimension, (size, f"as in `{name}`"))[0] == size
        if fits:
            self.sizes = sizes
            return
        known = [
            f"{dimension} = {size} ({source})"
            for dimension, (size, source) in self.sizes.items()
            if dimension in wanted
        ]
        told = f" with {', '.join(known)}" if known else ""
        raise ValueError(
            f"argument `{name}` of {self.function} has shape {shape}; "
            f"wanted {_shape_words(wanted)}{told}."
        )


def _is_array(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, AbstractArray)


def _is_record(kind: Any) -> bool:
    return isinstance(kind, type) and dataclasses.is_dataclass(kind)


@functools.cache
def _of_any_shape(wanted: type[AbstractArray]) -> Any:
    """Anything with the dtype of an annotation, whether JAX's or NumPy's."""
    return wanted.dtype[Any, "..."]


def _shape_words(dimensions: list[str]) -> str:
    return f"({', '.join(dimensions)}{',' * (len(dimensions) == 1)})"
