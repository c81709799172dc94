"""Neck, shoulders and clothes."""

from collections.abc import Callable

import numpy as np

from flashface_jax.world.attributes import Clothing, PhotoAttributes
from flashface_jax.world.drawing.canvas import Points, Shape, corners, ellipse, smooth, stroke
from flashface_jax.world.drawing.layout import FaceLayout
from flashface_jax.world.palette import FABRICS, WHITE, Color, mix, scale

_BOTTOM = 9.0  # beyond the lower edge of any picture


def _torso(layout: FaceLayout, collar: float) -> Points:
    """Shoulders and all below; `collar` is the half width of the opening for the neck."""
    s = 1.75 * layout.shoulders
    shoulder = corners(
        (collar, 1.22), (0.62 * s, 1.42), (0.94 * s, 1.72), (1.06 * s, 2.3), (1.1 * s, 3.2)
    )
    side = np.concatenate([smooth(shoulder, closed=False), corners((1.15 * s, _BOTTOM))])
    return np.concatenate([side, side[::-1] * (-1.0, 1.0)])


def _flat(points: Points, color: Color, alpha: float = 1.0) -> Shape:
    return Shape(points, color, alpha, depth=0.0)


def _neck(layout: FaceLayout) -> list[Shape]:
    w = 0.56 * layout.half_width * (0.6 + 0.4 * layout.shoulders)
    neck = corners(
        (-w, 0.3), (w, 0.3), (w + 0.02, 1.2), (w + 0.2, 1.4), (-w - 0.2, 1.4), (-w - 0.02, 1.2)
    )
    shade = ellipse(0, 0.9, 1.1 * w, 0.34)
    return [_flat(neck, scale(layout.skin, 0.9)), _flat(shade, scale(layout.skin, 0.66), 0.7)]


def _opening(width: float, depth: float) -> Points:
    """A round neckline showing skin."""
    return smooth(
        corners(
            (-width, 1.2),
            (-0.7 * width, 1.2 + 0.75 * depth),
            (0, 1.22 + depth),
            (0.7 * width, 1.2 + 0.75 * depth),
            (width, 1.2),
        )
    )


def _arms(layout: FaceLayout, color: Color) -> list[Shape]:
    """The folds that part the arms from the body."""
    shapes = []
    for side in (-1.0, 1.0):
        fold = corners((side * 1.22, 2.2), (side * 1.14, 3.4)) * (layout.shoulders, 1.0)
        shapes.append(_flat(stroke(fold, 0.07), scale(color, 0.72), 0.8))
    return shapes


def _tee(layout: FaceLayout, color: Color) -> list[Shape]:
    neckline = corners((-0.5, 1.2), (-0.34, 1.45), (0, 1.56), (0.34, 1.45), (0.5, 1.2))
    skin = _flat(_opening(0.5, 0.32), scale(layout.skin, 0.92))
    return [skin, *_neck(layout), _flat(stroke(neckline, 0.09, 0.0), scale(color, 0.72))]


def _shirt(layout: FaceLayout, color: Color) -> list[Shape]:
    wing = corners((0.36, 1.08), (0.72, 1.32), (0.44, 1.66), (0.0, 1.42))
    return [
        *_neck(layout),
        _flat(stroke(corners((0, 1.45), (0, 3.5)), 0.05, 0.0), scale(color, 0.72)),
        *(_flat(wing * (side, 1.0), mix(color, WHITE, 0.3)) for side in (-1, 1)),
        *(_flat(ellipse(0, y, 0.05, 0.05, 8), WHITE) for y in (1.75, 2.1, 2.45)),
    ]


def _sweater(layout: FaceLayout, color: Color) -> list[Shape]:
    collar = corners((-0.56, 1.1), (0, 1.2), (0.56, 1.1), (0.62, 1.36), (0, 1.52), (-0.62, 1.36))
    reach = 1.72 * layout.shoulders
    rows = [corners((-reach, y), (0, y + 0.1), (reach, y)) for y in (1.95, 2.4, 2.85)]
    return [
        *(_flat(stroke(row, 0.1, 0.3), mix(color, WHITE, 0.3), 0.8) for row in rows),
        *_neck(layout),
        _flat(smooth(collar), scale(color, 0.72)),
    ]


def _jacket(layout: FaceLayout, color: Color) -> list[Shape]:
    blouse = corners((-0.44, 1.15), (0.44, 1.15), (0, 2.9))
    lapel = corners((0.34, 1.12), (0.78, 1.36), (0.5, 1.5), (0.58, 1.62), (0.0, 2.8))
    return [
        _flat(blouse, (236, 236, 238)),
        *_neck(layout),
        *(_flat(lapel * (side, 1.0), scale(color, 0.72)) for side in (-1, 1)),
    ]


def _hoodie(layout: FaceLayout, color: Color) -> list[Shape]:
    right = corners((0.5, 0.8), (0.9, 0.95), (0.95, 1.5))
    hood = np.concatenate([right, corners((0, 1.85)), right[::-1] * (-1.0, 1.0)])
    string = stroke(corners((0.22, 1.55), (0.26, 2.2)), 0.06, 0.0)
    return [
        _flat(smooth(hood), scale(color, 0.72)),
        _flat(_opening(0.5, 0.3), scale(layout.skin, 0.92)),
        *_neck(layout),
        *(_flat(string * (side, 1.0), WHITE) for side in (-1, 1)),
    ]


def _dress(layout: FaceLayout, color: Color) -> list[Shape]:
    """Straps over bare shoulders."""
    s = layout.shoulders
    right = corners((0.42, 1.8), (0.46, 1.26), (0.62, 1.3), (0.95 * s, 2.0), (1.4 * s, _BOTTOM))
    cloth = np.concatenate([corners((0, 2.0)), right, right[::-1] * (-1.0, 1.0)])
    hem = corners((-0.42, 1.8), (0, 2.0), (0.42, 1.8))
    return [
        _flat(_torso(layout, 0.4), scale(layout.skin, 0.92)),
        *_arms(layout, layout.skin),
        *_neck(layout),
        _flat(cloth, color),
        _flat(stroke(hem, 0.08, 0.0), mix(color, WHITE, 0.3)),
    ]


_GARMENTS: dict[Clothing, Callable[[FaceLayout, Color], list[Shape]]] = {
    "t-shirt": _tee,
    "shirt": _shirt,
    "sweater": _sweater,
    "jacket": _jacket,
    "hoodie": _hoodie,
    "dress": _dress,
}


def body(attributes: PhotoAttributes, layout: FaceLayout) -> list[Shape]:
    """Neck and clothes, in face units about a head that is not turned."""
    color = FABRICS[attributes.clothing_color]
    torso = _flat(_torso(layout, 0.5), color)
    garment = _GARMENTS[attributes.clothing](layout, color)
    return [torso, *_arms(layout, color), *garment]
