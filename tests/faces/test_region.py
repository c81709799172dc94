"""Regions of photos: what they hold, at every border, and that no masked pixel is lost."""

from fractions import Fraction

import numpy as np
import pytest

from flashface_jax.faces.position import position_mask
from flashface_jax.faces.region import (
    Region,
    cut,
    cut_mask,
    latent_mask,
    mask_of_box,
    plan_region,
)


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def mask_of(size, top, left, height, width):
    mask = np.zeros((*size, 1), np.float32)
    mask[top : top + height, left : left + width] = 1
    return mask


def random_case(seed):
    """A photo's size, a masked rectangle (top, left, height, width), a model's size, a context."""
    rng = np.random.default_rng(seed)
    size = tuple(rng.integers(8, 300, 2).tolist())
    largest = [max(8, side // rng.integers(1, 6)) for side in size]
    height, width = (int(rng.integers(8, side + 1)) for side in largest)
    top, left = int(rng.integers(size[0] - height + 1)), int(rng.integers(size[1] - width + 1))
    model_size = tuple((8 * rng.integers(8, 20, 2)).tolist())
    return size, (top, left, height, width), model_size, float(rng.uniform(1, 5))


def test_mask_of_a_box_is_the_square_that_training_masks():
    size, box = (512, 768), (0.3, 0.1, 0.5, 0.4)
    mask = mask_of_box(box, size)
    np.testing.assert_array_equal(mask, mask_of(size, 51, 230, 154, 154))
    np.testing.assert_array_equal(mask[::8, ::8], position_mask(box, size))


def test_a_region_is_centred_on_the_mask_and_context_times_as_large():
    region = plan_region(mask_of((600, 900), 200, 400, 60, 100), (768, 768), context=3.0)
    assert region == Region(80, 300, 300, 300, (600, 900), (768, 768))
    assert plan_region(mask_of((600, 900), 200, 400, 100, 60), (768, 512), context=3.0) == Region(
        100, 330, 300, 200, (600, 900), (768, 512)
    )


@pytest.mark.parametrize(
    ("top", "left", "expected"),
    [(0, 0, (0, 0)), (0, 800, (0, 600)), (500, 0, (300, 0)), (490, 790, (300, 600))],
)
def test_a_region_is_moved_inside_the_photo(top, left, expected):
    region = plan_region(mask_of((600, 900), top, left, 100, 100), (64, 64), context=3.0)
    assert (region.top, region.left, region.height, region.width) == (*expected, 300, 300)


def test_a_small_photo_gives_the_largest_region_that_fits():
    region = plan_region(mask_of((100, 150), 40, 90, 40, 40), (512, 512), context=4.0)
    assert (region.top, region.left, region.height, region.width) == (0, 50, 100, 100)
    region = plan_region(mask_of((100, 150), 40, 90, 40, 40), (512, 256), context=4.0)
    assert (region.top, region.left, region.height, region.width) == (0, 85, 100, 50)


def test_a_mask_that_fits_in_no_region_makes_it_leave_the_photo():
    region = plan_region(mask_of((100, 800), 20, 300, 50, 240), (512, 512))
    assert (region.left, region.width) == (270, 300), "an eighth of 240 on either side"
    assert (region.top, region.height) == (-100, 300), "about the mask and its surroundings"
    assert (region.rows, region.columns) == (slice(0, 100), slice(270, 570))


def test_the_whole_photo_may_be_repainted():
    assert plan_region(np.ones((90, 90, 1), np.float32), (64, 64)) == Region(
        0, 0, 90, 90, (90, 90), (64, 64)
    )


def test_regions_hold_the_masked_area_at_the_models_aspect():
    cases = {"as wanted": 0, "largest": 0, "leaves the photo": 0, "refused": 0}
    for seed in range(400):
        size, (top, left, height, width), model_size, context = random_case(seed)
        try:
            region = plan_region(mask_of(size, top, left, height, width), model_size, context)
        except ValueError as error:
            assert "more compact" in str(error), f"case {seed}: {error}"
            thin = min(height / model_size[0], width / model_size[1])
            thick = max(height / model_size[0], width / model_size[1])
            assert thick / thin > min(model_size) / 8 / 5, f"case {seed} is not thin"
            cases["refused"] += 1
            continue
        margin = max(height, width) / 8
        starts, lengths = (region.top, region.left), (region.height, region.width)
        for start, length, first, extent, side in zip(
            starts, lengths, (top, left), (height, width), size, strict=True
        ):
            last = first + extent
            assert start <= max(first - margin, 0), f"case {seed}: {region}"
            assert start + length >= min(last + margin, side), f"case {seed}: {region}"
            inside = start >= 0 and start + length <= side
            whole = start <= 0 and start + length >= side
            assert inside or whole, f"case {seed}: {region} wastes pixels of the photo"
        assert region.height <= size[0] or region.width <= size[1], f"case {seed}: {region}"

        scales = [length / side for length, side in zip(lengths, model_size, strict=True)]
        off = abs(scales[0] - scales[1]) * min(model_size)
        assert off <= 1, f"case {seed}: aspect off by {off:.2f} pixels, allowed 1"
        wanted = context * max(height / model_size[0], width / model_size[1])
        fitting = min(size[0] / model_size[0], size[1] / model_size[1])
        around = max(height, width) + 2 * margin + 2
        least = around / min(model_size)
        slack = 0.5 / min(model_size) + 1e-9
        assert min(scales) >= min(wanted, fitting) - slack, f"case {seed}: less than asked for"
        assert max(scales) <= max(min(wanted, fitting), least) + slack, f"case {seed}: too large"
        outside = region.height > size[0] or region.width > size[1]
        cases[
            "leaves the photo" if outside else "as wanted" if wanted < fitting else "largest"
        ] += 1
    assert min(cases.values()) >= 10, f"some kind was hardly tried: {cases}"


@pytest.mark.parametrize(
    ("mask", "sentence"),
    [
        (np.zeros((50, 50, 1), np.float32), "masked area is 0x0 pixels, too small to repaint"),
        (np.ones((1, 1, 1), np.float32), "masked area is 1x1 pixels, too small .* enlarge"),
        (mask_of((50, 50), 10, 10, 20, 7), "masked area is 7x20 pixels, too small to repaint"),
        (mask_of((10, 2000), 0, 0, 10, 2000), "2000x10 .* less than 8 pixels .* more compact"),
    ],
)
def test_masks_that_cannot_be_repainted_are_refused(mask, sentence):
    with pytest.raises(ValueError, match=sentence):
        plan_region(mask, (64, 64))


@pytest.mark.parametrize("context", [0.9, 0.0, -3.0, float("nan")])
def test_a_context_below_one_is_refused(context):
    with pytest.raises(ValueError, match=f"context is {context} but .* give 1 or more"):
        plan_region(mask_of((50, 50), 10, 10, 20, 20), (64, 64), context)


def test_a_crop_of_the_models_size_is_the_photos_pixels():
    photo = noise(90, 120)
    np.testing.assert_array_equal(
        cut(photo, Region(10, 30, 64, 48, (90, 120), (64, 48))), photo[10:74, 30:78]
    )


@pytest.mark.parametrize(("size", "axis"), [((20, 64), 0), ((64, 20), 1)])
def test_outside_the_photo_it_is_mirrored_and_masked_as_its_original(size, axis):
    photo, mask = noise(*size), (noise(*size, seed=1)[..., :1] > 127).astype(np.float32)
    start = [0, 0]
    start[axis] = -30
    region = Region(*start, 64, 64, size, (64, 64))
    indices = np.arange(-30, 34) % 40
    indices = np.where(indices < 20, indices, 39 - indices)
    np.testing.assert_array_equal(cut(photo, region), photo.take(indices, axis))
    np.testing.assert_array_equal(cut_mask(mask, region), mask.take(indices, axis))


@pytest.mark.parametrize(
    "region",
    [
        Region(20, 30, 150, 150, (200, 250), (64, 64)),
        Region(20, 30, 50, 40, (200, 250), (160, 128)),
        Region(-25, 0, 250, 250, (200, 250), (96, 96)),
        Region(0, -40, 200, 300, (200, 250), (64, 96)),
    ],
)
def test_a_crop_shows_each_place_where_it_is(region):
    """A photo whose levels are its coordinates tells where the crop's pixels come from."""
    rows, columns = np.mgrid[:200, :250]
    photo = np.stack([rows, columns, 0 * rows], axis=-1).astype(np.uint8)
    crop = cut(photo, region).astype(float)
    for axis, (start, length, side) in enumerate(
        [(region.top, region.height, 200), (region.left, region.width, 250)]
    ):
        count = region.model_size[axis]
        place = start + (np.arange(count) + 0.5) * length / count - 0.5
        clear = (place > 8) & (place < side - 8)  # the filter reaches over the border
        levels = np.moveaxis(crop[..., axis], axis, -1)[..., clear]
        difference = np.abs(levels - place[clear]).max()
        assert difference <= 1, f"off by {difference:.2f} pixels along axis {axis}, allowed 1"


@pytest.mark.parametrize("seed", range(6))
def test_crop_pixels_are_masked_where_they_overlap_a_masked_pixel(seed):
    rng = np.random.default_rng(seed)
    height, width = rng.integers(9, 60, 2).tolist()
    mask = (rng.random((height, width, 1)) > 0.95).astype(np.float32)
    ours = cut_mask(mask, Region(0, 0, height, width, (height, width), (32, 24)))[..., 0]
    rows, columns = Fraction(height, 32), Fraction(width, 24)
    for i, j in np.ndindex(32, 24):
        touched = mask[
            int(i * rows) : -int(-(i + 1) * rows // 1),
            int(j * columns) : -int(-(j + 1) * columns // 1),
        ]
        assert ours[i, j] == touched.max(), f"pixel {i}, {j}"


def test_a_latent_pixel_is_masked_if_any_pixel_of_its_cell_is():
    rng = np.random.default_rng(0)
    mask = (rng.random((48, 64, 1)) > 0.99).astype(np.float32)
    latent = latent_mask(mask)
    assert latent.shape == (6, 8, 1)
    for i, j in np.ndindex(6, 8):
        assert latent[i, j] == mask[8 * i : 8 * i + 8, 8 * j : 8 * j + 8].max()
    assert 0 < latent.mean() < 1


def test_the_latent_mask_covers_the_position_mask():
    for seed in range(50):
        x, y, side = np.random.default_rng(seed).uniform(0.1, 0.5, 3)
        box = (x, y, x + side, y + side)
        whole, first = latent_mask(mask_of_box(box, (128, 128))), position_mask(box, (128, 128))
        assert (whole >= first).all()
        assert (whole.sum((0, 2)) > 0).sum() - (first.sum((0, 2)) > 0).sum() <= 1


def test_a_mask_off_the_grid_is_refused():
    with pytest.raises(ValueError, match="mask size 60x64 is no multiple of 8: choose"):
        latent_mask(np.ones((60, 64, 1), np.float32))


def test_another_photo_than_the_planned_one_is_refused():
    region = plan_region(mask_of((50, 60), 10, 10, 20, 20), (64, 64))
    with pytest.raises(ValueError, match="50x60 pixels but its region was planned on 60x50"):
        cut(noise(60, 50), region)
    with pytest.raises(ValueError, match="61x50 pixels but its region was planned on 60x50"):
        cut_mask(np.ones((50, 61, 1), np.float32), region)
