"""Light on a finished drawing: round shading on the person, a soft gradient on the scene."""

import numpy as np
from jaxtyping import Float

from flashface_jax.world.attributes import LightFrom, LightTint, PhotoAttributes
from flashface_jax.world.drawing.canvas import Canvas, Pixels

_TOWARDS: dict[LightFrom, tuple[float, float, float]] = {  # right, down, towards the viewer
    "front": (0.0, -0.15, 1.0),
    "left": (-0.95, -0.25, 0.3),
    "right": (0.95, -0.25, 0.3),
    "above": (0.0, -0.95, 0.3),
    "below": (0.0, 0.95, 0.3),
}
_TINTS: dict[LightTint, tuple[float, float, float]] = {
    "white": (1.0, 1.0, 1.0),
    "warm": (1.1, 0.98, 0.8),
    "cool": (0.82, 0.97, 1.14),
}


def _facing(
    side: int, center: tuple[float, float], radius: float, towards: np.ndarray
) -> Float[np.ndarray, "H W"]:
    """Cosine between the light and the surface of a ball at every pixel.

    Beyond the ball its rim goes on, which lights neck and shoulders like the side of the face.
    """
    at = (np.arange(side, dtype=np.float32) + 0.5) / side
    x, y = (at - center[0]) / radius, (at - center[1]) / radius
    distance = np.sqrt(x[None, :] ** 2 + y[:, None] ** 2)
    shrink = 1 / np.maximum(distance, 1.0)
    bulge = np.sqrt(np.maximum(0.0, 1 - distance**2))
    flat = x[None, :] * towards[0] + y[:, None] * towards[1]
    return (flat * shrink + bulge * towards[2]).astype(np.float32)


def shade(
    drawing: Canvas, attributes: PhotoAttributes, center: tuple[float, float], radius: float
) -> Pixels:
    """Lights a drawing.

    Args:
        drawing: the picture; its fourth channel weighs the person against the scene.
        attributes: direction, tint and strength of the light.
        center: middle of the head, fractions of the image side.
        radius: of the head, a fraction of the image side.
    """
    towards = np.array(_TOWARDS[attributes.light_from], dtype=np.float32)
    towards /= np.linalg.norm(towards)
    strength, side = attributes.light_strength, drawing.shape[0]
    facing = _facing(side, center, radius, towards)
    at = (np.arange(side, dtype=np.float32) + 0.5) / side - 0.5
    slope = at[None, :] * towards[0] + at[:, None] * towards[1]
    person = drawing[:, :, 3].astype(np.float32) / 255
    on_person = 1 - 0.5 * strength + 0.72 * strength * (0.5 + 0.5 * facing)
    on_scene = 1 - 0.15 * strength + 0.45 * strength * slope
    gain = on_scene + person * (on_person - on_scene)
    tint = 1 + (0.45 + 0.55 * strength) * (np.array(_TINTS[attributes.light_tint], np.float32) - 1)
    lit = drawing[:, :, :3] * (gain[:, :, None] * tint)
    return np.minimum(lit + 0.5, 255).astype(np.uint8)
