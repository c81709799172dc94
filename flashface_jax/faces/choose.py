"""Which of the faces in a photo is meant."""

from collections.abc import Sequence
from typing import Literal

from flashface_jax.common.errors import shortened
from flashface_jax.faces.detect import Face, largest_first

Word = Literal["only", "largest"]
Which = Word | int

WORDS: tuple[Word, ...] = ("only", "largest")
MIN_SCORE = 0.6
MIN_SIDE = 40
LONGEST_NUMBER = 4
# The variance of a face's Laplacian at 112x112. Of 80 drawn faces and one photo none is below this
# sharp or blurred by a Gaussian of σ = 1 pixel of the 112; most are at σ = 2, and all at σ = 3.
SHARP_ENOUGH = 30.0


def parse_which(text: str) -> Which:
    """A choice given as text: only, largest, or a number.

    Raises:
        ValueError: it is something else.
    """
    for word in WORDS:
        if text == word:
            return word
    if text.isascii() and text.isdecimal() and len(text) <= LONGEST_NUMBER:
        return int(text)
    raise ValueError(
        f"face is {shortened(text)}; it must be only, largest, or a number counted left to right "
        "from 0."
    )


def choose_face(faces: Sequence[Face], photo_name: str, which: Which = "only") -> Face:
    """The face of a photo that is meant, of those that score 0.6 or more.

    Args:
        faces: what a detector found.
        photo_name: for the error.
        which: "only" if there must be exactly one, "largest", or its index counted left to right.

    Raises:
        ValueError: naming the photo, if it has no such face, or it is under 40 pixels wide or high.

    Source: released demo: score 0.6, exactly one face.
    """
    sure = sorted((face for face in faces if face.score >= MIN_SCORE), key=_center_x)
    if not sure:
        best = max((face.score for face in faces), default=0.0)
        doubtful = f" (the best find scores {best:.2f}, {MIN_SCORE} is needed)" if faces else ""
        raise ValueError(
            f"{photo_name} shows no face that was found{doubtful}: "
            "take a photo in which it is larger, sharper and turned to the camera."
        )
    face = _pick(sure, photo_name, which)
    if min(face.width, face.height) < MIN_SIDE:
        raise ValueError(
            f"{photo_name}: the face is {face.width:.0f}x{face.height:.0f} pixels, but {MIN_SIDE} "
            "are needed on its shorter side: take a photo in which it is larger."
        )
    return face


def _center_x(face: Face) -> float:
    return float(face.box[0] + face.box[2])


def _pick(left_to_right: Sequence[Face], photo_name: str, which: Which) -> Face:
    last = len(left_to_right) - 1
    if which == "largest":
        return largest_first(left_to_right)[0]
    if which == "only":
        if last == 0:
            return left_to_right[0]
        places = ", ".join(
            f"{i} at {face.box.round().astype(int).tolist()}"
            for i, face in enumerate(left_to_right)
        )
        raise ValueError(
            f"{photo_name} shows {last + 1} faces, {places} (x1, y1, x2, y2 in pixels): choose one "
            f"with --face largest or --face 0..{last}, or crop the photo."
        )
    if not 0 <= which <= last:
        raise ValueError(
            f"{photo_name} has no face {which}: it shows {last + 1}, counted left to right from 0 "
            f"to {last}."
        )
    return left_to_right[which]
