"""Where the face shall be: from words or numbers to a box, and from that to the denoiser's mask."""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float32, Real

FaceBox = Sequence[float | int] | Real[np.ndarray, "4"]

ANYWHERE = (0.0, 0.0, 0.0, 0.0)
# Middle of the face as fractions of the image, and side of its square over the image's shorter
# side. "centre" is the release's recommended box of a square image, (0.3, 0.2, 0.6, 0.5); a
# close-up stays below the sizes that the release's users are told to avoid.
PLACES = {
    "left": (0.25, 0.35, 0.3),
    "centre": (0.45, 0.35, 0.3),
    "right": (0.75, 0.35, 0.3),
    "close-up": (0.5, 0.45, 0.5),
    "left close-up": (0.3, 0.45, 0.5),
    "right close-up": (0.7, 0.45, 0.5),
}
SMALLEST_SIDE = 8


def face_box(
    text_or_numbers: str | FaceBox, image_size: tuple[int, int]
) -> tuple[float, float, float, float]:
    """The box that a face position names, as fractions of the image: what `position_mask` takes.

    Args:
        text_or_numbers: a word or two (anywhere, left, centre, right, close-up, left close-up,
            right close-up; center is centre), or x1, y1, x2, y2, also as text with spaces or
            commas: pixels if one of them is over 1, else fractions. All zeros mean anywhere.
        image_size: height and width of the image in pixels.

    Returns:
        x1, y1, x2, y2 from 0 to 1; a word's box is a square in pixels. All zeros for anywhere.

    Raises:
        ValueError: naming the position, if its words are unknown, or its box is not inside the
            image with x1 < x2 and y1 < y2 and at least 8 pixels wide and high, which is the least
            that a mask is sure to see.
    """
    if isinstance(text_or_numbers, str):
        numbers = _numbers(text_or_numbers)
        if numbers is None:
            return _place(text_or_numbers, image_size)
    else:
        numbers = [float(edge) for edge in text_or_numbers]
    return _fractions(numbers, image_size)


def _numbers(text: str) -> list[float] | None:
    """The numbers in a text, or None if it has words."""
    try:
        return [float(part) for part in text.replace(",", " ").split()] or None
    except ValueError:
        return None


def _place(text: str, image_size: tuple[int, int]) -> tuple[float, float, float, float]:
    """The square box of a place named in words."""
    plain = text.lower().replace("close up", "close-up").replace("closeup", "close-up")
    words = sorted(plain.replace("center", "centre").split(), key="close-up".__eq__)
    if words == ["anywhere"]:
        return ANYWHERE
    name = " ".join(words).replace("centre close-up", "close-up")
    if name not in PLACES:
        known = ", ".join(["anywhere", *PLACES])
        raise ValueError(
            f"face position {text!r} is not known: give one of {known}, or four numbers x1 y1 x2 "
            "y2 in pixels or fractions."
        )
    height, width = image_size
    x, y, side = PLACES[name]
    across, down = (side * min(height, width) / 2 / length for length in (width, height))
    # Rounded, so that the release's box comes back exactly.
    x1, y1, x2, y2 = (round(edge, 9) for edge in (x - across, y - down, x + across, y + down))
    return x1, y1, x2, y2


def _fractions(
    numbers: list[float], image_size: tuple[int, int]
) -> tuple[float, float, float, float]:
    """The box that four fractions or pixels give, as fractions."""
    given = f"face position {numbers}"
    if len(numbers) != 4 or not all(map(math.isfinite, numbers)):
        raise ValueError(f"{given} is no box: give four finite numbers x1 y1 x2 y2.")
    if not any(numbers):
        return ANYWHERE
    height, width = image_size
    pixels = max(numbers) > 1
    x1, y1, x2, y2 = numbers
    if x1 >= x2 or y1 >= y2:
        raise ValueError(f"{given} is empty or reversed: give x1 < x2 and y1 < y2.")
    right, bottom = (width, height) if pixels else (1, 1)
    if x1 < 0 or y1 < 0 or x2 > right or y2 > bottom:
        raise ValueError(
            f"{given} leaves the image of {width}x{height} pixels: give fractions from 0 to 1, or "
            "pixels inside it."
        )
    to_pixels = (1, 1) if pixels else (width, height)
    if (x2 - x1) * to_pixels[0] < SMALLEST_SIDE or (y2 - y1) * to_pixels[1] < SMALLEST_SIDE:
        raise ValueError(
            f"{given} is under {SMALLEST_SIDE} pixels wide or high in an image of {width}x{height}:"
            " give a larger box, all four numbers in pixels or all four as fractions."
        )
    if not pixels:
        return x1, y1, x2, y2
    return _fraction(x1, width), _fraction(y1, height), _fraction(x2, width), _fraction(y2, height)


def _fraction(pixel: float, length: int) -> float:
    """The fraction that gives a pixel back when multiplied by the length and cut to an integer."""
    fraction = pixel / length
    return fraction if int(fraction * length) == int(pixel) else math.nextafter(fraction, 1)


def position_mask(
    box: FaceBox, image_size: tuple[int, int], stride: int = 8
) -> Float32[np.ndarray, "h w 1"]:
    """Marks the square of a face box with ones on the latent's grid.

    The box's corners are cut to whole pixels; the square starts at the top-left corner, is as long
    as the box's longer side and ends at the image's border; every stride-th pixel is kept. In
    training the same rule applies to the box in the target's `largest_square`, so that a mask means
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
