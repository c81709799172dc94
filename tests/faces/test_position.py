"""Position masks against the released code's, their rule at other sizes, and boxes from words."""

from pathlib import Path

import numpy as np
import pytest

from flashface_jax.faces.position import PLACES, face_box, position_mask

RECORDING = Path(__file__).parents[1] / "recordings" / "preprocess.npz"


@pytest.mark.parametrize("case", range(4))
def test_masks_equal_the_recorded_ones(case):
    with np.load(RECORDING) as recorded:
        box, expected = recorded[f"mask/{case}/box"], recorded[f"mask/{case}/out"]
    mask = position_mask(box, (768, 768))
    assert mask.shape == (96, 96, 1)
    wrong = int((mask[..., 0] != expected).sum())
    assert wrong == 0, f"{wrong} of {expected.size} cells differ"


@pytest.mark.parametrize("size", [(64, 64), (128, 64), (512, 768)])
@pytest.mark.parametrize("box", [(0.3, 0.1, 0.6, 0.4), (0.05, 0.2, 0.1, 0.55), (0.8, 0.7, 1, 0.8)])
def test_mask_is_every_eighth_pixel_of_the_square(size, box):
    height, width = size
    left, top = int(box[0] * width), int(box[1] * height)
    side = max(int(box[2] * width) - left, int(box[3] * height) - top)
    pixels = np.zeros(size)
    pixels[top : top + side, left : left + side] = 1
    np.testing.assert_array_equal(position_mask(box, size)[..., 0], pixels[::8, ::8])


@pytest.mark.parametrize("stride", [4, 8, 16])
def test_area_of_a_box_on_the_grid_is_exact(stride):
    mask = position_mask([0.25, 0.5, 0.75, 1.0], (128, 128), stride)
    assert mask.mean() == 0.25
    assert set(np.unique(mask)) == {0.0, 1.0}


def test_the_whole_image_and_no_constraint():
    assert position_mask([0, 0, 1, 1], (64, 96)).all()
    assert not position_mask([0, 0, 0, 0], (64, 96)).any()


@pytest.mark.parametrize(
    "box",
    [
        [0.6, 0.1, 0.3, 0.4],
        [0.3, 0.4, 0.6, 0.1],
        [-0.1, 0.1, 0.3, 0.4],
        [0.3, 0.1, 1.2, 0.4],
        [30, 10, 60, 40],
        [0.3, 0.1, 0.6],
        [0.3, 0.1, float("nan"), 0.4],
    ],
)
def test_a_box_that_is_none_is_refused_with_its_values(box):
    with pytest.raises(ValueError, match="all zeros for no constraint") as error:
        position_mask(box, (64, 64))
    assert str([float(edge) for edge in box]) in str(error.value)


def test_an_image_size_off_the_grid_is_refused():
    with pytest.raises(ValueError, match="image size 60x64 is no multiple of 8"):
        position_mask([0, 0, 1, 1], (60, 64))


SIZES = [(768, 768), (512, 512), (768, 512), (512, 768), (1024, 576), (64, 128)]
RECOMMENDED = (0.3, 0.2, 0.6, 0.5)


@pytest.mark.parametrize("side", [64, 512, 768, 1024])
@pytest.mark.parametrize("word", ["centre", "center", " Centre "])
def test_centre_is_the_releases_recommended_box_of_a_square_image(word, side):
    assert face_box(word, (side, side)) == RECOMMENDED


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", PLACES)
def test_a_place_is_a_square_in_pixels_inside_the_image(name, size):
    height, width = size
    x1, y1, x2, y2 = face_box(name, size)
    assert 0 <= x1 < x2 <= 1 and 0 <= y1 < y2 <= 1
    across, down = (x2 - x1) * width, (y2 - y1) * height
    assert abs(across - down) < 1e-5, f"{across} is not {down}"
    share = 0.5 if "close-up" in name else 0.3
    assert abs(across - share * min(size)) < 1e-5
    assert position_mask((x1, y1, x2, y2), size).any()


@pytest.mark.parametrize("size", SIZES)
def test_left_lies_left_and_right_right_and_close_ups_are_larger(size):
    def middle(word):
        x1, _, x2, _ = face_box(word, size)
        return (x1 + x2) / 2

    assert middle("left") < middle("centre") < middle("right")
    assert middle("left close-up") < middle("close-up") < middle("right close-up")
    assert middle("left") < 0.5 < middle("right")
    masks = [position_mask(face_box(word, size), size).sum() for word in ("left", "left close-up")]
    assert masks[0] < masks[1]


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("close-up left", "left close-up"),
        ("LEFT  Close Up", "left close-up"),
        ("right closeup", "right close-up"),
        ("centre close-up", "close-up"),
        ("close-up center", "close-up"),
    ],
)
def test_order_and_spelling_of_words_do_not_matter(text, same):
    assert face_box(text, (768, 512)) == face_box(same, (768, 512))


def test_anywhere_is_no_constraint():
    for position in ("anywhere", "Anywhere", [0, 0, 0, 0], "0 0 0 0"):
        assert not position_mask(face_box(position, (768, 512)), (768, 512)).any()


@pytest.mark.parametrize(
    "text", ["", "middle", "left right", "anywhere left", "close-up close-up", "left 0.3", "top"]
)
def test_unknown_words_are_refused_with_the_known_ones(text):
    with pytest.raises(ValueError, match="is not known: give one of anywhere, left, ") as error:
        face_box(text, (768, 768))
    assert repr(text) in str(error.value)
    assert all(name in str(error.value) for name in PLACES)


def test_fractions_are_kept_as_they_are():
    assert face_box([0.3, 0.1, 0.6, 0.4], (768, 512)) == (0.3, 0.1, 0.6, 0.4)
    assert face_box("0.3,0.1, 0.6 0.4", (768, 512)) == (0.3, 0.1, 0.6, 0.4)
    assert face_box(np.array([0, 0, 1, 1]), (768, 512)) == (0, 0, 1, 1)


@pytest.mark.parametrize("side", [88, 200, 392, 768])
def test_pixels_come_back_exactly(side):
    """Some p / n * n fall below p in floating point, and would be cut to the pixel before."""
    for p in range(side - 7):
        back = [int(edge * side) for edge in face_box([p, p, p + 8, side], (side, side))]
        assert back == [p, p, p + 8, side]


@pytest.mark.parametrize("size", [(768, 768), (520, 1016), (176, 392)])
@pytest.mark.parametrize("seed", range(8))
def test_the_mask_of_a_pixel_box_is_every_eighth_pixel_of_its_square(size, seed):
    rng = np.random.default_rng(seed)
    height, width = size
    x1, y1 = int(rng.integers(0, width - 8)), int(rng.integers(0, height - 8))
    x2, y2 = int(rng.integers(x1 + 8, width + 1)), int(rng.integers(y1 + 8, height + 1))
    box = face_box([x1, y1, x2, y2], size)
    pixels, side = np.zeros(size), max(x2 - x1, y2 - y1)
    pixels[y1 : y1 + side, x1 : x1 + side] = 1
    np.testing.assert_array_equal(position_mask(box, size)[..., 0], pixels[::8, ::8])
    assert pixels[::8, ::8].any(), "a box of 8 pixels always reaches the mask"


@pytest.mark.parametrize(
    ("box", "message"),
    [
        ([0.6, 0.1, 0.3, 0.4], "empty or reversed"),
        ([0.3, 0.4, 0.6, 0.4], "empty or reversed"),
        ([300, 200, 100, 400], "empty or reversed"),
        ([-0.1, 0.1, 0.3, 0.4], "leaves the image of 768x512 pixels"),
        ([100, 100, 800, 400], "leaves the image of 768x512 pixels"),
        ([100, 100, 300, 513], "leaves the image of 768x512 pixels"),
        ([0.3, 0.1, 1.2, 0.4], "under 8 pixels wide or high"),
        ([0.3, 0.1, 0.305, 0.4], "under 8 pixels wide or high"),
        ([100, 100, 107, 200], "under 8 pixels wide or high"),
        ([0.3, 0.1, float("nan"), 0.4], "four finite numbers"),
        ([0.3, 0.1, float("inf"), 0.4], "four finite numbers"),
        ([0.3, 0.1, 0.6], "four finite numbers"),
        ([], "four finite numbers"),
        ([0.3, 0.1, 0.6, 0.4, 0.5], "four finite numbers"),
    ],
)
def test_numbers_that_are_no_box_are_refused_with_their_values(box, message):
    for given in (box, " ".join(map(str, box))):
        if not given and isinstance(given, str):
            continue  # no words at all is another test
        with pytest.raises(ValueError, match=message) as error:
            face_box(given, (512, 768))
        assert str([float(edge) for edge in box]) in str(error.value)
