"""The head without features or hair: outline, ears, skin marks, wrinkles, facial hair."""

import math

import numpy as np

from flashface_jax.world.drawing.canvas import (
    Points,
    Shape,
    corners,
    ellipse,
    moved,
    ring,
    rotated,
    smooth,
    stroke,
)
from flashface_jax.world.drawing.layout import FaceLayout
from flashface_jax.world.identity import Identity, Mark
from flashface_jax.world.palette import mix, scale

_FRECKLES = np.array(
    [(-3.2, -0.4), (-2.5, 0.35), (-1.9, -0.5), (-1.4, 0.3), (-0.8, -0.3), (0.0, 0.1)]
)
_HAIRLINE = -1.0  # where the face ends and the scalp begins


def _mirrored(right: list[tuple[float, float]]) -> Points:
    """Closes a right half, listed from top to bottom, with its mirror image."""
    half = np.array(right)
    left = half[::-1] * (-1.0, 1.0)
    keep = np.abs(left[:, 0]) > 1e-9  # points on the axis serve both halves
    return np.concatenate([half, left[keep]])


def head_outline(layout: FaceLayout) -> Points:
    """The outline of skull, cheeks, jaw and chin."""
    w, bottom = layout.half_width, layout.chin_y
    jaw = w * layout.jaw
    return smooth(
        _mirrored(
            [
                (0.0, -1.34),
                (0.6 * w, -1.2),
                (0.95 * w, -0.7),
                (w, -0.1),
                (0.5 * (w + jaw), 0.34),
                (0.86 * jaw, 0.34 + 0.5 * (bottom - 0.34)),
                (0.5 * (0.8 * jaw + layout.chin), bottom - 0.1),
                (0.55 * layout.chin, bottom),
            ]
        )
    )


def face_outline(layout: FaceLayout) -> Points:
    """The part of the outline that belongs to the face: from the hairline to the chin."""
    outline = head_outline(layout)
    return outline[outline[:, 1] >= _HAIRLINE]


def ear_x(layout: FaceLayout, side: float, yaw: float) -> float:
    """Where an ear is across the head; the far one moves in, behind the turned face."""
    return side * (layout.half_width + 0.05 - 0.7 * max(0.0, side * math.sin(yaw)))


def ears(layout: FaceLayout, size: float, yaw: float) -> list[Shape]:
    """Both ears; the one on the far side hides behind the turned head.

    Args:
        layout: the face.
        size: half height in face units.
        yaw: of the head in radians.
    """
    shapes = []
    for side in (-1.0, 1.0):
        x = ear_x(layout, side, yaw)
        outer = rotated(ellipse(0, 0, 0.62 * size, size), 12 * side)
        inner = rotated(ellipse(0, 0, 0.32 * size, 0.6 * size), 12 * side)
        shell, hollow = moved(outer, x, 0.08), moved(inner, x + 0.03 * side, 0.06)
        shapes.append(Shape(shell, scale(layout.skin, 0.94), depth=0.0))
        shapes.append(Shape(hollow, scale(layout.skin, 0.74), depth=0.0))
    return shapes


def face_skin(layout: FaceLayout) -> list[Shape]:
    """The bare face with rosy cheeks and a shaded lower edge."""
    w, skin = layout.half_width, layout.skin
    rosy = mix(skin, (232, 86, 84), 0.4)
    shapes = [Shape(head_outline(layout), skin)]
    for side in (-0.56, 0.56):
        shapes.append(Shape(ellipse(side * w, 0.33, 0.24 * w, 0.15), rosy, alpha=0.35))
    return shapes


def _star(points: int, inner: float) -> Points:
    angle = np.arange(2 * points) * np.pi / points - np.pi / 2
    radius = np.where(np.arange(2 * points) % 2 == 0, 1.0, inner)[:, None]
    return np.stack([np.cos(angle), np.sin(angle)], axis=1) * radius


_TATTOOS: dict[str, tuple[Points, ...]] = {
    "star": (_star(5, 0.42),),
    "diamond": (corners((0, -1.1), (0.75, 0), (0, 1.1), (-0.75, 0)),),
    "drop": (
        smooth(corners((0, -1.3), (0.42, -0.1), (0.5, 0.5), (0, 1), (-0.5, 0.5), (-0.42, -0.1))),
    ),
    "heart": (
        smooth(
            corners(
                (0, -0.4),
                (0.5, -0.85),
                (1, -0.3),
                (0.5, 0.4),
                (0, 1),
                (-0.5, 0.4),
                (-1, -0.3),
                (-0.5, -0.85),
            )
        ),
    ),
    "bars": tuple(
        corners((x - 0.2, -1), (x + 0.2, -1), (x + 0.2, 1), (x - 0.2, 1)) for x in (-0.7, 0.0, 0.7)
    ),
}


def _mark(mark: Mark, half_width: float) -> list[Shape]:
    x, y, size = mark.x * half_width, mark.y, mark.size
    if mark.kind in _TATTOOS:
        return [
            Shape(moved(rotated(part * size, mark.angle), x, y), mark.color, alpha=0.9)
            for part in _TATTOOS[mark.kind]
        ]
    if mark.kind == "ring":
        return [Shape(ring(x, y, size, size, 0.45 * size), mark.color, alpha=0.9)]
    if mark.kind == "freckles":  # on both cheeks and across the nose, wherever the mark is
        spots = np.concatenate([_FRECKLES, _FRECKLES[:-1] * (-1, 1)]) * (0.17, 0.17) + (0.0, 0.24)
        return [
            Shape(ellipse(px, py, 0.042, 0.042, 8), mark.color, alpha=0.8)
            for px, py in spots * (half_width / 0.84, 1.0)
        ]
    if mark.kind == "scar":
        line = rotated(corners((0, -1.4), (0.1, -0.5), (-0.1, 0.5), (0, 1.4)) * size, mark.angle)
        return [Shape(stroke(moved(line, x, y), 0.075, 0.7), mark.color, alpha=0.85)]
    return [
        Shape(ellipse(x, y, size, size), mark.color, alpha=0.5 if mark.kind == "blush" else 1.0)
    ]


def skin_marks(identity: Identity, layout: FaceLayout) -> list[Shape]:
    """Scars, moles, freckles, birthmarks and tattoos."""
    w = layout.half_width
    return [shape for mark in identity.marks for shape in _mark(mark, w)]


def wrinkles(layout: FaceLayout) -> list[Shape]:
    """Lines on the forehead, beside eyes and mouth, and bags under the eyes; none when young."""
    strength = layout.wrinkles
    if strength == 0:
        return []
    color, w = scale(layout.skin, 0.6), layout.half_width
    lines = [
        corners((-0.4 * w, -0.64), (0, -0.68), (0.4 * w, -0.64)),
        corners((-0.33 * w, -0.52), (0, -0.56), (0.33 * w, -0.52)),
    ]
    for side in (-1.0, 1.0):
        nose, mouth = side * (layout.nose_width + 0.04), side * (layout.mouth_width + 0.09)
        lines.append(
            corners(
                (nose, layout.nose_y),
                (mouth, layout.mouth_y - 0.08),
                (mouth, layout.mouth_y + 0.14),
            )
        )
        x, y = side * layout.eye_x, layout.eye_y + layout.eye_height + 0.06
        lines.append(corners((x - 0.13, y), (x, y + 0.06), (x + 0.13, y)))
        corner = x + side * (layout.eye_width + 0.04)
        for slope in (-0.08, 0.0, 0.08):
            end = (corner + side * 0.13, layout.eye_y + 1.6 * slope)
            lines.append(corners((corner, layout.eye_y + slope * 0.5), end))
    return [Shape(stroke(line, 0.045 * strength + 0.012, 0.7), color, 0.75) for line in lines]


def facial_hair(identity: Identity, layout: FaceLayout) -> list[Shape]:
    """Moustache, goatee or beard, in the colour of the brows."""
    if identity.facial_hair == "none":
        return []
    color, w, jaw = layout.brow_color, layout.half_width, layout.half_width * layout.jaw
    mouth, m = layout.mouth_y, layout.mouth_width
    lip = mouth - layout.lip - 0.5 * layout.mouth_opening
    arc = [(0.0, lip - 0.1), (0.6 * m, lip - 0.06), (m + 0.08, mouth + 0.06)]
    moustache = _mirrored([*arc, (0.7 * m, mouth + 0.0), (0.0, lip + 0.01)])
    if identity.facial_hair == "moustache":
        return [Shape(smooth(moustache), color)]
    bottom = layout.chin_y
    if identity.facial_hair == "goatee":
        chin = [(m + 0.08, bottom - 0.22), (0.7 * layout.chin + 0.1, bottom + 0.06)]
        return [Shape(smooth(_mirrored([*arc, *chin, (0.0, bottom + 0.1)])), color)]
    sides = [(0.8 * w, 0.3), (0.99 * w, -0.02), (0.5 * (w + jaw) + 0.03, 0.4)]
    low = [
        (0.86 * jaw + 0.06, 0.4 + 0.5 * (bottom - 0.34)),
        (0.6 * layout.chin + 0.16, bottom + 0.08),
    ]
    return [Shape(smooth(_mirrored([*arc[:2], *sides, *low, (0.0, bottom + 0.14)])), color)]
