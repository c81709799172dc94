"""Hair styles: what lies behind the head and what falls over the face."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from flashface_jax.world.drawing.canvas import (
    Points,
    Shape,
    corners,
    ellipse,
    smooth,
    stroke,
)
from flashface_jax.world.drawing.layout import FaceLayout
from flashface_jax.world.identity import HairStyle, Identity
from flashface_jax.world.palette import WHITE, Color, Number, mix, scale


@dataclass(frozen=True)
class Hair:
    """Shapes of a hair style.

    Attributes:
        behind: drawn before body and face.
        front: drawn after the face.
        top: what stands up from the skull; left out under a hat.
    """

    behind: list[Shape] = field(default_factory=list)
    front: list[Shape] = field(default_factory=list)
    top: list[Shape] = field(default_factory=list)


def _cap(w: float, volume: float, side_y: float, inner: Points) -> Points:
    """Hair over the skull: an outer arc from side to side, and the hairline back to its start."""
    arc = smooth(
        corners(
            (-w - 0.3 * volume, side_y),
            (-w - 0.7 * volume, -0.55),
            (-0.72 * w - 0.5 * volume, -1.14 - 0.5 * volume),
            (0, -1.36 - volume),
            (0.72 * w + 0.5 * volume, -1.14 - 0.5 * volume),
            (w + 0.7 * volume, -0.55),
            (w + 0.3 * volume, side_y),
        ),
        closed=False,
    )
    return np.concatenate([arc, smooth(inner, closed=False)])


def _hairline(w: float, side_y: float, *heights: float) -> Points:
    """A hairline from the right side to the left through heights spread over the forehead."""
    x = np.linspace(0.8, -0.8, len(heights)) * w
    return np.concatenate(
        [
            corners((0.93 * w, side_y), (0.95 * w, -0.42)),
            np.stack([x, np.array(heights)], axis=1),
            corners((-0.95 * w, -0.42), (-0.93 * w, side_y)),
        ]
    )


def _shine(w: float, volume: float, parting: float, color: Color) -> Shape:
    """A highlight on the crown."""
    line = corners((-0.62, -1.02), (-0.36, -1.18), (0.02, -1.24)) * (w, 1.0) + (
        0.15,
        -0.45 * volume,
    )
    return Shape(stroke(line * (-np.sign(parting), 1.0), 0.12, 0.9), mix(color, WHITE, 0.4), 0.55)


def _strands(color: Color, *lines: Points) -> list[Shape]:
    return [Shape(stroke(line, 0.045, 0.8), scale(color, 0.72), alpha=0.7) for line in lines]


def _bumps(x: Number, y: Number, rx: Number, ry: Number, count: int, depth: float) -> Points:
    """An ellipse with a bumpy edge."""
    angle = np.linspace(0, 2 * np.pi, 8 * count, endpoint=False)
    radius = 1 + depth * np.abs(np.sin(0.5 * count * angle))
    return np.stack([x + rx * radius * np.cos(angle), y + ry * radius * np.sin(angle)], axis=1)


def _buzz(identity: Identity, w: float, color: Color) -> Hair:
    h = identity.hairline - 0.08
    inner = _hairline(w, -0.2, h + 0.14, h, h - 0.02, h, h + 0.14)
    return Hair(front=[Shape(_cap(w, 0.03, -0.2, inner), color, alpha=0.9)])


def _swept(identity: Identity, w: float, color: Color) -> Hair:
    h, v, p = identity.hairline, identity.hair_volume + 0.08, np.sign(identity.parting)
    low, high = (h + 0.28, h - 0.2)
    heights = [high, h - 0.1, h, h + 0.14, low] if p > 0 else [low, h + 0.14, h, h - 0.1, high]
    side_y = 0.0
    cap = Shape(_cap(w, v, side_y, _hairline(w, side_y, *heights)), color)
    lines = [
        corners((0.5 * p * w, h - 0.2), (0.0, h - 0.28 - k), (-0.66 * p * w, h + 0.04 - 1.4 * k))
        for k in (0.0, 0.18)
    ]
    return Hair(front=[cap, *_strands(color, *lines), _shine(w, v, p, color)])


def _spiky(identity: Identity, w: float, color: Color) -> Hair:
    h, v = identity.hairline, identity.hair_volume
    inner = _hairline(w, -0.15, h + 0.1, h - 0.08, h + 0.08, h - 0.08, h + 0.08, h - 0.08, h + 0.1)
    angle = np.deg2rad(np.linspace(-168, -12, 15))
    out = np.where(np.arange(15) % 2 == 1, 1.28 + 0.9 * v, 0.95)
    spikes = np.stack([w * 1.02 * out * np.cos(angle), -0.42 + 0.98 * out * np.sin(angle)], axis=1)
    cap = Shape(_cap(w, 0.06, -0.15, inner), color)
    return Hair(front=[cap, _shine(w, 0.06, 1.0, color)], top=[Shape(spikes, scale(color, 0.92))])


def _mohawk(identity: Identity, w: float, color: Color) -> Hair:
    h, v = identity.hairline, identity.hair_volume
    inner = _hairline(w, -0.3, h + 0.02, h - 0.12, h - 0.14, h - 0.12, h + 0.02)
    shaved = Shape(_cap(w, 0.0, -0.3, inner), mix(color, identity.skin, 0.4), alpha=0.75)
    tall = -1.55 - 1.6 * v
    crest = corners(
        (-0.3, h - 0.04),
        (-0.34, -1.2),
        (-0.44, tall + 0.12),
        (-0.2, tall + 0.1),
        (0.0, tall - 0.12),
        (0.2, tall + 0.1),
        (0.44, tall + 0.12),
        (0.34, -1.2),
        (0.3, h - 0.04),
        (0.0, h + 0.12),
    )
    lines = [corners((x, h - 0.1), (1.2 * x, -1.2), (1.6 * x, tall + 0.2)) for x in (-0.12, 0.12)]
    return Hair(front=[shaved], top=[Shape(crest, color), *_strands(color, *lines)])


def _afro(identity: Identity, w: float, color: Color) -> Hair:
    h, v = identity.hairline, identity.hair_volume
    puff = _bumps(0, -0.62, w + 0.2 + 1.2 * v, 0.98 + 1.1 * v, 14, 0.07)
    inner = _hairline(w, 0.05, h + 0.14, h + 0.02, h + 0.08, h, h + 0.08, h + 0.02, h + 0.14)
    cap = Shape(_cap(w, 0.16, 0.05, inner), color)
    curls = [
        Shape(ellipse(x * w, y, 0.12, 0.09, 10), mix(color, WHITE, 0.22), alpha=0.4)
        for x, y in ((-0.6, -1.1), (-0.2, -1.3), (0.25, -1.12), (0.62, -0.98), (0.05, -0.98))
    ]
    return Hair(behind=[Shape(puff, scale(color, 0.88), depth=-0.1)], front=[cap, *curls])


def _bob(identity: Identity, w: float, color: Color) -> Hair:
    h, v = identity.hairline, identity.hair_volume
    side = w + 0.12 + 0.5 * v
    back = smooth(
        corners(
            (0, -1.4 - v),
            (0.75 * w, -1.2 - v),
            (side, -0.5),
            (side + 0.08, 0.3),
            (side - 0.06, 0.72),
            (0.3, 0.62),
            (-0.3, 0.62),
            (-side + 0.06, 0.72),
            (-side - 0.08, 0.3),
            (-side, -0.5),
            (-0.75 * w, -1.2 - v),
        )
    )
    fringe = h + 0.2
    cap = _cap(
        w, v, 0.0, _hairline(w, 0.0, fringe + 0.06, fringe, fringe + 0.02, fringe, fringe + 0.06)
    )
    locks = _side_locks(w, v, 0.62, 0.0)
    lines = [corners((x * w, -1.05), (1.15 * x * w, fringe - 0.08)) for x in (-0.45, -0.05, 0.35)]
    return Hair(
        behind=[Shape(back, scale(color, 0.78), depth=-0.25)],
        front=[
            Shape(cap, color),
            *(Shape(lock, color, depth=0.05) for lock in locks),
            *_strands(color, *lines),
            _shine(w, v, identity.parting, color),
        ],
    )


def _side_locks(w: float, v: float, end: float, wave: float) -> list[Points]:
    """A lock down each side of the face, from the temple to `end`."""
    y = np.linspace(-0.75, end, 9)
    sway = wave * np.sin(np.linspace(0, 3.2 * np.pi, 9))
    width = 0.2 + 0.5 * v
    outer = np.stack([w + 0.6 * v + 0.1 * (y > 0) + sway, y], axis=1)
    slim = np.sqrt(np.linspace(1, 0.02, 9))  # runs out to a tip
    inner = np.stack([outer[:, 0] - width * slim, y], axis=1)
    lock = np.concatenate([smooth(outer, closed=False), smooth(inner[::-1], closed=False)])
    return [lock, lock * (-1.0, 1.0)]


def _flowing(identity: Identity, w: float, color: Color, wave: float) -> Hair:
    """Hair over the shoulders: straight and parted in the middle, or wavy and parted aside."""
    h, v, p = identity.hairline - 0.06, identity.hair_volume, np.sign(identity.parting)
    y = np.linspace(-0.7, 1.75, 13)
    sway = wave * np.sin(np.linspace(0, 5.5 * np.pi, 13))
    right = np.stack([w + 0.16 + v + 0.08 * y + sway, y], axis=1)
    crown = corners((-0.7 * w, -1.2 - v), (0, -1.4 - v), (0.7 * w, -1.2 - v))
    back = smooth(np.concatenate([crown, right, right[::-1] * (-1.0, 1.0)]))
    if wave:
        heights = [h - 0.22, h - 0.16, h - 0.02, h + 0.16, h + 0.34]
        heights = heights if p > 0 else heights[::-1]
    else:
        heights = [h + 0.42, h + 0.1, h - 0.22, h + 0.1, h + 0.42]
    side_y = 0.1
    cap = _cap(w, v, side_y, _hairline(w, side_y, *heights))
    part, sides = (0.5 * p * w, (-p,)) if wave else (0.0, (-1.0, 1.0))
    lines = [
        corners((part, -1.2), (0.5 * (part + s * w), -1.02), (0.9 * s * w, -0.6)) for s in sides
    ]
    locks = [Shape(lock, color, depth=0.05) for lock in _side_locks(w, v, 1.45, wave)]
    return Hair(
        behind=[Shape(back, scale(color, 0.78), depth=-0.25)],
        front=[*locks, Shape(cap, color), *_strands(color, *lines), _shine(w, v, p, color)],
    )


def _pulled_back(identity: Identity, w: float, color: Color) -> tuple[Shape, Shape]:
    """Smooth hair drawn off the forehead, with its highlight."""
    h = identity.hairline - 0.04
    inner = _hairline(w, -0.1, h + 0.16, h + 0.02, h - 0.04, h + 0.02, h + 0.16)
    return Shape(_cap(w, 0.07, -0.1, inner), color), _shine(w, 0.07, identity.parting, color)


def _bun(identity: Identity, w: float, color: Color) -> Hair:
    r = 0.3 + 0.7 * identity.hair_volume
    knot = [
        Shape(ellipse(0, -1.42 - 0.55 * r, r, 0.85 * r), scale(color, 0.9), depth=-0.1),
        *_strands(
            color,
            corners((-0.6 * r, -1.5 - 0.5 * r), (0, -1.3 - 0.5 * r), (0.6 * r, -1.55 - 0.5 * r)),
        ),
    ]
    return Hair(front=list(_pulled_back(identity, w, color)), top=knot)


def _pigtails(identity: Identity, w: float, color: Color) -> Hair:
    v = identity.hair_volume
    tails = []
    for side in (-1.0, 1.0):
        x = w + 0.12
        tail = smooth(
            corners(
                (x, -0.5),
                (x + 0.34 + v, -0.62),
                (x + 0.5 + v, -0.1),
                (x + 0.34 + v, 0.45),
                (x + 0.2, 0.85),
                (x + 0.12, 0.4),
                (x + 0.02, -0.1),
            )
        )
        tails.append(Shape(tail * (side, 1.0), scale(color, 0.86), depth=-0.1))
        tie = ellipse(side * (x + 0.06), -0.5, 0.13, 0.15)
        tails.append(Shape(tie, (236, 236, 240), depth=-0.1))
    return Hair(behind=tails, front=list(_pulled_back(identity, w, color)))


def _long(identity: Identity, w: float, color: Color) -> Hair:
    return _flowing(identity, w, color, wave=0.0)


def _wavy(identity: Identity, w: float, color: Color) -> Hair:
    return _flowing(identity, w, color, wave=0.09)


_STYLES: dict[HairStyle, Callable[[Identity, float, Color], Hair]] = {
    "buzz": _buzz,
    "swept": _swept,
    "spiky": _spiky,
    "mohawk": _mohawk,
    "afro": _afro,
    "bob": _bob,
    "long": _long,
    "wavy": _wavy,
    "bun": _bun,
    "pigtails": _pigtails,
}


def hair(identity: Identity, layout: FaceLayout) -> Hair:
    """The shapes of a person's hair in its colour of this photo."""
    return _STYLES[identity.hair_style](identity, layout.half_width, layout.hair)
