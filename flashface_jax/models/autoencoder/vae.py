"""Autoencoders between images and the latents that diffusion runs on.

`AutoencoderKL` is Stable Diffusion's. `PatchCosines` has the same two methods and no parameters,
for small worlds without a pretrained autoencoder. Which one a model uses is configuration.
"""

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx, struct
from jaxtyping import Array, Float, UInt8

from flashface_jax.common.shape_checks import Sizes, checked, require
from flashface_jax.common.shapes import FeatureMap, Image, Latent, Mask, ReferenceLatent
from flashface_jax.models.blocks import Compute, conv, group_norm, upsample_nearest


@dataclass(frozen=True)
class AutoencoderKLConfig:
    """Widths of `AutoencoderKL`; the defaults are Stable Diffusion 1.5's.

    Attributes:
        base_channels: width of the first level, a multiple of 32.
        latent_channels: channels of a latent.
        channel_multipliers: width of each level over `base_channels`; all but the last halve.
        residual_blocks: residual blocks of each encoder level; the decoder has one more.
        scale: factor on latents that gives them about unit variance.
        misread_attention: the released code reads the (position, channel) output of the middle
            attention as (channel, position), in encoder and decoder. True repeats that, and so
            the released images; False is Stable Diffusion's autoencoder.
    """

    base_channels: int = 128
    latent_channels: int = 4
    channel_multipliers: tuple[int, ...] = (1, 2, 4, 4)
    residual_blocks: int = 2
    scale: float = 0.18215
    misread_attention: bool = False

    def __post_init__(self) -> None:
        if self.base_channels % 32:
            raise ValueError(
                f"base_channels is {self.base_channels}; GroupNorm needs a multiple of 32."
            )

    @property
    def stride(self) -> int:
        """Pixels of a latent position, each way."""
        return 2 ** (len(self.channel_multipliers) - 1)

    @property
    def level_channels(self) -> tuple[int, ...]:
        """Width of each level."""
        return tuple(self.base_channels * m for m in self.channel_multipliers)


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


AutoencoderConfig = AutoencoderKLConfig | PatchCosinesConfig


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


class ConvBlock(nnx.Module):
    """GroupNorm, SiLU, conv, twice, with a residual."""

    def __init__(self, in_channels: int, out_channels: int, compute: Compute, keys: nnx.Rngs):
        self.norm1 = group_norm(in_channels, keys)
        self.conv1 = conv(in_channels, out_channels, compute, keys)
        self.norm2 = group_norm(out_channels, keys)
        self.conv2 = conv(out_channels, out_channels, compute, keys)
        self.shortcut = (
            None
            if in_channels == out_channels
            else conv(in_channels, out_channels, compute, keys, size=1)
        )

    def __call__(self, x: FeatureMap) -> FeatureMap:
        """Return the block's output at `out_channels`."""
        y = self.conv1(nnx.silu(self.norm1(x)))
        y = self.conv2(nnx.silu(self.norm2(y)))
        return y + (x if self.shortcut is None else self.shortcut(x))


class PositionAttention(nnx.Module):
    """Single-head self-attention over positions, with a residual."""

    def __init__(self, channels: int, misread: bool, compute: Compute, keys: nnx.Rngs):
        self.misread = misread
        self.attend = compute.attend
        self.norm = group_norm(channels, keys)
        self.qkv = conv(channels, 3 * channels, compute, keys, size=1)
        self.proj = conv(channels, channels, compute, keys, size=1, zero=True)

    def __call__(self, x: FeatureMap) -> FeatureMap:
        """Attend from every position to every position."""
        batch, height, width, channels = x.shape
        qkv = self.qkv(self.norm(x)).reshape(batch, height * width, 1, 3 * channels)
        values = self.attend(*jnp.split(qkv, 3, axis=-1)).values
        if self.misread:
            values = values.reshape(batch, channels, height * width).swapaxes(1, 2)
        return x + self.proj(values.reshape(x.shape))


class Bottleneck(nnx.Module):
    """Block, attention, block at the lowest resolution."""

    def __init__(self, channels: int, misread: bool, compute: Compute, keys: nnx.Rngs):
        self.run = compute.run
        self.block1 = ConvBlock(channels, channels, compute, keys)
        self.attention = PositionAttention(channels, misread, compute, keys)
        self.block2 = ConvBlock(channels, channels, compute, keys)

    def __call__(self, x: FeatureMap) -> FeatureMap:
        """Run the three in turn."""
        for block in (self.block1, self.attention, self.block2):
            x = self.run(block, x)
        return x


class Downsample(nnx.Module):
    """Halve: pad right and bottom by one, then a stride-2 convolution without padding."""

    def __init__(self, channels: int, compute: Compute, keys: nnx.Rngs):
        self.conv = conv(channels, channels, compute, keys, stride=2, padding=(0, 1))

    def __call__(self, x: FeatureMap) -> FeatureMap:
        """Halve height and width."""
        return self.conv(x)


class Upsample(nnx.Module):
    """Double by repetition, then convolve."""

    def __init__(self, channels: int, compute: Compute, keys: nnx.Rngs):
        self.conv = conv(channels, channels, compute, keys)

    def __call__(self, x: FeatureMap) -> FeatureMap:
        """Double height and width."""
        return self.conv(upsample_nearest(x, 2 * x.shape[1], 2 * x.shape[2]))


class Encoder(nnx.Module):
    """Image -> mean and log-variance of the posterior, before the quantisation convolution."""

    def __init__(self, config: AutoencoderKLConfig, compute: Compute, keys: nnx.Rngs):
        self.run = compute.run
        self.conv_in = conv(3, config.base_channels, compute, keys)
        levels: list[nnx.Module] = []
        channels = config.base_channels
        for level, width in enumerate(config.level_channels):
            for _ in range(config.residual_blocks):
                levels.append(ConvBlock(channels, width, compute, keys))
                channels = width
            if level < len(config.level_channels) - 1:
                levels.append(Downsample(channels, compute, keys))
        self.levels = nnx.List(levels)
        self.middle = Bottleneck(channels, config.misread_attention, compute, keys)
        self.norm = group_norm(channels, keys)
        self.conv_out = conv(channels, 2 * config.latent_channels, compute, keys)

    @jax.named_scope("autoencoder/encoder")
    def __call__(self, x: Image) -> FeatureMap:
        """Encode."""
        x = self.run(self.conv_in, x)
        for layer in self.levels:
            x = self.run(layer, x)
        return self.run(self.conv_out, nnx.silu(self.norm(self.middle(x))))


class Decoder(nnx.Module):
    """FeatureMap -> image."""

    def __init__(self, config: AutoencoderKLConfig, compute: Compute, keys: nnx.Rngs):
        channels = config.level_channels[-1]
        self.run = compute.run
        self.conv_in = conv(config.latent_channels, channels, compute, keys)
        self.middle = Bottleneck(channels, config.misread_attention, compute, keys)
        levels: list[ConvBlock | Upsample] = []
        for level, width in reversed(list(enumerate(config.level_channels))):
            for _ in range(config.residual_blocks + 1):
                levels.append(ConvBlock(channels, width, compute, keys))
                channels = width
            if level > 0:
                levels.append(Upsample(channels, compute, keys))
        self.levels = nnx.List(levels)
        self.norm = group_norm(channels, keys)
        self.conv_out = conv(channels, 3, compute, keys)

    @jax.named_scope("autoencoder/decoder")
    def __call__(self, z: FeatureMap) -> Image:
        """Decode."""
        x = self.middle(self.run(self.conv_in, z))
        for layer in self.levels:
            x = self.run(layer, x)
        return self.run(self.conv_out, nnx.silu(self.norm(x)))


def latent_sizes(autoencoder: "Autoencoder") -> Sizes:
    """What an autoencoder's configuration decides of the arrays that it is given."""
    return {"c": autoencoder.config.latent_channels}


def _check_sides(image: Image, noise: Latent | None, stride: int, function: str) -> None:
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


class AutoencoderKL(nnx.Module):
    """Stable Diffusion's autoencoder with a Gaussian posterior."""

    def __init__(self, config: AutoencoderKLConfig, compute: Compute, keys: nnx.Rngs):
        self.config, self.run = config, compute.run
        self.encoder = Encoder(config, compute, keys)
        latent = config.latent_channels
        self.quant_conv = conv(2 * latent, 2 * latent, compute, keys, size=1)
        self.post_quant_conv = conv(latent, latent, compute, keys, size=1)
        self.decoder = Decoder(config, compute, keys)

    def posterior(self, image: Image) -> tuple[Latent, Latent]:
        """Return mean and log-variance of the unscaled latent's posterior, float32."""
        moments = self.run(self.quant_conv, self.encoder(image)).astype(jnp.float32)
        mean, log_variance = jnp.split(moments, 2, axis=-1)
        return mean, log_variance

    def scaled_posterior(self, image: Image) -> Posterior:
        """Image in [-1, 1] -> posterior of its scaled latent."""
        mean, log_variance = self.posterior(image)
        log_variance = jnp.clip(log_variance, -30.0, 20.0)  # as Stable Diffusion does
        scale = self.config.scale
        return Posterior(mean * scale, log_variance + 2 * math.log(scale))

    @checked(latent_sizes)
    def encode(self, image: Image, noise: Latent | None = None) -> Latent:
        """Image in [-1, 1] -> scaled latent: the posterior mean, or a sample if given N(0, 1).

        Raises:
            ValueError: sides are no multiples of the stride, or the noise has another shape.
            TypeError: an array has another dtype.
        """
        _check_sides(image, noise, self.config.stride, "AutoencoderKL.encode")
        posterior = self.scaled_posterior(image)
        return posterior.mean if noise is None else posterior.sample(noise)

    @checked(latent_sizes)
    def decode(self, latent: Latent) -> Image:
        """Scaled latent -> image, about [-1, 1], unclipped, float32."""
        z = self.run(self.post_quant_conv, latent / self.config.scale)
        return self.decoder(z).astype(jnp.float32)


# Orthonormal: luma, red against blue, green against both.
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
        _check_sides(image, noise, self.config.stride, "PatchCosines.encode")
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
