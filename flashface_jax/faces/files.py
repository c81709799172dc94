"""Reading photos and masks from files."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image, ImageOps

from flashface_jax.faces.align import fit_and_pad


def read_photo(path: Path) -> UInt8[np.ndarray, "H W 3"]:
    """Read a photo as RGB, turned upright as its EXIF says; transparency becomes white.

    Raises:
        ValueError: naming the file, if it is missing or no picture.
    """
    return np.asarray(_upright_on(path, "white").convert("RGB"))


def read_mask(
    path: Path, image_size: tuple[int, int]
) -> Float32[np.ndarray, "{image_size[0]} {image_size[1]} 1"]:
    """Read a mask drawn on a photo: 1 where it is white, or a grey from one half on.

    It is turned upright as its EXIF says; transparency becomes black, so that white strokes on an
    otherwise empty layer are a mask. There is no partly repainted pixel: a compressed mask is
    never quite black, and pasting makes the soft edge. A wholly white mask repaints the photo.

    Args:
        path: the mask.
        image_size: height and width of the photo in pixels.

    Returns:
        The mask of 0 and 1.

    Raises:
        ValueError: naming the file, if it is missing, no picture, not of the photo's size or
            nowhere white.
    """
    grey = np.asarray(_upright_on(path, "black").convert("L"))
    if grey.shape != image_size:
        (height, width), (photo_height, photo_width) = grey.shape, image_size
        raise ValueError(
            f"{path} is {width}x{height} pixels but the photo is {photo_width}x{photo_height}: "
            "draw the mask on the photo at its own size."
        )
    mask = (grey >= 128).astype(np.float32)[..., None]
    if not mask.any():
        raise ValueError(f"{path} masks nothing: paint white what is to be repainted.")
    return mask


def read_cropped_faces(paths: Sequence[Path], size: int) -> UInt8[np.ndarray, "refs R R 3"]:
    """Read upright face crops and fit each into a square, padded with black."""
    return np.stack([fit_and_pad(read_photo(path), size) for path in paths])


def _upright_on(path: Path, background: str) -> Image.Image:
    """A picture turned upright as its EXIF says, on a background, as RGBA; errors name the file."""
    try:
        with Image.open(path) as file:
            upright = ImageOps.exif_transpose(file).convert("RGBA")
    except FileNotFoundError as error:
        raise ValueError(f"{path} does not exist.") from error
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path} is no picture that can be read ({error}).") from error
    page = Image.new("RGBA", upright.size, background)
    return Image.alpha_composite(page, upright)
