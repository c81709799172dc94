"""Pictures of a sample: squares, masks, mirrors and colours."""

import cv2
import numpy as np
import pytest

from flashface_jax.data.building.examination import encode_jpeg
from flashface_jax.data.dataset import PhotoRecord
from flashface_jax.data.loading.transforms import (
    Picture,
    UndecodableError,
    crop_reference,
    decode,
    mirrored,
    resize,
    stored_reference,
    target_and_mask,
    vary_colours,
)
from tests.data.worlds import damaged

RNG = np.random.default_rng(0)
BOX = np.array([30, 10, 60, 50], np.float32)
POINTS = np.array([[36, 24], [52, 28], [45, 34], [38, 42], [51, 44]], np.float32)


def smooth(height, width, seed=0):
    """A picture without fine detail."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def picture(height=70, width=90, landmarks=POINTS):
    return Picture(smooth(height, width), BOX, landmarks)


def record(jpeg):
    return PhotoRecord(jpeg, "ann", BOX, POINTS, "a photo", "source/1", "")


def test_decoding_gives_the_photo():
    pixels = smooth(70, 90)
    found = decode(record(encode_jpeg(pixels, 98, "4:4:4"))).pixels
    assert np.abs(found.astype(int) - pixels).mean() < 1


@pytest.mark.parametrize("spoil", [damaged, lambda jpeg: jpeg[:-40], lambda jpeg: b"", bytes.upper])
def test_a_damaged_photo_is_named(spoil):
    jpeg = encode_jpeg(RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8), 95)
    with pytest.raises(UndecodableError, match="source/1"):
        decode(record(spoil(jpeg)))


def test_mirroring_twice_gives_the_picture_back():
    once = mirrored(picture())
    twice = mirrored(once)
    np.testing.assert_array_equal(twice.pixels, picture().pixels)
    np.testing.assert_array_equal(twice.face_box, BOX)
    np.testing.assert_array_equal(twice.landmarks, POINTS)
    left_eye, right_eye = once.landmarks[:2]
    assert left_eye[0] < right_eye[0], "the eye at the left of the image comes first"
    assert mirrored(picture(landmarks=None)).landmarks is None


def test_the_mirrored_target_is_the_target_mirrored():
    plain, _ = target_and_mask(picture(), 70, 7)
    flipped, mask = target_and_mask(mirrored(picture()), 70, 7)
    np.testing.assert_array_equal(flipped, plain[:, ::-1])
    # A 30x40 box at (30, 10) of a 90x70 photo whose square begins at column 10; mirrored, it
    # begins at column 20 of the square.
    rows, columns = np.flatnonzero(mask[..., 0].any(1)), np.flatnonzero(mask[..., 0].any(0))
    assert (rows[0], rows[-1]) == (2, 7)
    assert (columns[0], columns[-1]) == (3, 8)


def test_the_mirrored_crop_is_the_crop_mirrored():
    """Level eyes: a turned crop is sampled at other pixels."""
    level = np.array([[36, 26], [52, 26], [45, 34], [38, 42], [51, 42]], np.float32)
    plain = crop_reference(picture(landmarks=level), 40)
    flipped = crop_reference(mirrored(picture(landmarks=level)), 40)
    np.testing.assert_array_equal(flipped, plain[:, ::-1])


@pytest.mark.parametrize("size", [32, 70, 128])
def test_a_target_is_the_square_at_the_models_size(size):
    target, mask = target_and_mask(picture(), size, 2)
    assert target.shape == (size, size, 3)
    assert target.dtype == np.uint8
    assert mask.shape == (size // 2, size // 2, 1)
    assert mask.dtype == np.uint8
    assert set(np.unique(mask)) == {0, 1}


def test_shrinking_averages_over_the_pixels_that_it_merges():
    stripes = np.zeros((96, 96, 3), np.uint8)
    stripes[:, ::2] = 255
    assert np.ptp(resize(stripes, 32).astype(int)[:, 2:-2]) <= 90, "aliased stripes span 255"
    assert abs(int(resize(stripes, 48)[24, 24, 0]) - 128) <= 1


def test_stored_crops_of_the_right_size_are_taken_as_they_are():
    crop = smooth(40, 40)
    stored = Picture(crop, np.array([0, 0, 40, 40], np.float32), None)
    np.testing.assert_array_equal(stored_reference(stored, 40), crop)
    assert stored_reference(stored, 20).shape == (20, 20, 3)


def test_colours_vary_and_padding_stays_black():
    crop = smooth(40, 40).copy()
    crop[:, :5] = 0
    same = vary_colours(crop, np.ones(3))
    np.testing.assert_array_equal(same, crop)
    dark = vary_colours(crop, np.array([0.5, 1, 1]))
    assert np.abs(dark[:, 5:] - crop[:, 5:] / 2).max() <= 0.5
    grey = vary_colours(crop, np.array([1.0, 1, 0]))
    assert np.ptp(grey[:, 5:].astype(int), axis=-1).max() == 0
    flat = vary_colours(crop, np.array([1.0, 0, 1]))[:, 5:].astype(float)
    luma = flat @ [0.299, 0.587, 0.114]
    assert np.ptp(luma) <= 1.5, "without contrast every pixel has the mean grey"
    for varied in (dark, grey):
        assert not varied[:, :5].any()
    black = np.zeros((8, 8, 3), np.uint8)
    np.testing.assert_array_equal(vary_colours(black, np.array([2.0, 2, 2])), black)
