"""The KL autoencoder of Stable Diffusion."""

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import nnx

from flashface_jax.common.shape_checks import checked
from flashface_jax.common.shapes import FeatureMap, Image, Latent
from flashface_jax.models.autoencoder.latents import Posterior, check_sides, latent_sizes
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
        check_sides(image, noise, self.config.stride, "AutoencoderKL.encode")
        posterior = self.scaled_posterior(image)
        return posterior.mean if noise is None else posterior.sample(noise)

    @checked(latent_sizes)
    def decode(self, latent: Latent) -> Image:
        """Scaled latent -> image, about [-1, 1], unclipped, float32."""
        z = self.run(self.post_quant_conv, latent / self.config.scale)
        return self.decoder(z).astype(jnp.float32)


# Orthonormal: luma, red against blue, green against both.
