"""Where the parts of one face are in one photo: identity, seen at an age and with an expression."""

from dataclasses import dataclass

from flashface_jax.world.attributes import Age, Expression, PhotoAttributes
from flashface_jax.world.identity import Identity
from flashface_jax.world.palette import DYES, GREY_HAIR, Color, mix, scale


@dataclass(frozen=True)
class _AgeLook:
    """Factors on an adult's proportions; `drop` moves eyes, nose and mouth down the face."""

    width: float = 1.0
    jaw: float = 1.0
    chin: float = 0.0
    drop: float = 0.0
    eyes: float = 1.0
    nose: float = 1.0
    brows: float = 1.0
    lips: float = 1.0
    shoulders: float = 1.0
    wrinkles: float = 0.0
    grey: float = 0.0


@dataclass(frozen=True)
class _ExpressionLook:
    """What muscles do: `curve` raises mouth corners, `inner_brow` the inner ends of the brows."""

    curve: float = 0.0
    opening: float = 0.0
    width: float = 1.0
    lids: float = 1.0
    brows: float = 0.0
    inner_brow: float = 0.0


_AGES: dict[Age, _AgeLook] = {
    "child": _AgeLook(1.05, 1.08, -0.07, 0.13, 1.2, 0.72, 0.75, 0.9, 0.74),
    "young": _AgeLook(),
    "middle-aged": _AgeLook(1.0, 1.02, 0.0, 0.0, 0.93, 1.06, 1.05, 0.9, 1.03, 0.55, 0.3),
    "old": _AgeLook(0.98, 1.03, 0.02, 0.02, 0.82, 1.16, 1.0, 0.65, 0.92, 1.0, 0.85),
}
_EXPRESSIONS: dict[Expression, _ExpressionLook] = {
    "neutral": _ExpressionLook(),
    "smiling": _ExpressionLook(0.11, 0.0, 1.16, 0.86, 0.01),
    "laughing": _ExpressionLook(0.12, 0.26, 1.16, 0.5, 0.05),
    "sad": _ExpressionLook(-0.1, 0.0, 0.9, 0.75, 0.0, 0.13),
    "surprised": _ExpressionLook(0.0, 0.24, 0.66, 1.28, 0.12, 0.02),
    "angry": _ExpressionLook(-0.08, 0.1, 0.96, 0.8, -0.03, -0.13),
}


@dataclass(frozen=True)
class FaceLayout:
    """Lengths and heights in face units, ready to draw; eyes and brows as on the right side."""

    half_width: float
    jaw: float
    chin: float
    chin_y: float
    eye_x: float
    eye_y: float
    eye_width: float
    eye_height: float
    lids: float
    eye_tilt: float
    brow_y: float
    brow_inner: float
    brow_outer: float
    brow_thickness: float
    nose_y: float
    nose_width: float
    mouth_y: float
    mouth_width: float
    mouth_curve: float
    mouth_opening: float
    lip: float
    shoulders: float
    wrinkles: float
    skin: Color
    hair: Color
    brow_color: Color


def face_layout(identity: Identity, attributes: PhotoAttributes) -> FaceLayout:
    """Combines who it is, how old they are and what their face does."""
    age, mood = _AGES[attributes.age], _EXPRESSIONS[attributes.expression]
    half_width = identity.face_width * age.width
    eye_y = -0.12 + age.drop
    eye_width = identity.eye_size * age.eyes
    eye_height = eye_width * identity.eye_roundness
    natural = mix(identity.hair_color, GREY_HAIR, age.grey)
    brow_gap = identity.brow_height + mood.brows
    chin_y = 1.0 + identity.chin_length + age.chin
    nose_y = eye_y + identity.nose_length * (0.5 + 0.5 * age.nose)
    # Between nose and chin; an open mouth needs the room above the chin.
    mouth_y = nose_y + (chin_y - nose_y) * 0.47 - 0.2 * mood.opening
    return FaceLayout(
        half_width=half_width,
        jaw=min(identity.jaw * age.jaw, 0.98),
        chin=identity.chin,
        chin_y=chin_y,
        eye_x=identity.eye_spacing * half_width,
        eye_y=eye_y,
        eye_width=eye_width,
        eye_height=eye_height,
        lids=mood.lids,
        eye_tilt=identity.eye_tilt,
        brow_y=eye_y - eye_height * min(mood.lids, 1.0) - brow_gap,
        brow_inner=-mood.inner_brow,
        brow_outer=-identity.brow_tilt + 0.4 * mood.inner_brow,
        brow_thickness=identity.brow_thickness * age.brows,
        nose_y=nose_y,
        nose_width=identity.nose_width * age.nose,
        mouth_y=mouth_y,
        mouth_width=identity.mouth_width * mood.width,
        mouth_curve=mood.curve,
        mouth_opening=mood.opening,
        lip=identity.lip_fullness * age.lips,
        shoulders=age.shoulders,
        wrinkles=age.wrinkles,
        skin=identity.skin,
        hair=natural if attributes.hair_dye == "none" else DYES[attributes.hair_dye],
        brow_color=scale(natural, 0.78),
    )
