"""Manifests: photos of people as JSON, one object a line. Curation writes them, the builder reads.

A line, here broken in three:

    {"photo": "ann/1.jpg", "identity": "Ann", "face_box": [310, 120, 530, 410],
    "landmarks": [[370, 230], [470, 228], [421, 290], [380, 345], [462, 343]],
    "caption": "a woman in red", "source_id": "flickr/123", "provenance": "CC0, flickr.com"}
"""

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flashface_jax.common.errors import sentence, shortened
from flashface_jax.common.files import atomic_file
from flashface_jax.common.from_json import from_json

FILE_NAME = "manifest.jsonl"
LARGEST = 1e9  # in pixels: nothing is farther away

Box = tuple[float, float, float, float]
Point = tuple[float, float]
Landmarks = tuple[Point, Point, Point, Point, Point]


@dataclass(frozen=True)
class PhotoEntry:
    """One photo of one person, as a line of a manifest says it.

    Attributes:
        photo: its file, relative to the manifest's folder, or absolute.
        identity: who it shows; every photo of a person has the same.
        face_box: x1, y1, x2, y2 in pixels of the photo as it is looked at, turned upright as its
            EXIF says; it may reach out of the photo.
        landmarks: x, y in the same pixels of the eye at the left and the eye at the right of the
            image, the nose, and the mouth's left and right corner; None if they are not known.
        caption: the photo in words.
        source_id: names the photo where it came from, unique in the manifest; the file if empty.
        provenance: where the photo is from and under which terms, in free words.
    """

    photo: str
    identity: str
    face_box: Box
    landmarks: Landmarks | None = None
    caption: str = ""
    source_id: str = ""
    provenance: str = ""

    def __post_init__(self) -> None:
        for name in ("photo", "identity"):
            if not getattr(self, name):
                raise ValueError(f"{name} is empty.")
        if any(abs(edge) > LARGEST for edge in self.face_box):
            raise ValueError(f"face_box {shortened(self.face_box)} is beyond all photos.")
        for name in ("identity", "caption", "source_id", "provenance"):
            try:
                getattr(self, name).encode()
            except UnicodeEncodeError as error:
                said = shortened(getattr(self, name))
                raise ValueError(f"{name} {said} is no text in UTF-8.") from error
        try:
            os.fsencode(self.photo)
        except UnicodeEncodeError as error:
            raise ValueError(f"photo {shortened(self.photo)} is no file name.") from error
        if not self.source_id:
            object.__setattr__(self, "source_id", readable(self.photo))

    def described(self) -> dict[str, Any]:
        """The entry as JSON holds it."""
        return dict(vars(self))


@dataclass(frozen=True)
class Line:
    """A line of a manifest.

    Attributes:
        number: from 1.
        entry: the photo that it describes, or None.
        problem: why it describes none, in a sentence.
        unusable_landmarks: whether landmarks were given and left out, being no finite numbers.
    """

    number: int
    entry: PhotoEntry | None
    problem: str = ""
    unusable_landmarks: bool = False


def find_manifest(source: Path) -> Path:
    """The manifest that a path names: itself, or the one in a folder.

    Raises:
        ValueError: there is none.
    """
    manifest = source / FILE_NAME if source.is_dir() else source
    if manifest.is_file():
        return manifest
    if source.is_dir():
        raise ValueError(
            f"{source} holds no {FILE_NAME}: flashface curate makes one from "
            "folders of photos, or write one yourself, a line a photo."
        )
    raise ValueError(f"{source} does not exist: name a manifest, or the folder that holds it.")


def read_manifest(path: Path) -> Iterator[Line]:
    """The lines of a manifest; blank ones are passed over."""
    # Bytes that are no UTF-8 are kept as they are: files may be named so.
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="\n") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield parse_line(line, number)


def parse_line(text: str, number: int) -> Line:
    """What a line describes, or what is wrong with it."""
    try:
        values = json.loads(text)
        unusable = isinstance(values, dict) and _unusable(values.get("landmarks"))
        if unusable:
            values["landmarks"] = None
        entry: PhotoEntry = from_json(PhotoEntry, values, "the line")
    except json.JSONDecodeError as error:
        return Line(number, None, f"the line is no JSON: {error.msg} at character {error.colno}.")
    except (ValueError, RecursionError) as error:
        return Line(number, None, sentence(error))
    return Line(number, entry, unusable_landmarks=unusable)


def _unusable(landmarks: Any) -> bool:
    """Whether some coordinate is NaN, infinite, beyond all measure or null."""
    if isinstance(landmarks, list):
        return any(_unusable(part) or part is None for part in landmarks)
    return isinstance(landmarks, (int, float)) and not abs(landmarks) <= LARGEST


def write_manifest(path: Path, entries: Iterable[PhotoEntry]) -> None:
    """Write a manifest; a file that exists is whole."""
    with atomic_file(path) as draft, draft.open("w", encoding="ascii") as file:
        for entry in entries:
            file.write(json.dumps(entry.described()) + "\n")


def readable(name: str) -> str:
    r"""A file's name as text that can be stored anywhere: bytes that are no UTF-8 as \xff."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")
