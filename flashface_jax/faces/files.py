"""Reading photos and masks from files."""

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float32, UInt8
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from flashface_jax.common.errors import DAMAGED_PICTURE
from flashface_jax.common.pictures import UnreadablePictureError, check_picture, said, unreadable
from flashface_jax.faces.align import fit_and_pad, reference_face
from flashface_jax.faces.choose import Which, choose_face
from flashface_jax.faces.detect import FaceDetector
from flashface_jax.faces.sharpness import blur_notes

# Just below where Pillow refuses, about 2 GB of memory while a photo is read.
MAX_PIXELS = 178_000_000
LONGEST_SIDE = 4096
SIDEWAYS = (5, 6, 7, 8)  # EXIF orientations that exchange width and height


def read_photo(path: Path, longest_side: int | None = LONGEST_SIDE) -> UInt8[np.ndarray, "H W 3"]:
    """Read a photo as RGB, turned upright as its EXIF says; transparency becomes white.

    Of an animation the first frame is read; 16-bit greys become 8-bit ones.

    Args:
        path: the photo.
        longest_side: a photo with a longer side is reduced to it; None keeps every size.

    Raises:
        UnreadablePictureError: naming the file, if it is missing, no picture, damaged, or over 178
            million pixels.
    """
    return np.asarray(_read(path, longest_side, "white"))


def read_sized_photo(
    path: Path, longest_side: int
) -> tuple[UInt8[np.ndarray, "H W 3"], tuple[int, int]]:
    """A photo as `read_photo` reads it, with the width and height that it has unreduced."""
    photo = read_photo(path, longest_side)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Image.open(path) as file:
            width, height = file.size
            if file.getexif().get(ExifTags.Base.Orientation, 1) in SIDEWAYS:
                width, height = height, width
    return photo, (width, height)


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
    grey = np.asarray(_read(path, None, "black").convert("L"))
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


def read_reference_faces(
    paths: Sequence[Path], detector: FaceDetector, size: int, which: Which = "only"
) -> tuple[UInt8[np.ndarray, "refs {size} {size} 3"], list[str]]:
    """Read photos, find the face that is meant in each, and make the references.

    Args:
        paths: photos of one person, one or more.
        detector: finds the faces.
        size: side of a reference in pixels; 224 in the paper.
        which: face of each photo, as `choose_face` takes it.

    Returns:
        The references, and sentences about photos that serve but could be better.

    Raises:
        ValueError: naming the first photo that cannot be read, or has no face that will do.
    """
    if not paths:
        raise ValueError("No reference photo is given: name one or more.")
    references, notes = [], []
    for path in paths:
        photo = read_photo(path)
        face = choose_face(detector.detect(photo), str(path), which)
        references.append(reference_face(photo, face.box, face.landmarks, size))
        notes += blur_notes(photo, face.box, str(path))
    return np.stack(references), notes


class _TooLargeError(Exception):
    """A photo has too many pixels."""


def _read(path: Path, longest_side: int | None, background: str) -> Image.Image:
    """A picture turned upright as its EXIF says, on a background; errors name the file."""
    check_picture(path)
    try:
        with warnings.catch_warnings():
            # Pillow warns of many pixels, which are counted here, and of damage that it overcomes.
            warnings.simplefilter("ignore")
            return _decode(path, longest_side, background)
    except _TooLargeError as error:
        message = f"{path} {error}: reduce it to sides of {LONGEST_SIDE}."
        raise UnreadablePictureError(message, "too_large") from error
    except UnidentifiedImageError as error:
        if path.stat().st_size == 0:
            raise unreadable(path, "the file is empty", "empty") from error
        what = "the file is no JPEG, PNG or other known format"
        raise unreadable(path, what, "unknown_format") from error
    except DAMAGED_PICTURE as error:
        raise unreadable(path, said(error), "damaged") from error


def _decode(path: Path, longest_side: int | None, background: str) -> Image.Image:
    try:
        with Image.open(path) as file:
            if file.width * file.height > MAX_PIXELS:
                raise _TooLargeError(f"has {file.width}x{file.height} pixels, over {MAX_PIXELS}")
            if longest_side is not None:
                file.draft("RGB", (longest_side, longest_side))  # decodes a JPEG at less than full
            # In place: a copy of a large photo takes as much memory as the photo.
            ImageOps.exif_transpose(file, in_place=True)
            file.load()
            upright = _eight_bit(file)
    except Image.DecompressionBombError as error:
        raise _TooLargeError(f"has over {MAX_PIXELS} pixels") from error
    if longest_side is not None:
        upright.thumbnail((longest_side, longest_side), Image.Resampling.BICUBIC)
    if upright.mode == "RGBA":
        page = Image.new("RGBA", upright.size, background)
        upright = Image.alpha_composite(page, upright).convert("RGB")
    return upright


def _eight_bit(image: Image.Image) -> Image.Image:
    """The image as RGB, or as RGBA if anything in it may be transparent."""
    if image.mode.startswith("I"):
        # Pillow would cut greys above 255 off, and most of a 16-bit picture with them.
        levels = np.asarray(image).astype(np.float32)
        image = Image.fromarray((levels / 257).round().clip(0, 255).astype(np.uint8))
    elif image.mode == "F":
        raise ValueError("it has floating-point greys of unknown range; save it with 8 bits")
    mode = "RGBA" if image.has_transparency_data else "RGB"
    return image if image.mode == mode else image.convert(mode)
