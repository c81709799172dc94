"""Eyes, brows, nose and mouth."""

import numpy as np

from flashface_jax.world.drawing.canvas import Points, Shape, corners, ellipse, stroke
from flashface_jax.world.drawing.layout import FaceLayout
from flashface_jax.world.palette import INK, WHITE, Color, mix, scale

_ACROSS = np.linspace(-1, 1, 13)
_ARCH = 1 - _ACROSS**2
# The edge of the upper lip dips in the middle.
_BOW = np.sqrt(_ARCH) * (1 - 0.3 * np.exp(-((_ACROSS / 0.22) ** 2)))


def _between(x: np.ndarray, top: np.ndarray, bottom: np.ndarray) -> Points:
    """The region between two curves over the same x."""
    upper = np.stack([x, top], axis=1)
    lower = np.stack([x, bottom], axis=1)
    return np.concatenate([upper, lower[::-1]])


def _eye(layout: FaceLayout, side: float, iris: Color) -> list[Shape]:
    """One eye; `side` is -1 for the image's left and 1 for its right."""
    width, height = layout.eye_width, layout.eye_height
    top, bottom = -height * layout.lids, 0.7 * height * min(1.0, layout.lids)

    def placed(points: Points) -> Points:
        # Tilt by shearing: outer corners go up.
        raised = points[:, 1] - layout.eye_tilt * side * points[:, 0] / width
        return np.stack([points[:, 0] + side * layout.eye_x, raised + layout.eye_y], axis=1)

    def within_lids(points: Points) -> Points:
        x = np.clip(points[:, 0], -width, width)
        arch = 1 - (x / width) ** 2
        return np.stack([x, np.clip(points[:, 1], top * np.sqrt(arch), bottom * arch)], axis=1)

    upper = top * np.sqrt(_ARCH)
    lid_line = np.stack([_ACROSS * width * 1.08, upper], axis=1)[::2]
    r = min(0.62 * width, 0.92 * height)
    return [
        Shape(
            placed(_between(_ACROSS * width * 1.06, 1.25 * upper, 1.3 * bottom * _ARCH)),
            scale(layout.skin, 0.82),
        ),
        Shape(placed(_between(_ACROSS * width, upper, bottom * _ARCH)), (246, 244, 242)),
        Shape(placed(within_lids(ellipse(0, 0, r, r))), scale(iris, 0.6)),
        Shape(placed(within_lids(ellipse(0, 0, 0.82 * r, 0.82 * r))), iris),
        Shape(placed(within_lids(ellipse(0, 0, 0.42 * r, 0.42 * r))), INK),
        Shape(placed(within_lids(ellipse(-0.35 * r, -0.35 * r, 0.22 * r, 0.22 * r, 8))), WHITE),
        Shape(stroke(placed(lid_line), 0.055, 0.6), mix(INK, scale(layout.skin, 0.3), 0.4)),
    ]


def eyes(layout: FaceLayout, iris: Color) -> list[Shape]:
    """Both eyes."""
    return [*_eye(layout, -1.0, iris), *_eye(layout, 1.0, iris)]


def brows(layout: FaceLayout) -> list[Shape]:
    """Both brows, thicker at the inner end."""
    y, width = layout.brow_y, layout.eye_width
    shapes = []
    for side in (-1.0, 1.0):
        inner, outer = layout.eye_x - 1.05 * width, layout.eye_x + 1.25 * width
        middle = inner + 0.62 * (outer - inner)
        line = corners(
            (side * inner, y + layout.brow_inner + 0.02),
            (side * middle, y + 0.6 * layout.brow_outer - 0.05),
            (side * outer, y + layout.brow_outer + 0.03),
        )
        shapes.append(Shape(stroke(line, layout.brow_thickness, 0.55), layout.brow_color))
    return shapes


def nose(layout: FaceLayout) -> list[Shape]:
    """A ridge that stands out of the face, so that it moves most when the head turns."""
    skin, w, tip = layout.skin, layout.nose_width, layout.nose_y
    top = layout.eye_y - 0.02
    right = corners((0.05, top), (0.06, 0.5 * (top + tip)), (0.9 * w, tip - 0.07), (w, tip + 0.02))
    low = corners((0.75 * w, tip + 0.07), (0.0, tip + 0.1))
    half = np.concatenate([right, low])
    outline = np.concatenate([half, half[-2::-1] * (-1.0, 1.0)])
    out = 0.22 * np.clip((outline[:, 1] - top) / (tip - top), 0.0, 1.0)
    under = corners(
        (-w, tip + 0.01),
        (-0.6 * w, tip + 0.085),
        (0, tip + 0.1),
        (0.6 * w, tip + 0.085),
        (w, tip + 0.01),
    )
    shapes = [
        Shape(outline, scale(skin, 0.88), alpha=0.7, lift=out),
        Shape(stroke(under, 0.05, 0.6), scale(skin, 0.58), lift=0.2),
        Shape(ellipse(0, tip - 0.02, 0.42 * w, 0.06), mix(skin, WHITE, 0.35), alpha=0.6, lift=0.24),
    ]
    for side in (-0.45, 0.45):
        nostril = ellipse(side * w, tip + 0.06, 0.2 * w, 0.025, 8)
        shapes.append(Shape(nostril, scale(skin, 0.42), lift=0.2))
    return shapes


def mouth(layout: FaceLayout, lip_redness: float) -> list[Shape]:
    """Lips, and teeth and tongue when the mouth is open."""
    x, lip, opening = _ACROSS * layout.mouth_width, layout.lip, layout.mouth_opening
    line = layout.mouth_y - layout.mouth_curve * (_ACROSS**2 - 0.35)
    # A laugh opens downwards, with the upper lip following the raised corners.
    upper, lower = line - 0.35 * opening * _ARCH, line + 0.85 * opening * np.sqrt(_ARCH)
    red = mix(scale(layout.skin, 0.8), (198, 44, 62), lip_redness)
    shapes = [Shape(_between(x, upper - lip * _BOW, lower + 1.2 * lip * _ARCH**0.7), red)]
    if opening == 0:
        middle = np.stack([1.06 * x, line], axis=1)[::3]
        light = ellipse(0, line[6] + 0.55 * lip, 0.35 * layout.mouth_width, 0.22 * lip)
        return [
            *shapes,
            Shape(light, mix(red, WHITE, 0.5), alpha=0.5),
            Shape(stroke(middle, 0.05, 0.5), scale(red, 0.42)),
        ]
    inner = _between(x * 0.92, upper, lower)
    teeth = _between(x * 0.86, upper, np.minimum(lower, upper + 0.1 * np.sqrt(_ARCH)))
    tongue = _between(x * 0.6, np.maximum(upper, lower - 0.09 * _ARCH), lower)
    return [*shapes, Shape(inner, (74, 18, 26)), Shape(tongue, (206, 84, 92)), Shape(teeth, WHITE)]
