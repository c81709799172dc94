"""Whether a face is sharp enough to make a good reference."""

import cv2
import numpy as np
from jaxtyping import Real, UInt8

from flashface_jax.faces.choose import SHARP_ENOUGH

SIDE = 112


def sharpness(image: UInt8[np.ndarray, "H W 3"], box: Real[np.ndarray, "4"]) -> float:
    """Variance of the Laplacian of a face, in squared grey levels, resized to 112x112.

    Args:
        image: the photo.
        box: x1, y1, x2, y2 in pixels; what lies outside the photo does not count.

    Returns:
        0 for a flat face or a box outside the photo; hundreds for a sharp one.

    Source: Pech-Pacheco et al., Diatom autofocusing in brightfield microscopy, 2000.
    """
    x1, y1, x2, y2 = (max(0, round(edge)) for edge in box.tolist())
    crop = image[y1:y2, x1:x2]
    if crop.size == 0:
        return 0.0
    gray = cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY)
    # Only INTER_AREA averages over the pixels that it merges.
    how = cv2.INTER_AREA if min(gray.shape) > SIDE else cv2.INTER_CUBIC
    resized = cv2.resize(gray, (SIDE, SIDE), interpolation=how)
    return float(cv2.Laplacian(resized, cv2.CV_64F).var())


def blur_notes(
    image: UInt8[np.ndarray, "H W 3"], box: Real[np.ndarray, "4"], photo_name: str
) -> list[str]:
    """A sentence if a face is blurred; it is no error, for a blurred reference still works."""
    found = sharpness(image, box)
    if found >= SHARP_ENOUGH:
        return []
    return [
        f"{photo_name}: the face looks blurred (sharpness {found:.0f}, {SHARP_ENOUGH:.0f} is "
        "enough); it serves, but a sharper photo gives a better likeness."
    ]
