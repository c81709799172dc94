"""Photos to face crops: fit and pad, the square around a face, the upright crop.

Images are uint8 RGB, (H, W, 3). Boxes are (x1, y1, x2, y2) in pixels of the image they come with,
x to the right and y down. Resizing and rotation are Pillow's, because the released weights were
trained on its pixels: its bicubic filter widens when it shrinks an image, OpenCV's does not.
"""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Float64, Real, UInt8
from PIL import Image


class Placement(NamedTuple):
    """Where an image lies in the padded square it was fitted into.

    A point p of the image appears at `p * scale + (left, top)`; detectors undo this.

    Attributes:
        scale: square side over the longer image side.
        width: width of the scaled image in pixels.
        height: height of the scaled image in pixels.
        left: columns of padding on its left.
        top: rows of padding above it.
    """

    scale: float
    width: int
    height: int
    left: int
    top: int


def placement(width: int, height: int, size: int) -> Placement:
    """Centres a width x height image in a size x size square, keeping its aspect.

    An odd row or column of padding goes below or to the right. Sides are rounded half to even and
    never vanish, however thin the image. Source: released `PadToSquare`, `get_padding`.
    """
    scale = size / max(width, height)
    fitted_width, fitted_height = (max(1, round(side * scale)) for side in (width, height))
    left, top = (size - fitted_width) // 2, (size - fitted_height) // 2
    return Placement(scale, fitted_width, fitted_height, left, top)


def fit_and_pad(
    image: UInt8[np.ndarray, "H W 3"], size: int
) -> UInt8[np.ndarray, "{size} {size} 3"]:
    """Fits an image into a square keeping its aspect (bicubic), and pads it with black.

    Source: released `PadToSquare`; with size 224 it makes the reference, with 640 the detector's
    input.
    """
    return _fitted_and_padded(Image.fromarray(image), size)


def _fitted_and_padded(image: Image.Image, size: int) -> UInt8[np.ndarray, "{size} {size} 3"]:
    place = placement(image.width, image.height, size)
    fitted = image.resize((place.width, place.height), Image.Resampling.BICUBIC)
    square = np.zeros((size, size, 3), np.uint8)
    rows = slice(place.top, place.top + place.height)
    columns = slice(place.left, place.left + place.width)
    square[rows, columns] = np.asarray(fitted)
    return square


class Square(NamedTuple):
    """A square part of an image.

    Attributes:
        left: its first column.
        top: its first row.
        side: in pixels.
    """

    left: int
    top: int
    side: int

    def cut(self, image: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "side side 3"]:
        """The square's pixels."""
        return image[self.top : self.top + self.side, self.left : self.left + self.side]

    def fractions(self, box: Real[np.ndarray, "4"]) -> Float64[np.ndarray, "4"]:
        """A box of the image as fractions of the square, cut where it leaves it.

        That is what `position_mask` takes, and it holds however the square is resized.
        """
        corner = np.array([self.left, self.top, self.left, self.top], np.float64)
        return ((box - corner) / self.side).clip(0, 1)


def largest_square(width: int, height: int, box: Real[np.ndarray, "4"]) -> Square:
    """The largest square of a width x height image that holds a face.

    It is as wide as the image's shorter side and centred on the face as far as the image's border
    allows. A face longer than that side is cut. The centre is rounded down, which may cost a face
    within two pixels of that side its last column or row.

    Source: paper, implementation details; released `bbox_crop`. Where the shorter side is odd, its
    crop comes out a pixel wider or narrower than high; here it stays square.
    """
    side = min(height, width)
    x1, y1, x2, y2 = box.tolist()
    left = min(max(round((x1 + x2) // 2 - side / 2), 0), width - side)
    top = min(max(round((y1 + y2) // 2 - side / 2), 0), height - side)
    return Square(left, top, side)


def eye_line_tilt(landmarks: Real[np.ndarray, "5 2"]) -> float:
    """Angle of the eye line against the horizontal, in degrees within [-90, 90].

    Positive when the eye at the right of the image, landmark 1, is the lower one.
    """
    (left_x, left_y), (right_x, right_y) = landmarks[:2].tolist()
    return math.degrees(math.atan2(right_y - left_y, abs(right_x - left_x)))


def crop_upright(
    image: UInt8[np.ndarray, "H W 3"],
    box: Real[np.ndarray, "4"],
    landmarks: Real[np.ndarray, "5 2"] | None,
) -> UInt8[np.ndarray, "crop_height crop_width 3"]:
    """Crops a face and turns the crop about its centre until the eyes are level.

    The crop keeps the size of the box. What lies outside the image, or turns in from outside the
    crop, is black; the nearest pixel is taken, as the released weights know it.

    Args:
        image: the photo.
        box: face box in pixels, rounded half to even; it may leave the image.
        landmarks: (x, y) in pixels of the eye at the left and the eye at the right of the image,
            the nose, and the mouth's corners; None if they are not known, and the crop is not
            turned.

    Raises:
        ValueError: the rounded box is empty.

    Source: released `crop_face`, whose angle comes from the law of cosines.
    """
    return np.array(_upright(image, box, landmarks))


def _upright(
    image: UInt8[np.ndarray, "H W 3"],
    box: Real[np.ndarray, "4"],
    landmarks: Real[np.ndarray, "5 2"] | None,
) -> Image.Image:
    x1, y1, x2, y2 = (round(edge) for edge in box.tolist())
    if x1 >= x2 or y1 >= y2:
        raise ValueError(
            f"face box {box.tolist()} holds no pixel: pass x1 < x2 and y1 < y2 in pixels."
        )
    crop = Image.fromarray(_cut(image, x1, y1, x2, y2))
    tilt = 0.0 if landmarks is None else eye_line_tilt(landmarks)
    return crop.rotate(tilt, Image.Resampling.NEAREST)


def _cut(
    image: UInt8[np.ndarray, "H W 3"], x1: int, y1: int, x2: int, y2: int
) -> UInt8[np.ndarray, "{y2-y1} {x2-x1} 3"]:
    """A box of an image, black where it leaves it."""
    height, width, _ = image.shape
    cut = np.zeros((y2 - y1, x2 - x1, 3), np.uint8)
    top, bottom, left, right = max(y1, 0), min(y2, height), max(x1, 0), min(x2, width)
    if top < bottom and left < right:
        cut[top - y1 : bottom - y1, left - x1 : right - x1] = image[top:bottom, left:right]
    return cut


def reference_face(
    image: UInt8[np.ndarray, "H W 3"],
    box: Real[np.ndarray, "4"],
    landmarks: Real[np.ndarray, "5 2"] | None,
    size: int,
) -> UInt8[np.ndarray, "{size} {size} 3"]:
    """The reference that a photo's face gives: cropped, upright, fitted, padded with black.

    Arguments and errors are those of `crop_upright`; size is 224 in the paper. Source: released
    demo, which ends with the scaling in `to_unit_range`.
    """
    return _fitted_and_padded(_upright(image, box, landmarks), size)


def to_unit_range(image: UInt8[np.ndarray, "*shape 3"]) -> Float32[np.ndarray, "*shape 3"]:
    """Pixels in [0, 255] to values in [-1, 1], as the autoencoder takes them."""
    return image.astype(np.float32) / 255 * 2 - 1
