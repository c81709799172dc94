"""From the turned head to the picture: where points of the face land."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from flashface_jax.world.drawing.canvas import Points, Shape

_BULGE = 0.65  # how far the middle of the face stands before its silhouette, in face units


@dataclass(frozen=True)
class Camera:
    """Turns and places one body part.

    Attributes:
        center: where the origin lands, fractions of the image side.
        zoom: image sides per face unit.
        yaw: radians, positive = to the right of the picture.
        pitch: radians, positive = down.
        roll: radians, positive = clockwise.
        half_width: half width of the face in face units; shapes its surface.
    """

    center: tuple[float, float]
    zoom: float
    yaw: float
    pitch: float
    roll: float
    half_width: float

    def surface(self, points: Points) -> Float[np.ndarray, " points"]:
        """Depth of the face's surface, an ellipsoid; 0 at the silhouette and beyond."""
        x, y = points[:, 0] / self.half_width, (points[:, 1] + 0.1) / 1.45
        return _BULGE * np.sqrt(np.maximum(0.0, 1 - x * x - y * y))

    def project(self, points: Points, depth: Float[np.ndarray, " points"]) -> Points:
        """Maps points of given depth, all in face units, to fractions of the image side.

        What stands before the silhouette shifts with the turn and is foreshortened; the
        silhouette itself keeps its width, since a head is about as deep as it is wide.
        """
        front = np.clip(depth / _BULGE, 0.0, 1.0)
        x = points[:, 0] * (1 - (1 - np.cos(self.yaw)) * front) + depth * np.sin(self.yaw)
        y = points[:, 1] * (1 - (1 - np.cos(self.pitch)) * front) + depth * np.sin(self.pitch)
        c, s = np.cos(self.roll) * self.zoom, np.sin(self.roll) * self.zoom
        return np.stack([c * x - s * y + self.center[0], s * x + c * y + self.center[1]], axis=1)


def project_shapes(shapes: Sequence[Shape], camera: Camera) -> list[Shape]:
    """Projects shapes, all in one go, from face units to fractions of the image side."""
    if not shapes:
        return []
    sizes = [len(shape.points) for shape in shapes]
    points = np.concatenate([shape.points for shape in shapes])
    lift = np.concatenate([np.full(n, s.lift) for s, n in zip(shapes, sizes, strict=True)])
    # NaN marks shapes without a depth of their own.
    own = np.repeat([np.nan if s.depth is None else s.depth for s in shapes], sizes)
    depth = np.where(np.isnan(own), camera.surface(points), own) + lift
    projected, ends = camera.project(points, depth), np.cumsum(sizes).tolist()
    return [
        Shape(projected[end - size : end], shape.color, shape.alpha)
        for shape, size, end in zip(shapes, sizes, ends, strict=True)
    ]
