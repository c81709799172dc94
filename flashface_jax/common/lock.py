"""One build or removal at a time."""

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path

LOCK = ".id_clusters-build.lock"


@contextlib.contextmanager
def exclusive_lock(root: Path) -> Iterator[None]:
    """Hold a directory for one build or removal at a time; a killed one holds nothing.

    Raises:
        ValueError: another one is at work.
    """
    root.mkdir(parents=True, exist_ok=True)
    with (root / LOCK).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ValueError(
                f"Another build or removal is at work in {root}: wait for it."
            ) from error
        yield
