"""Files that the steps leave in OUT/work: whole or not there, and named after what made them.

The name of a file is a digest of the step's settings and of its inputs. A file that is there was
therefore made by the same settings from the same inputs, whenever the program was stopped.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flashface_jax.curation.pipeline.collect import PersonSources, Source

DRAFT = ".draft-"


@dataclass(frozen=True)
class Chunk:
    """A part of a step's work, which gives one file.

    Attributes:
        target: the file.
        person: the file of the identity.
        photos: positions among the identity's photos.
        inputs: files of the step before.
    """

    target: Path
    person: Path
    photos: tuple[int, ...]
    inputs: tuple[Path, ...] = ()


def digest(*parts: Any) -> str:
    """A name for what JSON can hold; other parts give another name."""
    text = json.dumps(parts, sort_keys=True)
    return hashlib.blake2b(text.encode("ascii"), digest_size=16).hexdigest()


def file_digest(path: Path) -> str:
    """A name for what a file holds."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_whole(path: Path, data: bytes) -> None:
    """Write a file that is whole, or not there; several may write the same at a time."""
    number, draft = tempfile.mkstemp(prefix=DRAFT, dir=path.parent)
    try:
        with os.fdopen(number, "wb") as file:
            file.write(data)
        os.replace(draft, path)
    except BaseException:
        os.unlink(draft)
        raise


def prepare(folder: Path, settings: dict[str, Any]) -> list[str]:
    """Make a step's folder ready. What other settings made stays: it has other names.

    Returns:
        The settings that differ from those of the last run; none if there was none.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for draft in folder.glob(f"{DRAFT}*"):  # of a run that was killed
        draft.unlink(missing_ok=True)
    note = folder / "settings.json"
    try:
        before = json.loads(note.read_bytes())
    except (OSError, ValueError):
        before = None
    if before == settings:
        return []
    write_whole(note, json.dumps(settings, indent=2).encode())
    if before is None:
        return []
    return sorted(k for k in {*before, *settings} if before.get(k) != settings.get(k))


def write_person(folder: Path, person: PersonSources) -> Path:
    """Write the list of an identity's photos, and say where."""
    path = folder / f"{digest(person.identity)}.json"
    sources = [list(vars(source).values()) for source in person.sources]
    data = json.dumps([person.identity, sources]).encode()
    try:
        same = path.read_bytes() == data
    except OSError:
        same = False
    if not same:
        write_whole(path, data)
    return path


def read_person(path: Path) -> PersonSources:
    """Read what `write_person` wrote."""
    identity, sources = json.loads(path.read_bytes())
    return PersonSources(identity, tuple(Source(*values) for values in sources))


def pieces(positions: Iterable[int], size: int) -> list[tuple[int, ...]]:
    """Cut positions into pieces of at most `size`."""
    everything = tuple(positions)
    return [everything[i : i + size] for i in range(0, len(everything), size)]
