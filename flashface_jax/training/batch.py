"""A batch as the input pipeline delivers it, and what the loss is computed on."""

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Bool, Int, UInt8

from flashface_jax.diffusion.loss import Drawn, Example
from flashface_jax.models.network import Params
from flashface_jax.models.vae import Autoencoder, encode_crops, from_pixels
from flashface_jax.shapes import Image, ImageCondition, Mask
from flashface_jax.system import System

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
        tokens: tokens of the captions.
        references: upright face crops, black where there is none.
        reference_valid: which references exist.
    """

    target: UInt8[Rows, "batch H W 3"]
    face_mask: UInt8[Rows, "batch h w 1"]
    tokens: Int[Rows, "batch words"]
    references: UInt8[Rows, "batch refs R R 3"]
    reference_valid: Bool[Rows, "batch refs"]


def encode(
    system: System,
    params: dict[str, Params],
    batch: Batch,
    drawn: Drawn,
    empty_tokens: Int[Array, "1 words"],
    inpaints: bool,
) -> Example:
    """Run autoencoder and text tower; the target's posterior is sampled, the references' not."""
    autoencoder = system.autoencoder.bind(params["autoencoder"])
    text_tower = system.text_tower.bind(params["text_tower"])
    image, face_mask = from_pixels(batch.target), batch.face_mask.astype(jnp.float32)
    return Example(
        target=autoencoder.encode(image, drawn.posterior_noise),
        condition=without_face(autoencoder, image, face_mask) if inpaints else face_mask,
        context=text_tower(batch.tokens),
        empty_context=text_tower(empty_tokens),
        references=encode_crops(autoencoder, batch.references),
        reference_valid=batch.reference_valid,
    )


def without_face(autoencoder: Autoencoder, image: Image, face_mask: Mask) -> ImageCondition:
    """What an inpainting model sees: the latent of the image without its face, and the mask."""
    stride = autoencoder.config.stride
    face = jnp.repeat(jnp.repeat(face_mask, stride, axis=1), stride, axis=2)
    return jnp.concatenate([autoencoder.encode(image * (1 - face)), face_mask], axis=-1)
