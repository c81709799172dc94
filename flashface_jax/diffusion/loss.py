"""What training minimises: a weighted sum of named terms.

The paper's is one term, the mean squared error on ε (§4, implementation details). A term is a pure
function of what the model predicted and of what it should have; `TERMS` lists them, and
`LossWeights` says how much each counts.
"""

import dataclasses
import functools
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float, Int

from flashface_jax.common.shape_checks import checked
from flashface_jax.common.shapes import (
    ImageCondition,
    Latent,
    Mask,
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
        face: 1 inside the target's face box, whether or not the denoiser is shown it.
        context: text context of the captions.
        empty_context: text context of the empty prompt, one row; the ReferenceNet's.
        references: clean latents of each sample's own references.
        reference_valid: which references exist.
    """

    target: Latent
    condition: ImageCondition
    face: Mask
    context: Float[Array, "batch words text"]
    empty_context: Float[Array, "1 words text"]
    references: Float[Array, "batch refs ref_h ref_w c"]
    reference_valid: Bool[Array, "batch refs"]


@struct.dataclass
class LossNoise:
    """What is random about the loss of a batch.

    Attributes:
        timestep: of each sample.
        noise: ε.
        posterior_noise: what samples the target's latent from the autoencoder's posterior.
    """

    timestep: Timestep
    noise: Latent
    posterior_noise: Latent


@struct.dataclass
class Denoised:
    """What the model made of noised targets.

    Attributes:
        x: the noised targets, α·x_0 + σ·ε.
        sigma: σ of each.
        noise: the ε that the model takes them to hold.
    """

    x: Latent
    sigma: Float[Array, " batch"]
    noise: Latent

    @property
    def target(self) -> Latent:
        """The x_0 that the model takes them for; errors on ε grow large in it where σ is near 1."""
        sigma = self.sigma[:, None, None, None]
        return (self.x - sigma * self.noise) / jnp.sqrt(1 - sigma**2)


SampleValues = Float[Array, " batch"]
Weighting = Literal["noise", "velocity"]


@dataclass(frozen=True)
class LossWeights:
    """How much each term of `TERMS` counts, by its name; those that count 0 are not computed.

    Attributes:
        noise: the paper's loss.
        face: the same error inside the target's face box alone.
    """

    noise: float = 1.0
    face: float = 0.0

    def __post_init__(self) -> None:
        for name, weight in vars(self).items():
            if weight < 0:
                raise ValueError(f"loss.weights.{name} is {weight}; it must be 0 or more.")
        if not self.counted:
            raise ValueError("loss.weights are all 0: let one term count.")

    @property
    def counted(self) -> dict[str, float]:
        """The weights that are not 0, by term."""
        return {name: weight for name, weight in dataclasses.asdict(self).items() if weight}


@dataclass(frozen=True)
class LossConfig:
    """What is minimised, and how much it counts at each noise level; the default is the paper's.

    An error on ε is SNR = α²/σ² times as large as the same error on x_0, squared.

    Attributes:
        weighting: "noise" is the error on ε. "velocity" is the error on α·ε - σ·x_0 (arXiv
            2202.00512), which is SNR + 1 times that on x_0: a short run learns coarse structure,
            which is decided at high noise, sooner.
        max_snr: counts a larger SNR as this (min-SNR weighting, arXiv 2303.09556); 0 for no limit.
        noise_offset: standard deviation of a constant that is added to the noise of each sample
            and channel; see `diffusion/noise.py`.
        weights: how much each term counts.
    """

    weighting: Weighting = "noise"
    max_snr: float = 0.0
    noise_offset: float = 0.0
    weights: LossWeights = field(default_factory=LossWeights)

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


def draw_loss_noise(
    key: jax.Array, latents: tuple[int, int, int, int], timesteps: int, config: LossConfig
) -> LossNoise:
    """Draw for a batch of latents of that shape, (batch, h, w, c)."""
    time_key, noise_key, posterior_key = jax.random.split(key, 3)
    return LossNoise(
        timestep=stratified_timesteps(time_key, latents[0], timesteps),
        noise=draw_noise(noise_key, latents, config.noise_offset),
        posterior_noise=jax.random.normal(posterior_key, latents),
    )


@checked()
def denoise(
    model: FlashFace,
    example: Example,
    drawn: LossNoise,
    levels: Float[Array, " timesteps"],
    prediction: Prediction,
) -> Denoised:
    """Noise the targets and let the model denoise them.

    The ReferenceNet sees the clean references at the same timestep, with the empty prompt;
    λ_feat is 1.

    Args:
        model: FlashFace.
        example: the targets and their conditions.
        drawn: noise and timesteps.
        levels: σ of every timestep.
        prediction: what the model's output means.

    Raises:
        ValueError: an array has a shape that does not fit the others or the model.
        TypeError: an array has another dtype.
    """
    batch, timestep = len(example.target), drawn.timestep
    features = model.encode_references(example.references, timestep, example.empty_context)
    x, sigma = add_noise(example.target, drawn.noise, levels[timestep]), levels[timestep]
    output = model.denoise(
        x,
        example.condition,
        timestep,
        example.context,
        References(features, example.reference_valid.astype(jnp.float32), jnp.ones((batch, 1))),
    )
    return Denoised(x, sigma, as_noise(output, x, sigma, prediction))


def noise_error(
    denoised: Denoised, example: Example, drawn: LossNoise, config: LossConfig
) -> SampleValues:
    """Weighted mean squared error on ε: the paper's loss."""
    error = jnp.mean((denoised.noise - drawn.noise) ** 2, axis=(1, 2, 3))
    return loss_weight(denoised.sigma, config) * error


def face_error(
    denoised: Denoised, example: Example, drawn: LossNoise, config: LossConfig
) -> SampleValues:
    """The same, averaged over the target's face box alone; 0 where that covers no position."""
    error = jnp.sum(example.face * (denoised.noise - drawn.noise) ** 2, axis=(1, 2, 3))
    inside = jnp.sum(example.face, axis=(1, 2, 3)) * drawn.noise.shape[-1]
    return loss_weight(denoised.sigma, config) * error / jnp.maximum(inside, 1)


Term = Callable[[Denoised, Example, LossNoise, LossConfig], SampleValues]
TERMS: dict[str, Term] = {"noise": noise_error, "face": face_error}
"""Terms by the names that `LossWeights` gives them."""


def loss_terms(
    denoised: Denoised, example: Example, drawn: LossNoise, config: LossConfig
) -> dict[str, SampleValues]:
    """Every term that counts, of each sample, before its weight."""
    return {name: TERMS[name](denoised, example, drawn, config) for name in config.weights.counted}


def total_loss(terms: Mapping[str, SampleValues], weights: LossWeights) -> SampleValues:
    """The loss of each sample: its terms added up, each with its weight."""
    weighted = (weight * terms[name] for name, weight in weights.counted.items())
    return functools.reduce(operator.add, weighted)
