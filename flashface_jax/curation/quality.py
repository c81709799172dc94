"""Whether a face is large and sharp enough, and the photo's main one."""

import numpy as np
from jaxtyping import Float32, Float64

from flashface_jax.curation.rules import QualityRules


def sides(boxes: Float32[np.ndarray, "faces 4"]) -> Float32[np.ndarray, " faces"]:
    """The shorter side of each box in pixels."""
    return np.minimum(boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1])


def flaw(
    face_sides: Float32[np.ndarray, " faces"],
    sharpness: Float64[np.ndarray, " faces"],
    chosen: int,
    rules: QualityRules,
) -> tuple[str, str]:
    """What is wrong with a photo whose face `chosen` is the person's: a name and a sentence.

    Both are empty if nothing is; of several flaws the first in the order small, several, blurred.
    """
    side = float(face_sides[chosen])
    if side < rules.min_face:
        return "small_face", f"the face is {side:.0f} pixels wide or high"
    others = np.delete(face_sides, chosen)
    if (others > rules.largest_other * side).any():
        return "several_faces", f"the face is {side:.0f} pixels, another {others.max():.0f}"
    if sharpness[chosen] < rules.min_sharpness:
        return "blurred", f"the face's sharpness is {sharpness[chosen]:.0f}"
    return "", ""
