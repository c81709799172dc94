"""Options described once, as data beside the field that they set.

A dataclass field made by `option` says in its metadata how a command line names it and what its
help is. `add_options` adds such fields to a parser, and `given` reads back what was given, by the
names of the fields: a command line, a jobs file and a record all hold the same.
"""

import argparse
import dataclasses
import types
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

METADATA = "option"


@dataclass(frozen=True)
class Option:
    """How a field is named and explained on a command line.

    Attributes:
        help: what it does, its range, and what is usual.
        metavar: what stands for its value; "" where there are choices.
        flags: names, with their dashes; of the field's own name if empty.
        parse: makes the value of a text; what the field's type says if None.
        choices: the values that there are; what a Literal type says if empty.
        nargs: "+" for several values behind one flag.
        repeated: whether the flag may be given again, each adding to a list.
    """

    help: str
    metavar: str = ""
    flags: tuple[str, ...] = ()
    parse: Callable[[str], Any] | None = None
    choices: tuple[str, ...] = ()
    nargs: str | None = None
    repeated: bool = False

    def named(self, field: str) -> str:
        """The flag that a field is set by, as a user writes it."""
        return self.flags[0] if self.flags else f"--{field.replace('_', '-')}"


def option(
    help: str,
    metavar: str = "",
    *,
    default: Any = dataclasses.MISSING,
    **how: Any,
) -> Any:
    """Return a dataclass field that a command line can set; see `Option`."""
    described = {METADATA: Option(help, metavar, **how)}
    if default is dataclasses.MISSING:
        return dataclasses.field(metadata=described)
    return dataclasses.field(default=default, metadata=described)


def options_of(kind: type) -> dict[str, Option]:
    """The described fields of a dataclass, by name, in order."""
    fields = dataclasses.fields(kind)
    return {field.name: field.metadata[METADATA] for field in fields if METADATA in field.metadata}


def add_options(
    group: argparse._ActionsContainer, kind: type, names: Iterable[str] | None = None
) -> None:
    """Add fields of a dataclass to a parser; what is not given is None there.

    Args:
        group: a parser, or a group of one.
        kind: the dataclass.
        names: of the fields; all that are described if None.
    """
    described, hints = options_of(kind), get_type_hints(kind)
    for name in described if names is None else names:
        one = described[name]
        choices = one.choices or _choices(hints[name])
        how: dict[str, Any] = {"choices": choices} if choices else {"metavar": one.metavar}
        if not choices:
            how["type"] = one.parse or _plain_type(hints[name])
        if one.nargs:
            how["nargs"] = one.nargs
        if one.repeated:
            how["action"] = "append"
        group.add_argument(*(one.flags or [one.named(name)]), help=one.help, **how)


def given(namespace: argparse.Namespace, kind: type) -> dict[str, Any]:
    """What a command line gave of a dataclass' described fields, by name."""
    flags = {name: one.named(name) for name, one in options_of(kind).items()}
    values = {name: getattr(namespace, _attribute(flag)) for name, flag in flags.items()}
    return {name: value for name, value in values.items() if value is not None}


def _attribute(flag: str) -> str:
    """Where argparse puts the value of a flag."""
    return flag.removeprefix("--").replace("-", "_")


def _choices(hint: Any) -> tuple[str, ...]:
    return get_args(hint) if get_origin(hint) is Literal else ()


def _plain_type(hint: Any) -> Callable[[str], Any]:
    """The first of float, int and str that a type, or a part of it, is."""
    inside = [hint, *(get_args(hint) if get_origin(hint) in (Union, types.UnionType) else ())]
    return next((kind for kind in (float, int, str) if kind in inside), str)
