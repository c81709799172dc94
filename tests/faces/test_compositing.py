"""Pasting back: what stays bit for bit, what comes back from a round trip, and how seams vanish."""

import cv2
import numpy as np
import pytest

from flashface_jax.faces.compositing import feathered, match_colors, paste_back
from flashface_jax.faces.region import Region, cut, cut_mask, latent_mask, mask_of_box, plan_region
from flashface_jax.world import Framing, SyntheticWorld, render

SIDE = 256


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def mask_of(size, top, left, height, width):
    mask = np.zeros((*size, 1), np.float32)
    mask[top : top + height, left : left + width] = 1
    return mask


def distance_to(mask):
    """Distance of every pixel to the nearest masked one, by looking at all of them."""
    masked = np.argwhere(mask[..., 0] > 0)
    places = np.stack(np.mgrid[: mask.shape[0], : mask.shape[1]], axis=-1)
    return np.sqrt(((places[:, :, None] - masked) ** 2).sum(-1).min(-1))


def difference(ours, expected):
    return int(np.abs(ours.astype(int) - expected.astype(int)).max(initial=0))


def test_outside_the_feather_the_photo_stays_bit_for_bit():
    changed = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        size = tuple(rng.integers(12, 60, 2).tolist())
        height, width = (int(rng.integers(8, min(side, 16) + 1)) for side in size)
        top, left = int(rng.integers(size[0] - height + 1)), int(rng.integers(size[1] - width + 1))
        mask = mask_of(size, top, left, height, width)
        mask[top + 2 : top + 6, left + 2 : left + 6] = 0  # a hole
        model_size = tuple((8 * rng.integers(8, 12, 2)).tolist())
        region = plan_region(mask, model_size, float(rng.uniform(1, 4)))
        photo, before = noise(*size, seed), noise(*size, seed)
        feather = float(rng.uniform(0, 8))
        result = paste_back(photo, noise(*model_size, seed + 1), region, mask, feather)
        reach = feather * region.scale
        distance = distance_to(mask)
        off = difference(result[distance > reach], photo[distance > reach])
        assert off == 0, f"case {seed}: differs by {off} levels, allowed 0"
        assert difference(photo, before) == 0, "the photo itself is not painted on"
        changed += int((result != photo)[(distance > 0) & (distance < reach)].any())
        assert (result != photo).any(-1)[distance == 0].mean() > 0.9, f"case {seed}: not repainted"
    assert changed > 20, "the feather reaches outside the mask"


@pytest.mark.parametrize(
    "region",
    [
        Region(8, 20, 64, 64, (90, 100), (64, 64)),
        Region(0, 36, 64, 64, (90, 100), (64, 64)),
        Region(-14, 20, 120, 64, (90, 100), (120, 64)),
        Region(0, -30, 80, 160, (90, 100), (80, 160)),
    ],
)
def test_at_the_models_size_a_painting_goes_in_exactly(region):
    photo, mask = noise(90, 100), mask_of((90, 100), 20, 40, 30, 24)
    crop = cut(photo, region)
    assert difference(paste_back(photo, crop, region, mask), photo) == 0
    generated = np.where(cut_mask(mask, region) > 0, noise(*region.model_size, seed=1), crop)
    top, left = region.rows.start - region.top, region.columns.start - region.left
    expected = photo.copy()
    window = expected[region.rows, region.columns]
    window[:] = generated[top : top + window.shape[0], left : left + window.shape[1]]
    off = difference(paste_back(photo, generated, region, mask), expected)
    assert off == 0, f"differs by {off} levels, allowed 0"


@pytest.mark.parametrize(("side", "model_side"), [(400, 256), (400, 640), (120, 64)])
@pytest.mark.parametrize("size", [(400, 400), (400, 150)])
def test_a_round_trip_of_a_smooth_photo_is_within_two_levels(side, model_side, size):
    rough = np.random.default_rng(0).uniform(-3000, 3250, (*size, 3))
    photo = cv2.GaussianBlur(rough, (0, 0), 12).clip(0, 255).astype(np.uint8)
    mask = mask_of(size, 100, 20, side // 2, min(side // 2, 110))
    region = plan_region(mask, (model_side, model_side), 2.0)
    off = difference(paste_back(photo, cut(photo, region), region, mask), photo)
    assert off <= 2, f"differs by {off} levels, allowed 2"
    assert np.ptp(photo) > 100


def test_a_wholly_masked_photo_becomes_the_painting():
    photo, generated = noise(64, 64), noise(64, 64, seed=1)
    mask = np.ones((64, 64, 1), np.float32)
    region = plan_region(mask, (64, 64))
    assert difference(paste_back(photo, generated, region, mask), generated) == 0


def test_the_feather_falls_from_the_mask_outward():
    mask = mask_of((80, 90), 30, 30, 20, 20)
    alpha = feathered(mask, Region(0, 0, 80, 90, (80, 90), (80, 90)), 10.0)[..., 0]
    distance = distance_to(mask)
    assert (alpha[distance == 0] == 1).all() and (alpha[distance >= 10] == 0).all()
    order = np.argsort(distance, axis=None)
    rise = np.diff(alpha.ravel()[order]).max()
    assert rise <= 1e-6, f"rises by {rise:.1e} with distance, allowed 1e-6"
    step = max(np.abs(np.diff(alpha, axis=axis)).max() for axis in (0, 1))
    assert step <= 0.16, f"steps by {step:.3f}, steepest allowed 0.16 of a feather 10 wide"
    middle = alpha[distance == 5]
    np.testing.assert_allclose(middle, 0.5, rtol=0, atol=1e-6)


def test_the_feather_is_squeezed_where_the_region_ends_inside_the_photo():
    mask = mask_of((80, 90), 0, 24, 20, 20)
    region = Region(0, 20, 40, 40, (80, 90), (40, 40))
    alpha = feathered(mask, region, 10.0)[..., 0]
    assert (alpha[:20, 4:24] == 1).all()
    assert 0 < alpha[10, 0] < 0.2, "four pixels remain at the left"
    assert (np.diff(alpha[10, :5]) > 0).all()
    mirrored = feathered(mask[:, ::-1].copy(), Region(0, 30, 40, 40, (80, 90), (40, 40)), 10.0)
    np.testing.assert_allclose(mirrored[:, ::-1, 0], alpha, rtol=0, atol=1e-6)


def test_a_feather_of_zero_cuts_sharply():
    mask = mask_of((80, 90), 30, 30, 20, 20)
    alpha = feathered(mask, Region(0, 0, 80, 90, (80, 90), (80, 90)), 0.0)
    np.testing.assert_array_equal(alpha, mask)


def two_people(i):
    """Photos of two people in one scene, the mask of the first one's face and its region.

    Levels keep away from 0 and 255, where a shift of colours would be cut.
    """
    world = SyntheticWorld(3, 8, 1, SIDE, Framing(face_sizes=(0.3, 0.36)))
    attributes = world.attributes(i, 0)
    drawn, other = (render(world.identity(j), attributes, SIDE) for j in (i, (i + 3) % 8))
    photo, face = ((40 + 0.68 * image).astype(np.uint8) for image in (drawn.image, other.image))
    mask = mask_of_box((drawn.face_box / SIDE).tolist(), (SIDE, SIDE))
    return photo, face, mask, plan_region(mask, (SIDE, SIDE))


def drawn_case(i):
    """A photo, its face's mask, and another person's face painted there on the same surroundings.

    The output is slightly soft and noisy, as an autoencoder leaves it.
    """
    photo, face, mask, region = two_people(i)
    cells = np.kron(latent_mask(cut_mask(mask, region))[..., 0], np.ones((8, 8)))[..., None] > 0
    painted = np.where(cells, cut(face, region), cut(photo, region)).astype(np.float32)
    soft = cv2.GaussianBlur(painted, (0, 0), 0.8)
    return photo, mask, region, soft + np.random.default_rng(i).normal(0, 1.5, soft.shape)


def levels(values):
    return np.rint(values).clip(0, 255).astype(np.uint8)


def hard_paste(photo, painted, region, mask):
    """The paste without care: resized, and cut at the mask."""
    size = (region.width, region.height)
    whole = photo.copy()
    whole[region.rows, region.columns] = cv2.resize(painted, size, interpolation=cv2.INTER_AREA)
    return np.where(mask > 0, whole, photo)


def seam(picture, mask):
    """Mean step of level across the mask's rim over the mean step within three pixels of it."""
    across, near = [], []
    for axis in (0, 1):
        step = np.abs(np.diff(picture.astype(np.float32), axis=axis)).mean(-1)
        rim = np.diff(mask[..., 0], axis=axis) != 0
        around = cv2.dilate(rim.astype(np.uint8), np.ones((7, 1) if axis == 0 else (1, 7))) > 0
        across.append(step[rim])
        near.append(step[around & ~rim])
    return np.concatenate(across).mean() / np.concatenate(near).mean()


CONSTANT = np.array([22.0, -15.0, 10.0]) * np.ones((SIDE, SIDE, 1))
_Y, _X = np.mgrid[:SIDE, :SIDE] / SIDE - 0.5
SLOW = _X[..., None] * [30.0, 0.0, -20.0] + _Y[..., None] * [0.0, 25.0, 10.0] + 8.0


@pytest.mark.parametrize("shift", [CONSTANT, SLOW], ids=["constant", "slow"])
def test_a_planted_shift_of_colour_leaves_no_seam_and_no_stain(shift):
    """The shift is undone in the face too, not only hidden at the rim."""
    for i in range(4):
        photo, mask, region, painted = drawn_case(i)
        clean = paste_back(photo, levels(painted), region, mask).astype(float)
        shifted = levels(painted + shift)
        result = paste_back(photo, shifted, region, mask)
        hard = hard_paste(photo, shifted, region, mask)
        assert seam(hard, mask) > 4, "the measure sees the seam of a careless paste"
        ratio = seam(result, mask) / seam(clean, mask)
        assert ratio <= 1.1, f"face {i}: seam is {ratio:.2f} of an unshifted one, allowed 1.1"
        masked = mask[..., 0] > 0
        left = np.abs(result - clean)[masked].mean()
        planted = np.abs(hard - clean)[masked].mean()
        assert planted > 5, f"the shift changes the face by {planted:.1f} levels"
        assert left <= 2, f"face {i}: {left:.2f} levels of the shift remain, allowed 2"


def test_a_constant_shift_is_undone_everywhere():
    crop = (noise(64, 96) // 2) + 60
    mask = mask_of((64, 96), 24, 30, 20, 30)
    painted = (crop + np.array([20, -15, 7])).astype(np.uint8)
    off = difference(match_colors(painted, crop, mask), crop)
    assert off == 0, f"differs by {off} levels, allowed 0"


def test_another_head_around_the_mask_does_not_tint_the_face():
    """An output whose hair and shoulders differ outside the mask, too, keeps its face's colours.

    Poisson blending has the output meet the photo at each pixel of the rim, and tints the face.
    """
    for i in range(4):
        photo, face, mask, region = two_people(i)
        crop, painted, masked = cut(photo, region), cut(face, region), cut_mask(mask, region)
        inside = masked[..., 0] > 0
        tint = np.abs(match_colors(painted, crop, masked).astype(float) - painted)[inside].mean()
        assert tint <= 1, f"face {i} is tinted by {tint:.2f} levels, allowed 1"
        white = (255 * masked[..., 0]).astype(np.uint8)
        left, top, width, height = cv2.boundingRect(white)
        center = (left + width // 2, top + height // 2)
        poisson = cv2.seamlessClone(painted, crop, white, center, cv2.NORMAL_CLONE)
        assert np.abs(poisson.astype(float) - painted)[inside].mean() > 9


def test_a_painting_of_another_size_is_refused():
    mask = mask_of((50, 60), 10, 10, 20, 20)
    region = plan_region(mask, (64, 64))
    with pytest.raises(ValueError, match=r"output is 72x64 pixels .* planned for 64x64: paint"):
        paste_back(noise(50, 60), noise(64, 72), region, mask)
    with pytest.raises(ValueError, match="60x51 pixels but its region was planned on 60x50"):
        paste_back(noise(51, 60), noise(64, 64), region, np.ones((51, 60, 1), np.float32))


@pytest.mark.parametrize("feather", [-1.0, float("nan")])
def test_a_negative_feather_is_refused(feather):
    mask = mask_of((50, 60), 10, 10, 20, 20)
    region = plan_region(mask, (64, 64))
    with pytest.raises(ValueError, match=f"feather is {feather} but is a width"):
        paste_back(noise(50, 60), noise(64, 64), region, mask, feather)
