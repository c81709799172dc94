"""The training loss of the paper (§4, implementation details): mean squared error on ε."""

from dataclasses import dataclass, replace
from typing import Literal

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float

from flashface_jax.diffusion.schedule import Prediction, add_noise, as_noise
from flashface_jax.models.flashface import FlashFace
from flashface_jax.models.unet import References
from flashface_jax.shapes import Latent, Mask, ReferenceLatent, ReferenceValid, TextContext


@struct.dataclass
class Example:
    """One batch, encoded: a target and its conditions.

    Attributes:
        target: scaled latents of the target images.
        face_mask: 1 inside the target's face box.
        context: text context of the captions.
        empty_context: text context of the empty prompt, one row.
        references: clean latents of each sample's own references.
        reference_valid: which references exist.
    """

    target: Latent
    face_mask: Mask
    context: TextContext
    empty_context: Float[Array, "1 words text"]
    references: ReferenceLatent
    reference_valid: ReferenceValid


Weighting = Literal["noise", "velocity"]


def loss_weight(sigma: Float[Array, " batch"], weighting: Weighting) -> Float[Array, " batch"]:
    """Weight of a sample's error on ε.

    "noise" is 1, the paper's loss. "velocity" is 1/α², the error on α·ε - σ·x_0 (arXiv
    2202.00512): a short run learns coarse structure, which is decided at high noise, sooner.
    """
    return jnp.ones_like(sigma) if weighting == "noise" else 1 / (1 - sigma**2)


@dataclass(frozen=True)
class DropRates:
    """Probability, each independent and per sample, that a condition is left out.

    Attributes:
        text: the caption becomes the empty prompt.
        face_mask: the mask becomes zeros.
        references: reference attention sees the image alone.
    """

    text: float = 0.1
    face_mask: float = 0.1
    references: float = 0.1

    def __post_init__(self) -> None:
        for name, rate in vars(self).items():
            if not 0 <= rate <= 1:
                raise ValueError(f"The drop rate of {name} is {rate}; it must lie in [0, 1].")


def drop_conditions(example: Example, rates: DropRates, key: jax.Array) -> Example:
    """Leave out each condition of each sample independently."""
    batch = example.target.shape[0]
    text, mask, references = (
        jax.random.bernoulli(key, rate, (batch,))
        for key, rate in zip(
            jax.random.split(key, 3),
            (rates.text, rates.face_mask, rates.references),
            strict=True,
        )
    )
    return replace(
        example,
        context=jnp.where(text[:, None, None], example.empty_context, example.context),
        face_mask=jnp.where(mask[:, None, None, None], 0.0, example.face_mask),
        reference_valid=example.reference_valid & ~references[:, None],
    )


def noise_prediction_loss(
    model: FlashFace,
    example: Example,
    levels: Float[Array, " timesteps"],
    prediction: Prediction,
    weighting: Weighting,
    rates: DropRates,
    key: jax.Array,
) -> Float[Array, " batch"]:
    """Weighted mean squared error on ε of each sample, at a uniformly drawn timestep.

    The ReferenceNet sees the clean references at the same timestep, with the empty prompt;
    λ_feat is 1.
    """
    drop_key, time_key, noise_key = jax.random.split(key, 3)
    example = drop_conditions(example, rates, drop_key)
    batch = example.target.shape[0]
    timestep = jax.random.randint(time_key, (batch,), 0, len(levels))
    noise = jax.random.normal(noise_key, example.target.shape)
    features = model.encode_references(
        example.references,
        timestep,
        jnp.broadcast_to(example.empty_context, (batch, *example.empty_context.shape[1:])),
    )
    x, sigma = add_noise(example.target, noise, levels[timestep]), levels[timestep]
    output = model.denoise(
        x,
        example.face_mask,
        timestep,
        example.context,
        References(features, example.reference_valid, jnp.ones((batch,))),
    )
    error = jnp.mean((as_noise(output, x, sigma, prediction) - noise) ** 2, axis=(1, 2, 3))
    return loss_weight(sigma, weighting) * error
