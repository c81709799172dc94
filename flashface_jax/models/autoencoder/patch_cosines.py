"""Cosines of patches as latents, for small worlds without a pretrained autoencoder."""

from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Float

from flashface_jax.common.shape_checks import checked
from flashface_jax.common.shapes import Image, Latent
from flashface_jax.models.autoencoder.latents import Posterior, check_sides, latent_sizes


@dataclass(frozen=True)
class PatchCosinesConfig:
    """Which cosine coefficients of a patch of pixels are its latent channels.

    Attributes:
        patch: side of the square of pixels that becomes one latent position.
        deviations: for luma and each of two chroma channels, the deviation that coefficients of
            total frequency 0, 1, 2, ... are divided by. Higher frequencies are left out, so the
            lengths say what is kept; 2·patch - 1 entries each keep every pixel exactly.
            The defaults are deviations of the built-in world's photos.
    """

    patch: int = 4
    deviations: tuple[tuple[float, ...], ...] = ((2.8, 0.6, 0.31), (1.5, 0.26), (0.73, 0.15))

    def __post_init__(self) -> None:
        longest = 2 * self.patch - 1
        if len(self.deviations) != 3 or not all(0 < len(d) <= longest for d in self.deviations):
            raise ValueError(
                f"deviations must be 3 tuples (luma and two chroma) of 1 to {longest} numbers."
            )

    @property
    def stride(self) -> int:
        """Pixels of a latent position, each way."""
        return self.patch

    @property
    def latent_channels(self) -> int:
        """Channels of a latent."""
        return len(patch_cosines(self))


OPPONENT_COLOURS = np.array(
    [[1, 1, 1] / np.sqrt(3), [1, 0, -1] / np.sqrt(2), [1, -2, 1] / np.sqrt(6)]
)


def patch_cosines(config: PatchCosinesConfig) -> Float[np.ndarray, "c values"]:
    """Rows map a patch's values, (y, x, rgb) in order, to its latent channels."""
    p = config.patch
    frequency, place = np.arange(p)[:, None], np.arange(p)[None] + 0.5
    cosines = np.sqrt(2 / p) * np.cos(np.pi * frequency * place / p)
    cosines[0] /= np.sqrt(2)
    rows = [
        np.einsum("y,x,c->yxc", cosines[u], cosines[v], colour).reshape(-1) / deviations[u + v]
        for colour, deviations in zip(OPPONENT_COLOURS, config.deviations, strict=True)
        for u in range(p)
        for v in range(p)
        if u + v < len(deviations)
    ]
    return np.stack(rows).astype(np.float32)


class PatchCosines(nnx.Module):
    """The cosine transform of patches of pixels, as in JPEG: linear, and without parameters."""

    def __init__(self, config: PatchCosinesConfig):
        self.config = config

    def scaled_posterior(self, image: Image) -> Posterior:
        """Image in [-1, 1] -> its only latent."""
        mean = self.encode(image)
        return Posterior(mean, jnp.full_like(mean, -jnp.inf))

    @checked(latent_sizes)
    def encode(self, image: Image, noise: Latent | None = None) -> Latent:
        """Image in [-1, 1] -> scaled latent; there is no posterior to sample: `noise` is idle.

        Raises:
            ValueError: sides are no multiples of the stride, or the noise has another shape.
            TypeError: an array has another dtype.
        """
        check_sides(image, noise, self.config.stride, "PatchCosines.encode")
        batch, height, width, _ = image.shape
        p = self.config.patch
        patches = image.reshape(batch, height // p, p, width // p, p, 3).swapaxes(2, 3)
        values = patches.reshape(batch, height // p, width // p, 3 * p * p)
        return values @ patch_cosines(self.config).T

    @checked(latent_sizes)
    def decode(self, latent: Latent) -> Image:
        """Scaled latent -> image."""
        batch, h, w, _ = latent.shape
        p = self.config.patch
        rows = patch_cosines(self.config)
        # Rows are orthogonal, so the pseudo-inverse is the transpose over squared lengths.
        values = (latent / np.sum(rows**2, axis=1)) @ rows
        patches = values.reshape(batch, h, w, p, p, 3).swapaxes(2, 3)
        return patches.reshape(batch, h * p, w * p, 3)
