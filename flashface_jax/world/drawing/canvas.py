"""Filled shapes: the curves they are made of, and the painter that puts them on a canvas.

Everything in a picture is a filled polygon with sub-pixel corners, lines included, so a picture
looks the same at every size.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from flashface_jax.world.palette import Color, Number

Points = Float[np.ndarray, "_ 2"]
Canvas = UInt8[np.ndarray, "H W 4"]  # red, green, blue, and 255 where a person covers the scene
Pixels = UInt8[np.ndarray, "H W 3"]  # red, green, blue

_SUBPIXEL_BITS = 8


@dataclass(frozen=True)
class Shape:
    """A filled polygon.

    Attributes:
        points: corners; face units (1 = half the face's height, origin between brow and nose)
            before projection, fractions of the image side after it.
        color: 0..255 RGB.
        alpha: opacity in [0, 1].
        depth: constant depth in face units; None = lies on the surface of the face.
        lift: added to the depth, one number or one a corner; what stands out moves more.
    """

    points: Float[np.ndarray, "points 2"]
    color: Color
    alpha: float = 1.0
    depth: float | None = None
    lift: float | Float[np.ndarray, " points"] = 0.0


def corners(*points: tuple[Number, Number]) -> Points:
    """Gathers corners into an array."""
    return np.array(points, dtype=np.float64)


@functools.lru_cache(maxsize=64)
def _spline_basis(count: int, steps: int, closed: bool) -> np.ndarray:
    """Catmull-Rom weights (outputs, count): which mix of control points gives each curve point."""
    t = np.arange(steps)[:, None] / steps
    cubic = np.concatenate([t**3, t**2, t, t**0], axis=1) @ (
        0.5 * np.array([[-1, 3, -3, 1], [2, -5, 4, -1], [-1, 0, 1, 0], [0, 2, 0, 0]])
    )
    segments = count if closed else count - 1
    basis = np.zeros((segments * steps, count))
    for segment in range(segments):
        for k in range(4):
            index = segment + k - 1
            index = index % count if closed else min(max(index, 0), count - 1)
            basis[segment * steps : (segment + 1) * steps, index] += cubic[:, k]
    if closed:
        return basis
    return np.concatenate([basis, np.eye(count)[-1:]])


def smooth(control: Points, steps: int = 4, closed: bool = True) -> Points:
    """Draws a smooth curve through control points, `steps` points a segment."""
    return _spline_basis(len(control), steps, closed) @ control


@functools.lru_cache(maxsize=8)
def _unit_circle(count: int) -> np.ndarray:
    angle = np.linspace(0, 2 * np.pi, count, endpoint=False)
    return np.stack([np.cos(angle), np.sin(angle)], axis=1)


def ellipse(x: Number, y: Number, rx: Number, ry: Number, count: int = 16) -> Points:
    """An upright ellipse as a polygon."""
    return _unit_circle(count) * (rx, ry) + (x, y)


def ring(x: Number, y: Number, rx: Number, ry: Number, width: Number) -> Points:
    """A closed band of even width, as one polygon that runs out and back."""
    outer, inner = ellipse(x, y, rx, ry, 20), ellipse(x, y, rx - width, ry - width, 20)
    return np.concatenate([outer, outer[:1], inner[:1], inner[::-1]])


@functools.lru_cache(maxsize=16)
def _stroke_basis(count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What takes `count` points of a line to its smooth path and tangents, and its taper."""
    path = _spline_basis(count, 3, closed=False)
    profile = np.linspace(-1, 1, len(path))[:, None] ** 2
    return path, np.gradient(path, axis=0), profile


def stroke(line: Points, width: float, taper: float = 1.0) -> Points:
    """Thickens a line to a polygon.

    Args:
        line: the points the line runs through, smoothed first.
        width: full width at the thickest place.
        taper: 0 = even width, 1 = pointed at both ends.
    """
    path_of, tangent_of, profile = _stroke_basis(len(line))
    path, tangent = path_of @ line, tangent_of @ line
    length = np.hypot(tangent[:, 0], tangent[:, 1])[:, None] + 1e-9
    offset = tangent[:, ::-1] * (-1.0, 1.0) / length * (0.5 * width * (1 - taper * profile))
    return np.concatenate([path + offset, (path - offset)[::-1]])


def moved(points: Points, x: Number, y: Number) -> Points:
    """Shifts points."""
    return points + np.array([x, y])


def rotated(points: Points, degrees: Number) -> Points:
    """Turns points about the origin, clockwise as seen in the picture."""
    angle = np.deg2rad(degrees)
    c, s = np.cos(angle), np.sin(angle)
    return points @ np.array([[c, s], [-s, c]])


def _fill(canvas: np.ndarray, points: np.ndarray, color: tuple[Number, ...]) -> None:
    cv2.fillPoly(canvas, [points], color, lineType=cv2.LINE_AA, shift=_SUBPIXEL_BITS)


def paint(canvas: Canvas, shapes: Sequence[Shape], person: bool) -> None:
    """Paints shapes, given in fractions of the canvas side, over a canvas in place.

    Args:
        canvas: the picture so far; its fourth channel says where the person is.
        shapes: painted first to last.
        person: whether the shapes belong to the person (and not to the scene).
    """
    side, one = canvas.shape[0], 1 << _SUBPIXEL_BITS
    presence = 255.0 if person else 0.0
    if not shapes:
        return
    # A whole coordinate is the middle of a pixel for OpenCV, and its edge for us.
    corner = np.concatenate([shape.points for shape in shapes])
    corner = np.rint((corner * side - 0.5) * one).astype(np.int32)
    end = 0
    for shape in shapes:
        start, end = end, end + len(shape.points)
        points = corner[start:end]
        color = (*shape.color, presence)
        if shape.alpha >= 1:
            _fill(canvas, points, color)
            continue
        low = np.maximum(points.min(axis=0) // one - 1, 0)
        high = np.minimum(points.max(axis=0) // one + 3, side)
        if (low >= high).any():
            continue
        region = canvas[low[1] : high[1], low[0] : high[0]]
        over = region.copy()
        _fill(over, points - (low * one).astype(np.int32), color)
        region[:] = cv2.addWeighted(over, shape.alpha, region, 1 - shape.alpha, 0)
