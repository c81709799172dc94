"""Latents, whatever autoencoder they are of: their distribution, and what fits them."""

from typing import Any

import jax.numpy as jnp
from flax import struct

from flashface_jax.common.shape_checks import Sizes, require
from flashface_jax.common.shapes import Image, Latent


@struct.dataclass
class Posterior:
    """Which scaled latents an image may have: independent Gaussians.

    Attributes:
        mean: of each number of the latent.
        log_variance: likewise; -inf where the mean is certain.
    """

    mean: Latent
    log_variance: Latent

    def sample(self, noise: Latent) -> Latent:
        """Draw a latent with noise of N(0, 1)."""
        return self.mean + jnp.exp(0.5 * self.log_variance) * noise


def latent_sizes(autoencoder: Any) -> Sizes:
    """What the configuration of an autoencoder, of any kind, decides of the arrays given to it."""
    return {"c": autoencoder.config.latent_channels}


def check_sides(image: Image, noise: Latent | None, stride: int, function: str) -> None:
    """Raise a ValueError unless an image's sides divide by the stride, and the noise fits."""
    height, width = image.shape[1:3]
    require(
        height % stride == width % stride == 0,
        "image",
        function,
        f"{height}x{width} pixels",
        f"multiples of {stride}, the stride",
    )
    if noise is not None:
        h, w = height // stride, width // stride
        require(
            noise.shape[1:3] == (h, w),
            "noise",
            function,
            f"shape {noise.shape}",
            f"(batch, h, w, c) with h = {h}, w = {w} (as in `image`, over the stride)",
        )
