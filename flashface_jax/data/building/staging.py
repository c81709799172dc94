"""What a build knows so far, in an SQLite file: it survives a kill at any moment.

Lines of the manifest come in, each is examined once, and the kept ones get their places in the
splits. Memory stays small whatever their number.
"""

import json
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path

from flashface_jax.data.building.examination import Dropped, Kept, record_digest
from flashface_jax.data.building.outcomes import UNREADABLE
from flashface_jax.data.building.removals import Removals
from flashface_jax.data.building.staging_file import entry_of, open_staging, remove_staging
from flashface_jax.data.manifest import Line, PhotoEntry, readable

TABLES = """
CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT);
CREATE TABLE photos (
    line INTEGER PRIMARY KEY, identity TEXT, source_id TEXT, entry TEXT,
    outcome TEXT, detail TEXT, notes TEXT, size INTEGER, picture BLOB, digest BLOB);
CREATE TABLE pictures (line INTEGER PRIMARY KEY, image BLOB, reference BLOB);
CREATE TABLE places (split TEXT, place INTEGER, line INTEGER, PRIMARY KEY (split, place))
    WITHOUT ROWID;
"""


class Staging:
    """The file of one build; what another manifest or other options left in it is dropped."""

    def __init__(self, path: Path, fingerprint: str):
        path.parent.mkdir(parents=True, exist_ok=True)
        self._db = open_staging(path)
        if self._fact("fingerprint") != fingerprint:
            self._db.close()
            remove_staging(path)
            self._db = open_staging(path)
            with self._db:
                self._db.executescript(TABLES)
                self._set_fact("fingerprint", fingerprint)

    def close(self) -> None:
        """Release the file."""
        self._db.close()

    def fill(self, lines: Iterable[Line], removals: Removals) -> None:
        """Take in the manifest, all of it or nothing; once is enough.

        What could not be read before a stop is looked at again: its cause may be gone.
        """
        if self._fact("filled"):
            self._forget_unreadable()
            return
        with self._db:
            self._db.executemany(
                "INSERT INTO photos (line, identity, source_id, entry, outcome, detail, notes) "
                "VALUES (?, ?, ?, ?, ?, ?, ?)",
                (_row(line, removals) for line in lines),
            )
            self._db.execute("CREATE INDEX by_source ON photos (source_id)")
            self._db.execute("CREATE INDEX pending ON photos (line) WHERE outcome IS NULL")
            self._db.execute(
                "UPDATE photos SET outcome = 'duplicate_source_id', "
                "detail = 'source_id ' || source_id || ' is that of an earlier line.' "
                "WHERE outcome IS NULL AND EXISTS (SELECT 1 FROM photos AS other "
                "WHERE other.source_id = photos.source_id AND other.line < photos.line)"
            )
            self._set_fact("filled", "yes")

    def _forget_unreadable(self) -> None:
        """Take back that photos were dropped for what their files were."""
        with self._db:
            self._db.execute(
                "UPDATE photos SET outcome = NULL, detail = NULL "
                f"WHERE outcome IN ({', '.join('?' * len(UNREADABLE))})",
                UNREADABLE,
            )

    def note(self, name: str, value: str) -> None:
        """Keep a fact about the build."""
        with self._db:
            self._set_fact(name, value)

    def first_dropped(self) -> tuple[int, str] | None:
        """The first line that was dropped, and why, in a sentence."""
        row = self._db.execute(
            "SELECT line, detail FROM photos WHERE outcome != 'kept' ORDER BY line LIMIT 1"
        ).fetchone()
        return row and (row[0], row[1])

    def count(self, *, pending: bool = False) -> int:
        """Lines in all, or those not examined yet."""
        where = "WHERE outcome IS NULL" if pending else ""
        return int(self._db.execute(f"SELECT COUNT(*) FROM photos {where}").fetchone()[0])

    def pending(self, most: int) -> list[tuple[int, PhotoEntry]]:
        """Some lines that are not examined yet."""
        rows = self._db.execute(
            "SELECT line, entry FROM photos WHERE outcome IS NULL ORDER BY line LIMIT ?", (most,)
        )
        return [(line, entry_of(text)) for line, text in rows]

    def record(self, found: Iterable[tuple[int, Kept | Dropped]]) -> None:
        """Keep what examinations found, all of it or nothing."""
        with self._db:
            for line, result in found:
                if isinstance(result, Dropped):
                    self._drop(line, result)
                else:
                    self._keep(line, result)

    def drop_same_pictures(self) -> None:
        """Drop a photo if an earlier one of the same person, by source id, is the same picture."""
        with self._db:
            self._db.execute(
                "UPDATE photos SET outcome = 'same_picture', detail = 'It is the same picture as "
                "another photo of this identity.' WHERE line IN (SELECT line FROM (SELECT line, "
                "ROW_NUMBER() OVER (PARTITION BY identity, picture ORDER BY source_id) AS nth "
                "FROM photos WHERE outcome = 'kept') WHERE nth > 1)"
            )

    def note_shared_pictures(self) -> None:
        """Note on kept photos that another identity has the same picture: one name may be wrong."""
        with self._db:
            self._db.execute(
                "UPDATE photos SET notes = trim(notes || ' shared_picture') "
                "WHERE outcome = 'kept' AND notes NOT LIKE '%shared_picture%' AND picture IN ("
                "SELECT picture FROM photos WHERE outcome = 'kept' GROUP BY picture "
                "HAVING COUNT(DISTINCT identity) > 1)"
            )

    def photos_per_identity(self) -> dict[str, int]:
        """Kept photos of each identity, by name, in order."""
        return dict(
            self._db.execute(
                "SELECT identity, COUNT(*) FROM photos WHERE outcome = 'kept' "
                "GROUP BY identity ORDER BY identity"
            )
        )

    def place(self, split: str, identities: Iterable[str]) -> Iterator[tuple[str, int, int]]:
        """Give the kept photos of some identities their places in a split, by identity and source.

        Yields:
            Identity, size in bytes and digest of each, in order.
        """
        with self._db:
            self._db.execute("DELETE FROM places WHERE split = ?", (split,))
            place = 0
            for identity in identities:
                rows = self._db.execute(
                    "SELECT line, size, digest FROM photos WHERE identity = ? "
                    "AND outcome = 'kept' ORDER BY source_id",
                    (identity,),
                ).fetchall()
                for line, size, digest in rows:
                    self._db.execute("INSERT INTO places VALUES (?, ?, ?)", (split, place, line))
                    place += 1
                    yield identity, size, int.from_bytes(digest)

    def index_identities(self) -> None:
        """Make finding an identity's photos fast; done once all are examined."""
        self._db.execute(
            "CREATE INDEX IF NOT EXISTS by_identity ON photos (identity, source_id, outcome)"
        )

    def outcomes(self) -> dict[str, int]:
        """Number of photos by outcome: "kept", or the reason that they are dropped for."""
        return dict(
            self._db.execute("SELECT outcome, COUNT(*) FROM photos GROUP BY outcome ORDER BY 1")
        )

    def notes(self) -> dict[str, int]:
        """Number of kept photos by what is told of them."""
        counts: dict[str, int] = {}
        rows = self._db.execute(
            "SELECT notes, COUNT(*) FROM photos WHERE outcome = 'kept' GROUP BY notes"
        )
        for notes, count in rows:
            for note in notes.split():
                counts[note] = counts.get(note, 0) + count
        return dict(sorted(counts.items()))

    def _drop(self, line: int, dropped: Dropped) -> None:
        self._db.execute(
            "UPDATE photos SET outcome = ?, detail = ? WHERE line = ?",
            (dropped.reason, readable(dropped.detail), line),  # which may name the file
        )

    def _keep(self, line: int, kept: Kept) -> None:
        digest = record_digest(kept.entry, kept.picture, kept.reference)
        self._db.execute(
            "UPDATE photos SET outcome = 'kept', entry = ?, notes = trim(notes || ' ' || ?), "
            "size = ?, picture = ?, digest = ? WHERE line = ?",
            (
                json.dumps(kept.entry.described()),
                " ".join(kept.notes),
                kept.size,
                kept.picture,
                digest.to_bytes(32),
                line,
            ),
        )
        if kept.image is not None or kept.reference is not None:
            row = (line, kept.image, kept.reference)
            self._db.execute("INSERT INTO pictures VALUES (?, ?, ?)", row)

    def _fact(self, name: str) -> str | None:
        try:
            row = self._db.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
        except sqlite3.DatabaseError:  # no table yet, or a damaged file
            return None
        return row[0] if row else None

    def _set_fact(self, name: str, value: str) -> None:
        self._db.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, value))


def _row(line: Line, removals: Removals) -> tuple[object, ...]:
    entry = line.entry
    if entry is None:
        return line.number, None, None, None, "malformed_line", line.problem, ""
    notes = [name for name, holds in _line_notes(line, entry).items() if holds]
    outcome, detail = (None, None)
    if removals.name(entry.identity, entry.source_id):
        outcome, detail = "removed", "On the list."
    text = json.dumps(entry.described())
    return line.number, entry.identity, entry.source_id, text, outcome, detail, " ".join(notes)


def _line_notes(line: Line, entry: PhotoEntry) -> dict[str, bool]:
    """What the line alone tells of a photo."""
    return {
        "landmarks_unusable": line.unusable_landmarks,
        "no_landmarks": entry.landmarks is None,
        "no_caption": not entry.caption.strip(),
        "name_escaped": readable(entry.photo) != entry.photo,
    }
