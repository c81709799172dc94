"""What a face detector is: a photo in, faces out. Another detector is one small class."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32, UInt8


@dataclass(frozen=True, eq=False)
class Face:
    """A face found in a photo.

    Attributes:
        box: x1, y1, x2, y2 in pixels of the photo; may reach out of it.
        landmarks: x, y in pixels of the eye at the left and the eye at the right of the image, the
            nose, and the mouth's left and right corner.
        score: how sure the detector is, 0 to 1.
    """

    box: Float32[np.ndarray, "4"]
    landmarks: Float32[np.ndarray, "5 2"]
    score: float

    @property
    def width(self) -> float:
        """Width of the box in pixels."""
        return float(self.box[2] - self.box[0])

    @property
    def height(self) -> float:
        """Height of the box in pixels."""
        return float(self.box[3] - self.box[1])


@runtime_checkable
class FaceDetector(Protocol):
    """Finds faces in photos."""

    def detect(self, image: UInt8[np.ndarray, "H W 3"]) -> list[Face]:
        """All faces of an RGB photo, the largest first; none found gives an empty list."""
        ...

    def describe(self) -> str:
        """Name and model in one line, for announcements and for the metadata of results."""
        ...


def largest_first(faces: Iterable[Face]) -> list[Face]:
    """Faces sorted by the area of their boxes."""
    return sorted(faces, key=lambda face: face.width * face.height, reverse=True)
