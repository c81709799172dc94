"""Files and directories that exist only when they are whole."""

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path


def require_new(path: Path) -> None:
    """Raise FileExistsError if `path` exists: before long work, rather than after it."""
    if path.exists():
        raise FileExistsError(f"{path} exists already: choose another directory or remove it.")


def require_exists(path: Path, what: str) -> None:
    """Raise a ValueError if `path` does not exist, saying to name `what` in its place."""
    if not path.exists():
        raise ValueError(f"{path} does not exist: name {what}.")


def require_space(path: Path, needed: int) -> None:
    """Raise OSError if the disk of `path`, which need not exist yet, lacks `needed` bytes."""
    disk = next(place for place in (path.absolute(), *path.absolute().parents) if place.exists())
    free = shutil.disk_usage(disk).free
    if free < needed:
        raise OSError(
            f"{path} will take {needed / 1e9:.2g} GB, but its disk has {free / 1e9:.2g} GB left."
        )


@contextlib.contextmanager
def atomic_directory(path: Path) -> Iterator[Path]:
    """Give an empty directory that becomes `path` if the block succeeds, and vanishes if not.

    Raises:
        FileExistsError: if `path` exists already.
    """
    require_new(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    try:
        yield draft
        draft.chmod(0o755)  # mkdtemp makes it private
        draft.rename(path)
    finally:
        _remove(draft)


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Give a hidden place that becomes `path`, or replaces it, if the block succeeds."""
    draft = path.with_name(f".{path.name}.part")
    try:
        yield draft
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def require_writable(directory: Path) -> None:
    """Raise a ValueError if no file could be written to a directory, which need not exist yet.

    Asked before long work, rather than found out after it. A file is tried, since permissions
    alone do not tell.
    """
    try:
        there = next(place for place in (directory, *directory.absolute().parents) if _is(place))
        with tempfile.TemporaryDirectory(prefix=".flashface-", dir=there):
            pass
    except OSError as error:
        raise ValueError(f"{directory} cannot be written to: {error.strerror}.") from error


def _is(place: Path) -> bool:
    """Whether a file or directory exists; raises OSError if its name is impossible."""
    try:
        place.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def _remove(directory: Path) -> None:
    """Remove a directory, into which threads of a failed write may still be writing."""
    for _ in range(100):
        shutil.rmtree(directory, ignore_errors=True)
        if not directory.exists():
            return
        time.sleep(0.1)
