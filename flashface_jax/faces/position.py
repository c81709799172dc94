"""Where the face shall be: a face box to the mask that the denoiser takes as fifth channel."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float32, Real

FaceBox = Sequence[float | int] | Real[np.ndarray, "4"]


def position_mask(
    box: FaceBox, image_size: tuple[int, int], stride: int = 8
) -> Float32[np.ndarray, "h w 1"]:
    """Marks the square of a face box with ones on the latent's grid.

    The box's corners are cut to whole pixels; the square starts at the top-left corner, is as long
    as the box's longer side and ends at the image's border; every stride-th pixel is kept. In
    training the same rule applies to the box that `largest_square` returns, so that a mask means
    the same in both.

    Args:
        box: (x1, y1, x2, y2) as fractions of the image, 0 <= x1 <= x2 <= 1, y likewise. All zeros
            ask for no constraint, and the mask is zero; so it is for a box that falls between the
            kept pixels.
        image_size: height and width of the image in pixels, multiples of the stride.
        stride: image pixels per latent pixel.

    Returns:
        The mask of 0 and 1, (height / stride, width / stride, 1).

    Raises:
        ValueError: the box is not of this form, or the image size no multiple of the stride.

    Source: paper, face position control; released `generate`.
    """
    height, width = image_size
    if height % stride or width % stride:
        raise ValueError(
            f"image size {height}x{width} is no multiple of {stride}: choose sides that are."
        )
    x1, y1, x2, y2 = _checked(box)
    left, top, right, bottom = int(x1 * width), int(y1 * height), int(x2 * width), int(y2 * height)
    side = max(right - left, bottom - top)
    rows, columns = np.arange(0, height, stride), np.arange(0, width, stride)
    in_rows = (top <= rows) & (rows < top + side)
    in_columns = (left <= columns) & (columns < left + side)
    return (in_rows[:, None] & in_columns[None, :])[..., None].astype(np.float32)


def _checked(box: FaceBox) -> list[float]:
    """The four fractions of a box, or a ValueError that says what they should be."""
    edges = [float(edge) for edge in box]
    if len(edges) == 4:
        x1, y1, x2, y2 = edges
        if 0 <= x1 <= x2 <= 1 and 0 <= y1 <= y2 <= 1:
            return edges
    raise ValueError(
        f"face position {edges} is no box: give four fractions of the image as x1, y1, x2, y2 "
        "with 0 <= x1 <= x2 <= 1 and 0 <= y1 <= y2 <= 1, or all zeros for no constraint."
    )
