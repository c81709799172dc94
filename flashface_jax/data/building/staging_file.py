"""The file that a build keeps what it knows in: opened, read while records are written, removed."""

import contextlib
import json
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from flashface_jax.common.from_json import from_json
from flashface_jax.data.manifest import PhotoEntry


@dataclass(frozen=True)
class Staged:
    """A photo that has its place.

    Attributes:
        entry: what is said of it.
        picture: SHA-256 of its JPEG.
        image: the JPEG if it was encoded anew; None if it is the photo's own without camera data.
        reference: JPEG of the upright face crop, or None.
    """

    entry: PhotoEntry
    picture: bytes
    image: bytes | None
    reference: bytes | None


def read_facts(path: Path) -> dict[str, str]:
    """What a build noted; nothing if the file is none of a build."""
    with contextlib.closing(open_staging(path)) as db, contextlib.suppress(sqlite3.DatabaseError):
        return dict(db.execute("SELECT name, value FROM facts"))
    return {}


def read_places(path: Path, split: str, start: int, stop: int) -> Iterator[Staged]:
    """The photos at places start..stop-1 of a split; any process may read them."""
    with contextlib.closing(open_staging(path)) as db:
        rows = db.execute(
            "SELECT entry, picture, image, reference FROM places JOIN photos USING (line) "
            "LEFT JOIN pictures USING (line) "
            "WHERE split = ? AND place >= ? AND place < ? ORDER BY place",
            (split, start, stop),
        )
        for entry, picture, image, reference in rows:
            yield Staged(entry_of(entry), picture, image, reference)


def read_remarkable(path: Path) -> Iterator[dict[str, object]]:
    """Every photo that was dropped, or kept with a note, in the manifest's order."""
    names = ("line", "identity", "source_id", "outcome", "detail", "notes")
    with contextlib.closing(open_staging(path)) as db:
        rows = db.execute(
            f"SELECT {', '.join(names)} FROM photos "
            "WHERE outcome != 'kept' OR notes != '' ORDER BY line"
        )
        for row in rows:
            described = {name: value for name, value in zip(names, row, strict=True) if value}
            if "notes" in described:
                described["notes"] = described["notes"].split()
            yield described


def remove_staging(path: Path) -> None:
    """Remove a staging file and what SQLite keeps beside it."""
    for suffix in ("", "-wal", "-shm", "-journal"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def open_staging(path: Path) -> sqlite3.Connection:
    """Open the file; any process may."""
    db = sqlite3.connect(path)
    with contextlib.suppress(sqlite3.DatabaseError):  # a damaged file, which is made anew
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")
        db.execute("PRAGMA temp_store = FILE")
    return db


def entry_of(text: str) -> PhotoEntry:
    """An entry as the file holds it."""
    entry: PhotoEntry = from_json(PhotoEntry, json.loads(text), "the photo")
    return entry
