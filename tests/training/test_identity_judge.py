"""Judges of identity: which faces they compare, and what they refuse."""

import jax
import numpy as np
import pytest

from flashface_jax.evaluation.identity import IdentityEncoder, _network
from flashface_jax.faces.detect import Face
from flashface_jax.training.monitoring.held_out_metric import MadeImages
from flashface_jax.training.monitoring.identity_judge import by_arcface, open_identity_judge

BOXES = np.array([[8.0, 8.0, 56.0, 56.0]] * 3)


class FaceWhereBright:
    """Finds one face in a picture that is not black; a doubtful one in dark pictures."""

    def detect(self, image):
        score = 0.9 if image.mean() > 100 else 0.3
        face = Face(np.zeros(4, np.float32), np.zeros((5, 2), np.float32), score)
        return [face] if image.any() else []

    def describe(self):
        return "bright"


class Colour:
    """Embeds a face as the direction of its picture's mean colour."""

    def embed(self, image, faces):
        mean = image.mean(axis=(0, 1)).astype(np.float32)
        return np.stack([mean / np.linalg.norm(mean)] * len(faces))

    def describe(self):
        return "colour"


def pictures(*colours):
    return np.stack([np.full((8, 8, 3), colour, np.uint8) for colour in colours])


def asked(made, real):
    """Images of up to three people, beside what was asked for."""
    people = len(made)
    references = np.zeros((people, 1, 8, 8, 3), np.uint8)
    return MadeImages(made, real, references, ("a person",) * people, BOXES[:people])


def test_arcface_compares_faces_that_are_found_and_counts_them():
    judge = by_arcface(FaceWhereBright(), Colour())
    real = pictures((200, 200, 200), (0, 200, 200), (200, 200, 200))
    made = pictures((200, 200, 200), (200, 200, 0), (0, 0, 90))
    found = judge(asked(made, real))
    # The third image shows only a doubtful face; the second's is half way to the real one's.
    assert found["faces_found"] == pytest.approx(2 / 3)
    assert found["identity_similarity"] == pytest.approx((100 + 50) / 2, abs=1e-4)


def test_without_any_face_there_is_no_similarity():
    judge = by_arcface(FaceWhereBright(), Colour())
    found = judge(asked(pictures((0, 0, 0)), pictures((200, 200, 200))))
    assert found == {"faces_found": 0.0}


def test_an_encoder_of_the_drawn_world_finds_a_photo_like_itself(tmp_path):
    encoder = IdentityEncoder(_network().init(jax.random.key(0)))
    encoder.save(tmp_path / "encoder.npz")
    judge = open_identity_judge(tmp_path / "encoder.npz")
    photos = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
    assert judge(asked(photos, photos))["identity_similarity"] == pytest.approx(100, abs=1e-3)
    assert judge(asked(photos, photos[::-1].copy()))["identity_similarity"] < 99.9


def test_a_judge_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"nowhere, which does not exist: name an .npz file"):
        open_identity_judge(tmp_path / "nowhere")


def test_a_file_that_is_no_judge_is_named(tmp_path):
    (tmp_path / "other.npz").write_text("no")
    with pytest.raises(ValueError, match=r"other.npz is no .npz file of an identity encoder"):
        open_identity_judge(tmp_path / "other.npz")
