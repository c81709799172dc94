"""Captions: what varies in a photo, said in plain words and never who it is."""

import re

import numpy as np

from flashface_jax.world.attributes import (
    Age,
    Background,
    Expression,
    LightFrom,
    PhotoAttributes,
)
from flashface_jax.world.palette import DYES, FABRICS

_OPENINGS = ("a photo of", "a picture of", "a portrait of", "")
_CLOSE_OPENINGS = ("a close-up photo of", "a close-up of")
_PEOPLE: dict[Age, tuple[str, ...]] = {
    "child": ("a child", "a young child"),
    "young": ("a young person", "a young adult"),
    "middle-aged": ("a middle-aged person",),
    "old": ("an old person", "an elderly person"),
}
_EXPRESSIONS: dict[Expression, tuple[str, ...]] = {
    "neutral": ("with a neutral expression", "looking calm"),
    "smiling": ("smiling", "with a smile"),
    "laughing": ("laughing", "laughing with an open mouth"),
    "sad": ("looking sad", "with a sad expression"),
    "surprised": ("looking surprised", "with a surprised expression"),
    "angry": ("looking angry", "with an angry expression"),
}
_DYED = ("with dyed {} hair", "with {} dyed hair", "with hair dyed {}")
_PLACES: dict[Background, tuple[str, ...]] = {
    "plain": ("in front of a plain {} background", "on a {} background"),
    "gradient": ("in front of a {} gradient background", "on a {} gradient background"),
    "stripes": ("in front of a striped {} background", "on a striped {} background"),
    "beach": ("on a beach", "at the beach"),
    "forest": ("in a forest", "in the forest"),
    "city": ("in a city", "in the city"),
    "night": ("at night", "outside at night"),
    "room": ("in a room", "inside a room"),
    "mountains": ("in the mountains", "in front of mountains"),
}
_LIGHT_FROM: dict[LightFrom, str] = {
    "front": "from the front",
    "left": "from the left",
    "right": "from the right",
    "above": "from above",
    "below": "from below",
}
_TURNED, _NODDING = 12.0, 8.0  # degrees from which a pose is worth a word
_CLOSE_UP = 0.6
_LIMIT = 40  # words

_POSE_WORDS = "looking up down left right and at the camera"
_LIGHT_WORDS = "soft strong warm cool white light"
_WORN_WORDS = "wearing and a glasses sunglasses hat cap beanie headphones earrings scarf mask"
_CLOTHING_WORDS = "t-shirt shirt sweater jacket hoodie dress an"


def _words(text: str) -> list[str]:
    return re.findall(r"[a-z-]+", text)


def _vocabulary() -> tuple[str, ...]:
    tables = (_PEOPLE, _EXPRESSIONS, _PLACES)
    phrases = [phrase for table in tables for options in table.values() for phrase in options]
    phrases += [*_OPENINGS, *_CLOSE_OPENINGS, *_DYED, *_LIGHT_FROM.values(), *DYES, *FABRICS]
    phrases += [_POSE_WORDS, _LIGHT_WORDS, _WORN_WORDS, _CLOTHING_WORDS]
    return tuple(sorted({word for phrase in phrases for word in _words(phrase)}))


VOCABULARY = _vocabulary()
"""Every word that a caption can hold, sorted."""


def _worn(attributes: PhotoAttributes) -> str:
    things: list[str] = []
    if attributes.eyewear != "none":
        things.append(attributes.eyewear)
    if attributes.headwear == "headphones":
        things.append(f"{attributes.headwear_color} headphones")
    elif attributes.headwear != "none":
        things.append(f"a {attributes.headwear_color} {attributes.headwear}")
    if attributes.extra == "earrings":
        things.append("earrings")
    elif attributes.extra != "none":
        things.append(f"a {attributes.extra_color} {attributes.extra}")
    things.append(f"a {attributes.clothing_color} {attributes.clothing}")
    listed = ", ".join(things[:-1])
    return f"wearing {listed} and {things[-1]}" if listed else f"wearing {things[-1]}"


def _pose(attributes: PhotoAttributes) -> str:
    ways = []
    if abs(attributes.pitch) >= _NODDING:
        ways.append("down" if attributes.pitch > 0 else "up")
    if abs(attributes.yaw) >= _TURNED:
        ways.append("right" if attributes.yaw > 0 else "left")
    return f"looking {' and '.join(ways)}" if ways else "looking at the camera"


def _light(attributes: PhotoAttributes) -> str:
    strength = attributes.light_strength
    words = ["soft"] if strength < 0.45 else ["strong"] if strength > 0.8 else []
    if attributes.light_tint != "white":
        words.append(attributes.light_tint)
    return " ".join([*words, "light", _LIGHT_FROM[attributes.light_from]])


def caption(attributes: PhotoAttributes) -> str:
    """Describes a photo in lower-case words, at most 40 of them, all from `VOCABULARY`.

    Left and right are those of the picture. What is ordinary (an unturned head, undyed hair,
    nothing worn) is left unsaid or said seldom. `attributes.wording` picks phrases and order and
    leaves clauses out; 0 gives every clause in plain order, as a prompt should. Clauses beyond the
    limit of words are dropped from the end.
    """
    rng = np.random.Generator(np.random.PCG64(attributes.wording))
    everything = attributes.wording == 0

    def pick(options: tuple[str, ...]) -> str:
        return options[0 if everything else int(rng.integers(len(options)))]

    def kept(chance: float) -> bool:
        return everything or bool(rng.random() < chance)

    close = attributes.face_size > _CLOSE_UP and kept(0.6)
    subject = f"{pick(_CLOSE_OPENINGS if close else _OPENINGS)} {pick(_PEOPLE[attributes.age])}"
    if attributes.hair_dye != "none":
        # Always said: hair that is not the person's own colour must be asked for.
        subject += " " + pick(_DYED).format(attributes.hair_dye)
    pose = _pose(attributes)
    clauses = [
        (pick(_EXPRESSIONS[attributes.expression]), 0.9),
        (_worn(attributes), 0.92),
        (pose, 0.3 if pose.endswith("camera") else 0.85),
        (pick(_PLACES[attributes.background]).format(attributes.background_color), 0.9),
        (_light(attributes), 0.7),
    ]
    said = [text for text, chance in clauses if kept(chance)]
    if not everything:
        said = [said[k] for k in rng.permutation(len(said))]
    text = ", ".join([subject.strip(), *said])
    while len(text.split()) > _LIMIT:  # only the longest of everything-worn captions
        said.pop()
        text = ", ".join([subject.strip(), *said])
    return text.replace("a orange", "an orange")
