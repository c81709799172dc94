"""From a photo of the dataset to the pictures that the networks are trained on."""

from dataclasses import dataclass, replace

import cv2
import numpy as np
import simplejpeg
from jaxtyping import Float32, Float64, UInt8

from flashface_jax.data.dataset import PhotoRecord
from flashface_jax.faces.align import fit_and_pad, largest_square, reference_face
from flashface_jax.faces.position import position_mask

MIRRORED = [1, 0, 2, 4, 3]  # left and right eye, nose, left and right corner of the mouth
LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601


class UndecodableError(ValueError):
    """A photo's JPEG is damaged."""


@dataclass(frozen=True)
class Picture:
    """A decoded photo with what is known of its face, in its pixels."""

    pixels: UInt8[np.ndarray, "H W 3"]
    face_box: Float32[np.ndarray, "4"]
    landmarks: Float32[np.ndarray, "5 2"] | None


def decode(record: PhotoRecord) -> Picture:
    """Decode a photo.

    Raises:
        UndecodableError: its JPEG is damaged, however little.
    """
    try:
        pixels = simplejpeg.decode_jpeg(record.jpeg, "RGB")
    except ValueError as error:
        raise UndecodableError(f"{record.source_id}: {error}") from error
    return Picture(pixels, record.face_box, record.landmarks)


def mirrored(picture: Picture) -> Picture:
    """The picture as in a mirror, box and landmarks with it."""
    width = picture.pixels.shape[1]
    x1, y1, x2, y2 = picture.face_box
    landmarks = picture.landmarks
    if landmarks is not None:
        landmarks = landmarks[MIRRORED] * np.array([-1, 1], np.float32) + np.array(
            [width, 0], np.float32
        )
    box = np.array([width - x2, y1, width - x1, y2], np.float32)
    return replace(picture, pixels=picture.pixels[:, ::-1], face_box=box, landmarks=landmarks)


def resize(pixels: UInt8[np.ndarray, "H W 3"], size: int) -> UInt8[np.ndarray, "{size} {size} 3"]:
    """Resize a square; OpenCV's filters take a tenth of the time of Pillow's.

    Only INTER_AREA averages over the pixels that it merges.
    """
    how = cv2.INTER_AREA if pixels.shape[0] > size else cv2.INTER_CUBIC
    return cv2.resize(pixels, (size, size), interpolation=how)


def target_and_mask(
    picture: Picture, size: int, stride: int
) -> tuple[UInt8[np.ndarray, "{size} {size} 3"], UInt8[np.ndarray, "h w 1"]]:
    """The largest square that holds the face, at the model's size, and its position mask.

    Args:
        picture: the photo.
        size: side of the target in pixels.
        stride: pixels of a latent position, each way.
    """
    height, width, _ = picture.pixels.shape
    square = largest_square(width, height, picture.face_box)
    target = resize(np.ascontiguousarray(square.cut(picture.pixels)), size)
    mask = position_mask(square.fractions(picture.face_box), (size, size), stride)
    return target, mask.astype(np.uint8)


def crop_reference(picture: Picture, size: int) -> UInt8[np.ndarray, "{size} {size} 3"]:
    """The upright face crop, cut and resized as sampling does."""
    return reference_face(picture.pixels, picture.face_box, picture.landmarks, size)


def stored_reference(picture: Picture, size: int) -> UInt8[np.ndarray, "{size} {size} 3"]:
    """A face crop that is stored as one, at the model's size."""
    same = picture.pixels.shape[:2] == (size, size)
    return np.ascontiguousarray(picture.pixels) if same else fit_and_pad(picture.pixels, size)


def vary_colours(
    crop: UInt8[np.ndarray, "R R 3"], factors: Float64[np.ndarray, "3"]
) -> UInt8[np.ndarray, "R R 3"]:
    """Change brightness, contrast about the mean grey, and saturation; black padding stays black.

    Args:
        crop: a face crop.
        factors: 1 changes nothing; 0 gives black, grey of one level, and greys.
    """
    brightness, contrast, saturation = factors
    if (factors == 1).all():
        return crop
    shown = crop.any(axis=-1)
    if not shown.any():
        return crop
    colours = crop[shown] * brightness
    mean = (colours @ LUMA).mean()
    colours = mean + contrast * (colours - mean)
    grey = (colours @ LUMA)[:, None]
    varied = crop.copy()
    varied[shown] = (grey + saturation * (colours - grey)).round().clip(0, 255).astype(np.uint8)
    return varied
