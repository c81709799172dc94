"""What changes from photo to photo, and how photos are sampled."""

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from flashface_jax.world.palette import DYES, FABRICS, Number

Age = Literal["child", "young", "middle-aged", "old"]
Expression = Literal["neutral", "smiling", "laughing", "sad", "surprised", "angry"]
Eyewear = Literal["none", "glasses", "sunglasses"]
Headwear = Literal["none", "hat", "cap", "beanie", "headphones"]
Extra = Literal["none", "earrings", "scarf", "mask"]
Clothing = Literal["t-shirt", "shirt", "sweater", "jacket", "hoodie", "dress"]
Background = Literal[
    "plain", "gradient", "stripes", "beach", "forest", "city", "night", "room", "mountains"
]
LightFrom = Literal["front", "left", "right", "above", "below"]
LightTint = Literal["white", "warm", "cool"]

_KINDS: dict[str, tuple[str, ...]] = {
    "age": get_args(Age),
    "expression": get_args(Expression),
    "eyewear": get_args(Eyewear),
    "headwear": get_args(Headwear),
    "extra": get_args(Extra),
    "clothing": get_args(Clothing),
    "background": get_args(Background),
    "light_from": get_args(LightFrom),
    "light_tint": get_args(LightTint),
    "hair_dye": ("none", *DYES),
    "headwear_color": tuple(FABRICS),
    "extra_color": tuple(FABRICS),
    "clothing_color": tuple(FABRICS),
    "background_color": tuple(FABRICS),
}
_RANGES: dict[str, tuple[float, float]] = {
    "yaw": (-35.0, 35.0),
    "pitch": (-20.0, 20.0),
    "roll": (-25.0, 25.0),
    "face_size": (0.3, 0.8),
    "center_x": (0.0, 1.0),
    "center_y": (0.0, 1.0),
    "light_strength": (0.0, 1.0),
    "scenery": (0.0, 1.0),
}


@dataclass(frozen=True)
class Framing:
    """How a world's photos are taken.

    Attributes:
        face_sizes: least and greatest height of a face over the image side, 0.3 to 0.8.
        turn: how far heads turn, nod and tilt: 0 (not at all) to 1 (32, 16 and 22 degrees).

    Raises:
        ValueError: one of them is outside its range.
    """

    face_sizes: tuple[float, float] = (0.36, 0.68)
    turn: float = 1.0

    def __post_init__(self) -> None:
        low, high = _RANGES["face_size"]
        if not low <= self.face_sizes[0] <= self.face_sizes[1] <= high:
            raise ValueError(
                f"face_sizes is {self.face_sizes} but must rise, between {low} and {high}."
            )
        if not 0 <= self.turn <= 1:
            raise ValueError(f"turn is {self.turn} but must lie between 0 and 1.")


@dataclass(frozen=True)
class PhotoAttributes:
    """Everything about a photo that does not depend on who is in it.

    Change fields with `dataclasses.replace` to draw the right answer for a prompt.

    Attributes:
        age: stage of life; changes proportions, wrinkles and grey hair.
        expression: what the face does.
        hair_dye: a colour of `palette.DYES`, or "none" for the natural colour.
        eyewear: glasses.
        headwear: what is on the head.
        headwear_color: its colour, of `palette.FABRICS`.
        extra: one further thing worn.
        extra_color: its colour.
        clothing: kind of clothes.
        clothing_color: their colour.
        background: kind of scene.
        background_color: its colour where the scene has none of its own (plain, gradient, stripes).
        light_from: side the light comes from, as seen in the picture.
        light_tint: colour of the light.
        light_strength: 0 (flat) to 1 (hard).
        yaw: degrees, positive = turned to the right of the picture, -35 to 35.
        pitch: degrees, positive = looking down, -20 to 20.
        roll: degrees, positive = head tilted clockwise in the picture, -25 to 25.
        face_size: height of the face over the image side, 0.3 to 0.8.
        center_x: middle of the face across the image, 0 to 1.
        center_y: middle of the face down the image, 0 to 1.
        scenery: places things in the background, 0 to 1.
        wording: picks the words of the caption, >= 0; 0 says everything in plain order.

    Raises:
        ValueError: a field is not one of its legal values.
    """

    age: Age = "young"
    expression: Expression = "neutral"
    hair_dye: str = "none"
    eyewear: Eyewear = "none"
    headwear: Headwear = "none"
    headwear_color: str = "black"
    extra: Extra = "none"
    extra_color: str = "white"
    clothing: Clothing = "shirt"
    clothing_color: str = "blue"
    background: Background = "plain"
    background_color: str = "gray"
    light_from: LightFrom = "front"
    light_tint: LightTint = "white"
    light_strength: float = 0.5
    yaw: float = 0.0
    pitch: float = 0.0
    roll: float = 0.0
    face_size: float = 0.56
    center_x: float = 0.5
    center_y: float = 0.5
    scenery: float = 0.0
    wording: int = 0

    def __post_init__(self) -> None:
        for name, kinds in _KINDS.items():
            if getattr(self, name) not in kinds:
                value = getattr(self, name)
                raise ValueError(f"{name} is {value!r} but must be one of {', '.join(kinds)}.")
        for name, (low, high) in _RANGES.items():
            if not low <= getattr(self, name) <= high:
                value = getattr(self, name)
                raise ValueError(f"{name} is {value} but must lie between {low} and {high}.")
        if self.wording < 0:
            raise ValueError(f"wording is {self.wording} but must be 0 or more.")


def _sample_place(rng: np.random.Generator, framing: Framing) -> dict[str, float]:
    """Draws pose, size and place of the head so that the face lies inside the image."""
    face_size = float(rng.uniform(*framing.face_sizes))
    # Half the face, room for a raised or lowered chin, and a small margin.
    reach = 0.57 * face_size + 0.02
    return {
        "yaw": framing.turn * float(rng.uniform(-32, 32)),
        "pitch": framing.turn * float(rng.uniform(-16, 16)),
        "roll": framing.turn * float(np.clip(rng.normal(0, 9), -22, 22)),
        "face_size": face_size,
        "center_x": float(rng.uniform(reach, 1 - reach)),
        # Seldom at the very bottom, where no clothes would show.
        "center_y": float(rng.uniform(reach, 1 - reach - 0.3 * (1 - 2 * reach))),
    }


def sample_attributes(
    seed: int, identity: int, photo: int, framing: Framing = Framing()
) -> PhotoAttributes:
    """Draws what varies in one photo; the same for the same numbers.

    Args:
        seed: seed of the world, >= 0.
        identity: index of the person; only keys the random numbers.
        photo: index of the photo among those of that person.
        framing: how the photo is taken.
    """
    rng = np.random.Generator(np.random.PCG64([seed, 2, identity, photo]))

    def pick(name: str, *weights: Number) -> Any:
        kinds = _KINDS[name]
        if not weights:
            return kinds[int(rng.integers(len(kinds)))]
        return kinds[int(rng.choice(len(kinds), p=np.array(weights) / sum(weights)))]

    dyed = rng.random() < 0.2
    return PhotoAttributes(
        age=pick("age", 2, 4, 2.5, 2),
        expression=pick("expression"),
        hair_dye=list(DYES)[int(rng.integers(len(DYES)))] if dyed else "none",
        eyewear=pick("eyewear", 8, 2, 1.2),
        headwear=pick("headwear", 10, 1, 1, 1, 1),
        headwear_color=pick("headwear_color"),
        extra=pick("extra", 9, 2, 1.2, 0.7),
        extra_color=pick("extra_color"),
        clothing=pick("clothing"),
        clothing_color=pick("clothing_color"),
        background=pick("background"),
        background_color=pick("background_color"),
        light_from=pick("light_from", 2, 2, 2, 2, 1),
        light_tint=pick("light_tint", 2, 1, 1),
        light_strength=float(rng.uniform(0.25, 1.0)),
        scenery=float(rng.random()),
        wording=int(rng.integers(1, 2**31)),
        **_sample_place(rng, framing),
    )
