"""Pasting what the model painted back into the photo, without a seam.

Two things give a paste away: a step of colour at the mask's rim, since a model and its autoencoder
shift colours, and a sharp edge. The first is removed by `match_colors`, the second by
`feathered`; both rely on the model having painted the mask's surroundings, too.
"""

import cv2
import numpy as np
from jaxtyping import Float32, Float64, UInt8
from PIL import Image

from flashface_jax.faces.region import Region, cut, cut_mask, latent_mask

CELL = 8  # pixels of the model's picture: colours are compared by latent pixel
OUTLIER = 12  # levels: a shift of colour so far off the usual one counts a quarter


def paste_back(
    photo: UInt8[np.ndarray, "H W 3"],
    painted: UInt8[np.ndarray, "model_height model_width 3"],
    region: Region,
    mask: Float32[np.ndarray, "H W 1"],
    feather: float = 16.0,
) -> UInt8[np.ndarray, "H W 3"]:
    """The photo with its masked area repainted.

    Inside the mask the result is the output, resized (bicubic) and matched to the photo's
    colours; farther than the feather from it the result is the photo, bit for bit.

    Args:
        photo: what the region was cut from.
        painted: the region as the model painted it, as a whole, at its own size.
        region: where it goes.
        mask: what to repaint; what is above 0 is.
        feather: width of the blend around the mask in pixels of the output, at least 0. The
            default is two latent pixels: one that the mask may cover in part, so that the model
            painted it anew, and one where the image and the photo show the same.

    Raises:
        ValueError: photo, mask or output are not of the region's sizes, or the feather is
            negative.
    """
    if painted.shape[:2] != region.model_size:
        (height, width), (model_height, model_width) = painted.shape[:2], region.model_size
        raise ValueError(
            f"the output is {width}x{height} pixels but its region was planned for "
            f"{model_width}x{model_height}: paint at the planned size."
        )
    if not feather >= 0:
        raise ValueError(f"feather is {feather} but is a width in pixels: give 0 or more.")
    matched = match_colors(painted, cut(photo, region), cut_mask(mask, region))
    alpha = feathered(mask, region, feather * region.scale)
    blended = alpha[..., 0] > 0
    result = photo.copy()
    window = result[region.rows, region.columns]
    old, new = (
        pixels[blended].astype(np.float32) for pixels in (window, _resized(matched, region))
    )
    window[blended] = np.rint(old + alpha[blended] * (new - old)).astype(np.uint8)
    return result


def match_colors(
    painted: UInt8[np.ndarray, "H W 3"],
    crop: UInt8[np.ndarray, "H W 3"],
    mask: Float32[np.ndarray, "H W 1"],
) -> UInt8[np.ndarray, "H W 3"]:
    """Shifts an output's colours to the photo's where both show the same, smoothly in between.

    Outside the mask the two should differ by the shift alone. It is measured by latent
    pixel and spread into the mask. Latent pixels next to masked ones are left out, since the
    autoencoder mixes neighbours, and those far off the median shift hardly count (Geman-McClure
    weights): there the output shows something else, long hair perhaps, which must not bleed into
    the face. It does with Poisson blending (`cv2.seamlessClone`), which trusts each pixel of the
    rim. Beyond a mask that touches the photo's border there is nothing to measure, and the shift
    of the other sides counts.

    Args:
        painted: the model's picture; sides are multiples of 8.
        crop: the photo's region at the same size.
        mask: what was repainted. If that is all, the output stays as it is.
    """
    difference = crop.astype(np.float32) - painted
    height, width, _ = difference.shape
    size = (width // CELL, height // CELL)
    known = 1 - cv2.dilate(latent_mask(mask, CELL)[..., 0], np.ones((3, 3), np.uint8))
    if not known.any():
        return painted
    shift = cv2.resize(difference, size, interpolation=cv2.INTER_AREA)
    unusual = np.abs(shift - np.median(shift[known > 0], axis=0)).max(axis=-1)
    weight = known / (1 + (unusual / OUTLIER) ** 2) ** 2
    everywhere = cv2.resize(_spread(shift * weight[..., None], weight), (width, height))
    return np.rint(painted + everywhere).clip(0, 255).astype(np.uint8)


def feathered(
    mask: Float32[np.ndarray, "H W 1"], region: Region, feather: float
) -> Float32[np.ndarray, "inside_height inside_width 1"]:
    """How much of the output each pixel of the region takes: 1 in the mask, falling to 0 outside.

    The mask is feathered outward. Inward, its rim would keep some of what was to be replaced; the
    model has painted the surroundings along, so that outside the mask two pictures of the same
    are blended. Where the region ends and the photo goes on, the feather is squeezed.

    Args:
        mask: of the photo's size; what is above 0 is masked.
        region: the part of it that is wanted.
        feather: width of the fall in pixels of the photo.

    Returns:
        Values in [0, 1] for the part of the region that lies in the photo.
    """
    kept = (mask[region.rows, region.columns, 0] <= 0).astype(np.uint8)
    to_mask = cv2.distanceTransform(kept, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    height, width = region.photo_size
    to_end = np.minimum(_to_end(region.rows, height)[:, None], _to_end(region.columns, width))
    reach = np.minimum(max(feather, 1), to_mask + to_end)
    share = (1 - to_mask / reach).clip(0, 1).astype(np.float32)
    return (share * share * (3 - 2 * share))[..., None]


def _to_end(part: slice, length: int) -> Float64[np.ndarray, " part"]:
    """Distance of a region's rows or columns to the first that are not in it but in the photo."""
    position = np.arange(part.start, part.stop)
    nearest = np.full(position.shape, np.inf)
    if part.start > 0:
        nearest = np.minimum(nearest, position - part.start + 1)
    if part.stop < length:
        nearest = np.minimum(nearest, part.stop - position)
    return nearest


def _spread(weighted: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Fills in what has little weight from coarser and coarser averages of what has more.

    Args:
        weighted: float32 values times their weight, (h w c).
        weight: float32 in [0, 1], (h w).

    Source: Gortler et al., The Lumigraph (SIGGRAPH 1996), pull-push.
    """
    height, width = weight.shape
    if height == width == 1:
        return weighted / weight[..., None]
    half = ((width + 1) // 2, (height + 1) // 2)
    coarse_weight = cv2.resize(weight, half, interpolation=cv2.INTER_AREA)
    coarse = cv2.resize(weighted, half, interpolation=cv2.INTER_AREA)
    gain = np.minimum(4, 1 / np.maximum(coarse_weight, 1e-9))  # four cells make a full weight
    filled = _spread(coarse * gain[..., None], coarse_weight * gain)
    return weighted + (1 - weight)[..., None] * cv2.resize(filled, (width, height))


def _resized(painted: np.ndarray, region: Region) -> np.ndarray:
    """The part of an output that lies in the photo, at the photo's size (bicubic)."""
    rows, columns = region.rows, region.columns
    down, across = region.model_size[0] / region.height, region.model_size[1] / region.width
    box = (
        (columns.start - region.left) * across,
        (rows.start - region.top) * down,
        (columns.stop - region.left) * across,
        (rows.stop - region.top) * down,
    )
    size = (columns.stop - columns.start, rows.stop - rows.start)
    return np.asarray(Image.fromarray(painted).resize(size, Image.Resampling.BICUBIC, box))
