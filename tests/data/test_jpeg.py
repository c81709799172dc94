"""JPEG files by their markers: what they are, and what is left of them without camera data."""

import contextlib
import struct

import numpy as np
import pytest
from PIL import Image

from flashface_jax.data.building.jpeg import DamagedJpegError, read_jpeg
from tests.manifests import HEIGHT, WIDTH, decoded, encoded, exif, pixels

PICTURE = pixels(0)
SECRET = b"52 degrees north"


def segment(marker, payload):
    return bytes((0xFF, marker)) + struct.pack(">H", len(payload) + 2) + payload


def with_segment(jpeg, *segments):
    """The file with segments behind its first two bytes."""
    return jpeg[:2] + b"".join(segments) + jpeg[2:]


BASELINE = encoded(PICTURE)
THUMBNAIL = encoded(pixels(9, 16, 16))
JFIF = segment(0xE0, b"JFIF\0\1\2\0\0\1\0\1\0\0")


def test_a_baseline_file_without_metadata_is_plain_as_it_is():
    parts = read_jpeg(BASELINE)
    assert (parts.width, parts.height, parts.components) == (WIDTH, HEIGHT, 3)
    assert parts.sequential and parts.upright and parts.plain == BASELINE


def test_other_files_are_none():
    for data in (b"", b"hello", b"\xff", encoded(PICTURE, "PNG"), encoded(PICTURE, "GIF")):
        assert read_jpeg(data) is None


PRIVATE = {
    "EXIF": segment(0xE1, b"Exif\0\0" + SECRET),
    "XMP": segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + SECRET),
    "IPTC": segment(0xED, b"Photoshop 3.0\0" + SECRET),
    "comment": segment(0xFE, SECRET),
    "MPF": segment(0xE2, b"MPF\0" + SECRET),
    "maker": segment(0xE5, SECRET),
    "JFXX thumbnail": segment(0xE0, b"JFXX\0\x10" + SECRET),
    "JFIF thumbnail": segment(0xE0, JFIF[4:16] + b"\1\4" + SECRET[:12]),
    "not Adobe's": segment(0xEE, SECRET),
    "fill bytes": b"\xff\xff\xff" + segment(0xFE, SECRET),
}


@pytest.mark.parametrize("name", PRIVATE)
def test_camera_data_comments_and_previews_are_cut_out(name):
    parts = read_jpeg(with_segment(BASELINE, PRIVATE[name]))
    assert SECRET[:12] not in parts.plain
    np.testing.assert_array_equal(decoded(parts.plain), PICTURE_DECODED)
    assert len(parts.plain) <= len(BASELINE) + len(JFIF)


PICTURE_DECODED = decoded(BASELINE)


@pytest.mark.parametrize("ends", ["text", "picture", "zeros"])
def test_what_follows_the_end_of_the_picture_is_cut_off(ends):
    behind = {
        "text": SECRET,
        "picture": with_segment(THUMBNAIL, PRIVATE["EXIF"]),
        "zeros": b"\0" * 9,
    }
    assert read_jpeg(BASELINE + behind[ends]).plain == BASELINE


def test_a_thumbnail_inside_camera_data_does_not_end_the_picture():
    data = with_segment(BASELINE, segment(0xE1, b"Exif\0\0" + THUMBNAIL))
    assert read_jpeg(data).plain == BASELINE


def test_colour_profiles_stay():
    profile = b"ICC_PROFILE\0\1\1" + bytes(range(200))
    assert profile in read_jpeg(with_segment(BASELINE, segment(0xE2, profile))).plain


@pytest.mark.parametrize("orientation", range(10))
def test_a_photo_is_upright_unless_its_exif_turns_it(orientation):
    parts = read_jpeg(encoded(PICTURE, exif=exif(orientation)))
    assert parts.upright == (orientation in (0, 1, 9))
    assert b"maker" not in parts.plain
    np.testing.assert_array_equal(decoded(parts.plain), PICTURE_DECODED)


def test_a_photo_that_only_its_xmp_turns_is_turned_as_other_readers_here_turn_it():
    xmp = b'http://ns.adobe.com/xap/1.0/\0<x tiff:Orientation="6"/>'
    assert not read_jpeg(with_segment(BASELINE, segment(0xE1, xmp))).upright


@pytest.mark.parametrize(
    "payload", [b"Exif\0\0", b"Exif\0\0II*\0", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff"]
)
def test_unreadable_camera_data_turn_nothing(payload):
    assert read_jpeg(with_segment(BASELINE, segment(0xE1, payload))).upright


def test_kinds_that_are_dear_to_decode_are_not_sequential():
    assert not read_jpeg(encoded(PICTURE, progressive=True)).sequential
    for coding, bits in ((0xC9, 8), (0xC1, 12), (0xC3, 8)):
        place = BASELINE.index(b"\xff\xc0")
        frame = bytearray(BASELINE)
        frame[place + 1], frame[place + 4] = coding, bits
        assert not read_jpeg(bytes(frame)).sequential
    assert read_jpeg(encoded(Image.fromarray(PICTURE).convert("L"))).components == 1
    assert read_jpeg(encoded(Image.fromarray(PICTURE).convert("CMYK"))).components == 4


def test_a_file_that_is_cut_off_anywhere_is_damaged():
    data = encoded(PICTURE, exif=exif())
    for length in [*range(2, 700), *range(700, len(data), 37), len(data) - 1]:
        with pytest.raises(DamagedJpegError):
            read_jpeg(data[:length])


def test_no_change_of_any_byte_ends_in_another_error():
    data = encoded(pixels(1, 16, 16), exif=exif(6))
    random = np.random.default_rng(0)
    read = 0
    for _ in range(1000):
        damaged = bytearray(data)
        for place in random.integers(2, len(data), random.integers(1, 4)):
            damaged[place] = random.integers(256)
        with contextlib.suppress(DamagedJpegError):
            read += read_jpeg(bytes(damaged)) is not None
    assert 150 < read < 1000
