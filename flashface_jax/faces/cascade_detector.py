"""OpenCV's Haar cascades as a detector: nothing to download, and less accurate."""

from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float32, UInt8

from flashface_jax.faces.detect import Face, largest_first

# The best of OpenCV's three frontal cascades on drawn people.
FACE_CASCADE = "haarcascade_frontalface_alt2.xml"
EYE_CASCADE = "haarcascade_eye.xml"
LONGEST_SIDE = 1024
SMALLEST_FACE = 24
AGREEING_WINDOWS = 5
# Eyes, nose, mouth's corners in the box when the eyes are not found: the eyes level, at the places
# that they have on average in the boxes of this cascade, made symmetric.
STANDARD_LANDMARKS = np.array(
    [[0.31, 0.41], [0.69, 0.41], [0.5, 0.61], [0.35, 0.77], [0.65, 0.77]], np.float32
)
EYE_REGION = 0.6
EYE_DISTANCES = (0.25, 0.6)
EYE_SIZES = (0.12, 0.4)
STEEPEST_EYE_LINE = 20.0


class CascadeDetector:
    """Finds upright faces that look at the camera with OpenCV's Haar cascades.

    A photo is looked at with a longest side of at most 1024 pixels. The score is 1 - 1 / n for n
    overlapping windows that agree: 0.8 or more. Landmarks stand at fixed proportions of the box,
    turned and scaled with the eyes where the eye cascade finds two plausible ones.

    Raises:
        ValueError: this OpenCV has no cascades; version 5 dropped them.

    Source: Viola and Jones, Rapid object detection using a boosted cascade, 2001.
    """

    def __init__(self) -> None:
        self._faces = _load_cascade(FACE_CASCADE)
        self._eyes = _load_cascade(EYE_CASCADE)

    def detect(self, image: UInt8[np.ndarray, "H W 3"]) -> list[Face]:
        """All faces, the largest first."""
        gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        scale = min(1.0, LONGEST_SIDE / max(gray.shape))
        width, height = (max(1, round(side * scale)) for side in gray.shape[::-1])
        gray = cv2.resize(gray, (width, height), interpolation=cv2.INTER_AREA)
        boxes, windows = self._faces.detectMultiScale2(
            gray, 1.1, AGREEING_WINDOWS, minSize=(SMALLEST_FACE, SMALLEST_FACE)
        )
        faces = [
            Face(
                box=np.array([x, y, x + side, y + side], np.float32) / scale,
                landmarks=self._landmarks(gray, x, y, side) / scale,
                score=1 - 1 / int(count),
            )
            for (x, y, side, _), count in zip(np.array(boxes).tolist(), windows, strict=True)
        ]
        return largest_first(faces)

    def describe(self) -> str:
        """Name, model and what it lacks, in one line."""
        return (
            f"OpenCV {cv2.__version__}: Haar cascade {FACE_CASCADE.removesuffix('.xml')}, less "
            "accurate than insightface (upright faces seen from the front) and without landmarks "
            "but the eyes that an eye cascade finds"
        )

    def _landmarks(
        self, gray: UInt8[np.ndarray, "H W"], x: int, y: int, side: int
    ) -> Float32[np.ndarray, "5 2"]:
        """Landmarks of the face in a square box: from its eyes if found, else the standard ones."""
        upper = gray[y : y + round(EYE_REGION * side), x : x + side]
        found = np.array(self._eyes.detectMultiScale(upper, 1.05, 3), int).reshape(-1, 4)
        eyes = plausible_eyes(found / side)
        placed = STANDARD_LANDMARKS if eyes is None else _carried_along(STANDARD_LANDMARKS, eyes)
        return placed * np.float32(side) + np.array([x, y], np.float32)


def plausible_eyes(found: np.ndarray) -> Float32[np.ndarray, "2 2"] | None:
    """The centres of the pair of boxes that looks most like two eyes of one face.

    One lies in each half of the face, a quarter to six tenths of its width apart, each 0.12 to 0.4
    of it wide, and their line falls or rises by at most 20 degrees; of several pairs the one most
    alike in size is taken.

    Args:
        found: boxes (x, y, width, height), (n, 4), as fractions of the face's square.

    Returns:
        Left and right centre, in the same fractions; None if there is no such pair.
    """
    smallest, largest = EYE_SIZES
    sized = found[(smallest <= found[:, 2]) & (found[:, 2] <= largest)]
    centers = sized[:, :2] + sized[:, 2:] / 2
    pairs = []
    for i in np.flatnonzero(centers[:, 0] < 0.5):
        for j in np.flatnonzero(centers[:, 0] >= 0.5):
            across, down = centers[j] - centers[i]
            tilt = np.degrees(np.arctan2(abs(down), across))
            if EYE_DISTANCES[0] <= across <= EYE_DISTANCES[1] and tilt <= STEEPEST_EYE_LINE:
                pairs.append((abs(np.log(sized[i, 2] / sized[j, 2])), i, j))
    if not pairs:
        return None
    _, i, j = min(pairs)
    return centers[[i, j]].astype(np.float32)


def _carried_along(
    landmarks: Float32[np.ndarray, "5 2"], eyes: Float32[np.ndarray, "2 2"]
) -> Float32[np.ndarray, "5 2"]:
    """Landmarks turned, scaled and moved so that the eyes, the first two, come to lie on `eyes`."""
    # As complex numbers, a turn with a scaling is one factor.
    points, (left, right) = landmarks @ np.array([1, 1j]), eyes @ np.array([1, 1j])
    moved = left + (points - points[0]) * (right - left) / (points[1] - points[0])
    return np.stack([moved.real, moved.imag], axis=-1).astype(np.float32)


def _load_cascade(name: str) -> "cv2.CascadeClassifier":
    folder = getattr(getattr(cv2, "data", None), "haarcascades", "")
    if not hasattr(cv2, "CascadeClassifier") or not (Path(folder) / name).is_file():
        raise ValueError(
            f"OpenCV {cv2.__version__} comes without the Haar cascade {name}: "
            "pip install 'opencv-python-headless>=4.10,<5'."
        )
    return cv2.CascadeClassifier(str(Path(folder) / name))
