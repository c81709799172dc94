"""One photo of a manifest: in the dataset's form, or why it is not in the dataset.

The form: baseline JPEG (T.81), upright, RGB or YCbCr, no side longer than asked, no camera data. A
photo that has it already keeps its very bytes; every other one is decoded and encoded anew, and
its face box and landmarks move along.
"""

import hashlib
import io
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import numpy as np
import simplejpeg
from jaxtyping import Float32, UInt8
from PIL import Image

from flashface_jax.common.errors import sentence
from flashface_jax.common.pictures import UnreadablePictureError, check_picture
from flashface_jax.data.building.jpeg import DamagedJpegError, JpegParts, is_upright, read_jpeg
from flashface_jax.data.building.options import PhotoFormat
from flashface_jax.data.manifest import Landmarks, PhotoEntry
from flashface_jax.faces.align import reference_face
from flashface_jax.faces.files import read_sized_photo


@dataclass(frozen=True)
class Kept:
    """A photo as the dataset holds it.

    Attributes:
        entry: what is said of it, with face box and landmarks in its stored pixels.
        size: of its JPEG in bytes.
        picture: SHA-256 of its JPEG.
        image: the JPEG if it was encoded anew; None if it is the photo's own without camera data.
        reference: JPEG of the upright face crop, or None.
        notes: keys of NOTES.
    """

    entry: PhotoEntry
    size: int
    picture: bytes
    image: bytes | None
    reference: bytes | None
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Dropped:
    """A photo that the dataset leaves out: the reason, a key of DROPS, and a sentence on it."""

    reason: str
    detail: str


class _RefusedError(Exception):
    """A photo cannot be used: the reason, a key of DROPS, and a sentence."""


def examine(folder: Path, entry: PhotoEntry, form: PhotoFormat) -> Kept | Dropped:
    """Look at one photo of a manifest in `folder`."""
    path = folder / entry.photo
    try:
        check_picture(path)
        return _look(path, entry, form)
    except UnreadablePictureError as error:
        return Dropped(error.fault, sentence(error))
    except DamagedJpegError as error:
        return Dropped("damaged", f"{path}: {sentence(error)}")
    except _RefusedError as error:
        return Dropped(*error.args)
    except OSError as error:
        return Dropped("no_file", sentence(error))


def _look(path: Path, entry: PhotoEntry, form: PhotoFormat) -> Kept:
    data = path.read_bytes()
    parts = read_jpeg(data)
    if _is_heic(data):
        raise _RefusedError("heic", f"{path} is HEIC, which is not read: convert it to JPEG.")
    notes: tuple[str, ...]
    if parts is not None and _has_form(parts, form):
        image, own, width, height = parts.plain, True, parts.width, parts.height
        # Decoding takes four times as long as all else here.
        pixels = _decoded(image) if form.reference_size or form.check_pixels else None
        notes = ("stripped",) if len(image) < len(data) else ()
    else:
        pixels, full = read_sized_photo(path, form.longest_side)
        if parts is not None:
            _decoded(data, least=1)  # Pillow passes over much damage
        image, own, (height, width, _) = encode_jpeg(pixels, form.quality), False, pixels.shape
        entry = _scaled(entry, (width / full[0], height / full[1]))
        notes = _changes(data, parts, full, form)
    _check_face(entry, width, height)
    if _face_cut(entry, width, height):
        notes = (*notes, "face_cut")
    reference = None
    if form.reference_size and pixels is not None:
        reference = _reference(pixels, entry, form)
    picture = hashlib.sha256(image).digest()
    return Kept(entry, len(image), picture, None if own else image, reference, notes)


def _has_form(parts: JpegParts, form: PhotoFormat) -> bool:
    within = max(parts.width, parts.height) <= form.longest_side
    return parts.sequential and parts.upright and parts.components == 3 and within


def _is_heic(data: bytes) -> bool:
    return data[4:8] == b"ftyp" and data[8:12] in (b"heic", b"heix", b"hevc", b"mif1", b"msf1")


def _changes(
    data: bytes, parts: JpegParts | None, full: tuple[int, int], form: PhotoFormat
) -> tuple[str, ...]:
    """What encoding a photo anew changed of it."""
    holds = {
        "transcoded": parts is None or not parts.sequential or parts.components != 3,
        "turned": not is_upright(data),
        "reduced": max(full) > form.longest_side,
    }
    return tuple(name for name, held in holds.items() if held)


def encode_jpeg(
    pixels: UInt8[np.ndarray, "H W 3"], quality: int, subsampling: str = "4:2:0"
) -> bytes:
    """A baseline JPEG."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality, subsampling=subsampling)
    return file.getvalue()


def _scaled(entry: PhotoEntry, scale: tuple[float, float]) -> PhotoEntry:
    """The entry with its box and landmarks in a photo that many times as wide and high."""
    x, y = scale
    if scale == (1, 1):
        return entry
    x1, y1, x2, y2 = entry.face_box
    landmarks = entry.landmarks and tuple((a * x, b * y) for a, b in entry.landmarks)
    landmarks = cast(Landmarks | None, landmarks)
    return replace(entry, face_box=(x1 * x, y1 * y, x2 * x, y2 * y), landmarks=landmarks)


def _check_face(entry: PhotoEntry, width: int, height: int) -> None:
    """Refuse a photo whose face cannot be used, by the box as it is stored."""
    x1, y1, x2, y2 = face_arrays(entry)[0].tolist()
    box = [round(edge, 1) for edge in entry.face_box]
    if round(x1) >= round(x2) or round(y1) >= round(y2):
        raise _RefusedError(
            "face_box_empty", f"face_box {box} holds no pixel: it is x1, y1, x2, y2 in pixels."
        )
    inside = _overlap(x1, x2, width) * _overlap(y1, y2, height)
    if inside <= 0.5 * (x2 - x1) * (y2 - y1):
        detail = f"half or more of face_box {box} is outside the photo of {width}x{height} pixels."
        raise _RefusedError("face_outside", detail)


def _face_cut(entry: PhotoEntry, width: int, height: int) -> bool:
    x1, y1, x2, y2 = entry.face_box
    return x1 < 0 or y1 < 0 or x2 > width or y2 > height


def _overlap(low: float, high: float, length: int) -> float:
    """How much of an interval lies in 0..length."""
    return max(0.0, min(high, length) - max(low, 0.0))


def _decoded(jpeg: bytes, least: int = 0) -> UInt8[np.ndarray, "H W 3"]:
    """A JPEG's pixels, as training decodes them: that they are whole is not seen otherwise.

    Args:
        jpeg: the file.
        least: reduce the picture as far as the decoder does without going below this side, which
            saves some of the time; 0 for all its pixels.

    Raises:
        DamagedJpegError: the picture is damaged, however little.
    """
    try:
        return simplejpeg.decode_jpeg(jpeg, "RGB", min_height=least, min_width=least)
    except ValueError as error:
        raise DamagedJpegError(str(error)) from error


def _reference(pixels: UInt8[np.ndarray, "H W 3"], entry: PhotoEntry, form: PhotoFormat) -> bytes:
    """JPEG of the upright face crop of a photo."""
    crop = reference_face(pixels, *face_arrays(entry), form.reference_size)
    return encode_jpeg(crop, form.quality, "4:4:4")  # crops are small: full colour costs little


def face_arrays(
    entry: PhotoEntry,
) -> tuple[Float32[np.ndarray, "4"], Float32[np.ndarray, "5 2"] | None]:
    """Face box and landmarks of an entry as arrays."""
    landmarks = None if entry.landmarks is None else np.array(entry.landmarks, np.float32)
    return np.array(entry.face_box, np.float32), landmarks


def record_digest(entry: PhotoEntry, picture: bytes, reference: bytes | None) -> int:
    """A number that stands for a record's whole contents, its JPEG given by its SHA-256.

    The sum of a dataset's numbers, modulo 2^256, stands for its contents in any order and sharding,
    and follows when records are taken out.
    """
    box, landmarks = face_arrays(entry)
    parts = [
        *(text.encode() for text in (entry.identity, entry.source_id)),
        *(text.encode() for text in (entry.caption, entry.provenance)),
        box.tobytes(),
        b"" if landmarks is None else landmarks.tobytes(),
        picture,
        b"" if reference is None else hashlib.sha256(reference).digest(),
    ]
    whole = hashlib.sha256()
    for part in parts:
        whole.update(len(part).to_bytes(8))
        whole.update(part)
    return int.from_bytes(whole.digest())
