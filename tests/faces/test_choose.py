"""Which face is meant: the released rule, the choices, and what is refused in one sentence."""

import re

import numpy as np
import pytest

from flashface_jax.faces.choose import choose_face, parse_which
from flashface_jax.faces.detect import Face, largest_first


def face(x, y, width, height=None, score=0.9):
    box = np.array([x, y, x + width, y + (height or width)], np.float32)
    return Face(box, np.zeros((5, 2), np.float32), score)


SMALL_RIGHT, LARGE_MIDDLE, LEFT = face(400, 10, 50), face(200, 0, 120), face(5, 30, 60)
THREE = [LARGE_MIDDLE, SMALL_RIGHT, LEFT]


def test_largest_first_sorts_by_area():
    tall = face(0, 0, 50, 80)
    assert largest_first([SMALL_RIGHT, tall, LARGE_MIDDLE]) == [LARGE_MIDDLE, tall, SMALL_RIGHT]


def test_the_only_face_is_taken_and_uncertain_ones_do_not_count():
    doubtful = face(0, 0, 500, score=0.59)
    assert choose_face([doubtful, LEFT], "me.png") is LEFT


def test_a_score_of_six_tenths_is_enough():
    sure = face(0, 0, 50, score=0.6)
    assert choose_face([sure], "me.png") is sure


def test_largest_and_indices_left_to_right():
    assert choose_face(THREE, "us.png", "largest") is LARGE_MIDDLE
    chosen = [choose_face(THREE, "us.png", i) for i in range(3)]
    assert chosen == [LEFT, LARGE_MIDDLE, SMALL_RIGHT]


@pytest.mark.parametrize("which", ["only", "largest", 0])
def test_no_face_is_an_error_that_names_the_photo(which):
    with pytest.raises(ValueError, match=r"me\.png shows no face that was found: take a photo"):
        choose_face([], "me.png", which)


def test_an_uncertain_face_is_named_with_its_score():
    with pytest.raises(ValueError, match=r"me\.png .* best find scores 0\.55, 0\.6 is needed"):
        choose_face([face(0, 0, 50, score=0.55)], "me.png")


def test_several_faces_are_counted_and_placed_with_both_remedies():
    with pytest.raises(ValueError, match=r"us\.png shows 3 faces") as error:
        choose_face(THREE, "us.png")
    places = "0 at [5, 30, 65, 90], 1 at [200, 0, 320, 120], 2 at [400, 10, 450, 60]"
    assert places in str(error.value)
    assert "--face largest or --face 0..2" in str(error.value)


@pytest.mark.parametrize("which", [3, -1])
def test_an_index_of_no_face_is_refused_with_the_count(which):
    with pytest.raises(ValueError, match=rf"us\.png has no face {which}: it shows 3, .* 0 to 2\."):
        choose_face(THREE, "us.png", which)


@pytest.mark.parametrize("size", [(39, 200), (200, 39), (12, 12)])
def test_a_tiny_face_is_refused_with_the_size_found_and_needed(size):
    said = re.escape(f"me.png: the face is {size[0]}x{size[1]} pixels, but 40 are needed")
    with pytest.raises(ValueError, match=said):
        choose_face([face(0, 0, *size)], "me.png")


def test_a_face_of_forty_pixels_will_do():
    smallest = face(0, 0, 40, 60)
    assert choose_face([smallest], "me.png") is smallest


@pytest.mark.parametrize(
    ("text", "which"), [("only", "only"), ("largest", "largest"), ("0", 0), ("12", 12)]
)
def test_choices_are_read_from_text(text, which):
    assert parse_which(text) == which


@pytest.mark.parametrize("text", ["", "biggest", "-1", "1.5", "²"])
def test_other_text_is_refused_with_what_serves(text):
    with pytest.raises(ValueError, match="must be only, largest, or a number") as error:
        parse_which(text)
    assert repr(text) in str(error.value)
