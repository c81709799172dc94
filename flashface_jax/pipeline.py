"""From tokens and face crops to images: encode, sample and decode as one compiled program."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Bool, Float, Int, UInt8, UInt32

from flashface_jax.diffusion.guidance import Guidance
from flashface_jax.diffusion.sampling import Conditioning, sample
from flashface_jax.diffusion.schedule import Prediction, SamplingSteps, noise_levels, sampling_steps
from flashface_jax.faces.position import position_mask
from flashface_jax.models.blocks import Compute
from flashface_jax.models.network import Params
from flashface_jax.models.vae import encode_crops, to_pixels
from flashface_jax.system import SamplingConfig, System, SystemConfig, build_system
from flashface_jax.tokenizer import Tokenizer
from flashface_jax.weights import open_weights


@struct.dataclass
class Request:
    """A batch of images to make.

    Attributes:
        tokens: prompt of each image.
        negative_tokens: the negative prompt, shared.
        references: upright face crops of one set for the whole batch, or of one set an image.
        reference_valid: which references exist.
        face_mask: where each image's face goes; zeros for anywhere.
        seeds: seed of each image; an image depends on no other's.
    """

    tokens: Int[Array, "batch words"]
    negative_tokens: Int[Array, "1 words"]
    references: UInt8[Array, "sets refs R R 3"]
    reference_valid: Bool[Array, "sets refs"]
    face_mask: Float[Array, "batch h w 1"]
    seeds: UInt32[Array, " batch"]


Generate = Callable[[dict[str, Params], Request, Guidance, SamplingSteps], jax.Array]


def make_generate(
    system: System, prediction: Prediction, on_step: Callable[[], None] | None = None
) -> Generate:
    """Return the jitted program; it recompiles only for other shapes or numbers of steps."""

    @jax.jit
    def generate(
        params: dict[str, Params], request: Request, guidance: Guidance, steps: SamplingSteps
    ) -> UInt8[Array, "batch H W 3"]:
        autoencoder = system.autoencoder.bind(params["autoencoder"])
        text_tower = system.text_tower.bind(params["text_tower"])
        batch = request.tokens.shape[0]
        negative = text_tower(request.negative_tokens)
        conditioning = Conditioning(
            prompt=text_tower(request.tokens),
            negative=jnp.repeat(negative, batch, axis=0),
            reference_latents=encode_crops(autoencoder, request.references),
            reference_valid=request.reference_valid,
            reference_context=negative,
            face_mask=request.face_mask,
        )
        height, width = request.face_mask.shape[1:3]
        channels = autoencoder.config.latent_channels
        noise = jax.vmap(
            lambda seed: jax.random.normal(jax.random.key(seed), (height, width, channels))
        )(request.seeds)
        model = system.flashface.bind(params["flashface"])
        latents = sample(model, conditioning, guidance, noise, steps, prediction, on_step)
        return to_pixels(autoencoder.decode(latents))

    return generate


@dataclass(frozen=True)
class Pipeline:
    """Networks, parameters and tokenizer, ready to make images.

    Attributes:
        config: what the networks look like.
        params: parameters of the parts that sampling needs.
        tokenizer: prompt -> tokens.
        generate: the compiled program.
    """

    config: SystemConfig
    params: dict[str, Params]
    tokenizer: Tokenizer
    generate: Generate

    @classmethod
    def from_directory(
        cls, path: Path, compute: Compute | None = None, on_step: Callable[[], None] | None = None
    ) -> "Pipeline":
        """Open a converted directory or a training run.

        Raises:
            WeightsError: if the directory is neither, or lacks a part.
            ValueError: if its parts do not fit each other.
        """
        weights = open_weights(path)
        weights.config.check_consistency()
        system = build_system(weights.config, compute)
        parts = {name: system.parts()[name] for name in ("flashface", "autoencoder", "text_tower")}
        params = {name: weights.params(name, part) for name, part in parts.items()}
        tokenizer = weights.tokenizer()
        if tokenizer.vocab_size > weights.config.text_tower.vocabulary:
            raise ValueError(
                f"The tokenizer of {path} has {tokenizer.vocab_size} tokens, its text tower only "
                f"{weights.config.text_tower.vocabulary}."
            )
        return cls(
            weights.config,
            params,
            tokenizer,
            make_generate(system, weights.config.schedule.prediction, on_step),
        )

    def __call__(
        self,
        prompts: Sequence[str],
        references: UInt8[np.ndarray, "refs R R 3"],
        *,
        seeds: Sequence[int],
        negative_prompt: str = "",
        face_box: Sequence[float] = (0.0, 0.0, 0.0, 0.0),
        sampling: SamplingConfig | None = None,
    ) -> UInt8[np.ndarray, "batch H W 3"]:
        """Make one image for each prompt and seed, all of the person in `references`.

        Args:
            prompts: what each image shows.
            references: upright face crops at the model's reference size.
            seeds: one for each prompt.
            negative_prompt: what to avoid.
            face_box: x1, y1, x2, y2 as fractions of the side; zeros for no constraint.
            sampling: steps, strengths and suffixes; what the weights like if None.
        """
        sampling = sampling or self.config.sampling
        size = (self.config.image_size, self.config.image_size)
        mask = position_mask(face_box, size, self.config.autoencoder.stride)
        request = Request(
            tokens=jnp.asarray(self.tokenizer([sampling.full_prompt(text) for text in prompts])),
            negative_tokens=jnp.asarray(self.tokenizer([sampling.full_negative(negative_prompt)])),
            references=jnp.asarray(references)[None],
            reference_valid=jnp.ones((1, len(references)), bool),
            face_mask=jnp.tile(jnp.asarray(mask), (len(prompts), 1, 1, 1)),
            seeds=jnp.asarray(seeds, jnp.uint32),
        )
        steps = sampling_steps(noise_levels(self.config.schedule), sampling.steps, sampling.spacing)
        return np.asarray(self.generate(self.params, request, sampling.guidance, steps))
