"""One directory in place of another, so that a kill at any moment leaves the one or the other.

The new directory is made in a workshop beside the old one, changes places with it, and what was old
is removed with the workshop.
"""

import contextlib
import ctypes
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from flashface_jax.common.files import atomic_file

WORKSHOP = ".replacement"
DRAFT, OLD, RECORD = "draft", "old", "record.json"
RENAME_EXCHANGE, HERE = 2, -100  # of Linux: linux/fs.h, fcntl.h


@contextlib.contextmanager
def replacing(place: Path) -> Iterator[Path]:
    """Give an empty directory that takes the place of another one if the block succeeds.

    What a kill leaves is cleaned up by `recover`.
    """
    workshop = place.parent / WORKSHOP
    draft = workshop / DRAFT
    try:
        draft.mkdir(parents=True)
        with atomic_file(workshop / RECORD) as file:
            file.write_text(json.dumps({"name": place.name, "new": draft.stat().st_ino}))
        yield draft
        if not _exchange(place, draft):
            place.rename(workshop / OLD)
            draft.rename(place)
    finally:
        recover(workshop)


def recover(workshop: Path) -> bool:
    """Finish or take back a replacement that was stopped, and remove what is not needed.

    Returns:
        Whether the new directory is in its place.
    """
    if not (workshop / RECORD).exists():
        shutil.rmtree(workshop, ignore_errors=True)
        return False
    record = json.loads((workshop / RECORD).read_text())
    place = workshop.parent / record["name"]
    if not place.exists():  # stopped between two renames
        (workshop / DRAFT).rename(place)
    replaced: bool = place.stat().st_ino == record["new"]
    for directory in (workshop / DRAFT, workshop / OLD):
        if directory.exists():
            shutil.rmtree(directory)
    shutil.rmtree(workshop)  # with the record, last
    return replaced


def _exchange(first: Path, second: Path) -> bool:
    """Let two directories change places in one step; False where the system cannot."""
    try:
        renameat2 = ctypes.CDLL(None).renameat2
    except AttributeError:
        return False
    paths = HERE, os.fsencode(first), HERE, os.fsencode(second)
    return bool(renameat2(*paths, RENAME_EXCHANGE) == 0)
