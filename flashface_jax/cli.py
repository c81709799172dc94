"""One command, `flashface`: what there is, and where each part of it is."""

import importlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from flashface_jax.common.command_line import WRONG_USAGE


@dataclass(frozen=True)
class Command:
    """A part of `flashface`.

    Attributes:
        words: how it is called.
        module: where its `main(arguments, prog)` is.
        says: what it does, in a line.
    """

    words: str
    module: str
    says: str


COMMANDS = (
    Command("demo", "flashface_jax.demo.command", "see the method work, on people who are drawn"),
    Command(
        "convert", "flashface_jax.convert.command", "others' weights into ours, ours into theirs"
    ),
    Command(
        "sample",
        "flashface_jax.sampling.command",
        "make images of a person from photos and a prompt",
    ),
    Command("curate", "flashface_jax.curation.command", "folders of photos -> a clean manifest"),
    Command(
        "data draw", "flashface_jax.data.draw", "photos and manifest of people who do not exist"
    ),
    Command("data build", "flashface_jax.data.build", "a manifest -> a dataset"),
    Command("data inspect", "flashface_jax.inspection.command", "look at a dataset, or verify it"),
    Command("data remove", "flashface_jax.data.remove", "take people or photos out of a dataset"),
    Command(
        "data precompute", "flashface_jax.data.precompute", "encode a dataset once, before training"
    ),
    Command(
        "plan", "flashface_jax.training.plan", "memory and speed of a run on TPUs, without one"
    ),
    Command("train", "flashface_jax.training.command", "train, or go on training"),
)
"""In the order in which one takes them."""

HELP = """\
usage: flashface COMMAND ...

FlashFace in JAX: images of a person from a few photos and a prompt, and all that leads there.

{commands}

flashface COMMAND --help explains each, with an example.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command that the first words name; returns its exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    for command in COMMANDS:
        name = command.words.split()
        if words[: len(name)] == name:
            module = importlib.import_module(command.module)
            status: int = module.main(words[len(name) :], prog=f"flashface {command.words}")
            return status
    if not words or words[0] in ("-h", "--help", "help"):
        print(help_text(), end="")
        return 0
    return _unknown(words)


def help_text() -> str:
    """All commands, a line each."""
    width = max(len(command.words) for command in COMMANDS)
    lines = [f"  {command.words:{width}}  {command.says}" for command in COMMANDS]
    return HELP.format(commands="\n".join(lines))


def _unknown(words: Sequence[str]) -> int:
    """Say which commands there are; of a group, its own."""
    group = [command.words for command in COMMANDS if command.words.split()[0] == words[0]]
    known = ", ".join(group or [command.words for command in COMMANDS])
    if group and words[1:2] in ([], ["-h"], ["--help"]):
        lines = [f"  {one.words}  {one.says}" for one in COMMANDS if one.words in group]
        print(f"usage: flashface {words[0]} COMMAND ...\n\n" + "\n".join(lines))
        return 0
    named = " ".join(words[: 2 if group else 1])
    print(f"error: there is no command {named!r}: choose {known}.", file=sys.stderr)
    return WRONG_USAGE
