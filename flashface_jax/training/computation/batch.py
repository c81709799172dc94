"""A batch as the input pipeline delivers it, and what the loss is computed on.

It is of photos, or of what the frozen networks made of them ahead of the run; both have the same
methods, so that nothing else tells them apart.
"""

from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Bool, Float, Int, UInt8

from flashface_jax.common.shapes import ImageCondition, Latent, Mask
from flashface_jax.diffusion.loss import Example, LossNoise
from flashface_jax.models.autoencoder.autoencoder import (
    encode_crops,
    encode_without_face,
    from_pixels,
)
from flashface_jax.models.autoencoder.latents import Posterior
from flashface_jax.models.network import Params
from flashface_jax.training.config import TrainConfig
from flashface_jax.weights.system import System

Rows = Array
"""On devices; a batch can also be of arrays on the host, or of shapes alone."""
if not TYPE_CHECKING:
    Rows = Array | np.ndarray | jax.ShapeDtypeStruct


@struct.dataclass
class Batch:
    """Photos; dropped conditions are empty in them.

    Attributes:
        target: target images.
        face_mask: 1 inside the face box, at the latents' resolution.
        target_face: the same, which is never dropped: for losses, not for the model.
        tokens: tokens of the captions.
        references: upright face crops, black where there is none.
        reference_valid: which references exist.
    """

    target: UInt8[Rows, "batch H W 3"]
    face_mask: UInt8[Rows, "batch h w 1"]
    target_face: UInt8[Rows, "batch h w 1"]
    tokens: Int[Rows, "batch words"]
    references: UInt8[Rows, "batch refs R R 3"]
    reference_valid: Bool[Rows, "batch refs"]

    def example(
        self,
        system: System,
        params: dict[str, Params],
        drawn: LossNoise,
        empty_tokens: Int[Array, "1 words"],
        inpaints: bool,
    ) -> Example:
        """Run autoencoder and text tower; the target's posterior is sampled, the references' not.

        Args:
            system: the networks.
            params: of all of them.
            drawn: what is random.
            empty_tokens: of the empty prompt, which the ReferenceNet sees.
            inpaints: whether the model sees the latent of the image without its face.
        """
        autoencoder = system.autoencoder.bind(params["autoencoder"])
        text_tower = system.text_tower.bind(params["text_tower"])
        image, face_mask = from_pixels(self.target), self.face_mask.astype(jnp.float32)
        without = encode_without_face(autoencoder, image, face_mask) if inpaints else None
        return Example(
            target=autoencoder.encode(image, drawn.posterior_noise),
            condition=_condition(without, face_mask),
            face=self.target_face.astype(jnp.float32),
            context=text_tower(self.tokens),
            empty_context=text_tower(empty_tokens),
            references=encode_crops(autoencoder, self.references),
            reference_valid=self.reference_valid,
        )

    @classmethod
    def shapes(cls, config: TrainConfig, rows: jax.sharding.Sharding) -> "Batch":
        """Shapes and dtypes of a global batch, whose rows lie so."""
        system = config.system
        shape: Any = partial(jax.ShapeDtypeStruct, sharding=rows)
        batch, height, width, _ = config.latent_shape
        size, crop, refs = system.image_size, system.reference_size, _most_references(config)
        return cls(
            target=shape((batch, size, size, 3), jnp.uint8),
            face_mask=shape((batch, height, width, 1), jnp.uint8),
            target_face=shape((batch, height, width, 1), jnp.uint8),
            tokens=shape((batch, system.text_tower.length), jnp.int32),
            references=shape((batch, refs, crop, crop, 3), jnp.uint8),
            reference_valid=shape((batch, refs), jnp.bool_),
        )


@struct.dataclass
class EncodedBatch:
    """What frozen networks made of photos; dropped conditions are empty in it.

    Attributes:
        target_mean: of the posterior of the target images' scaled latents.
        target_log_variance: likewise.
        face_mask: 1 inside the face box, at the latents' resolution.
        target_face: the same, which is never dropped: for losses, not for the model.
        context: text context of the captions; of the empty prompt where they are dropped.
        references: scaled latents of upright face crops, zeros where there is none.
        reference_valid: which references exist.
        without_face: scaled latents of the images without their faces, for inpainting models.
    """

    target_mean: Float[Rows, "batch h w c"]
    target_log_variance: Float[Rows, "batch h w c"]
    face_mask: UInt8[Rows, "batch h w 1"]
    target_face: UInt8[Rows, "batch h w 1"]
    context: Float[Rows, "batch words text"]
    references: Float[Rows, "batch refs ref_h ref_w c"]
    reference_valid: Bool[Rows, "batch refs"]
    without_face: Float[Rows, "batch h w c"] | None = None

    def example(
        self,
        system: System,
        params: dict[str, Params],
        drawn: LossNoise,
        empty_tokens: Int[Array, "1 words"],
        inpaints: bool,
    ) -> Example:
        """Sample the target's posterior; of the networks only one prompt asks for anything."""
        text_tower = system.text_tower.bind(params["text_tower"])
        posterior = Posterior(_whole(self.target_mean), _whole(self.target_log_variance))
        without = _whole(self.without_face) if inpaints else None
        return Example(
            target=posterior.sample(drawn.posterior_noise),
            condition=_condition(without, _whole(self.face_mask)),
            face=_whole(self.target_face),
            context=_whole(self.context),
            empty_context=text_tower(empty_tokens),
            references=_whole(self.references),
            reference_valid=self.reference_valid,
        )

    @classmethod
    def shapes(cls, config: TrainConfig, rows: jax.sharding.Sharding) -> "EncodedBatch":
        """Shapes of a global batch, whose rows lie so, and dtypes as they are stored by default."""
        system = config.system
        shape: Any = partial(jax.ShapeDtypeStruct, sharding=rows)
        tower, refs = system.text_tower, _most_references(config)
        batch, height, width, channels = config.latent_shape
        crop = system.reference_size // system.autoencoder.stride
        latent = shape(config.latent_shape, jnp.float16)
        return cls(
            target_mean=latent,
            target_log_variance=latent,
            face_mask=shape((batch, height, width, 1), jnp.uint8),
            target_face=shape((batch, height, width, 1), jnp.uint8),
            context=shape((batch, tower.length, tower.channels), jnp.float16),
            references=shape((batch, refs, crop, crop, channels), jnp.float16),
            reference_valid=shape((batch, refs), jnp.bool_),
            without_face=latent if system.flashface.inpaints else None,
        )


AnyBatch = Batch | EncodedBatch


def batch_class(config: TrainConfig) -> type[Batch] | type[EncodedBatch]:
    """What a run's batches are of."""
    return EncodedBatch if config.data.precomputed else Batch


def _condition(without: Latent | None, face_mask: Mask) -> ImageCondition:
    """What the denoiser sees besides the noisy latent; the mask comes last."""
    return face_mask if without is None else jnp.concatenate([without, face_mask], axis=-1)


def _whole(stored: Any) -> Array:
    """What was stored, in the dtype that the loss computes in."""
    return jnp.asarray(stored, jnp.float32)


def _most_references(config: TrainConfig) -> int:
    return config.data.draws.max_references
