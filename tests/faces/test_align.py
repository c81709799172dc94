"""Face crops against pixels recorded from the released code, and what geometry demands of them."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from flashface_jax.faces.align import (
    crop_upright,
    fit_and_pad,
    largest_square,
    placement,
    reference_face,
    to_unit_range,
)

RECORDING = Path(__file__).parents[1] / "recordings" / "preprocess.npz"
# Pillow's 8-bit filters are integer arithmetic, the same since 2016: recorded pixels come back
# exactly. A Pillow that changed them would change what the released weights see, so no slack.
MAX_LEVELS = 0
FACE = ("image", "box", "landmarks")


@pytest.fixture(scope="module")
def recorded():
    with np.load(RECORDING) as file:
        return dict(file)


def assert_pixels(ours, expected):
    assert ours.shape == expected.shape, f"{ours.shape} is not {expected.shape}"
    difference = int(np.abs(ours.astype(int) - expected.astype(int)).max())
    assert difference <= MAX_LEVELS, f"differs by {difference} levels, allowed {MAX_LEVELS}"


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(1, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("case", range(3))
def test_fit_and_pad_gives_recorded_pixels(recorded, case):
    image, out = recorded[f"pad/{case}/image"], recorded[f"pad/{case}/out"]
    assert_pixels(fit_and_pad(image, out.shape[0]), out)


@pytest.mark.parametrize("case", range(3))
def test_largest_square_gives_recorded_pixels_and_box(recorded, case):
    image, out = recorded[f"square/{case}/image"], recorded[f"square/{case}/out"]
    face, (height, width, _) = recorded[f"square/{case}/box"], image.shape
    square = largest_square(width, height, face)
    resized = Image.fromarray(square.cut(image)).resize(out.shape[:2], Image.Resampling.BICUBIC)
    assert_pixels(np.asarray(resized), out)
    pixels = square.fractions(face) * square.side
    difference = np.abs(pixels - recorded[f"square/{case}/new_box"]).max()
    assert difference <= 1e-12, f"box differs by {difference:.1e} pixels, allowed 1e-12"


@pytest.mark.parametrize("case", range(2))
def test_crop_upright_gives_recorded_pixels(recorded, case):
    image, box, landmarks = (recorded[f"align/{case}/{name}"] for name in FACE)
    assert_pixels(crop_upright(image, box, landmarks), recorded[f"align/{case}/out"])


def test_reference_face_is_the_recorded_crop_fitted_and_padded(recorded):
    face = reference_face(*(recorded[f"align/1/{name}"] for name in FACE), size=45)
    assert_pixels(face, fit_and_pad(recorded["align/1/out"], 45))
    assert not face[:, :7].any() and face[22, 7:37].all(), "a 60x90 crop fills 30 of 45 columns"
    assert not face[:, 37:].any()


def test_fit_and_pad_leaves_a_fitted_image_as_it_is():
    once = fit_and_pad(noise(30, 50), 40)
    assert_pixels(fit_and_pad(once, 40), once)


@pytest.mark.parametrize(("height", "width"), [(60, 80), (91, 37), (33, 33), (1, 400)])
def test_placement_says_where_points_of_the_image_lie(height, width):
    place = placement(width, height, 64)
    lit = fit_and_pad(np.full((height, width, 3), 255, np.uint8), 64)[..., 0] > 0
    rows, columns = np.flatnonzero(lit.any(1)), np.flatnonzero(lit.any(0))
    assert (rows[0], columns[0]) == (place.top, place.left)
    assert (rows.size, columns.size) == (place.height, place.width)
    assert lit.sum() == place.height * place.width
    assert max(place.height, place.width) == 64
    assert abs(width * place.scale - place.width) <= 0.5
    assert abs(64 - place.height - 2 * place.top) <= 1, "centred to the pixel"


@pytest.mark.parametrize("seed", range(20))
def test_largest_square_holds_the_face_and_its_box_moves_along(seed):
    rng = np.random.default_rng(seed)
    height, width = rng.integers(40, 160, 2).tolist()
    side = min(height, width)
    face = rng.integers(4, side - 2)
    x1, y1 = rng.integers(0, width - face + 1), rng.integers(0, height - face + 1)
    image = np.zeros((height, width, 3), np.uint8)
    image[y1 : y1 + face, x1 : x1 + face] = 255
    whole = np.array([x1, y1, x1 + face, y1 + face])
    place = largest_square(width, height, whole)
    square, box = place.cut(image), place.fractions(whole)
    rows, columns = np.flatnonzero(square[..., 0].any(1)), np.flatnonzero(square[..., 0].any(0))
    assert rows.size == columns.size == face, "the whole face is inside"
    edges = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
    np.testing.assert_allclose(box * side, edges, rtol=0, atol=1e-12)


def test_a_face_longer_than_the_square_is_cut_with_its_box():
    face = np.array([10.0, -5.0, 90.0, 45.0])
    square = largest_square(100, 40, face)
    assert_pixels(square.cut(noise(40, 100)), noise(40, 100)[:, 30:70])
    assert square.fractions(face).tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize("tilt", [-35, -10, 0, 10, 35])
def test_tilted_eyes_end_up_level(tilt):
    """Draws two eyes on a tilted line through the box's centre and finds them after the crop."""
    reach = 30 * np.array([np.cos(np.radians(tilt)), np.sin(np.radians(tilt))])
    eyes = np.array([80.0, 80.0]) + np.array([-reach, reach])
    photo = Image.new("RGB", (160, 160))
    for (x, y), color in zip(eyes, ("red", "lime"), strict=True):
        ImageDraw.Draw(photo).ellipse((x - 4, y - 4, x + 4, y + 4), fill=color)
    landmarks = np.concatenate([eyes, np.full((3, 2), 80.0)])
    crop = crop_upright(np.array(photo), np.array([30.0, 30.0, 130.0, 130.0]), landmarks)
    left, right = (np.argwhere(crop[..., channel] > 0).mean(0) for channel in (0, 1))
    assert abs(left[0] - right[0]) <= 0.5, f"eyes at rows {left[0]:.2f} and {right[0]:.2f}"
    assert abs(right[1] - left[1] - 60) <= 0.5, "their distance is kept"


def test_a_box_that_leaves_the_image_is_black_outside():
    level = np.array([[2.0, 5.0], [8.0, 5.0], [5.0, 6.0], [3.0, 8.0], [7.0, 8.0]])
    image = noise(20, 30)
    crop = crop_upright(image, np.array([-4.4, -3.0, 10.6, 25.0]), level)
    assert crop.shape == (28, 15, 3)
    assert_pixels(crop[3:23, 4:], image[:, :11])
    assert not crop[:3].any() and not crop[23:].any() and not crop[:, :4].any()


@pytest.mark.parametrize("box", [[5.0, 5.0, 5.4, 9.0], [5.0, 9.0, 9.0, 2.0]])
def test_an_empty_box_is_refused(box):
    with pytest.raises(ValueError, match=r"face box \[5\.0, .* holds no pixel: pass x1 < x2"):
        crop_upright(noise(20, 20), np.array(box), np.zeros((5, 2)))


def test_to_unit_range_maps_the_ends_to_the_ends():
    levels = np.arange(256, dtype=np.uint8)[:, None, None].repeat(3, -1)
    values = to_unit_range(levels)
    assert values.min() == -1 and values.max() == 1
    difference = np.abs(values - np.linspace(-1, 1, 256)[:, None, None]).max()
    assert difference <= 1.2e-7, f"differs by {difference:.1e}, allowed 1.2e-7"
