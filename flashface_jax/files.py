"""Directories that exist only when they are whole."""

import contextlib
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path


def require_new(path: Path) -> None:
    """Raise FileExistsError if `path` exists: before long work, rather than after it."""
    if path.exists():
        raise FileExistsError(f"{path} exists already: choose another directory or remove it.")


@contextlib.contextmanager
def new_directory(path: Path) -> Iterator[Path]:
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


def _remove(directory: Path) -> None:
    """Remove a directory, into which threads of a failed write may still be writing."""
    for _ in range(100):
        shutil.rmtree(directory, ignore_errors=True)
        if not directory.exists():
            return
        time.sleep(0.1)
