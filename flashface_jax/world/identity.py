"""What identifies a drawn person, and how people are sampled."""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from flashface_jax.world.palette import (
    EYE_COLORS,
    NATURAL_HAIR,
    SKIN_TONES,
    TATTOO_COLORS,
    Color,
    along,
    scale,
)

HairStyle = Literal[
    "buzz", "swept", "spiky", "mohawk", "afro", "bob", "long", "wavy", "bun", "pigtails"
]
MarkKind = Literal[
    "freckles", "mole", "scar", "blush", "star", "drop", "heart", "bars", "diamond", "ring"
]
FacialHair = Literal["none", "moustache", "beard", "goatee"]

HAIR_STYLES: tuple[HairStyle, ...] = get_args(HairStyle)
MARK_KINDS: tuple[MarkKind, ...] = get_args(MarkKind)

# x as a fraction of the face's half width, y in face units: cheeks, jaw, forehead.
_MARK_PLACES = ((-0.6, 0.2), (0.6, 0.2), (-0.56, 0.52), (0.56, 0.52), (0.0, -0.5))

# Irrational strides of a low-discrepancy sequence (powers of the root of x^6 = x + 1): whatever
# stands out most is dealt evenly, so that no two of the first identities look alike by chance.
_STRIDES = 1.1347241384015194 ** -np.arange(1.0, 6.0)


@dataclass(frozen=True)
class Mark:
    """A lasting mark on the skin.

    Attributes:
        kind: what it is; the last six are tattoos.
        x: place across the face, a fraction of its half width, negative = left in the image.
        y: place down the face in face units (-1 hairline, 1 chin).
        size: radius in face units.
        angle: degrees.
        color: 0..255 RGB.
    """

    kind: MarkKind
    x: float
    y: float
    size: float
    angle: float
    color: Color


@dataclass(frozen=True)
class Identity:
    """Everything that stays the same in all photos of one person.

    Lengths are in face units: 1 is half the height of the face.

    Attributes:
        skin: colour of the skin.
        face_width: half width at the cheeks, 0.7 to 0.98.
        jaw: width at the jaw over width at the cheeks, 0.66 to 0.96.
        chin: half width of the chin, 0.16 to 0.42.
        chin_length: how far the chin reaches below its usual place, -0.06 to 0.1.
        eye_color: colour of the iris.
        eye_spacing: distance of an eye from the middle, over the half width, 0.4 to 0.52.
        eye_size: half width of an eye, 0.15 to 0.23.
        eye_roundness: height over width of an eye, 0.42 to 0.85.
        eye_tilt: how far outer corners are raised, -0.06 to 0.07.
        nose_length: eyes to nose tip, 0.3 to 0.48.
        nose_width: half width, 0.1 to 0.24.
        brow_thickness: 0.04 to 0.13.
        brow_tilt: how far outer ends are raised, -0.08 to 0.1.
        brow_height: gap above the eye, 0.08 to 0.17.
        mouth_width: half width, 0.22 to 0.42.
        lip_fullness: thickness of a lip, 0.03 to 0.12.
        lip_redness: 0 = skin, 1 = red.
        ear_size: 0.16 to 0.32.
        hair_style: one of `HAIR_STYLES`.
        hair_color: natural colour.
        hair_volume: how far hair stands off the skull, 0.1 to 0.26.
        hairline: height of the hair's lower edge on the forehead, -0.86 to -0.6.
        parting: -1 = hair falls to the image's left, 1 = to its right.
        facial_hair: worn at every age but childhood.
        marks: scars, moles, freckles, tattoos.
    """

    skin: Color
    face_width: float
    jaw: float
    chin: float
    chin_length: float
    eye_color: Color
    eye_spacing: float
    eye_size: float
    eye_roundness: float
    eye_tilt: float
    nose_length: float
    nose_width: float
    brow_thickness: float
    brow_tilt: float
    brow_height: float
    mouth_width: float
    lip_fullness: float
    lip_redness: float
    ear_size: float
    hair_style: HairStyle
    hair_color: Color
    hair_volume: float
    hairline: float
    parting: float
    facial_hair: FacialHair
    marks: tuple[Mark, ...]


def _jittered(color: Color, rng: np.random.Generator, amount: float) -> Color:
    r, g, b = np.clip(np.array(color) + rng.uniform(-amount, amount, 3), 0, 255)
    return (float(r), float(g), float(b))


def _sample_marks(rng: np.random.Generator, skin: Color) -> tuple[Mark, ...]:
    """Draws zero to three marks, each in a place of its own."""
    count = int(rng.choice(4, p=[0.25, 0.4, 0.25, 0.1]))
    places = rng.permutation(len(_MARK_PLACES))[:count]
    kinds = rng.permutation(len(MARK_KINDS))[:count]
    marks = []
    for place, kind_index in zip(places, kinds, strict=True):
        kind = MARK_KINDS[kind_index]
        x, y = _MARK_PLACES[place] + rng.uniform(-0.05, 0.05, 2)
        color = TATTOO_COLORS[int(rng.integers(len(TATTOO_COLORS)))]
        if kind in ("freckles", "mole"):
            color = scale(skin, 0.6 if kind == "freckles" else 0.3)
        elif kind in ("scar", "blush"):
            color = (198.0, 60.0, 62.0) if kind == "scar" else (226.0, 66.0, 78.0)
        angle = float(rng.uniform(-40, 40)) if kind in ("scar", "bars") else 0.0
        size = float(rng.uniform(0.05, 0.08) if kind == "mole" else rng.uniform(0.13, 0.19))
        marks.append(Mark(kind, float(x), float(y), size, angle, color))
    return tuple(marks)


def _sample_facial_hair(rng: np.random.Generator) -> FacialHair:
    kinds: tuple[FacialHair, ...] = get_args(FacialHair)
    return kinds[int(rng.choice(len(kinds), p=[0.7, 0.1, 0.12, 0.08]))]


def sample_identity(seed: int, index: int) -> Identity:
    """Draws the person with a given index; the same for the same seed and index.

    The most telling traits (skin, hair colour, hair style, eye colour, face width) follow a
    low-discrepancy sequence over the index, all others are independent and uniform.

    Args:
        seed: seed of the world, >= 0.
        index: which person, >= 0.
    """
    start = np.random.Generator(np.random.PCG64([seed, 0])).random(5)
    dealt = (start + (index + 1) * _STRIDES) % 1.0
    rng = np.random.Generator(np.random.PCG64([seed, 1, index]))

    def uniform(low: float, high: float) -> float:
        return float(rng.uniform(low, high))

    skin = _jittered(along(SKIN_TONES, float(dealt[0])), rng, 8.0)
    hair = NATURAL_HAIR[int(dealt[1] * len(NATURAL_HAIR))]
    eyes = EYE_COLORS[int(dealt[3] * len(EYE_COLORS))]
    return Identity(
        skin=skin,
        face_width=float(0.7 + 0.28 * dealt[4]),
        jaw=uniform(0.66, 0.96),
        chin=uniform(0.16, 0.42),
        chin_length=uniform(-0.06, 0.1),
        eye_color=_jittered(eyes, rng, 10.0),
        eye_spacing=uniform(0.4, 0.52),
        eye_size=uniform(0.15, 0.23),
        eye_roundness=uniform(0.42, 0.85),
        eye_tilt=uniform(-0.06, 0.07),
        nose_length=uniform(0.3, 0.48),
        nose_width=uniform(0.1, 0.24),
        brow_thickness=uniform(0.04, 0.13),
        brow_tilt=uniform(-0.08, 0.1),
        brow_height=uniform(0.08, 0.17),
        mouth_width=uniform(0.22, 0.42),
        lip_fullness=uniform(0.03, 0.12),
        lip_redness=uniform(0.25, 0.9),
        ear_size=uniform(0.16, 0.32),
        hair_style=HAIR_STYLES[int(dealt[2] * len(HAIR_STYLES))],
        hair_color=_jittered(hair, rng, 10.0),
        hair_volume=uniform(0.1, 0.26),
        hairline=uniform(-0.86, -0.6),
        parting=float(rng.choice([-1.0, 1.0])) * uniform(0.4, 1.0),
        facial_hair=_sample_facial_hair(rng),
        marks=_sample_marks(rng, skin),
    )
