"""The blur threshold against drawn faces blurred by known amounts."""

import cv2
import numpy as np
import pytest

from flashface_jax.faces.choose import SHARP_ENOUGH
from flashface_jax.faces.sharpness import SIDE, blur_notes, sharpness
from flashface_jax.world import SyntheticWorld

WORLD = SyntheticWorld(3, 12, 1, 384)


@pytest.fixture(scope="module")
def photos():
    return [WORLD.photo(i, 0) for i in range(WORLD.num_identities)]


def blurred(photo, sigma):
    """Blurs by sigma in pixels of the face scaled to 112."""
    width = float(photo.face_box[2] - photo.face_box[0])
    return cv2.GaussianBlur(photo.image, (0, 0), sigma * width / SIDE) if sigma else photo.image


@pytest.mark.parametrize("sigma", [0, 0.5, 1])
def test_sharp_and_slightly_soft_faces_pass(photos, sigma):
    found = min(sharpness(blurred(p, sigma), p.face_box) for p in photos)
    assert found >= SHARP_ENOUGH, f"σ {sigma}: {found:.1f} is under {SHARP_ENOUGH}"


@pytest.mark.parametrize("sigma", [3, 4, 6])
def test_blurred_faces_are_noted(photos, sigma):
    found = max(sharpness(blurred(p, sigma), p.face_box) for p in photos)
    assert found < SHARP_ENOUGH, f"σ {sigma}: {found:.1f} is not under {SHARP_ENOUGH}"


def test_sharpness_falls_with_every_step_of_blur(photos):
    for photo in photos:
        found = [sharpness(blurred(photo, sigma), photo.face_box) for sigma in (0, 1, 2, 3, 4)]
        assert (np.diff(found) < 0).all(), f"{found} does not fall"


def test_a_note_names_the_photo_and_both_numbers(photos):
    soft = blurred(photos[0], 4)
    (note,) = blur_notes(soft, photos[0].face_box, "me.png")
    found = sharpness(soft, photos[0].face_box)
    assert note.startswith(f"me.png: the face looks blurred (sharpness {found:.0f}, 30 is enough)")
    assert blur_notes(photos[0].image, photos[0].face_box, "me.png") == []


def test_only_the_face_counts_and_only_inside_the_photo(photos):
    photo, box = photos[0], photos[0].face_box.round()
    x1, y1, x2, y2 = box.astype(int)
    elsewhere = np.random.default_rng(0).integers(0, 256, photo.image.shape, dtype=np.uint8)
    elsewhere[y1:y2, x1:x2] = photo.image[y1:y2, x1:x2]
    assert sharpness(elsewhere, box) == sharpness(photo.image, box)
    cut = photo.image[y1 + 20 :]
    beyond, inside = np.array([x1, -20, x2, y2 - y1 - 20]), np.array([x1, 0, x2, y2 - y1 - 20])
    assert sharpness(cut, beyond) == sharpness(cut, inside) > 0


@pytest.mark.parametrize("box", [[-30, -30, -5, -5], [500, 10, 600, 100], [10, 10, 10, 60]])
def test_a_box_without_pixels_has_no_sharpness(photos, box):
    assert sharpness(photos[0].image, np.array(box, np.float32)) == 0
