"""Any autoencoder between images and the latents that diffusion runs on, and what all are used for.

`AutoencoderKL` is Stable Diffusion's; `PatchCosines` has the same two methods and no parameters.
Which one a model uses is configuration.
"""

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, UInt8

from flashface_jax.common.shape_checks import checked
from flashface_jax.common.shapes import Image, Latent, Mask, ReferenceLatent
from flashface_jax.models.autoencoder.patch_cosines import PatchCosines, PatchCosinesConfig
from flashface_jax.models.autoencoder.vae import AutoencoderKL, AutoencoderKLConfig
from flashface_jax.models.blocks import Compute

AutoencoderConfig = AutoencoderKLConfig | PatchCosinesConfig
Autoencoder = AutoencoderKL | PatchCosines


def build_autoencoder(config: AutoencoderConfig, compute: Compute, keys: nnx.Rngs) -> Autoencoder:
    """Build the autoencoder that a configuration describes."""
    if isinstance(config, PatchCosinesConfig):
        return PatchCosines(config)
    return AutoencoderKL(config, compute, keys)


@checked()
def from_pixels(pixels: UInt8[Array, "batch H W 3"]) -> Image:
    """Pixels -> [-1, 1]."""
    return pixels.astype(jnp.float32) / 127.5 - 1


@checked()
def to_pixels(image: Image) -> UInt8[Array, "batch H W 3"]:
    """Image -> pixels, clipped and cut to whole levels as the released code does."""
    return jnp.clip(image * 127.5 + 127.5, 0, 255).astype(jnp.uint8)


@checked()
def encode_crops(
    autoencoder: Autoencoder, crops: UInt8[Array, "sets refs R R 3"]
) -> ReferenceLatent:
    """Encode reference face crops: posterior means."""
    sets, refs = crops.shape[:2]
    latents = autoencoder.encode(from_pixels(crops.reshape(sets * refs, *crops.shape[2:])))
    return latents.reshape(sets, refs, *latents.shape[1:])


@checked()
def encode_without_face(autoencoder: Autoencoder, image: Image, face_mask: Mask) -> Latent:
    """Encode images without their faces, which is what an inpainting model sees of them.

    Args:
        autoencoder: encodes.
        image: the images.
        face_mask: 1 inside the face box, at the latents' resolution.
    """
    stride = autoencoder.config.stride
    face = jnp.repeat(jnp.repeat(face_mask, stride, axis=1), stride, axis=2)
    return autoencoder.encode(image * (1 - face))
