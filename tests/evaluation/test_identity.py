"""The face encoder of the drawn world: unit rows, reproducible, and a measure that is right."""

import re
from dataclasses import replace

import jax
import numpy as np
import pytest

from flashface_jax.evaluation.identity import (
    CROP_SIDE,
    IdentityEncoder,
    crop_faces,
    draw_photos,
    similarity,
    train_identity_encoder,
    verification,
    verification_auc,
)
from flashface_jax.world import SyntheticWorld

TRAINING = SyntheticWorld(seed=1000, num_identities=100, photos_per_identity=2, image_size=64)
HELD_OUT = SyntheticWorld(seed=0, num_identities=30, photos_per_identity=4, image_size=64)


@pytest.fixture(scope="module")
def encoder():
    return train_identity_encoder(TRAINING, steps=60, batch_size=64, progress=False)


@pytest.fixture(scope="module")
def faces():
    images, boxes, _ = draw_photos(HELD_OUT, range(18))
    return images, boxes


def test_rows_are_unit_and_each_depends_on_its_own_photo_alone(encoder, faces):
    images, boxes = faces  # 72 of them: more than one internal batch
    together = encoder.embed(images, boxes)
    lengths = np.linalg.norm(together, axis=1)
    assert together.dtype == np.float32
    assert np.abs(lengths - 1).max() < 1e-5, f"lengths {lengths.min()} to {lengths.max()}"
    order = np.random.default_rng(0).permutation(len(images))
    shuffled = encoder.embed(images[order], boxes[order])
    alone = np.concatenate([encoder.embed(images[[k]], boxes[[k]]) for k in range(5)])
    gap = max(np.abs(shuffled - together[order]).max(), np.abs(alone - together[:5]).max())
    assert gap < 1e-5, f"other company moves an embedding by {gap:.1e}"
    assert encoder.embed(images[:0], boxes[:0]).shape == (0, together.shape[1])


def test_the_same_seed_gives_the_same_encoder():
    few = replace(TRAINING, num_identities=8)
    one, other = (
        train_identity_encoder(few, steps=3, batch_size=16, seed=4, progress=False)
        for _ in range(2)
    )
    jax.tree.map(np.testing.assert_array_equal, one.params, other.params)


def test_a_loaded_encoder_is_the_saved_one(encoder, faces, tmp_path):
    path = tmp_path / "faces.weights"
    encoder.save(path)
    loaded = IdentityEncoder.load(path)
    assert jax.tree.structure(loaded.params) == jax.tree.structure(encoder.params)
    np.testing.assert_array_equal(loaded.embed(*faces), encoder.embed(*faces))
    megabytes = path.stat().st_size / 1e6
    assert megabytes < 5, f"the file has {megabytes:.1f} MB"


def test_a_short_training_tells_strangers_apart(encoder):
    found = verification_auc(encoder, HELD_OUT, range(30))
    assert found.auc > 0.68, f"AUC {found.auc:.3f}, chance is 0.5"
    apart, error = found.same[0] - found.different[0], np.hypot(found.same[1], found.different[1])
    assert apart > 8 * error, f"same {found.same}, different {found.different}: {apart:.1f} apart"


def test_verification_of_planted_embeddings():
    # Angles 0°, 60° of one person, 90°, 90° of another: cosines 0.5 and 1 against 0, 0, and the
    # sines of 60°, twice.
    angles = np.radians([0, 60, 90, 90])
    rows = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    found = verification(rows, np.array([7, 7, 3, 3]))
    # Of 2 x 4 comparisons, 1 beats all four and 0.5 beats the two zeros: 6 of 8.
    assert found.auc == pytest.approx(0.75)
    assert found.same == pytest.approx((75, 25), abs=1e-4)
    assert found.different == pytest.approx((100 * np.sin(np.pi / 3) / 2, 0), abs=1e-4)


def test_ties_count_half_and_perfect_embeddings_score_one():
    same = np.tile(np.eye(1, 4, dtype=np.float32), (4, 1))
    who = np.array([0, 0, 1, 1])
    assert verification(same, who).auc == 0.5
    perfect = np.eye(4, dtype=np.float32)[who]
    found = verification(perfect, who)
    assert (found.auc, found.same, found.different) == (1.0, (100.0, 0.0), (0.0, 0.0))


def test_similarity_is_the_cosine_times_100_row_by_row():
    a = np.array([[1, 0], [1, 0], [0.6, 0.8]], np.float32)
    b = np.array([[1, 0], [0, 1], [0.8, 0.6]], np.float32)
    np.testing.assert_allclose(similarity(a, b), [100, 0, 96], atol=1e-4)


def test_a_crop_is_centred_on_its_box_and_repeats_the_border_beyond_the_image():
    image = np.zeros((1, 100, 100, 3), np.uint8)
    image[0, 40:60, 40:60] = 255
    crop = crop_faces(image, np.array([[40, 40, 60, 60]], np.float32))[0]
    inside = crop[..., 0] > 0
    rows = np.flatnonzero(inside.any(axis=1))
    assert rows[0] + rows[-1] == CROP_SIDE - 1, f"white from row {rows[0]} to {rows[-1]}"
    part = inside.mean() * 1.4**2
    assert 0.9 < part < 1.1, f"the box fills {part:.2f} of what it should"
    image[0, :, 90:] = 255
    beyond = crop_faces(image, np.array([[99, 20, 139, 60]], np.float32))[0]
    assert beyond.min() == 1, "right of the image, its white right border goes on"


def test_a_box_outside_the_image_still_gives_a_unit_row(encoder, faces):
    boxes = np.array([[-30, -20, 20, 30], [200, 200, 230, 240], [-9, -9, 99, 99]], np.float32)
    rows = encoder.embed(faces[0][:3], boxes)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)


def test_a_larger_picture_of_the_same_photo_has_nearly_the_same_embedding(encoder, faces):
    images, boxes, _ = draw_photos(replace(HELD_OUT, image_size=256), range(4))
    alike = similarity(encoder.embed(images, boxes), encoder.embed(faces[0][:16], faces[1][:16]))
    assert alike.min() > 90, f"similarities of 64 and 256 pixels: {alike.round(1)}"


def test_mistakes_are_told_in_one_sentence(encoder, faces, tmp_path):
    box = np.array([[5, 5, 5, 9]], np.float32)
    with pytest.raises(ValueError, match=re.escape("but box 0 is [5. 5. 5. 9.].")):
        encoder.embed(faces[0][:1], box)
    with pytest.raises(ValueError, match="batch_size is 64 but must be even and"):
        train_identity_encoder(replace(TRAINING, num_identities=31), batch_size=64)
    with pytest.raises(ValueError, match="photos_per_identity is 1 but must be 2 or more"):
        train_identity_encoder(replace(TRAINING, photos_per_identity=1))
    wrong = tmp_path / "wrong.npz"
    wrong.write_text("no weights")
    with pytest.raises(ValueError, match=r"is no \.npz file of an identity encoder\."):
        IdentityEncoder.load(wrong)
    np.savez(wrong, weight=np.zeros(3))
    with pytest.raises(ValueError, match="holds other parameters than"):
        IdentityEncoder.load(wrong)
