"""Alignment against insightface's own, and ArcFace with a small model made on the spot."""

import importlib.util
import sys
import warnings

import cv2
import numpy as np
import pytest

from flashface_jax.faces.detect import Face
from flashface_jax.faces.embedding import (
    PLACES,
    ArcFaceEmbedder,
    FaceEmbedder,
    align,
    find_recogniser,
)
from tests.curation.photo_world import cells, write_recogniser
from tests.faces.test_insightface import write_scrfd

MISSING = [name for name in ("insightface", "onnx") if importlib.util.find_spec(name) is None]
needs_insightface = pytest.mark.skipif(
    bool(MISSING), reason=f"{', '.join(MISSING)} missing: pip install 'flashface-jax[faces]'"
)


def smooth_photo(seed=0):
    rng = np.random.default_rng(seed)
    return cv2.resize(rng.integers(0, 255, (12, 16, 3), np.uint8), (400, 300))


def turned(degrees, scale=1.7, shift=(60.0, 40.0)):
    """ArcFace's places, turned, scaled and moved."""
    turn = np.exp(1j * np.radians(degrees)) * scale
    points = (PLACES @ np.array([1, 1j])) * turn + shift[0] + 1j * shift[1]
    return np.stack([points.real, points.imag], 1).astype(np.float32)


@needs_insightface
@pytest.mark.parametrize("degrees", [0, 10, -35])
def test_alignment_is_that_of_insightface(degrees):
    from insightface.utils import face_align  # noqa: PLC0415

    rng = np.random.default_rng(0)
    landmarks = turned(degrees) + rng.normal(0, 3, (5, 2)).astype(np.float32)
    photo = smooth_photo()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # its use of scikit-image is deprecated
        theirs = face_align.norm_crop(photo, landmarks)
    assert np.abs(align(photo, landmarks).astype(int) - theirs).max() <= 1


@pytest.mark.parametrize("degrees", [0, 25])
def test_landmarks_come_to_lie_where_arcface_wants_them(degrees):
    landmarks = turned(degrees)
    photo = np.zeros((300, 400, 3), np.uint8)
    for x, y in landmarks:
        cv2.circle(photo, (round(float(x)), round(float(y))), 3, (255, 255, 255), -1)
    aligned = align(photo, landmarks)
    for x, y in PLACES:
        assert aligned[round(y), round(x)].min() > 200


def test_landmarks_that_coincide_give_a_picture_and_no_error():
    assert align(smooth_photo(), np.full((5, 2), 7.0)).shape == (112, 112, 3)


def two_faces():
    return [Face(np.zeros(4, np.float32), turned(degrees), 1.0) for degrees in (0, 20)]


@needs_insightface
def test_vectors_are_the_models_of_the_rgb_pixels_with_length_one(tmp_path):
    """Colours must not be swapped, and pixels must lie between -1 and 1."""
    matrix = np.random.default_rng(0).standard_normal((768, 512))
    write_recogniser(tmp_path / "rec.onnx", matrix)
    embedder = ArcFaceEmbedder(tmp_path)
    assert isinstance(embedder, FaceEmbedder)
    found = embedder.embed(smooth_photo(), two_faces())
    expected = np.stack(
        [cells(align(smooth_photo(), face.landmarks)) @ matrix for face in two_faces()]
    )
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6)
    assert embedder.describe().endswith(f"ArcFace, {tmp_path.name}/rec.onnx")


@needs_insightface
def test_the_recogniser_of_a_pack_is_found_beside_its_detector(tmp_path):
    write_scrfd(tmp_path / "det.onnx")
    write_recogniser(tmp_path / "w600k.onnx", np.ones((768, 512)))
    assert find_recogniser(tmp_path).name == "w600k.onnx"


@needs_insightface
def test_a_pack_without_a_recogniser_is_named(tmp_path):
    write_scrfd(tmp_path / "det.onnx")
    with pytest.raises(ValueError, match=r"no \.onnx file of an ArcFace model"):
        find_recogniser(tmp_path)


@needs_insightface
def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(ValueError, match="nowhere are no folder: give --models DIR"):
        find_recogniser(tmp_path / "nowhere")


@needs_insightface
@pytest.mark.parametrize("kept", [1, 500, -200])
def test_a_truncated_model_is_named(tmp_path, kept):
    file = tmp_path / "rec.onnx"
    write_recogniser(file, np.ones((768, 512)))
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(ValueError, match=r"rec\.onnx is damaged"):
        ArcFaceEmbedder(tmp_path)


@needs_insightface
def test_a_model_that_gives_no_direction_is_named(tmp_path):
    write_recogniser(tmp_path / "rec.onnx", np.zeros((768, 512)))
    with pytest.raises(ValueError, match="gives no finite numbers"):
        ArcFaceEmbedder(tmp_path).embed(smooth_photo(), two_faces())


def test_a_missing_package_is_named_with_its_remedy(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "insightface", None)
    with pytest.raises(ValueError, match=r"pip install 'flashface-jax\[faces\]'"):
        find_recogniser(tmp_path)
