"""What can be measured of one photo without any model."""

from dataclasses import astuple, dataclass

import cv2
import numpy as np
from jaxtyping import Shaped, UInt8, UInt64

from flashface_jax.data.dataset import PhotoRecord
from flashface_jax.data.loading.transforms import UndecodableError, decode
from flashface_jax.faces.align import eye_line_tilt
from flashface_jax.faces.sharpness import sharpness

HASH_SIDE = 16  # 16 x 16 comparisons of neighbours: 256 bits
HASH_STEP = 0.15  # in standard deviations of the greys: less is noise of the compression
NO_HASH = (0, 0, 0, 0)


@dataclass(frozen=True)
class PhotoFacts:
    """One photo in numbers.

    Attributes:
        position: of its record in the split.
        readable: whether its record can be read; if not, nothing else is known.
        decodes: whether its JPEG can be decoded; if not, what follows from pixels is 0.
        size: of the JPEG in bytes.
        width: of the photo in pixels.
        height: likewise.
        face_width: of the face box in pixels.
        face_height: likewise.
        face_cut: whether the box reaches out of the photo.
        landmarks: whether they are known.
        tilt: of the eye line in degrees, as `eye_line_tilt` gives it; 0 without landmarks.
        sharpness: of the face, as `flashface_jax.faces.sharpness` measures it.
        words: of the caption.
        caption_cut: whether the caption has more tokens than the text tower takes.
        face_hash: of the face crop, as `face_hash` makes it.
    """

    position: int
    readable: bool = True
    decodes: bool = True
    size: int = 0
    width: int = 0
    height: int = 0
    face_width: float = 0.0
    face_height: float = 0.0
    face_cut: bool = False
    landmarks: bool = False
    tilt: float = 0.0
    sharpness: float = 0.0
    words: int = 0
    caption_cut: bool = False
    face_hash: tuple[int, int, int, int] = NO_HASH


COLUMNS = np.dtype(
    [
        ("position", np.int64),
        ("readable", np.bool_),
        ("decodes", np.bool_),
        ("size", np.int32),
        ("width", np.int32),
        ("height", np.int32),
        ("face_width", np.float32),
        ("face_height", np.float32),
        ("face_cut", np.bool_),
        ("landmarks", np.bool_),
        ("tilt", np.float32),
        ("sharpness", np.float32),
        ("words", np.int32),
        ("caption_cut", np.bool_),
        ("face_hash", np.uint64, (4,)),
    ]
)
"""Facts of many photos take 80 bytes each as an array of this type: 140 MB for 1.8 million."""

Facts = Shaped[np.ndarray, " photos"]


def table(facts: list[PhotoFacts]) -> Facts:
    """Facts as an array of COLUMNS."""
    return np.array([astuple(photo) for photo in facts], COLUMNS)


def measure(position: int, record: PhotoRecord, caption_cut: bool = False) -> PhotoFacts:
    """Measure one photo."""
    x1, y1, x2, y2 = record.face_box.tolist()
    landmarks = record.landmarks
    known = {
        "position": position,
        "size": len(record.jpeg),
        "face_width": x2 - x1,
        "face_height": y2 - y1,
        "landmarks": landmarks is not None,
        "tilt": 0.0 if landmarks is None else eye_line_tilt(landmarks),
        "words": len(record.caption.split()),
        "caption_cut": caption_cut,
    }
    try:
        pixels = decode(record).pixels
    except UndecodableError:
        return PhotoFacts(**known, decodes=False)
    height, width, _ = pixels.shape
    return PhotoFacts(
        **known,
        width=width,
        height=height,
        face_cut=x1 < 0 or y1 < 0 or x2 > width or y2 > height,
        sharpness=sharpness(pixels, record.face_box),
        face_hash=face_hash(pixels, record.face_box),
    )


def face_hash(pixels: UInt8[np.ndarray, "H W 3"], box: np.ndarray) -> tuple[int, int, int, int]:
    """256 bits that hardly change when a photo is resized or compressed again.

    A bit says whether the face, reduced to 17x16 greys, is clearly brighter at a place than right
    of it. Source: Krawetz, Kind of Like That, 2013 (the difference hash), with more bits.
    """
    x1, y1, x2, y2 = (max(0, round(edge)) for edge in box.tolist())
    crop = pixels[y1:y2, x1:x2]
    if crop.size == 0:
        return NO_HASH
    grey = cv2.cvtColor(np.ascontiguousarray(crop), cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey, (HASH_SIDE + 1, HASH_SIDE), interpolation=cv2.INTER_AREA).astype(float)
    brighter = small[:, :-1] > small[:, 1:] + HASH_STEP * small.std()
    a, b, c, d = np.packbits(brighter).view(np.uint64).tolist()
    return a, b, c, d


def same_face_pictures(
    hashes: UInt64[np.ndarray, "photos 4"], most_bits: int
) -> list[tuple[int, int]]:
    """Each photo whose hash is near an earlier one's, with the nearest such one, as positions.

    Args:
        hashes: of the photos of one person.
        most_bits: by how many of the 256 bits they may differ.
    """
    pairs = []
    for later in range(1, len(hashes)):
        bits = np.bitwise_count(hashes[:later] ^ hashes[later]).sum(axis=1)
        nearest = int(bits.argmin())
        if bits[nearest] <= most_bits:
            pairs.append((nearest, later))
    return pairs
