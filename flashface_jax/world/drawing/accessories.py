"""What a person wears on the head: glasses, hats, headphones, earrings, masks, scarves."""

from collections.abc import Callable

import numpy as np

from flashface_jax.world.attributes import Headwear, PhotoAttributes
from flashface_jax.world.drawing.canvas import (
    Points,
    Shape,
    corners,
    ellipse,
    moved,
    ring,
    smooth,
    stroke,
)
from flashface_jax.world.drawing.head import ear_x
from flashface_jax.world.drawing.layout import FaceLayout
from flashface_jax.world.palette import FABRICS, INK, WHITE, Color, mix, scale


def eyewear(attributes: PhotoAttributes, layout: FaceLayout) -> list[Shape]:
    """Glasses or sunglasses, standing a little before the face."""
    if attributes.eyewear == "none":
        return []
    x, y, w = layout.eye_x, layout.eye_y + 0.02, layout.half_width
    rx, ry = min(0.3, 0.85 * x), 0.24
    dark = attributes.eyewear == "sunglasses"
    bridge = corners((-x + rx, y - 0.03), (0, y - 0.08), (x - rx, y - 0.03))
    shapes = [Shape(stroke(bridge, 0.06, 0.0), INK, lift=0.12)]
    for side in (-1.0, 1.0):
        temple = corners((side * (x + rx), y - 0.06), (side * w, y - 0.08))
        lens = (24, 24, 32) if dark else (214, 232, 244)
        shapes.append(Shape(stroke(temple, 0.055, 0.0), INK, lift=0.04))
        shapes.append(
            Shape(ellipse(side * x, y, rx, ry, 20), lens, 0.95 if dark else 0.18, lift=0.1)
        )
        shapes.append(Shape(ring(side * x, y, rx, ry, 0.05), INK, lift=0.1))
        shine = corners((side * x - 0.14, y + 0.06), (side * x + 0.02, y - 0.12))
        shapes.append(Shape(stroke(shine, 0.05, 0.8), WHITE, 0.6 if dark else 0.5, lift=0.1))
    return shapes


def _brim(w: float, y: float, reach: float, sag: float) -> Points:
    """A band across the forehead, sagging in the middle; stands out where it sags."""
    return smooth(
        corners(
            (-reach * w, y),
            (-0.5 * reach * w, y + 0.7 * sag),
            (0, y + sag),
            (0.5 * reach * w, y + 0.7 * sag),
            (reach * w, y),
            (0.6 * w, y - 0.12),
            (0, y - 0.1),
            (-0.6 * w, y - 0.12),
        )
    )


def _dome(w: float, volume: float, y: float) -> Points:
    """Cloth that fits the skull closely, down to height `y`."""
    return smooth(
        corners(
            (-w - 0.08, y),
            (-w - 0.02 - 0.3 * volume, -1.05),
            (-0.6 * w, -1.34 - 0.8 * volume),
            (0, -1.42 - volume),
            (0.6 * w, -1.34 - 0.8 * volume),
            (w + 0.02 + 0.3 * volume, -1.05),
            (w + 0.08, y),
            (0, y + 0.06),
        )
    )


def _hat(w: float, color: Color) -> list[Shape]:
    right = corners((0.4, -1.72), (0.86, -1.5), (0.95, -0.72)) * (w, 1.0)
    crown = np.concatenate([corners((0, -1.62)), right, right[::-1] * (-1.0, 1.0)])
    band = corners((-1.0, -0.98), (1.0, -0.98), (1.02, -0.74), (-1.02, -0.74)) * (w, 1.0)
    brim = Shape(_brim(w, -0.78, 1.75, 0.16), mix(color, WHITE, 0.25), lift=0.05)
    return [Shape(smooth(crown), color), Shape(band, scale(color, 0.72)), brim]


def _cap(w: float, color: Color) -> list[Shape]:
    dark = scale(color, 0.72)
    seam = stroke(corners((0, -0.8), (0, -1.44)), 0.04)
    peak = corners((-0.86, -0.7), (-0.5, -0.5), (0, -0.42), (0.5, -0.5), (0.86, -0.7), (0, -0.84))
    return [
        Shape(_dome(w, 0.1, -0.66), color),
        Shape(seam, dark),
        Shape(smooth(peak * (w, 1.0)), dark, lift=0.45),
    ]


def _beanie(w: float, color: Color) -> list[Shape]:
    dark, light = scale(color, 0.72), mix(color, WHITE, 0.25)
    ribs = [corners((x * w, -0.84), (0.8 * x * w, -1.4)) for x in (-0.6, -0.2, 0.2, 0.6)]
    return [
        Shape(ellipse(0, -1.66, 0.17, 0.17), light),
        Shape(_dome(w, 0.22, -0.7), color),
        *(Shape(stroke(rib, 0.05), dark, 0.6) for rib in ribs),
        Shape(moved(_brim(w, -0.74, 1.1, 0.14), 0, 0.02), light),
    ]


def _headphones(w: float, color: Color) -> list[Shape]:
    right = corners((0.66, -1.42), (1.12, -0.8), (1.08, -0.1)) * (w, 1.0)
    arch = np.concatenate([right[::-1] * (-1.0, 1.0), corners((0, -1.62)), right])
    shapes = [Shape(stroke(arch, 0.16, 0.0), scale(color, 0.72), depth=0.0)]
    for side in (-1.0, 1.0):
        cup = ellipse(side * 1.1 * w, 0.06, 0.17, 0.32)
        shapes.append(Shape(cup, color, depth=0.0))
        shapes.append(Shape(cup * (1.0, 0.7), mix(color, WHITE, 0.25), 0.5, depth=0.0))
    return shapes


_HEADWEAR: dict[Headwear, Callable[[float, Color], list[Shape]]] = {
    "hat": _hat,
    "cap": _cap,
    "beanie": _beanie,
    "headphones": _headphones,
}


def headwear(attributes: PhotoAttributes, layout: FaceLayout) -> list[Shape]:
    """A hat, cap, beanie or headphones."""
    if attributes.headwear == "none":
        return []
    return _HEADWEAR[attributes.headwear](layout.half_width, FABRICS[attributes.headwear_color])


def earrings(attributes: PhotoAttributes, layout: FaceLayout, yaw: float) -> list[Shape]:
    """Earrings, drawn over the hair; a turn by `yaw` radians hides the one on the far side."""
    if attributes.extra != "earrings":
        return []
    shapes = []
    for side in (-1.0, 1.0):
        if side * yaw > 0.2:
            continue
        x = ear_x(layout, side, yaw)
        shapes.append(Shape(ellipse(x, 0.5, 0.12, 0.16), (250, 206, 70), depth=0.0))
        gem = ellipse(x, 0.52, 0.07, 0.09)
        shapes.append(Shape(gem, FABRICS[attributes.extra_color], depth=0.0))
    return shapes


def mask(attributes: PhotoAttributes, layout: FaceLayout) -> list[Shape]:
    """A mask over nose, mouth and chin."""
    if attributes.extra != "mask":
        return []
    color = FABRICS[attributes.extra_color]
    w, jaw, bottom = layout.half_width, layout.half_width * layout.jaw, layout.chin_y
    top = layout.nose_y - 0.16
    right = corners(
        (0.3 * w, top - 0.02),
        (0.84 * w, top + 0.14),
        (0.5 * (w + jaw) - 0.02, 0.44),
        (0.84 * jaw, bottom - 0.3),
        (layout.chin, bottom + 0.0),
    )
    cloth = np.concatenate([right, right[::-1] * (-1.0, 1.0)])
    folds = [corners((-0.6 * jaw, y), (0, y + 0.05), (0.6 * jaw, y)) for y in (0.46, 0.64)]
    loops = [corners((side * 0.8 * w, top + 0.18), (side * w, -0.02)) for side in (-1, 1)]
    return [
        *(Shape(stroke(loop, 0.05, 0.0), scale(color, 0.85)) for loop in loops),
        Shape(smooth(cloth), color, lift=0.08),
        *(Shape(stroke(fold, 0.04), scale(color, 0.75), 0.8, lift=0.1) for fold in folds),
    ]


def scarf(attributes: PhotoAttributes) -> list[Shape]:
    """A scarf around the neck, in the body's coordinates."""
    if attributes.extra != "scarf":
        return []
    color = FABRICS[attributes.extra_color]
    wrap = smooth(
        corners(
            (-0.78, 0.98),
            (-0.3, 1.16),
            (0.3, 1.16),
            (0.78, 0.98),
            (0.9, 1.3),
            (0.4, 1.56),
            (-0.4, 1.56),
            (-0.9, 1.3),
        )
    )
    end = corners((0.2, 1.4), (0.6, 1.36), (0.72, 2.3), (0.3, 2.34))
    fold = corners((-0.7, 1.16), (0.0, 1.36), (0.7, 1.16))
    return [
        Shape(end, scale(color, 0.86), depth=0.0),
        Shape(wrap, color, depth=0.0),
        Shape(stroke(fold, 0.06), scale(color, 0.7), 0.8, depth=0.0),
    ]
