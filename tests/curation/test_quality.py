"""What is wrong with a face."""

import numpy as np
import pytest

from flashface_jax.curation.quality import QualityRules, flaw, sides

RULES = QualityRules(min_face=96, min_sharpness=30.0, largest_other=0.5)


def judged(face_sides, sharpness, chosen=0):
    found, detail = flaw(
        np.array(face_sides, np.float32), np.array(sharpness, float), chosen, RULES
    )
    assert bool(found) == bool(detail)
    return found


@pytest.mark.parametrize(
    ("face_sides", "sharpness", "expected"),
    [
        ([96], [30], ""),
        ([95.9], [300], "small_face"),
        ([200], [29], "blurred"),
        ([200, 100], [50, 50], ""),
        ([200, 101], [50, 50], "several_faces"),
        ([50, 49], [1, 1], "small_face"),
        ([200, 101], [1, 1], "several_faces"),
    ],
    ids=["good", "small", "blurred", "companion", "crowd", "small first", "several before blurred"],
)
def test_a_face_has_the_first_flaw_that_holds(face_sides, sharpness, expected):
    assert judged(face_sides, sharpness) == expected


def test_a_person_behind_a_larger_face_is_not_the_main_one():
    assert judged([300, 120], [50, 50], chosen=1) == "several_faces"


def test_the_side_is_the_shorter_one():
    boxes = np.array([[0, 10, 30, 20], [-5, 0, 5, 40]], np.float32)
    assert sides(boxes).tolist() == [10, 10]
