"""The parts of a JPEG file, found without decoding it.

Source: ITU-T T.81, annex B (markers), annex A (sequential and progressive coding); JFIF, Exif.
"""

import struct
from dataclasses import dataclass
from typing import NoReturn

from PIL import Image

START_OF_IMAGE, END_OF_IMAGE = b"\xff\xd8", b"\xff\xd9"
START_OF_SCAN = 0xDA
# Frame headers of Huffman-coded sequential files with 8 bits a sample: baseline, and extended,
# which differs in nothing that such a decoder minds.
SEQUENTIAL = (0xC0, 0xC1)
FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
ALONE = {0x01, *range(0xD0, 0xD8)}  # markers without a length
JFIF, EXIF, ICC, ADOBE = 0xE0, 0xE1, 0xE2, 0xEE
COMMENT = 0xFE
SEVERAL_PICTURES = b"MPF"  # CIPA DC-007: others follow the first
EXIF_ORIENTATION = 0x0112


class DamagedJpegError(ValueError):
    """A JPEG file's markers are broken, or it ends before its end."""


@dataclass(frozen=True)
class JpegParts:
    """What the markers of a JPEG file say.

    Attributes:
        width: in pixels, as stored.
        height: likewise.
        components: 3 for colour, 1 for grey, 4 for CMYK.
        sequential: one scan, Huffman-coded with 8 bits a sample: the cheapest kind to decode.
        upright: whether it is looked at as it is stored.
        plain: the file without camera data (position, time, device), comments, thumbnails and
            whatever follows its end; colour profiles stay.
    """

    width: int
    height: int
    components: int
    sequential: bool
    upright: bool
    plain: bytes


def read_jpeg(data: bytes) -> JpegParts | None:
    """Read the markers of a JPEG file; None if it is another kind of file.

    Raises:
        DamagedJpegError: it begins as one and goes wrong, or is cut off.
    """
    if not data.startswith(START_OF_IMAGE):
        return None
    place, kept, upright, frame, several = 2, [START_OF_IMAGE], True, None, False
    while True:
        marker, start, place = _next_segment(data, place)
        payload = data[start + 4 : place]
        if marker in FRAMES:
            frame = (marker, *_frame(payload))
        if marker == EXIF:
            upright = upright and _upright(payload)
        several = several or (marker == ICC and payload.startswith(SEVERAL_PICTURES))
        if marker == START_OF_SCAN:
            break
        if _is_picture(marker, payload):
            kept.append(data[start:place])
    if frame is None:
        _damaged("it has no frame header")
    end = _end(data, place, several)
    coding, bits, height, width, components = frame
    one_scan = payload[:1] == bytes((components,))
    sequential = coding in SEQUENTIAL and bits == 8 and one_scan
    plain = b"".join([*kept, data[start:end]])
    return JpegParts(width, height, components, sequential, upright, plain)


def _end(data: bytes, place: int, several: bool) -> int:
    """Where the picture ends whose scan begins at a place; further ones may follow it."""
    if not several and data.endswith(END_OF_IMAGE):
        return len(data)  # searching a whole file takes longer than all else here
    end = data.find(END_OF_IMAGE, place)
    if end < 0:
        _damaged("it is cut off before its end")
    return end + len(END_OF_IMAGE)


def _next_segment(data: bytes, place: int) -> tuple[int, int, int]:
    """Marker of the segment at a place, where it starts, and where the next one does."""
    if data[place : place + 1] != b"\xff":
        _damaged("a marker is missing")
    while data[place + 1 : place + 2] == b"\xff":  # fill bytes may stand before a marker
        place += 1
    if place + 4 > len(data):
        _damaged("it is cut off before its picture")
    marker = data[place + 1]
    if marker in ALONE:
        return marker, place, place + 2
    end = place + 2 + int.from_bytes(data[place + 2 : place + 4])
    if end > len(data):
        _damaged("it is cut off before its picture")
    return marker, place, end


def _frame(payload: bytes) -> tuple[int, int, int, int]:
    """Bits a sample, height, width and components of a frame header."""
    if len(payload) < 6:
        _damaged("its frame header is cut off")
    bits, height, width, components = struct.unpack(">BHHB", payload[:6])
    if not height or not width:
        _damaged("it has no height or width")
    return bits, height, width, components


def _upright(exif: bytes) -> bool:
    """Whether camera data leave a photo as it is stored; unreadable ones do."""
    if not exif.startswith(b"Exif"):
        return True
    tags = Image.Exif()
    try:
        tags.load(exif)
        return tags.get(EXIF_ORIENTATION, 1) in (0, 1)
    except Exception:  # Pillow raises many kinds, and then turns nothing either
        return True


def _is_picture(marker: int, payload: bytes) -> bool:
    """Whether a segment is needed to show the picture."""
    if marker == ICC:
        return payload.startswith(b"ICC_PROFILE")  # others hold previews
    return marker in (JFIF, ADOBE) or not (JFIF <= marker <= 0xEF or marker == COMMENT)


def _damaged(why: str) -> NoReturn:
    raise DamagedJpegError(why)
