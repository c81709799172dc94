"""Files of pictures: what can be wrong with them."""

import stat
from pathlib import Path
from typing import Literal

Fault = Literal["missing", "no_file", "empty", "unknown_format", "damaged", "too_large"]


class UnreadablePictureError(ValueError):
    """A file is no picture that can be read; the message names it.

    Attributes:
        fault: what is wrong with it: it does not exist, is a folder or a device, is empty, is in
            no known format, is damaged, or has too many pixels.
    """

    def __init__(self, message: str, fault: Fault):
        super().__init__(message)
        self.fault = fault


def check_picture(path: Path) -> None:
    """Raise an UnreadablePictureError if a file is missing or none, without reading it."""
    try:
        kind = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UnreadablePictureError(f"{path} does not exist.", "missing") from error
    except (OSError, ValueError) as error:
        raise unreadable(path, said(error), "no_file") from error
    if stat.S_ISDIR(kind):
        message = f"{path} is a directory: name the pictures in it."
        raise UnreadablePictureError(message, "no_file")
    if not stat.S_ISREG(kind):
        raise unreadable(path, "it is no ordinary file", "no_file")


def unreadable(path: Path, why: str, fault: Fault) -> UnreadablePictureError:
    """The error that a file is no picture, for a reason."""
    return UnreadablePictureError(f"{path} is no picture that can be read ({why}).", fault)


def said(error: Exception) -> str:
    """What an error says, where the file is named already."""
    return (isinstance(error, OSError) and error.strerror) or str(error)
