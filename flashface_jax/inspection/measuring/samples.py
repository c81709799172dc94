"""What the model sees: samples as training draws them, before they become arrays."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8

from flashface_jax.data.loading.draws import DrawOptions
from flashface_jax.data.loading.pipeline import ordered
from flashface_jax.data.loading.samples import DrawnSample, DrawSample, PhotoPool, SampleShape
from flashface_jax.weights.tokenizer import Tokenizer

TINT = np.array([255, 210, 0])
STRENGTH = 0.35


@dataclass(frozen=True)
class SampleView:
    """One training sample, to be looked at.

    Attributes:
        name: of the person.
        source_ids: of the target's photo and the references'.
        caption: what the text tower is given; empty where it is dropped or there is none.
        tokens: of the caption, start and end token included; 0 without a tokenizer.
        dropped: which conditions are left out.
        target: with the mask as a yellow tint.
        references: face crops.
    """

    name: str
    source_ids: tuple[str, ...]
    caption: str
    tokens: int
    dropped: tuple[str, ...]
    target: UInt8[np.ndarray, "S S 3"]
    references: tuple[UInt8[np.ndarray, "R R 3"], ...]


def draw_samples(pool: PhotoPool, shape: SampleShape, seed: int, count: int) -> list[DrawnSample]:
    """The first samples that training with a seed draws.

    Raises:
        ValueError: nobody has two photos, or none that decode.
    """
    if not len(pool.usable):
        raise ValueError("nobody has two photos, and a sample needs a target and a reference.")
    samples = ordered(pool, seed, DrawSample(pool, shape, DrawOptions()))
    return [samples[i] for i in range(count)]


def seen(
    sample: DrawnSample, identities: Sequence[str], stride: int, tokenizer: Tokenizer | None
) -> SampleView:
    """A drawn sample with the mask over its target."""
    draw = sample.draw
    gone = {
        "caption": draw.drop_text,
        "face mask": draw.drop_face_mask,
        "references": draw.drop_references,
    }
    mask = np.zeros_like(sample.mask) if draw.drop_face_mask else sample.mask
    caption = "" if draw.drop_text else sample.target.caption
    return SampleView(
        name=identities[sample.identity],
        source_ids=tuple(photo.source_id for photo in (sample.target, *sample.references)),
        caption=caption,
        tokens=0 if tokenizer is None else count_tokens(tokenizer, caption),
        dropped=tuple(name for name, dropped in gone.items() if dropped),
        target=overlaid(sample.pixels, mask, stride),
        references=sample.crops,
    )


def overlaid(
    target: UInt8[np.ndarray, "S S 3"], mask: UInt8[np.ndarray, "h w 1"], stride: int
) -> UInt8[np.ndarray, "S S 3"]:
    """A target with its mask, which is on the latent's grid, as a yellow tint."""
    inside = mask.repeat(stride, axis=0).repeat(stride, axis=1).astype(bool)
    tinted = (1 - STRENGTH) * target + STRENGTH * TINT
    return np.where(inside, tinted.round(), target).astype(np.uint8)


def count_tokens(tokenizer: Tokenizer, caption: str) -> int:
    """Tokens of a caption as the text tower takes it, start and end token included."""
    row = tokenizer([caption])[0]
    return int(np.flatnonzero(row == tokenizer.end_token)[0]) + 1
