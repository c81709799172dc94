"""Reading photos from files."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps

from flashface_jax.faces.align import fit_and_pad


def read_photo(path: Path) -> UInt8[np.ndarray, "H W 3"]:
    """Read a photo as RGB, turned upright as its EXIF says; transparency becomes white.

    Raises:
        ValueError: naming the file, if it is missing or no picture.
    """
    try:
        with Image.open(path) as file:
            upright = ImageOps.exif_transpose(file).convert("RGBA")
    except FileNotFoundError as error:
        raise ValueError(f"{path} does not exist.") from error
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path} is no picture that can be read ({error}).") from error
    page = Image.new("RGBA", upright.size, "white")
    return np.asarray(Image.alpha_composite(page, upright).convert("RGB"))


def read_cropped_faces(paths: Sequence[Path], size: int) -> UInt8[np.ndarray, "refs R R 3"]:
    """Read upright face crops and fit each into a square, padded with black."""
    return np.stack([fit_and_pad(read_photo(path), size) for path in paths])
