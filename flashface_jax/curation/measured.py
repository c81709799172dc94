"""What is measured in a photo, once: its faces, their embeddings, and a hash of the picture."""

import errno
import io
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Float64, Int64, UInt8, UInt64

from flashface_jax.common.errors import sentence
from flashface_jax.curation.duplicates import perceptual_hash
from flashface_jax.faces.choose import MIN_SCORE
from flashface_jax.faces.detect import Face, FaceDetector, largest_first
from flashface_jax.faces.embedding import FaceEmbedder
from flashface_jax.faces.files import read_photo
from flashface_jax.faces.sharpness import sharpness

# Smaller faces are those of the background, and their embeddings say nothing.
SMALLEST_FACE = 32
# A person's face is among the largest, or the photo is not used.
MOST_FACES = 8
# Errors of a file system that may be over a minute later.
PASSING = {errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ENOTCONN, errno.EMFILE, errno.ENFILE}


@dataclass(frozen=True, eq=False)
class Measured:
    """Some photos, and their sure faces of 32 pixels or more, at most the 8 largest of each.

    Attributes:
        problems: for each photo "unreadable", "no_face" or "".
        details: a sentence on the problem, or "".
        hashes: perceptual hashes; 0 where there is a problem.
        photo_of_face: for each face its photo; the faces of a photo are sorted, the largest first.
        boxes: x1, y1, x2, y2 in pixels of the upright photo at its full size.
        landmarks: x, y in the same pixels, as `faces.detect` orders them.
        sharpness: as `faces.sharpness` measures it.
        embeddings: unit vectors.
    """

    problems: list[str]
    details: list[str]
    hashes: UInt64[np.ndarray, " photos"]
    photo_of_face: Int64[np.ndarray, " faces"]
    boxes: Float32[np.ndarray, "faces 4"]
    landmarks: Float32[np.ndarray, "faces 5 2"]
    sharpness: Float64[np.ndarray, " faces"]
    embeddings: Float32[np.ndarray, "faces dims"]

    def to_bytes(self) -> bytes:
        """As an .npz file holds it."""
        file = io.BytesIO()
        arrays: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        np.savez(file, **arrays)
        return file.getvalue()

    @classmethod
    def load(cls, path: Path) -> "Measured":
        """Read what `to_bytes` made."""
        with np.load(path) as file:
            arrays = {field.name: file[field.name] for field in fields(cls)}
        texts = {name: [str(text) for text in arrays[name]] for name in ("problems", "details")}
        return cls(**{**arrays, **texts})

    @classmethod
    def join(cls, parts: Sequence["Measured"]) -> "Measured":
        """One after another; parts without faces fit to any number of dimensions."""
        starts = np.cumsum([0, *(len(part.problems) for part in parts)])
        moved = [part.photo_of_face + start for part, start in zip(parts, starts, strict=False)]
        faced = [part.embeddings for part in parts if len(part.embeddings)]
        return cls(
            problems=[problem for part in parts for problem in part.problems],
            details=[detail for part in parts for detail in part.details],
            hashes=np.concatenate([part.hashes for part in parts]),
            photo_of_face=np.concatenate(moved).astype(np.int64),
            boxes=np.concatenate([part.boxes for part in parts]),
            landmarks=np.concatenate([part.landmarks for part in parts]),
            sharpness=np.concatenate([part.sharpness for part in parts]),
            embeddings=np.concatenate(faced) if faced else np.zeros((0, 0), np.float32),
        )


def measure(photo: Path, detector: FaceDetector, embedder: FaceEmbedder) -> Measured:
    """Read a photo and measure it; one that cannot be read is a problem, no error.

    Raises:
        OSError: the file system failed, which says nothing of the photo.
    """
    try:
        image = read_photo(photo, longest_side=None)
    except ValueError as error:
        if isinstance(error.__cause__, OSError) and error.__cause__.errno in PASSING:
            raise OSError(f"{sentence(error)} Start the same command again.") from error
        return _without_faces("unreadable", str(error))
    faces = main_faces(detector.detect(image))
    if not faces:
        return _without_faces("no_face", "")
    return _with_faces(image, faces, embedder)


def main_faces(faces: Sequence[Face]) -> list[Face]:
    """Those that are sure and not tiny, at most the 8 largest, the largest first."""
    seen = [
        face
        for face in faces
        if face.score >= MIN_SCORE and min(face.width, face.height) >= SMALLEST_FACE
    ]
    return largest_first(seen)[:MOST_FACES]


def _without_faces(problem: str, detail: str) -> Measured:
    return Measured(
        problems=[problem],
        details=[detail],
        hashes=np.zeros(1, np.uint64),
        photo_of_face=np.zeros(0, np.int64),
        boxes=np.zeros((0, 4), np.float32),
        landmarks=np.zeros((0, 5, 2), np.float32),
        sharpness=np.zeros(0),
        embeddings=np.zeros((0, 0), np.float32),
    )


def _with_faces(
    image: UInt8[np.ndarray, "H W 3"], faces: Sequence[Face], embedder: FaceEmbedder
) -> Measured:
    return Measured(
        problems=[""],
        details=[""],
        hashes=np.array([perceptual_hash(image)], np.uint64),
        photo_of_face=np.zeros(len(faces), np.int64),
        boxes=np.stack([face.box for face in faces]).astype(np.float32),
        landmarks=np.stack([face.landmarks for face in faces]).astype(np.float32),
        sharpness=np.array([sharpness(image, face.box) for face in faces]),
        embeddings=embedder.embed(image, faces),
    )
