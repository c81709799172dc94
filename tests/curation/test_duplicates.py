"""Hashes that survive storing and scaling, and which copy stands for the others."""

import io

import cv2
import numpy as np
import pytest
from PIL import Image

from flashface_jax.curation.duplicates import HASH_BITS, near_duplicates, perceptual_hash
from flashface_jax.world import SyntheticWorld
from tests.curation.planted import faces, person

WORLD = SyntheticWorld(1, 12, 4, 192)


@pytest.fixture(scope="module")
def photos():
    return [WORLD.photo(i, j).image for i in range(12) for j in range(4)]


def bits_apart(one, other):
    return (perceptual_hash(one) ^ perceptual_hash(other)).bit_count()


def stored(image, quality):
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


def test_storing_scaling_and_brightening_keep_the_hash(photos):
    for photo in photos:
        for copy in (
            stored(photo, 40),
            cv2.resize(photo, (96, 96), interpolation=cv2.INTER_AREA),
            cv2.resize(photo, (500, 500), interpolation=cv2.INTER_CUBIC),
            np.uint8(photo * 0.8 + 20),
        ):
            assert bits_apart(photo, copy) <= HASH_BITS


def test_other_photos_have_other_hashes(photos):
    hashes = [perceptual_hash(photo) for photo in photos]
    apart = [(a ^ b).bit_count() for i, a in enumerate(hashes) for b in hashes[:i]]
    assert np.mean(np.array(apart) <= HASH_BITS) < 0.01


def hashes_of(*numbers):
    return np.array(numbers, np.uint64)


@pytest.fixture
def one_face():
    rng = np.random.default_rng(0)
    return faces(rng, person(rng), 1)


def test_the_best_ranked_copy_stands_for_all(one_face):
    same = np.repeat(one_face, 3, axis=0)
    assert near_duplicates(hashes_of(5, 5, 7), same, [2, 1, 3]).tolist() == [1, 1, 1]


def test_the_same_picture_with_another_face_is_no_copy():
    rng = np.random.default_rng(0)
    others = np.concatenate([faces(rng, person(rng), 1) for _ in range(2)])
    assert near_duplicates(hashes_of(5, 5), others, [1, 2]).tolist() == [0, 1]


def test_the_same_face_in_a_picture_cropped_otherwise_is_a_copy(one_face):
    same = np.repeat(one_face, 2, axis=0)
    assert near_duplicates(hashes_of(0, 2**64 - 1), same, [1, 2]).tolist() == [0, 0]


def test_two_photos_of_a_person_are_no_copies():
    rng = np.random.default_rng(0)
    two = faces(rng, person(rng), 2)
    assert near_duplicates(hashes_of(0, 2**40 - 1), two, [1, 2]).tolist() == [0, 1]


def test_a_chain_of_alike_pictures_is_not_one_picture(one_face):
    """Each is 6 bits from the one before, the faces alike but no copies: every second is kept."""
    rng = np.random.default_rng(1)
    hashes = hashes_of(*[2 ** (6 * i) - 1 for i in range(5)])
    center = one_face[0].astype(float)
    some = faces(rng, center, 5, spread=(0.95, 0.95))
    assert near_duplicates(hashes, some, range(5)).tolist() == [0, 0, 2, 2, 4]


def test_no_photos_have_no_copies():
    empty = np.zeros((0, 0), np.float32)
    assert near_duplicates(hashes_of(), empty, []).tolist() == []
