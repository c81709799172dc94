"""One photo at a time: what is stored of it and where its face is, or the reason that it is not."""

import os
import zlib
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from flashface_jax.data.building.examination import (
    Dropped,
    Kept,
    examine,
    face_arrays,
    record_digest,
)
from flashface_jax.data.building.jpeg import read_jpeg
from flashface_jax.data.building.options import PhotoFormat
from flashface_jax.data.building.outcomes import DROPS, NOTES
from flashface_jax.data.manifest import PhotoEntry
from flashface_jax.faces.align import reference_face
from tests.manifests import BOX, HEIGHT, LANDMARKS, WIDTH, decoded, encoded, exif, pixels
from tests.manifests import write_photo as write

PICTURE = pixels(0)
ENTRY = PhotoEntry("a.jpg", "Ann", tuple(BOX), tuple(map(tuple, LANDMARKS)))
PLAIN = encoded(PICTURE, quality=90)


def looked_at(folder, data, form=None, **changed):
    write(folder, "a.jpg", data)
    return examine(folder, replace(ENTRY, **changed), form or PhotoFormat())


def stored(kept, data):
    """The JPEG that the dataset holds."""
    return read_jpeg(data).plain if kept.image is None else kept.image


def test_a_baseline_photo_without_metadata_keeps_its_very_bytes(tmp_path):
    kept = looked_at(tmp_path, PLAIN)
    assert kept.image is None and stored(kept, PLAIN) == PLAIN and kept.notes == ()
    assert kept.entry == ENTRY and kept.size == len(PLAIN)


def test_camera_data_go_and_pixels_stay(tmp_path):
    data = encoded(PICTURE, quality=90, exif=exif(), comment="at home")
    kept = looked_at(tmp_path, data)
    with Image.open(tmp_path / "a.jpg") as image:
        assert image.getexif()[0x8825]
    assert kept.notes == ("stripped",) and kept.image is None
    assert stored(kept, data) == PLAIN


def palette():
    image = Image.fromarray(PICTURE).quantize(16)
    image.info["transparency"] = 0
    return encoded(image, "PNG")


def grey16():
    return encoded(Image.fromarray(PICTURE[..., 0].astype(np.uint16) * 257), "PNG")


OTHER_KINDS = {
    "PNG": lambda: encoded(PICTURE, "PNG"),
    "PNG with alpha": lambda: encoded(np.dstack([PICTURE, PICTURE[..., 0]]), "PNG"),
    "palette with transparency": palette,
    "grey of 16 bits": grey16,
    "GIF": lambda: encoded(PICTURE, "GIF"),
    "WebP": lambda: encoded(PICTURE, "WEBP"),
    "BMP": lambda: encoded(PICTURE, "BMP"),
    "TIFF": lambda: encoded(PICTURE, "TIFF"),
    "progressive JPEG": lambda: encoded(PICTURE, progressive=True, quality=95),
    "grey JPEG": lambda: encoded(PICTURE[..., 0].copy()),
    "CMYK JPEG": lambda: encoded(Image.fromarray(PICTURE).convert("CMYK")),
}


@pytest.mark.parametrize("kind", OTHER_KINDS)
def test_other_kinds_of_pictures_become_upright_baseline_jpegs_in_colour(tmp_path, kind):
    kept = looked_at(tmp_path, OTHER_KINDS[kind]())
    assert isinstance(kept, Kept), kept
    parts = read_jpeg(kept.image)
    assert (parts.width, parts.height, parts.components) == (WIDTH, HEIGHT, 3)
    assert parts.sequential and parts.upright and parts.plain == kept.image
    assert kept.notes == ("transcoded",) and kept.entry == ENTRY
    if kind in ("PNG", "BMP", "TIFF", "progressive JPEG"):
        difference = np.abs(decoded(kept.image).astype(int) - PICTURE)
        assert difference.mean() < 1.5  # two JPEGs' rounding of a smooth picture


def test_several_pictures_in_a_file_become_the_first(tmp_path):
    first, second = Image.fromarray(PICTURE), Image.fromarray(pixels(1))
    data = encoded(first, "MPO", save_all=True, append_images=[second], quality=90)
    kept = looked_at(tmp_path, data)
    assert stored(kept, data) == PLAIN and "stripped" in kept.notes


CUT = slice(len(PLAIN) // 2)
ZEROED = PLAIN[: len(PLAIN) // 2] + bytes(len(PLAIN) - len(PLAIN) // 2 - 2) + b"\xff\xd9"


def header(coding, bits=8, height=HEIGHT, width=WIDTH):
    """The plain photo with another frame header."""
    place = PLAIN.index(b"\xff\xc0")
    frame = bytes((0xFF, coding)) + PLAIN[place + 2 : place + 4] + bytes((bits,))
    frame += height.to_bytes(2) + width.to_bytes(2)
    return PLAIN[:place] + frame + PLAIN[place + 9 :]


def bomb():
    """A PNG whose header claims many pixels."""
    data = bytearray(encoded(PICTURE, "PNG"))
    data[16:24] = (50_000).to_bytes(4) * 2
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4)
    return bytes(data)


UNUSABLE = {
    "zero bytes": (b"", "empty"),
    "text": (b"hello, I am no picture", "unknown_format"),
    "HTML": (b"<html>404</html>" * 99, "unknown_format"),
    "HEIC": (b"\0\0\0\x18ftypheic" + bytes(300), "heic"),
    "HEIC of many": (b"\0\0\0\x18ftypmif1" + bytes(300), "heic"),
    "half a JPEG": (PLAIN[CUT], "damaged"),
    "JPEG of two bytes": (PLAIN[:2], "damaged"),
    "half a JPEG, then zeros": (ZEROED, "damaged"),
    "half a JPEG with an end": (PLAIN[CUT] + b"\xff\xd9", "damaged"),
    "half a progressive JPEG": (encoded(PICTURE, progressive=True)[:900], "damaged"),
    "half a PNG": (encoded(PICTURE, "PNG")[:3000], "damaged"),
    "half a progressive JPEG with an end": (
        encoded(PICTURE, progressive=True)[:900] + b"\xff\xd9",
        "damaged",
    ),
    "half a GIF": (encoded(PICTURE, "GIF")[:2000], "damaged"),
    "JPEG without height": (header(0xC0, height=0), "damaged"),
    "JPEG of other coding": (header(0xC9), "damaged"),
    "JPEG of 12 bits": (header(0xC1, bits=12), "unknown_format"),
    "JPEG higher than it is": (header(0xC0, height=2000), "damaged"),
    "JPEG of 4 gigapixels": (header(0xC0, height=65_500, width=65_500), "too_large"),
    "PNG of 2.5 gigapixels": (bomb(), "too_large"),
}


@pytest.mark.parametrize("kind", UNUSABLE)
def test_files_that_are_no_whole_pictures_are_dropped_for_a_named_reason(tmp_path, kind):
    data, reason = UNUSABLE[kind]
    dropped = looked_at(tmp_path, data, PhotoFormat(check_pixels=True))
    assert isinstance(dropped, Dropped) and dropped.reason == reason in DROPS
    assert "a.jpg" in dropped.detail and dropped.detail.endswith(".")


def test_damage_behind_the_markers_is_seen_where_pixels_are_decoded(tmp_path):
    for form in (
        PhotoFormat(check_pixels=True),
        PhotoFormat(reference_size=16),
        PhotoFormat(longest_side=64),
    ):
        assert looked_at(tmp_path, ZEROED, form).reason == "damaged", form
    assert looked_at(tmp_path, ZEROED).image is None, "only the markers were looked at"


def test_what_is_no_file_is_dropped(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "folder").mkdir()
    (tmp_path / "gone").symlink_to("nowhere")
    write(tmp_path, "file", PLAIN)
    expected = {
        "pipe": "no_file",
        "loop": "no_file",
        "folder": "no_file",
        ".": "no_file",
        "/dev/null": "no_file",
        "nul\0": "no_file",
        "long" * 99: "no_file",
        "gone": "missing",
        "nothing": "missing",
        "file/below": "missing",
        os.fsdecode(b"\xff\xfe"): "missing",
    }
    found = {
        name: examine(tmp_path, replace(ENTRY, photo=name), PhotoFormat()) for name in expected
    }
    assert {name: dropped.reason for name, dropped in found.items()} == expected


def test_no_change_of_any_byte_of_any_kind_ends_an_examination(tmp_path):
    random = np.random.default_rng(0)
    kinds = [PLAIN, encoded(pixels(1), exif=exif(6)), *(make() for make in OTHER_KINDS.values())]
    outcomes = []
    for data in kinds:
        for _ in range(30):
            damaged = bytearray(data)
            for place in random.integers(0, min(len(data), 1200), random.integers(1, 4)):
                damaged[place] = random.integers(256)
            found = looked_at(tmp_path, bytes(damaged), PhotoFormat(64, 90, 16))
            assert isinstance(found, Kept) or found.reason in DROPS
            outcomes.append(isinstance(found, Kept))
    assert 0.2 < np.mean(outcomes) < 0.9


BOXES = {
    "reversed": ((62, 20, 30, 60), "face_box_empty"),
    "upside down": ((30, 60, 62, 20), "face_box_empty"),
    "a point": ((30, 20, 30, 20), "face_box_empty"),
    "less than a pixel": ((30.1, 20, 30.4, 60), "face_box_empty"),
    "less than a pixel once stored": ((0.4, 20, 0.50000000001, 60), "face_box_empty"),
    "right of the photo": ((100, 20, 130, 60), "face_outside"),
    "half outside": ((-32, 20, 32, 60), "face_outside"),
    "huge": ((-1e9, -1e9, 1e9, 1e9), "face_outside"),
    "far away": ((1e8, 1e8, 1e9, 1e9), "face_outside"),
}


@pytest.mark.parametrize("where", BOXES)
def test_faces_that_cannot_be_used_are_dropped(tmp_path, where):
    box, reason = BOXES[where]
    dropped = looked_at(
        tmp_path, PLAIN, PhotoFormat(reference_size=16), face_box=tuple(map(float, box))
    )
    assert isinstance(dropped, Dropped) and dropped.reason == reason


def test_a_face_that_is_cut_by_the_border_is_kept_with_a_note(tmp_path):
    kept = looked_at(
        tmp_path, PLAIN, PhotoFormat(reference_size=16), face_box=(-31.0, 20.0, 32.0, 60.0)
    )
    assert kept.notes == ("face_cut",) and set(kept.notes) <= NOTES.keys()


def turned(image, orientation):
    """The picture as a camera stores it that writes this orientation."""
    undo = {
        2: [Image.Transpose.FLIP_LEFT_RIGHT],
        3: [Image.Transpose.ROTATE_180],
        4: [Image.Transpose.FLIP_TOP_BOTTOM],
        5: [Image.Transpose.TRANSPOSE],
        6: [Image.Transpose.ROTATE_90],
        7: [Image.Transpose.TRANSVERSE],
        8: [Image.Transpose.ROTATE_270],
    }
    for step in undo.get(orientation, []):
        image = image.transpose(step)
    return image


DOTS = np.array([[150, 60], [250, 80], [200, 130], [160, 180], [240, 190]], np.float32)


def dotted():
    """An upright photo, 400x300, with a dot of a colour of its own at each landmark."""
    image = np.full((300, 400, 3), 128, np.uint8)
    y, x = np.mgrid[:300, :400] + 0.5
    for place, colour in zip(DOTS, COLOURS, strict=True):
        image[np.hypot(x - place[0], y - place[1]) < 10] = colour
    return image


COLOURS = np.array([[250, 20, 20], [20, 250, 20], [20, 20, 250], [240, 240, 20], [240, 20, 240]])


@pytest.mark.parametrize("longest", [2048, 160], ids=["as it is", "reduced"])
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_landmarks_and_box_stay_on_the_face_that_is_turned_and_reduced(
    tmp_path, orientation, kind, longest
):
    upright = Image.fromarray(dotted())
    data = encoded(turned(upright, orientation), kind, exif=exif(orientation), quality=98)
    landmarks, box = tuple(map(tuple, DOTS.tolist())), (140.0, 50.0, 260.0, 200.0)
    kept = looked_at(
        tmp_path, data, PhotoFormat(longest_side=longest), landmarks=landmarks, face_box=box
    )
    shown = decoded(stored(kept, data)).astype(int)
    scale = min(1, longest / 400)
    assert shown.shape == (300 * scale, 400 * scale, 3)
    y, x = np.mgrid[: shown.shape[0], : shown.shape[1]] + 0.5
    for colour, landmark in zip(COLOURS, kept.entry.landmarks, strict=True):
        near = np.abs(shown - colour).sum(-1) < 120
        centre = np.array([x[near].mean(), y[near].mean()])
        assert np.abs(centre - landmark).max() < 0.5  # pixels
    np.testing.assert_allclose(kept.entry.face_box, np.array(box) * scale, atol=1e-9)
    notes = {"turned": orientation > 1, "reduced": scale < 1, "transcoded": kind == "PNG"}
    for note, holds in notes.items():
        assert (note in kept.notes) == holds, note


def test_the_stored_crop_is_the_reference_that_the_stored_photo_gives(tmp_path):
    for data in (PLAIN, encoded(PICTURE, "PNG")):
        kept = looked_at(tmp_path, data, PhotoFormat(reference_size=32))
        again = reference_face(decoded(stored(kept, data)), *face_arrays(kept.entry), 32)
        crop = decoded(kept.reference)
        assert crop.shape == (32, 32, 3)
        assert np.abs(crop.astype(int) - again).mean() < 2  # 38 dB and better


def test_the_digest_follows_everything_that_a_record_says():
    base = record_digest(ENTRY, b"picture", b"crop")
    others = [
        record_digest(replace(ENTRY, **changed), b"picture", b"crop")
        for changed in (
            {"identity": "Bob"},
            {"source_id": "b"},
            {"caption": "c"},
            {"provenance": "c"},
            {"face_box": (30.0, 20.0, 62.0, 60.5)},
            {"landmarks": None},
            {"landmarks": (*ENTRY.landmarks[:4], (51.0, 52.5))},
        )
    ]
    others += [record_digest(ENTRY, b"pixture", b"crop"), record_digest(ENTRY, b"picture", None)]
    moved = replace(ENTRY, caption="a", provenance="b"), replace(ENTRY, caption="ab")
    others += [record_digest(entry, b"picture", b"crop") for entry in moved]
    assert len({base, *others}) == 1 + len(others)
    assert record_digest(replace(ENTRY, photo="elsewhere.jpg"), b"picture", b"crop") == base


@pytest.mark.parametrize(
    "wrong",
    [{"longest_side": 63}, {"quality": 101}, {"quality": 0}, {"reference_size": -1}],
    ids=str,
)
def test_a_form_out_of_bounds_is_refused(wrong):
    with pytest.raises(ValueError, match=r"is -?\d+; choose from"):
        PhotoFormat(**wrong)
