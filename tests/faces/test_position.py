"""Position masks against the released code's, and their rule at other sizes."""

from pathlib import Path

import numpy as np
import pytest

from flashface_jax.faces.position import position_mask

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
