"""Backgrounds: a vertical gradient, and shapes on it, in fractions of the image side."""

from collections.abc import Callable

import numpy as np

from flashface_jax.world.attributes import Background, PhotoAttributes
from flashface_jax.world.drawing.canvas import Canvas, Shape, corners, ellipse, paint, smooth
from flashface_jax.world.palette import FABRICS, WHITE, Color, Number, mix, scale

# Colours from top to bottom, evenly spread.
_SKIES: dict[Background, tuple[Color, ...]] = {
    "beach": ((86, 176, 236), (176, 222, 246), (236, 240, 232)),
    "forest": ((196, 226, 180), (120, 176, 100), (56, 108, 58)),
    "city": ((150, 186, 222), (214, 222, 230), (226, 216, 204)),
    "night": ((10, 12, 40), (28, 30, 78), (66, 48, 104)),
    "room": ((228, 212, 190), (216, 196, 172), (206, 184, 158)),
    "mountains": ((112, 168, 226), (198, 220, 240), (238, 232, 226)),
}


def _spread(start: float, count: int, stride: float = 0.618034) -> list[float]:
    """Numbers in [0, 1) that look random and depend smoothly on nothing but `start`."""
    return [(start + k * stride) % 1.0 for k in range(1, count + 1)]


def _box(x0: Number, y0: Number, x1: Number, y1: Number, color: Color) -> Shape:
    return Shape(corners((x0, y0), (x1, y0), (x1, y1), (x0, y1)), color)


def _stripes(scenery: float, color: Color) -> list[Shape]:
    """Slanted stripes, the slant one of two."""
    slant = 0.35 if scenery < 0.5 else -0.35
    shapes = []
    for k in range(-4, 11):
        x = (k + 2 * scenery) * 0.16 - 0.16
        if k % 2 == 0:
            edge = corners((x, 0), (x + 0.16, 0), (x + 0.16 + slant, 1), (x + slant, 1))
            shapes.append(Shape(edge, mix(color, WHITE, 0.55)))
    return shapes


def _beach(scenery: float) -> list[Shape]:
    horizon = 0.48 + 0.12 * scenery
    x = 0.1 + 0.8 * ((scenery * 7) % 1)
    foam = smooth(
        corners(
            (-0.1, horizon + 0.16),
            (0.3, horizon + 0.2),
            (0.7, horizon + 0.15),
            (1.1, horizon + 0.2),
            (1.1, horizon + 0.24),
            (-0.1, horizon + 0.24),
        )
    )
    return [
        Shape(ellipse(x, 0.16, 0.09, 0.09, 24), (255, 236, 150)),
        _box(0, horizon, 1, horizon + 0.2, (36, 134, 190)),
        _box(0, horizon, 1, horizon + 0.05, (24, 110, 170)),
        _box(0, horizon + 0.19, 1, 1, (240, 214, 156)),
        Shape(foam, (240, 248, 250)),
    ]


def _forest(scenery: float) -> list[Shape]:
    shapes = []
    for k, x in enumerate(_spread(scenery, 7)):
        near = 0.6 + 0.07 * k  # later trees stand nearer
        green = mix((118, 170, 96), (30, 92, 46), near - 0.2)
        shapes.append(_box(x - 0.02 * near, 0.3, x + 0.02 * near, 0.95, (92, 66, 46)))
        for level in range(3):
            y, half = 0.62 - 0.2 * level, (0.17 - 0.035 * level) * near
            shapes.append(
                Shape(corners((x - half, y + 0.12), (x, y - 0.22), (x + half, y + 0.12)), green)
            )
    return [*shapes, _box(0, 0.86, 1, 1, (62, 96, 48))]


def _city(scenery: float) -> list[Shape]:
    shapes = []
    wall, lit = (128, 128, 140), (236, 232, 208)
    heights = _spread(scenery * 5 % 1, 7, 0.37)
    for k, height in enumerate(heights):
        x, top = k * 0.16 - 0.16 * scenery, 0.1 + 0.5 * height
        shapes.append(_box(x, top, x + 0.14, 1, scale(wall, 0.75 + 0.5 * ((k * 0.37) % 1))))
        for row in range(4):
            for column in range(2):
                wx, wy = x + 0.025 + 0.055 * column, top + 0.05 + 0.11 * row
                if (row * 3 + column * 2 + k) % 4:
                    shapes.append(_box(wx, wy, wx + 0.035, wy + 0.055, lit))
    return shapes


def _night(scenery: float) -> list[Shape]:
    xs, ys = _spread(scenery, 16), _spread(scenery * 3 % 1, 16, 0.754878)
    stars = [
        Shape(ellipse(x, 0.6 * y, 0.009, 0.009, 8), (250, 246, 214))
        for x, y in zip(xs, ys, strict=True)
    ]
    moon = 0.12 + 0.76 * ((scenery * 3) % 1)
    disc = [
        Shape(ellipse(moon, 0.15, 0.075, 0.075, 24), (250, 240, 200)),
        Shape(ellipse(moon + 0.035, 0.135, 0.06, 0.06, 24), (16, 18, 52)),
    ]
    skyline = [
        _box(x, 0.62 + 0.25 * h, x + 0.13, 1, (14, 14, 34))
        for x, h in zip(np.arange(8) * 0.13, _spread(scenery, 8, 0.37), strict=True)
    ]
    return [*stars, *disc, *skyline]


def _room(scenery: float) -> list[Shape]:
    x = 0.06 + 0.16 * scenery
    y = 0.1
    lamp = 0.84 - 0.1 * scenery
    return [
        _box(x, y, x + 0.34, y + 0.4, WHITE),
        _box(x + 0.025, y + 0.025, x + 0.16, y + 0.375, (158, 206, 236)),
        _box(x + 0.18, y + 0.025, x + 0.315, y + 0.375, (158, 206, 236)),
        _box(0, 0.8, 1, 1, (136, 96, 66)),
        _box(0, 0.77, 1, 0.81, WHITE),
        _box(lamp - 0.012, 0.34, lamp + 0.012, 0.9, (70, 60, 56)),
        Shape(
            corners(
                (lamp - 0.06, 0.2), (lamp + 0.06, 0.2), (lamp + 0.11, 0.36), (lamp - 0.11, 0.36)
            ),
            (250, 214, 120),
        ),
    ]


def _mountains(scenery: float) -> list[Shape]:
    shapes = []
    for k, x in enumerate(_spread(scenery, 4)):
        top, half = 0.2 + 0.06 * k, 0.42
        rock = mix((124, 136, 168), (74, 88, 122), k / 3)
        shapes.append(Shape(corners((x - half, 0.85), (x, top), (x + half, 0.85)), rock))
        snow = corners(
            (x - 0.12, top + 0.185),
            (x, top),
            (x + 0.12, top + 0.185),
            (x + 0.05, top + 0.15),
            (x, top + 0.2),
            (x - 0.05, top + 0.15),
        )
        shapes.append(Shape(snow, (248, 250, 254)))
    return [*shapes, _box(0, 0.78, 1, 1, (104, 150, 88))]


_SCENES: dict[Background, Callable[[float], list[Shape]]] = {
    "beach": _beach,
    "forest": _forest,
    "city": _city,
    "night": _night,
    "room": _room,
    "mountains": _mountains,
}


def _scene(attributes: PhotoAttributes) -> list[Shape]:
    if attributes.background == "stripes":
        return _stripes(attributes.scenery, FABRICS[attributes.background_color])
    if attributes.background in _SCENES:
        return _SCENES[attributes.background](attributes.scenery)
    return []


def _backdrop(attributes: PhotoAttributes) -> tuple[Color, ...]:
    """Colours from the top of the picture to its bottom."""
    color = FABRICS[attributes.background_color]
    match attributes.background:
        case "plain" | "stripes":
            return (color, color)
        case "gradient":
            ends = (mix(color, WHITE, 0.75), scale(color, 0.8))
            return ends if attributes.scenery < 0.5 else ends[::-1]
        case _:
            return _SKIES[attributes.background]


def paint_scenery(canvas: Canvas, attributes: PhotoAttributes) -> None:
    """Paints the background over the whole canvas, in place, and marks no person on it."""
    stops = np.array(_backdrop(attributes))
    at = np.linspace(0, 1, canvas.shape[0])
    places = np.linspace(0, 1, len(stops))
    for channel in range(3):
        canvas[:, :, channel] = np.rint(np.interp(at, places, stops[:, channel]))[:, None]
    canvas[:, :, 3] = 0
    paint(canvas, _scene(attributes), person=False)
