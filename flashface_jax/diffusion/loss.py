"""The training loss of the paper (§4, implementation details): mean squared error on ε."""

from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float, Int

from flashface_jax.common.shape_checks import checked
from flashface_jax.common.shapes import (
    ImageCondition,
    Latent,
    Timestep,
)
from flashface_jax.diffusion.noise import draw_noise
from flashface_jax.diffusion.schedule import Prediction, add_noise, as_noise
from flashface_jax.models.flashface import FlashFace
from flashface_jax.models.unet import References


@struct.dataclass
class Example:
    """One batch, encoded: a target and its conditions.

    Attributes:
        target: scaled latents of the target images.
        condition: what the denoiser sees besides: 1 inside the target's face box; for inpainting,
            the latent of the image without its face before it.
        context: text context of the captions.
        empty_context: text context of the empty prompt, one row; the ReferenceNet's.
        references: clean latents of each sample's own references.
        reference_valid: which references exist.
    """

    target: Latent
    condition: ImageCondition
    context: Float[Array, "batch words text"]
    empty_context: Float[Array, "1 words text"]
    references: Float[Array, "batch refs ref_h ref_w c"]
    reference_valid: Bool[Array, "batch refs"]


@struct.dataclass
class Drawn:
    """What is random about the loss of a batch.

    Attributes:
        timestep: of each sample.
        noise: ε.
        posterior_noise: what samples the target's latent from the autoencoder's posterior.
    """

    timestep: Timestep
    noise: Latent
    posterior_noise: Latent


Weighting = Literal["noise", "velocity"]


@dataclass(frozen=True)
class LossConfig:
    """How much the error counts at each noise level; the default is the paper's plain loss on ε.

    An error on ε is SNR = α²/σ² times as large as the same error on x_0, squared.

    Attributes:
        weighting: "noise" is the error on ε. "velocity" is the error on α·ε - σ·x_0 (arXiv
            2202.00512), which is SNR + 1 times that on x_0: a short run learns coarse structure,
            which is decided at high noise, sooner.
        max_snr: counts a larger SNR as this (min-SNR weighting, arXiv 2303.09556); 0 for no limit.
        noise_offset: standard deviation of a constant that is added to the noise of each sample
            and channel; see `diffusion/noise.py`.
    """

    weighting: Weighting = "noise"
    max_snr: float = 0.0
    noise_offset: float = 0.0

    def __post_init__(self) -> None:
        if self.max_snr < 0:
            raise ValueError(f"max_snr is {self.max_snr}; it must be positive, or 0 for no limit.")
        if self.noise_offset < 0:
            raise ValueError(f"noise_offset is {self.noise_offset}; it must be 0 or more.")


@checked()
def loss_weight(sigma: Float[Array, " batch"], config: LossConfig) -> Float[Array, " batch"]:
    """Weight of a sample's squared error on ε."""
    snr = (1 - sigma**2) / sigma**2
    counted = jnp.minimum(snr, config.max_snr) if config.max_snr else snr
    return (counted + (config.weighting == "velocity")) / snr


def stratified_timesteps(key: jax.Array, batch: int, timesteps: int) -> Int[Array, " batch"]:
    """Draw timesteps, each uniform in [0, timesteps), one from every batch-th part of the range.

    The loss differs far more between noise levels than between images, so independent draws
    would make its gradient noisier.
    """
    order_key, place_key = jax.random.split(key)
    part = jax.random.permutation(order_key, batch)
    place = (part + jax.random.uniform(place_key, (batch,))) / batch
    return jnp.minimum((place * timesteps).astype(jnp.int32), timesteps - 1)


def draw(
    key: jax.Array, latents: tuple[int, int, int, int], timesteps: int, config: LossConfig
) -> Drawn:
    """Draw for a batch of latents of that shape, (batch, h, w, c)."""
    time_key, noise_key, posterior_key = jax.random.split(key, 3)
    return Drawn(
        timestep=stratified_timesteps(time_key, latents[0], timesteps),
        noise=draw_noise(noise_key, latents, config.noise_offset),
        posterior_noise=jax.random.normal(posterior_key, latents),
    )


@checked()
def noise_prediction_loss(
    model: FlashFace,
    example: Example,
    drawn: Drawn,
    levels: Float[Array, " timesteps"],
    prediction: Prediction,
    config: LossConfig,
) -> Float[Array, " batch"]:
    """Weighted mean squared error on ε of each sample.

    The ReferenceNet sees the clean references at the same timestep, with the empty prompt;
    λ_feat is 1.

    Raises:
        ValueError: an array has a shape that does not fit the others or the model.
        TypeError: an array has another dtype.
    """
    batch, timestep, noise = len(example.target), drawn.timestep, drawn.noise
    features = model.encode_references(example.references, timestep, example.empty_context)
    x, sigma = add_noise(example.target, noise, levels[timestep]), levels[timestep]
    output = model.denoise(
        x,
        example.condition,
        timestep,
        example.context,
        References(features, example.reference_valid.astype(jnp.float32), jnp.ones((batch, 1))),
    )
    error = jnp.mean((as_noise(output, x, sigma, prediction) - noise) ** 2, axis=(1, 2, 3))
    return loss_weight(sigma, config) * error
