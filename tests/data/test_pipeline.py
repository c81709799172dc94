"""Training samples: who is drawn, what is shown, and that only seed and index decide."""

import dataclasses

import numpy as np
import pytest

from flashface_jax.data.photos import IdentityPhotos, draw_photos
from flashface_jax.data.pipeline import SampleShape, training_batches
from flashface_jax.data.synthetic import SyntheticWorld
from flashface_jax.tokenizer import train_tokenizer

SHAPE = SampleShape(image_size=64, reference_size=32, stride=8)
PEOPLE, PHOTOS = 8, 5


@pytest.fixture(scope="module")
def photos():
    drawn = draw_photos(SyntheticWorld(3, PEOPLE, PHOTOS, 64), range(PEOPLE), lambda: None)
    # Every photo becomes one flat colour, (identity, photo, 0), that samples can be traced by.
    images = np.zeros_like(drawn.images)
    images[..., 0] = (np.arange(PEOPLE * PHOTOS) // PHOTOS * 20 + 20)[:, None, None]
    images[..., 1] = (np.arange(PEOPLE * PHOTOS) % PHOTOS * 20 + 20)[:, None, None]
    upright = np.broadcast_to(
        np.float32([[20, 20], [40, 20], [30, 30], [22, 40], [38, 40]]), drawn.landmarks.shape
    )
    boxes = np.broadcast_to(np.float32([16, 8, 48, 56]), drawn.face_boxes.shape)
    return dataclasses.replace(drawn, images=images, landmarks=upright, face_boxes=boxes)


@pytest.fixture(scope="module")
def tokenizer(photos, tmp_path_factory):
    return train_tokenizer(photos.captions, tmp_path_factory.mktemp("tokens"), 32, 600)


def batches(photos, tokenizer, seed=0, size=4):
    return training_batches(photos, tokenizer, SHAPE, size, seed)


def colours(batch):
    """(identity, photo) of the target and of each valid reference, of every sample."""
    targets = batch["target"][:, 32, 32, :2] // 20 - 1
    references = batch["references"][:, :, 16, 16, :2] // 20 - 1
    return targets, references


def test_target_and_references_are_different_photos_of_one_person(photos, tokenizer):
    iterator, counts = batches(photos, tokenizer), []
    for _ in range(40):
        batch = next(iterator)
        targets, references = colours(batch)
        for target, refs, valid in zip(targets, references, batch["reference_valid"], strict=True):
            shown = [tuple(target), *map(tuple, refs[valid])]
            assert len(set(shown)) == len(shown), shown
            assert len({identity for identity, _ in shown}) == 1, shown
            counts.append(valid.sum())
        assert len(set(map(int, targets[:, 0]))) == len(targets), "identities of a batch differ"
        assert not batch["references"][~batch["reference_valid"]].any()
    frequency = np.bincount(counts, minlength=5)[1:] / len(counts)
    assert (np.abs(frequency - 0.25) < 0.12).all(), frequency


def test_every_epoch_shows_every_identity(photos, tokenizer):
    iterator = batches(photos, tokenizer)
    for _ in range(3):
        seen = [int(i) for _ in range(PEOPLE // 4) for i in colours(next(iterator))[0][:, 0]]
        assert sorted(seen) == list(range(PEOPLE))


def test_the_mask_is_the_face_box_of_the_target(photos, tokenizer):
    mask = next(batches(photos, tokenizer))["face_mask"][0, :, :, 0]
    # A 32 x 48 box at (16, 8): a square of 48 from its top-left corner, in eighths.
    expected = np.zeros((8, 8), np.float32)
    expected[1:7, 2:8] = 1
    np.testing.assert_array_equal(mask, expected)


def equal(a, b):
    return all(np.array_equal(a[name], b[name]) for name in a)


def test_the_sequence_depends_on_the_seed_alone(photos, tokenizer):
    first, again = batches(photos, tokenizer), batches(photos, tokenizer)
    other = batches(photos, tokenizer, seed=1)
    pairs = [(next(first), next(again), next(other)) for _ in range(5)]
    assert all(equal(a, b) for a, b, _ in pairs)
    assert not any(equal(a, c) for a, _, c in pairs)


@pytest.mark.parametrize("position", [1, 5, 13])
def test_resumption_continues_exactly(photos, tokenizer, position):
    iterator = batches(photos, tokenizer)
    for _ in range(position):
        next(iterator)
    state = iterator.get_state()
    expected = [next(iterator) for _ in range(4)]
    resumed = batches(photos, tokenizer)
    resumed.set_state(state)
    assert all(equal(next(resumed), batch) for batch in expected)


def test_too_few_identities_or_photos_are_refused(photos, tokenizer):
    with pytest.raises(ValueError, match="8 identities cannot fill a batch of 9"):
        batches(photos, tokenizer, size=9)
    lonely = dataclasses.replace(photos, starts=np.array([0, 1, 40]))
    with pytest.raises(ValueError, match="Identity 0 has fewer than 2 photos"):
        training_batches(lonely, tokenizer, SHAPE, 2, 0)


def test_photos_survive_a_file(photos, tmp_path):
    path = tmp_path / "photos.npz"
    photos.save(path)
    read = IdentityPhotos.load(path)
    assert read.captions == photos.captions
    for name in ("images", "face_boxes", "landmarks", "starts"):
        np.testing.assert_array_equal(getattr(read, name), getattr(photos, name))
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ValueError, match="holds no photos"):
        IdentityPhotos.load(path)
