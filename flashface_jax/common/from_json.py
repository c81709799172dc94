"""Dataclasses from what JSON, or nested dicts, hold. Strict: only whole numbers become floats."""

import dataclasses
import functools
import math
import types
from collections.abc import Mapping
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from flashface_jax.common.errors import shortened


def from_json(kind: Any, value: Any, name: str) -> Any:
    """Make a value of a type from what JSON holds.

    Args:
        kind: a dataclass, str, int, float, bool, None, Any, a Literal, a mapping from str to Any,
            a tuple (which JSON writes as a list) or a union of such.
        value: from JSON; tuples count as lists.
        name: what the value is called in an error.

    Raises:
        ValueError: naming the part that is missing, unknown or of another type.
    """
    made = _MISFIT
    origin = get_origin(kind)
    if dataclasses.is_dataclass(kind) and isinstance(value, Mapping):
        return _dataclass(kind, value, name)
    if origin is tuple and isinstance(value, (list, tuple)):
        return _tuple(kind, value, name)
    if origin in (Union, types.UnionType):
        return _union(kind, value, name)
    if kind is Any or (origin is dict and isinstance(value, dict)):
        made = value
    elif origin is Literal:
        made = value if value in get_args(kind) else _MISFIT
    elif kind is float and type(value) in (int, float):
        made = _number(value)
    elif type(value) is kind:  # no bool for an int
        made = value
    if made is _MISFIT:
        raise _misfit(kind, value, name)
    return made


_MISFIT = object()


def _misfit(kind: Any, value: Any, name: str) -> ValueError:
    return ValueError(f"{name} is {shortened(value)}; it must be {_called(kind)}.")


def _dataclass(kind: Any, values: Mapping[str, Any], name: str) -> Any:
    fields, hints = _fields(kind)
    for key in values:
        if key not in fields:
            raise ValueError(f"{name} has no {shortened(key)}: choose among {', '.join(fields)}.")
    for key, field in fields.items():
        optional = (field.default, field.default_factory) != (dataclasses.MISSING,) * 2
        if key not in values and not optional:
            raise ValueError(f"{name} lacks {key!r}.")
    return kind(**{key: from_json(hints[key], value, key) for key, value in values.items()})


@functools.cache
def _fields(kind: Any) -> tuple[dict[str, dataclasses.Field[Any]], dict[str, Any]]:
    """Fields and their types, by name: finding them out takes longer than reading a value."""
    return {field.name: field for field in dataclasses.fields(kind)}, get_type_hints(kind)


def _tuple(kind: Any, values: list[Any] | tuple[Any, ...], name: str) -> tuple[Any, ...]:
    kinds = get_args(kind)
    if kinds[-1] is Ellipsis:
        kinds = kinds[:1] * len(values)
    if len(kinds) != len(values):
        raise _misfit(kind, values, name)
    return tuple(
        from_json(inner, value, f"{name}[{i}]")
        for i, (inner, value) in enumerate(zip(kinds, values, strict=True))
    )


def _union(kind: Any, value: Any, name: str) -> Any:
    if value is None and type(None) in get_args(kind):
        return None
    kinds = [inner for inner in get_args(kind) if inner is not type(None)]
    if len(kinds) == 1:
        return from_json(kinds[0], value, name)  # whose error says where exactly
    for inner in kinds:
        try:
            return from_json(inner, value, name)
        except ValueError:
            continue
    raise _misfit(kind, value, name)


def _number(value: Any) -> Any:
    """A whole or other number as a finite float."""
    try:
        return float(value) if math.isfinite(value) else _MISFIT
    except OverflowError:
        return _MISFIT


def _called(kind: Any, *, several: bool = False) -> str:
    """What a type is called in a sentence."""
    names = {
        str: ("text", "texts"),
        int: ("a whole number", "whole numbers"),
        float: ("a number", "numbers"),
        bool: ("true or false", "true or false"),
    }
    if kind in names:
        return names[kind][several]
    inner, origin = get_args(kind), get_origin(kind)
    if origin is Literal:
        return "one of " + ", ".join(map(str, inner))
    if origin is tuple:
        if inner[-1] is Ellipsis:
            return ("a list of ", "lists of ")[several] + _called(inner[0], several=True)
        many = f"{len(inner)} {_called(inner[0], several=True)}"
        return ("a list of ", "lists of ")[several] + many
    if origin in (Union, types.UnionType):
        return " or ".join(_called(one) for one in inner if one is not type(None))
    return "an object: {...}"
