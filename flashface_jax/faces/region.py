"""What part of a photo inpainting repaints: the mask, and the region that the model gets to see.

The model paints at one size, a photo has any. So a region of the photo with the model's aspect, the
masked area and its surroundings, is cut out and resized, painted as a whole, and pasted back by
`flashface_jax.faces.compositing`. Masks are in pixels of the photo; what is above 0 is repainted.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image

from flashface_jax.faces.position import FaceBox, position_mask

LEAST_SIDE = 8  # pixels: a smaller area is no face, and in the model's picture less than a latent
LEAST_MARGIN = 1 / 8  # of the masked area's longer side: what the paste needs to blend over


@dataclass(frozen=True)
class Region:
    """A rectangle of a photo, to be shown at the model's size.

    It has the model's aspect to within half a pixel a side. Where it leaves the photo, which it
    does on one axis at most, it shows the photo mirrored at its border.

    Attributes:
        top: first row in pixels of the photo; negative where the region starts above it.
        left: first column, likewise.
        height: rows of the photo that it spans.
        width: columns of the photo that it spans.
        photo_size: height and width of the photo in pixels.
        model_size: height and width of the model's picture in pixels.
    """

    top: int
    left: int
    height: int
    width: int
    photo_size: tuple[int, int]
    model_size: tuple[int, int]

    @property
    def rows(self) -> slice:
        """The photo's rows that the region shows."""
        return slice(max(self.top, 0), min(self.top + self.height, self.photo_size[0]))

    @property
    def columns(self) -> slice:
        """The photo's columns that the region shows."""
        return slice(max(self.left, 0), min(self.left + self.width, self.photo_size[1]))

    @property
    def scale(self) -> float:
        """Pixels of the photo per pixel of the model's picture."""
        return max(self.height / self.model_size[0], self.width / self.model_size[1])

    def check_photo(self, size: tuple[int, ...]) -> None:
        """Raise ValueError if a photo or mask of this height and width is not the planned one's."""
        if size != self.photo_size:
            (height, width), (planned_height, planned_width) = size, self.photo_size
            raise ValueError(
                f"the photo or mask is {width}x{height} pixels but its region was planned on "
                f"{planned_width}x{planned_height}: pass the photo and mask it was planned for."
            )


def mask_of_box(
    box: FaceBox, image_size: tuple[int, int]
) -> Float32[np.ndarray, "{image_size[0]} {image_size[1]} 1"]:
    """The mask that repaints a face box: the square that `position_mask` makes of it.

    A model that was trained to inpaint has seen that square as its mask and never the box itself,
    so use follows training; it covers the box and, as faces are higher than wide, some of what is
    to the right of it.

    Args:
        box: (x1, y1, x2, y2) as fractions of the photo, as in `position_mask`.
        image_size: height and width of the photo in pixels.

    Returns:
        The mask of 0 and 1.

    Raises:
        ValueError: the box is not of this form.
    """
    return position_mask(box, image_size, stride=1)


def plan_region(
    mask: Float32[np.ndarray, "H W 1"], model_size: tuple[int, int], context: float = 3.0
) -> Region:
    """Chooses what the model sees of a photo: the masked area and its surroundings.

    The region is `context` times as wide or high as the masked area's bounding box, whichever is
    more, centred on it and moved inside the photo. A photo with less room gives the largest region
    of the model's aspect that fits. If the masked area does not fit in that, a wide one in a
    panorama for instance, the region leaves the photo. In any case the region holds the masked
    area and, as far as the photo goes, an eighth of its longer side around it.

    Args:
        mask: what to repaint, of the photo's size.
        model_size: height and width of the model's picture in pixels.
        context: the region's side over the masked area's, at least 1. With 3 a face is a third of
            the picture, near the 0.3 of the recommended face positions.

    Raises:
        ValueError: the mask is empty or smaller than 8 pixels, in the photo or in the model's
            picture, or the context is below 1.

    Source: released demo, face positions; paper, where training shows the largest square that
    holds the face.
    """
    if not context >= 1:
        raise ValueError(f"context is {context} but the region must hold the mask: give 1 or more.")
    photo_height, photo_width = mask.shape[:2]
    model_height, model_width = model_size
    top, bottom = _extent(mask.max(axis=(1, 2)))
    left, right = _extent(mask.max(axis=(0, 2)))
    height, width = bottom - top, right - left
    if min(height, width) < LEAST_SIDE:
        raise ValueError(
            f"the masked area is {width}x{height} pixels, too small to repaint: mask at least "
            f"{LEAST_SIDE}x{LEAST_SIDE} pixels or enlarge the photo."
        )
    margin = int(np.ceil(LEAST_MARGIN * max(height, width)))
    top, bottom = max(top - margin, 0), min(bottom + margin, photo_height)
    left, right = max(left - margin, 0), min(right + margin, photo_width)

    # Scales are pixels of the photo per pixel of the model.
    wanted = context * max(height / model_height, width / model_width)
    fitting = min(photo_height / model_height, photo_width / model_width)
    needed = max((bottom - top) / model_height, (right - left) / model_width)
    scale = max(min(wanted, fitting), needed)
    if min(height, width) / scale < LEAST_SIDE:
        raise ValueError(
            f"the masked area of {width}x{height} pixels would be less than {LEAST_SIDE} pixels "
            f"high or wide in the model's {model_width}x{model_height}: mask a more compact area "
            "or lower the context."
        )
    region_height, region_width = round(scale * model_height), round(scale * model_width)
    return Region(
        top=_start((top + bottom) / 2, region_height, photo_height),
        left=_start((left + right) / 2, region_width, photo_width),
        height=region_height,
        width=region_width,
        photo_size=(photo_height, photo_width),
        model_size=model_size,
    )


def cut(
    photo: UInt8[np.ndarray, "H W 3"], region: Region
) -> UInt8[np.ndarray, "{region.model_size[0]} {region.model_size[1]} 3"]:
    """The region of a photo at the model's size (bicubic).

    Raises:
        ValueError: the photo is not of the size that the region was planned for.
    """
    region.check_photo(photo.shape[:2])
    return _fill(photo, region, _bicubic)


def cut_mask(
    mask: Float32[np.ndarray, "H W 1"], region: Region
) -> Float32[np.ndarray, "{region.model_size[0]} {region.model_size[1]} 1"]:
    """The region of a mask at the model's size, of 0 and 1.

    A pixel of the model's picture is 1 if it overlaps a masked pixel in the least. What is mirrored
    is masked where its original is, or the model would be shown what it is to replace.

    Raises:
        ValueError: the mask is not of the size that the region was planned for.
    """
    region.check_photo(mask.shape[:2])
    return _fill(mask > 0, region, _overlapping).astype(np.float32)


def latent_mask(
    mask: Float32[np.ndarray, "H W 1"], stride: int = 8
) -> Float32[np.ndarray, "h w 1"]:
    """A mask on the latent's grid: a latent pixel is 1 if any pixel of its cell is to be repainted.

    `position_mask` looks at the first pixel of each cell only, and so may leave out a row and a
    column of cells that the square covers in part; here they count, because what the latent keeps
    of them would show through. A model is best trained with the masks it is used with.

    Args:
        mask: of the model's picture; sides are multiples of the stride.
        stride: image pixels per latent pixel.

    Returns:
        The mask of 0 and 1, (H / stride, W / stride, 1).

    Raises:
        ValueError: a side is no multiple of the stride.
    """
    height, width, _ = mask.shape
    if height % stride or width % stride:
        raise ValueError(
            f"mask size {height}x{width} is no multiple of {stride}: choose sides that are."
        )
    cells = mask.reshape(height // stride, stride, width // stride, stride, 1)
    return (np.max(cells, axis=(1, 3)) > 0).astype(np.float32)


def _extent(masked: np.ndarray) -> tuple[int, int]:
    """First and one past the last index that is above 0; 0 and 0 if none is."""
    found = np.flatnonzero(masked > 0)
    return (int(found[0]), int(found[-1]) + 1) if found.size else (0, 0)


def _start(center: float, length: int, limit: int) -> int:
    """Where a stretch about a centre starts, moved inside 0..limit, or around it if longer."""
    spare = limit - length
    return min(max(round(center - length / 2), min(spare, 0)), max(spare, 0))


def _bicubic(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resizes RGB pixels to a height and width."""
    return np.array(Image.fromarray(picture).resize(size[::-1], Image.Resampling.BICUBIC))


def _overlapping(masked: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resizes a mask of bool: what overlaps a masked pixel is masked; exact, in whole numbers."""
    for axis, length in enumerate(size):
        edges = np.arange(length + 1) * masked.shape[axis]
        first, last = edges[:-1] // length, (edges[1:] - 1) // length
        masked = np.logical_or.reduceat(masked, first, axis) | masked.take(last, axis)
    return masked


def _fill(
    picture: np.ndarray, region: Region, resize: Callable[[np.ndarray, tuple[int, int]], np.ndarray]
) -> np.ndarray:
    """The region of a picture at the model's size; what lies outside the picture is mirrored."""
    inside = picture[region.rows, region.columns]
    height, width, _ = inside.shape
    model_height, model_width = region.model_size
    # The axis without mirroring goes first: a panorama made square might not fit in memory.
    half = (height, model_width) if height < region.height else (model_height, width)
    above, before = region.rows.start - region.top, region.columns.start - region.left
    below, after = region.height - height - above, region.width - width - before
    whole = np.pad(resize(inside, half), ((above, below), (before, after), (0, 0)), "symmetric")
    return resize(whole, region.model_size)
