"""The Haar cascade on drawn people, its landmarks, and an OpenCV that has none."""

import importlib.util

import cv2
import numpy as np
import pytest
from PIL import Image

from flashface_jax.faces.align import eye_line_tilt
from flashface_jax.faces.cascade_detector import (
    STANDARD_LANDMARKS,
    CascadeDetector,
    _carried_along,
    plausible_eyes,
)
from flashface_jax.world import SyntheticWorld

WORLD = SyntheticWorld(0, 40, 1, 256)


@pytest.fixture(scope="module")
def detector():
    return CascadeDetector()


def overlap(a, b):
    """Intersection over union."""
    low, high = np.maximum(a[:2], b[:2]), np.minimum(a[2:], b[2:])
    shared = np.prod(np.maximum(high - low, 0))
    return shared / (np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - shared)


@pytest.fixture(scope="module")
def hits(detector):
    """Photos of drawn people in whom the cascade sees the face, and what it sees."""
    photos = [WORLD.photo(i, 0) for i in range(WORLD.num_identities)]
    found = [(photo, face) for photo in photos for face in detector.detect(photo.image)]
    return [(photo, face) for photo, face in found if overlap(photo.face_box, face.box) > 0.4]


def test_the_cascade_sees_some_drawn_faces_where_they_are(hits):
    # Drawings are not what it was trained on: it sees about 3 in 10.
    assert len(hits) >= 6, f"found {len(hits)} of 40 drawn faces"


def test_landmarks_are_ordered_and_near_the_drawn_ones(hits):
    for photo, face in hits:
        left, right, nose, mouth_left, mouth_right = face.landmarks
        assert left[0] < nose[0] < right[0] and mouth_left[0] < mouth_right[0]
        assert max(left[1], right[1]) < nose[1] < min(mouth_left[1], mouth_right[1])
        distance = np.linalg.norm(face.landmarks - photo.landmarks, axis=1).max() / face.width
        assert distance < 0.35, f"a landmark is {distance:.2f} box widths off"


def test_found_eyes_tell_the_tilt_better_than_level_ones(hits):
    """A face whose landmarks are not at the standard places had two plausible eyes."""
    with_eyes = [
        (eye_line_tilt(photo.landmarks), eye_line_tilt(face.landmarks))
        for photo, face in hits
        if np.abs((face.landmarks - face.box[:2]) / face.width - STANDARD_LANDMARKS).max() > 1e-3
    ]
    assert len(with_eyes) >= 3, f"two eyes were found in {len(with_eyes)} drawn faces only"
    true, ours = np.array(with_eyes).T
    level, found = np.abs(true).mean(), np.abs(ours - true).mean()
    assert found < level / 2, f"eyes are {found:.1f} degrees off, level ones {level:.1f}"


def test_a_large_photo_is_searched_at_a_smaller_size_and_boxes_come_back_in_its_pixels(
    detector, hits
):
    photo, face = hits[0]
    enlarged = cv2.resize(photo.image, (2560, 2560), interpolation=cv2.INTER_CUBIC)
    large = detector.detect(enlarged)
    same = max(overlap(one.box / 10, face.box) for one in large)
    assert same > 0.8, f"boxes overlap by {same:.2f}"


@pytest.mark.parametrize("shape", [(1, 1), (1, 4096), (30, 20), (200, 300)])
def test_a_photo_without_a_face_has_none(detector, shape):
    assert detector.detect(np.full((*shape, 3), 128, np.uint8)) == []


def test_the_description_is_one_line_that_says_what_is_worse(detector):
    said = detector.describe()
    assert "\n" not in said and "less accurate" in said and "landmarks" in said
    assert "haarcascade_frontalface_alt2" in said


@pytest.mark.skipif(
    importlib.util.find_spec("skimage") is None,
    reason="scikit-image, which comes with flashface-jax[faces], holds the picture (NASA, public)",
)
def test_a_photo_of_an_astronaut(detector):
    from skimage import data  # noqa: PLC0415

    (face,) = detector.detect(np.asarray(Image.fromarray(data.astronaut())))
    assert overlap(face.box, np.array([175, 64, 271, 190])) > 0.6
    eyes = np.array([[203, 101], [247, 103]])  # read off the picture
    distance = np.abs(face.landmarks[:2] - eyes).max()
    assert distance < 6, f"an eye is {distance:.1f} pixels off"


def eye(x, y, size=0.25):
    return [x - size / 2, y - size / 2, size, size]


@pytest.mark.parametrize(
    ("found", "eyes"),
    [
        ([eye(0.7, 0.4), eye(0.3, 0.42)], [[0.3, 0.42], [0.7, 0.4]]),
        ([eye(0.3, 0.4), eye(0.7, 0.4), eye(0.68, 0.44, 0.15)], [[0.3, 0.4], [0.7, 0.4]]),
        ([eye(0.3, 0.4)], None),
        ([], None),
        ([eye(0.2, 0.4), eye(0.4, 0.4)], None),
        ([eye(0.45, 0.4), eye(0.55, 0.4)], None),
        ([eye(0.15, 0.4), eye(0.85, 0.4)], None),
        ([eye(0.3, 0.3), eye(0.7, 0.5)], None),
        ([eye(0.3, 0.4, 0.05), eye(0.7, 0.4)], None),
    ],
    ids=[
        "two",
        "most alike",
        "one",
        "none",
        "same half",
        "too close",
        "too far",
        "steep",
        "too small",
    ],
)
def test_plausible_eyes(found, eyes):
    ours = plausible_eyes(np.array(found, float).reshape(-1, 4))
    if eyes is None:
        assert ours is None
    else:
        np.testing.assert_allclose(ours, eyes, rtol=0, atol=1e-6)


def test_landmarks_go_along_with_the_eyes_by_a_turn_and_a_scaling():
    eyes = np.array([[0.2, 0.5], [0.6, 0.8]], np.float32)
    moved = _carried_along(STANDARD_LANDMARKS, eyes)
    np.testing.assert_allclose(moved[:2], eyes, rtol=0, atol=1e-6)

    def distances(points):
        return np.linalg.norm(points[:, None] - points[None], axis=-1)

    scale = 0.5 / 0.38
    difference = np.abs(distances(moved) - scale * distances(STANDARD_LANDMARKS)).max()
    assert difference < 1e-6, f"shape changes by {difference:.1e}"
    right, down = moved[1] - moved[0], moved[2] - moved[0]
    assert right[0] * down[1] - right[1] * down[0] > 0, "the face is mirrored"


def test_an_opencv_without_cascades_is_named_with_the_remedy(monkeypatch):
    monkeypatch.delattr(cv2, "CascadeClassifier")
    with pytest.raises(ValueError, match="comes without the Haar cascade") as error:
        CascadeDetector()
    assert cv2.__version__ in str(error.value)
    assert "pip install 'opencv-python-headless>=4.10,<5'" in str(error.value)


def test_an_opencv_without_the_cascade_files_is_named_with_the_remedy(monkeypatch, tmp_path):
    monkeypatch.setattr(cv2.data, "haarcascades", str(tmp_path))
    with pytest.raises(ValueError, match="without the Haar cascade haarcascade_frontalface_alt2"):
        CascadeDetector()
