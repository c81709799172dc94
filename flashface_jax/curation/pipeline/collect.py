"""Which photos there are, and of whom: from folders of people, or from a list of files.

People come one at a time, with all their photos; what is no photo of a person comes as an outcome.
Nothing is opened: whether a file is a picture is seen when it is measured.
"""

import hashlib
import json
import os
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path

from flashface_jax.common.errors import sentence, shortened
from flashface_jax.common.from_json import from_json
from flashface_jax.curation.outcomes import Outcome
from flashface_jax.data.manifest import readable

CAPTION_SUFFIX = ".txt"


@dataclass(frozen=True)
class Source:
    """A file that may be a photo of a person.

    Attributes:
        photo: its absolute path.
        source_id: names it, unique among all.
        size: in bytes; 0 if the file is not there.
        modified: when, in nanoseconds; tells with the size whether it is the same file as before.
        provenance: where it is from and under which terms.
        caption: the photo in words, if that is known.
    """

    photo: str
    source_id: str
    size: int
    modified: int
    provenance: str = ""
    caption: str = ""


@dataclass(frozen=True)
class PersonSources:
    """The files of one identity, sorted by source_id."""

    identity: str
    sources: tuple[Source, ...]


@dataclass(frozen=True)
class ListedPhoto:
    """A line of a list of photos; the photo's path is relative to the list's folder."""

    photo: str
    identity: str
    source_id: str = ""
    provenance: str = ""
    caption: str = ""


def collect(photos: Path) -> Iterator[PersonSources | Outcome]:
    """The people of a folder of folders, or of a list.

    Raises:
        ValueError: there is neither.
    """
    if photos.is_dir():
        return from_folders(photos)
    if photos.is_file():
        return from_list(photos)
    raise ValueError(
        f"{photos} does not exist: name a folder with one folder a person, or a .jsonl list."
    )


def from_folders(root: Path) -> Iterator[PersonSources | Outcome]:
    """People from a folder that holds one folder a person, photos at any depth below it.

    The folder's name is the identity, the path from the root the source_id. A text file beside a
    photo, ann/1.txt beside ann/1.jpg, is its caption and no file of its own.
    """
    seen = {_place(root)}
    for entry in sorted(root.iterdir()):
        identity = readable(entry.name)
        sources: list[Source] = []
        for path, unusable in _files_below(entry, seen):
            name = str(path.relative_to(root))
            problem = unusable or ("" if _is_text(name) else "name_not_utf8")
            if path == entry:
                yield Outcome(readable(str(path)), "", problem or "outside_folders")
            elif problem:
                yield Outcome(readable(str(path)), identity, problem)
            else:
                sources.append(_source(path, name))
        if entry.is_dir() and _is_text(entry.name) and not entry.name.startswith("."):
            yield PersonSources(identity, _sorted(sources))


def from_list(path: Path) -> Iterator[PersonSources | Outcome]:
    """People from a list of photos, a JSON object a line; lines of a person may be anywhere.

    The list is read twice, so that the lines of one person alone are held in memory.
    """
    starts: dict[str, array[int]] = {}
    ids: set[bytes] = set()
    with path.open("rb") as file:
        number = 0
        while line := file.readline():
            number += 1
            if not line.strip():
                continue
            where = f"{path.name}, line {number}"
            try:
                listed = _parse(line)
            except (ValueError, RecursionError) as error:
                yield Outcome(where, "", "bad_line", sentence(error))
                continue
            if not _is_text("".join((listed.photo, listed.identity, listed.source_id))):
                yield Outcome(f"{where}: {readable(listed.photo)}", "", "name_not_utf8")
                continue
            digest = hashlib.blake2b(_id_of(listed).encode(), digest_size=16).digest()
            if digest in ids:
                detail = f"{where}: {_id_of(listed)}"
                yield Outcome(listed.photo, listed.identity, "duplicate_source_id", detail)
                continue
            ids.add(digest)
            offset = file.tell() - len(line)
            starts.setdefault(listed.identity, array("q")).append(offset)
        for identity, offsets in sorted(starts.items()):
            yield PersonSources(
                identity, _sorted([_read_at(file, i, path.parent) for i in offsets])
            )


def sidecar_caption(photo: Path) -> str:
    """What the text file beside a photo says, in one line; "" if there is none."""
    try:
        text = photo.with_suffix(CAPTION_SUFFIX).read_text("utf-8-sig", errors="replace")
    except (OSError, ValueError):
        return ""
    return " ".join(text.split())


def _files_below(path: Path, seen: set[tuple[int, int]]) -> Iterator[tuple[Path, str]]:
    """The file itself, or each file below a folder, sorted, with the name of its outcome if bad."""
    waiting = [path]
    while waiting:
        path = waiting.pop()
        if path.name.startswith("."):
            yield path, "hidden"
        elif os.path.isdir(path):
            try:
                place, entries = _place(path), sorted(path.iterdir())
            except OSError:
                yield path, "unreadable_folder"
                continue
            if place in seen:
                yield path, "linked_again"
                continue
            seen.add(place)
            waiting += reversed(_without_captions(entries))
        else:
            yield path, ""


def _without_captions(entries: Sequence[Path]) -> list[Path]:
    photos = {entry.stem for entry in entries if entry.suffix != CAPTION_SUFFIX}
    return [e for e in entries if e.suffix != CAPTION_SUFFIX or e.stem not in photos]


def _place(folder: Path) -> tuple[int, int]:
    """What tells a folder from all others, by whatever path it is reached."""
    found = folder.stat()
    return found.st_dev, found.st_ino


def _is_text(name: str) -> bool:
    """Whether a name can be stored as UTF-8."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _parse(line: bytes) -> ListedPhoto:
    # Bytes that are no UTF-8 are kept until it is clear which file they name.
    text = line.decode("utf-8-sig", errors="surrogateescape")
    listed: ListedPhoto = from_json(ListedPhoto, json.loads(text), "the line")
    for name in ("photo", "identity"):
        if not getattr(listed, name):
            raise ValueError(f"{name} is empty.")
    for name in ("provenance", "caption"):
        if not _is_text(getattr(listed, name)):
            raise ValueError(f"{name} {shortened(getattr(listed, name))} is no text in UTF-8.")
    return listed


def _id_of(listed: ListedPhoto) -> str:
    return listed.source_id or listed.photo


def _read_at(file: BufferedReader, offset: int, folder: Path) -> Source:
    file.seek(offset)
    listed = _parse(file.readline())
    photo = folder / listed.photo
    return _source(photo, _id_of(listed), listed.provenance, listed.caption)


def _source(path: Path, source_id: str, provenance: str = "", caption: str = "") -> Source:
    try:
        found = path.stat()
        size, modified = found.st_size, found.st_mtime_ns
    except (OSError, ValueError):
        size = modified = 0  # reading it will say what is wrong
    return Source(os.path.abspath(path), source_id, size, modified, provenance, caption)


def _sorted(sources: Sequence[Source]) -> tuple[Source, ...]:
    return tuple(sorted(sources, key=lambda source: source.source_id))
