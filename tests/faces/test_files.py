"""Every kind of photo file has one clear outcome: its pixels, or a sentence that names it."""

import io
import re
import struct
import warnings
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from flashface_jax.faces.align import reference_face
from flashface_jax.faces.cascade_detector import CascadeDetector
from flashface_jax.faces.detect import Face, largest_first
from flashface_jax.faces.files import read_photo, read_reference_faces
from flashface_jax.world import SyntheticWorld

PIXELS = np.random.default_rng(0).integers(0, 256, (30, 50, 3), dtype=np.uint8)


def saved(tmp_path, image, name="photo.png", **options):
    path = tmp_path / name
    image.save(path, **options)
    return path


def assert_pixels(ours, expected, levels=0):
    assert ours.shape == expected.shape, f"{ours.shape} is not {expected.shape}"
    assert ours.dtype == np.uint8
    difference = int(np.abs(ours.astype(int) - expected.astype(int)).max())
    assert difference <= levels, f"differs by {difference} levels, allowed {levels}"


def refusal(path):
    """The sentence that refuses a file."""
    with pytest.raises(ValueError, match=re.escape(str(path))) as error:
        read_photo(path)
    return str(error.value)


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tif", "a.webp", "a.ppm"])
def test_lossless_formats_give_their_pixels(tmp_path, name):
    options = {"lossless": True} if name == "a.webp" else {}
    assert_pixels(read_photo(saved(tmp_path, Image.fromarray(PIXELS), name, **options)), PIXELS)


# How each EXIF orientation is undone, in terms of the stored picture.
UPRIGHT = {
    1: lambda p: p,
    2: lambda p: p[:, ::-1],
    3: lambda p: p[::-1, ::-1],
    4: lambda p: p[::-1],
    5: lambda p: p.swapaxes(0, 1),
    6: lambda p: np.rot90(p, -1),
    7: lambda p: p[::-1, ::-1].swapaxes(0, 1),
    8: np.rot90,
}


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_exif_rotation_is_undone(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = saved(tmp_path, Image.fromarray(PIXELS), exif=exif)
    assert_pixels(read_photo(path), UPRIGHT[orientation](PIXELS))


def test_a_rotated_jpeg_that_is_reduced_stays_upright(tmp_path):
    """Left half black, right half white, stored turned: the reduced photo has black on top."""
    stored = np.zeros((40, 9000, 3), np.uint8)
    stored[:, 4500:] = 255
    exif = Image.Exif()
    exif[0x0112] = 6
    photo = read_photo(saved(tmp_path, Image.fromarray(stored), "a.jpg", exif=exif))
    assert photo.shape[0] == 4096
    assert photo[:2000].max() < 10 and photo[2100:].min() > 245


@pytest.mark.parametrize("alpha", [0, 51, 255])
def test_transparency_becomes_white(tmp_path, alpha):
    rgba = np.dstack([PIXELS, np.full(PIXELS.shape[:2], alpha, np.uint8)])
    share = alpha / 255
    expected = np.rint(PIXELS * share + 255 * (1 - share)).astype(np.uint8)
    assert_pixels(read_photo(saved(tmp_path, Image.fromarray(rgba))), expected, levels=1)


def test_grey_and_black_and_white_become_rgb(tmp_path):
    grey = PIXELS[..., 0]
    expected = np.repeat(grey[..., None], 3, axis=-1)
    assert_pixels(read_photo(saved(tmp_path, Image.fromarray(grey))), expected)
    transparent = Image.fromarray(np.dstack([grey, np.zeros_like(grey)]))
    assert_pixels(read_photo(saved(tmp_path, transparent)), np.full_like(expected, 255))
    bits = Image.fromarray(grey > 127)
    assert_pixels(read_photo(saved(tmp_path, bits)), np.where(expected > 127, 255, 0))


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_sixteen_bit_greys_keep_their_range(tmp_path, name):
    grey = np.arange(256, dtype=np.uint16).reshape(8, 32)
    path = saved(tmp_path, Image.fromarray(grey * 257), name)
    assert_pixels(read_photo(path), np.repeat(grey.astype(np.uint8)[..., None], 3, axis=-1))


def test_sixteen_bit_colours_keep_their_range(tmp_path):
    path = tmp_path / "deep.png"
    assert cv2.imwrite(str(path), PIXELS[..., ::-1].astype(np.uint16) * 257)
    assert_pixels(read_photo(path), PIXELS)


def test_a_palette_gif_gives_its_first_frame(tmp_path):
    colors = np.array([[200, 30, 40], [10, 220, 90], [15, 25, 250]], np.uint8)
    first, second = colors[np.arange(60).reshape(6, 10) % 3], colors[np.zeros((6, 10), int)]
    frames = [Image.fromarray(frame).quantize(4) for frame in (first, second)]
    path = saved(tmp_path, frames[0], "a.gif", save_all=True, append_images=frames[1:])
    assert_pixels(read_photo(path), first)


def test_a_transparent_palette_colour_becomes_white(tmp_path):
    image = Image.fromarray((np.arange(60, dtype=np.uint8) % 2).reshape(6, 10), "P")
    image.putpalette([10, 20, 30, 200, 100, 50])
    photo = read_photo(saved(tmp_path, image, transparency=1))
    assert set(map(tuple, photo.reshape(-1, 3).tolist())) == {(10, 20, 30), (255, 255, 255)}


def test_a_cmyk_jpeg_keeps_its_colours(tmp_path):
    blocks = np.array([[250, 20, 20], [20, 240, 30], [240, 240, 10], [128, 128, 128]], np.uint8)
    colors = np.repeat(np.repeat(blocks.reshape(2, 2, 3), 16, 0), 16, 1)
    cmyk = Image.fromarray(colors).convert("CMYK")
    photo = read_photo(saved(tmp_path, cmyk, "a.jpg", quality=100, subsampling=0))
    assert_pixels(photo, colors, levels=4)  # the JPEG's own loss


def test_one_pixel_is_a_photo(tmp_path):
    assert_pixels(read_photo(saved(tmp_path, Image.fromarray(PIXELS[:1, :1]))), PIXELS[:1, :1])


@pytest.mark.parametrize(
    ("size", "reduced"), [((20000, 200), (4096, 41)), ((60, 9000), (27, 4096))]
)
@pytest.mark.parametrize("name", ["a.png", "a.jpg"])
def test_a_long_photo_is_reduced_and_shows_the_same(tmp_path, size, reduced, name):
    ramp = Image.linear_gradient("L").resize(size).convert("RGB")
    photo = read_photo(saved(tmp_path, ramp, name))
    assert photo.shape[1::-1] == reduced
    assert_pixels(photo, np.asarray(ramp.resize(reduced, Image.Resampling.BOX)), levels=8)


def test_a_photo_within_4096_pixels_is_not_reduced(tmp_path):
    noise = np.random.default_rng(1).integers(0, 256, (8, 4096, 3), dtype=np.uint8)
    assert_pixels(read_photo(saved(tmp_path, Image.fromarray(noise))), noise)


def png_header(width, height):
    """A PNG that declares a size and holds nothing."""
    head = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = struct.pack(">I", 13) + head + struct.pack(">I", zlib.crc32(head))
    return b"\x89PNG\r\n\x1a\n" + chunks + b"\0\0\0\0IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))


@pytest.mark.parametrize("size", [(20000, 20000), (13400, 13300)], ids=["Pillow's", "ours"])
def test_too_many_pixels_are_refused_with_the_limit(tmp_path, size):
    path = tmp_path / "huge.png"
    path.write_bytes(png_header(*size))
    said = refusal(path)
    assert "178000000" in said and "reduce it to sides of 4096" in said, said


def test_pillows_warning_of_many_pixels_does_not_reach_the_caller(tmp_path, monkeypatch):
    path = saved(tmp_path, Image.fromarray(PIXELS))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", PIXELS.shape[0] * PIXELS.shape[1] - 1)
    with pytest.warns(Image.DecompressionBombWarning), Image.open(path):
        pass
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        assert_pixels(read_photo(path), PIXELS)
    assert not seen


def test_missing_empty_and_text_files_and_directories_are_named(tmp_path):
    assert refusal(tmp_path / "none.png").endswith("none.png does not exist.")
    assert "is a directory: name the pictures in it" in refusal(tmp_path)
    (tmp_path / "empty.jpg").touch()
    assert "no picture that can be read (the file is empty)" in refusal(tmp_path / "empty.jpg")
    (tmp_path / "text.png").write_text("me.png\nyou.png\n")
    assert "the file is no JPEG, PNG or other known format" in refusal(tmp_path / "text.png")


def test_floating_point_greys_are_refused(tmp_path):
    path = saved(tmp_path, Image.fromarray(np.zeros((4, 4), np.float32)), "a.tif")
    assert "floating-point greys of unknown range" in refusal(path)


def test_a_truncated_jpeg_is_refused(tmp_path):
    path = saved(tmp_path, Image.fromarray(PIXELS), "a.jpg")
    path.write_bytes(path.read_bytes()[:-400])
    assert "is no picture that can be read (" in refusal(path)


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.gif", "a.tif", "a.webp", "a.bmp"])
def test_damage_anywhere_never_gives_anything_but_pixels_or_a_sentence(tmp_path, name):
    exif = Image.Exif()
    exif[0x0112] = 6
    options = {} if name in {"a.gif", "a.bmp"} else {"exif": exif}
    whole = saved(tmp_path, Image.fromarray(PIXELS), name, **options).read_bytes()
    rng = np.random.default_rng(0)
    damaged = [whole[:cut] for cut in rng.integers(1, len(whole), 40)]
    for _ in range(80):
        wrong = np.frombuffer(whole, np.uint8).copy()
        wrong[rng.integers(0, min(len(wrong), 600), 3)] = rng.integers(0, 256, 3)
        damaged.append(wrong.tobytes())
    refused = 0
    for content in damaged:
        (tmp_path / name).write_bytes(content)
        try:
            assert read_photo(tmp_path / name).shape[-1] == 3
        except ValueError as error:
            refused += 1
            assert str(tmp_path / name) in str(error)
    assert refused >= 10, f"only {refused} of {len(damaged)} damaged files were refused"


class MagentaDetector:
    """Another detector is one small class: finds magenta rectangles, their width the tilt."""

    def detect(self, image):
        lit = (image == (255, 0, 255)).all(axis=-1).astype(np.uint8)
        _, _, stats, _ = cv2.connectedComponentsWithStats(lit)
        return largest_first(
            Face(
                np.array([x, y, x + width, y + height], np.float32),
                np.array([[x, y], [x + width, y], [x, y], [x, y], [x, y]], np.float32),
                1.0,
            )
            for x, y, width, height, _ in stats[1:].tolist()
        )

    def describe(self):
        return "magenta rectangles"


def photo_with(tmp_path, *corners, side=48, name="photo.png"):
    """Noise with magenta squares whose top-left corners are given."""
    rng = np.random.default_rng(2)
    image = rng.integers(0, 200, (200, 300, 3), dtype=np.uint8)
    for x, y in corners:
        image[y : y + side, x : x + side] = (255, 0, 255)
    return saved(tmp_path, Image.fromarray(image), name)


def test_references_are_the_aligned_crops_of_all_photos_in_order(tmp_path):
    paths = [photo_with(tmp_path, (20 + 50 * i, 30), name=f"{i}.png") for i in range(3)]
    crops, notes = read_reference_faces(paths, MagentaDetector(), 32)
    assert crops.shape == (3, 32, 32, 3) and crops.dtype == np.uint8
    for path, crop in zip(paths, crops, strict=True):
        photo = read_photo(path)
        (face,) = MagentaDetector().detect(photo)
        assert_pixels(crop, reference_face(photo, face.box, face.landmarks, 32))
    assert_pixels(crops[0], np.full((32, 32, 3), (255, 0, 255)))
    # A face of one colour is as blurred as can be, and still serves.
    assert [note.split(": the face looks blurred")[0] for note in notes] == list(map(str, paths))


def test_the_face_that_is_meant_is_taken(tmp_path):
    path = photo_with(tmp_path, (20, 20), (120, 100), (220, 40))
    image = np.array(Image.open(path))
    image[110:120, 125:135] = (0, 255, 0)  # a mark inside the middle one
    saved(tmp_path, Image.fromarray(image))
    crops = [read_reference_faces([path], MagentaDetector(), 48, i)[0][0] for i in range(3)]
    green = [bool((crop == (0, 255, 0)).all(axis=-1).any()) for crop in crops]
    assert green == [False, True, False]


def test_no_face_several_faces_and_a_tiny_face_are_named(tmp_path):
    detector = MagentaDetector()
    good = photo_with(tmp_path, (20, 20), name="good.png")
    none = photo_with(tmp_path, name="none.png")
    two = photo_with(tmp_path, (20, 20), (120, 100), name="two.png")
    tiny = photo_with(tmp_path, (20, 20), side=30, name="tiny.png")
    for path, said in [(none, "no face"), (two, "2 faces"), (tiny, "30x30 pixels, but 40")]:
        with pytest.raises(ValueError, match=said) as error:
            read_reference_faces([good, path], detector, 32)
        assert str(path) in str(error.value)
    with pytest.raises(ValueError, match="No reference photo is given"):
        read_reference_faces([], detector, 32)


def test_drawn_people_go_from_files_to_references_with_a_real_detector(tmp_path):
    """The first people in whom the cascade sees one face; a blurred copy is noted, and serves."""
    detector, world, sharp, soft = CascadeDetector(), SyntheticWorld(0, 20, 1, 256), [], []
    for i in range(world.num_identities):
        photo = world.photo(i, 0)
        blurred = cv2.GaussianBlur(photo.image, (0, 0), 3.5)
        faces = detector.detect(photo.image)
        if len(faces) != 1 or len(detector.detect(blurred)) != 1:
            continue
        sharp.append(saved(tmp_path, Image.fromarray(photo.image), f"{i}.png"))
        soft.append(saved(tmp_path, Image.fromarray(blurred), f"{i}-soft.png"))
        off = np.abs(faces[0].box - photo.face_box).max() / faces[0].width
        assert off < 0.5, f"person {i}: the box is {off:.2f} of its width off"
    assert len(sharp) >= 3, f"the cascade sees exactly one face in {len(sharp)} people"
    crops, notes = read_reference_faces(sharp, detector, 64)
    assert crops.shape == (len(sharp), 64, 64, 3) and notes == []
    blurred_crops, notes = read_reference_faces(soft, detector, 64)
    assert [note.split(": ")[0] for note in notes] == list(map(str, soft))
    gain = (
        cv2.Laplacian(crops[0], cv2.CV_64F).var()
        / cv2.Laplacian(blurred_crops[0], cv2.CV_64F).var()
    )
    assert gain > 2, f"sharp references have only {gain:.1f} times the detail of blurred ones"


def test_bytes_of_a_reference_do_not_depend_on_the_file_format(tmp_path):
    png = photo_with(tmp_path, (20, 20))
    buffer = io.BytesIO()
    Image.open(png).save(buffer, "TIFF")
    (tmp_path / "same.tif").write_bytes(buffer.getvalue())
    crops, _ = read_reference_faces([png, tmp_path / "same.tif"], MagentaDetector(), 32)
    assert_pixels(crops[0], crops[1])
