"""How every command reads its options, and how it ends: with one sentence where it fails.

Modules of commands import nothing slow before options are checked, so that help and mistakes are
answered at once.
"""

import argparse
import io
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from flashface_jax.common.errors import ProblemsError, sentence, stopped

FAILED, WRONG_USAGE = 1, 2

EXTRAS = {
    "apache_beam": ("Apache Beam", "curation"),
    "safetensors": ("safetensors", "convert"),
    "torch": ("PyTorch", "convert"),
}
"""Packages that only some commands need: what they are called, and the extra that installs them."""

TOO_LITTLE_MEMORY = "there is too little memory for this on the devices that there are."


class UsageError(ValueError):
    """A command line with an option that is unknown, or that has no value that will do."""


class Parser(argparse.ArgumentParser):
    """Reports a mistake as one sentence; its help is laid out as it is written."""

    def __init__(self, **how: Any):
        # --config.steps is none of --config, and Beam's options may begin like ours.
        plain = {"formatter_class": argparse.RawDescriptionHelpFormatter, "allow_abbrev": False}
        super().__init__(**{**plain, **how})

    def error(self, message: str) -> NoReturn:
        """Raise a UsageError that says what is wrong."""
        raise UsageError(f"{message}; {self.prog} --help explains.")


def run_command(
    work: Callable[[], int | None], *, on_stop: str, on_memory: str = TOO_LITTLE_MEMORY
) -> int:
    """Do a command's work; what goes wrong becomes one sentence on standard error.

    Args:
        work: reads the command line and does what it says; returns the exit status, None for 0.
        on_stop: what to tell who stopped it with Ctrl-C.
        on_memory: what to tell whose device has too little memory.

    Returns:
        The exit status: 0, 1 for an error, 2 for wrong usage, 130 if the user stopped it.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # names of files may be no text
    try:
        return work() or 0
    except KeyboardInterrupt:
        return stopped(on_stop)
    except (ValueError, OSError, MemoryError, RuntimeError, ModuleNotFoundError) as error:
        said = _said(error, on_memory)
        if said is None:
            raise
        print(f"error: {said}", file=sys.stderr)
        return WRONG_USAGE if isinstance(error, UsageError) else FAILED


def _said(error: Exception, on_memory: str) -> str | None:
    """What to tell the user of an error; None if it is a fault of the program."""
    if isinstance(error, ModuleNotFoundError):
        if error.name not in EXTRAS:
            return None
        package, extra = EXTRAS[error.name]
        return f"this needs {package}: pip install 'flashface-jax[{extra}]'."
    if isinstance(error, MemoryError):
        return on_memory
    if isinstance(error, RuntimeError):  # so JAX says that a device has no memory left
        return on_memory if "RESOURCE_EXHAUSTED" in str(error) else None
    return str(error) if isinstance(error, ProblemsError) else sentence(error)
