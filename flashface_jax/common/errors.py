"""Errors as one sentence, and values short enough to stand in one."""

import reprlib
import struct
import sys
import zlib
from typing import Any

LONGEST_SENTENCE = 1000
STOPPED = 130
"""Exit status of a command that Ctrl-C ended, as shells have it."""

DAMAGED_PICTURE = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error)
"""What Pillow raises on damaged files, depending on their format."""

_shortener = reprlib.Repr()
_shortener.maxstring = _shortener.maxother = _shortener.maxlong = 60


class ProblemsError(ValueError):
    """Several problems, a line each, which commands print as they are."""


def sentence(error: Exception) -> str:
    """What an error says, in one line that ends with a full stop; the system's name their file."""
    said = str(error)
    if isinstance(error, OSError) and error.strerror:
        said = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    said = " ".join(said.split()) or type(error).__name__
    if len(said) > LONGEST_SENTENCE:
        said = said[:LONGEST_SENTENCE] + " ..."
    return said if said.endswith((".", "!", "?")) else f"{said}."


def shortened(value: Any) -> str:
    """A value as Python writes it, cut where it is long or deep."""
    return _shortener.repr(value)


def stopped(remedy: str) -> int:
    """Say on standard error that Ctrl-C ended a command, and what to do; its exit status."""
    print(f"\nerror: stopped; {remedy}", file=sys.stderr)
    return STOPPED
