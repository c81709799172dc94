"""What is wrong with a face."""

import errno
import os

import numpy as np
import pytest
from PIL import Image

from flashface_jax.curation.measured import measure
from flashface_jax.curation.quality import flaw, sides
from flashface_jax.curation.rules import QualityRules

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


class Nobody:
    """Finds no face."""

    def detect(self, image):
        return []

    def describe(self):
        return "nobody"

    def embed(self, image, faces):
        raise AssertionError("no face was found")


@pytest.mark.parametrize(("number", "passing"), [(errno.ESTALE, True), (errno.EACCES, False)])
def test_a_failing_file_system_is_no_verdict_on_a_photo(tmp_path, monkeypatch, number, passing):
    path = tmp_path / "a.png"
    Image.new("RGB", (64, 64)).save(path)

    def fail(*_):
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr(Image, "open", fail)
    if passing:
        with pytest.raises(OSError, match=r"a\.png .*Start the same command again"):
            measure(path, Nobody(), Nobody())
    else:
        assert list(measure(path, Nobody(), Nobody()).problems) == ["unreadable"]
