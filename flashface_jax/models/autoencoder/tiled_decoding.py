"""Decoding in tiles without seams: `AutoencoderKL.decode` in a fraction of its memory, exactly.

Images put together from tiles that were decoded apart show seams, for three reasons that are
none here:

- The middle attention sees the whole image: all that precedes the levels runs whole, at the
  resolution of the latent.
- Convolutions see beyond a tile's border: tiles are computed with a halo, which is dropped.
- Each GroupNorm needs the moments of its whole input: the levels run stage by stage, and the
  moments of a stage's norms are measured over all tiles, one norm after the other, before the
  stage's output is computed.

Measuring a norm repeats the convolutions before it in its stage: 10.1 million multiply-adds a
pixel in place of 4.6 at Stable Diffusion's widths, and the halo's on top.
"""

import math
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

from flashface_jax.common.shape_checks import checked
from flashface_jax.common.shapes import FeatureMap, Image, Latent
from flashface_jax.models.autoencoder.autoencoder import Autoencoder
from flashface_jax.models.autoencoder.latents import latent_sizes
from flashface_jax.models.autoencoder.patch_cosines import PatchCosines
from flashface_jax.models.autoencoder.tiles import Grid, Tile
from flashface_jax.models.autoencoder.vae import AutoencoderKL, ConvBlock, Decoder, Upsample
from flashface_jax.models.blocks import NORM_GROUPS


@checked(latent_sizes)
def decode_in_tiles(autoencoder: Autoencoder, latent: Latent, tile: int = 32) -> Image:
    """Decode as `autoencoder.decode` does, up to float error, one image and one tile at a time.

    Besides the images, memory holds what one stage of the decoder reads and writes for one image,
    and the decoding of one tile. Compile time does not depend on the number of tiles.

    Args:
        autoencoder: `PatchCosines` has no maps to save and decodes at once.
        latent: scaled latent.
        tile: side of a tile of the image in latent positions. The decoder's smaller maps are cut
            into tiles of about as many values. An image no larger than a tile decodes whole.

    Returns:
        Image, about [-1, 1], unclipped, float32.

    Raises:
        ValueError: if `tile` is less than 1.
    """
    if tile < 1:
        raise ValueError(f"tile is {tile}; a tile needs at least 1 latent position each way.")
    if isinstance(autoencoder, PatchCosines):
        return autoencoder.decode(latent)
    whole = tile >= max(latent.shape[1:3])
    decode = autoencoder.decode if whole else partial(_decode_image, autoencoder, tile)
    return jax.lax.map(lambda one: decode(one[None])[0], latent)


def _decode_image(autoencoder: AutoencoderKL, tile: int, latent: Latent) -> Image:
    z = autoencoder.post_quant_conv(latent / autoencoder.config.scale)
    x = autoencoder.decoder.middle(autoencoder.decoder.conv_in(z))
    for layers in stages(autoencoder.decoder):
        x = run_stage(layers, x, tile * autoencoder.config.stride)
    return x.astype(jnp.float32)


# ------------------------------------------------------------------------- layers between norms

Steps = Generator[tuple[nnx.GroupNorm, FeatureMap], FeatureMap, FeatureMap]
"""A layer that leaves its norms to the caller: it yields each with the input, is sent the
normalised values, and returns its output."""


@dataclass(frozen=True)
class Layer:
    """A layer of the decoder.

    Attributes:
        steps: runs it.
        norms: how many norms it leaves to the caller.
        reach: 3x3 convolutions in a row, all at the resolution of its output.
        scale: rows of output for a row of input.
    """

    steps: Callable[[FeatureMap], Steps]
    norms: int
    reach: int
    scale: int


def _upsample(module: Upsample) -> Layer:
    def steps(x: FeatureMap) -> Steps:
        yield from ()
        return module(x)

    return Layer(steps, norms=0, reach=1, scale=2)


def _block(module: ConvBlock) -> Layer:
    def steps(x: FeatureMap) -> Steps:
        y = module.conv1(nnx.silu((yield module.norm1, x)))
        y = module.conv2(nnx.silu((yield module.norm2, y)))
        return y + (x if module.shortcut is None else module.shortcut(x))

    return Layer(steps, norms=2, reach=2, scale=1)


def _ending(decoder: Decoder) -> Layer:
    def steps(x: FeatureMap) -> Steps:
        return decoder.conv_out(nnx.silu((yield decoder.norm, x)))

    return Layer(steps, norms=1, reach=1, scale=1)


def run_until(layers: Sequence[Layer], moments: Sequence["Moments"], x: FeatureMap) -> FeatureMap:
    """Run layers whose first norms have these moments.

    Returns:
        What the first norm without moments would normalise, or the output if all have them.
    """

    def in_turn(x: FeatureMap) -> Steps:
        for layer in layers:
            x = yield from layer.steps(x)
        return x

    steps = in_turn(x)
    try:
        norm, y = next(steps)
        for known in moments:
            norm, y = steps.send(normalize(norm, y, known))
    except StopIteration as finished:
        return finished.value
    return y


# --------------------------------------------------------------------------------------- stages


def stages(decoder: Decoder) -> list[list[Layer]]:
    """Layers after the middle block, split where a map is held whole.

    Every residual block is a stage, together with the upsampling before it, whose output would
    be the largest map of its level. Only the last level's blocks after its first share a stage,
    which ends in the image: so no two maps of that level are held at once, for an eighth more
    arithmetic.
    """
    found: list[list[Layer]] = []
    upsampling: list[Layer] = []
    for module in decoder.levels:
        if isinstance(module, Upsample):
            upsampling = [_upsample(module)]
        else:
            found.append([*upsampling, _block(module)])
            upsampling = []
    last_level = max((i for i, layers in enumerate(found) if len(layers) > 1), default=0)
    rest = [layer for layers in found[last_level + 1 :] for layer in layers]
    return [*found[: last_level + 1], [*rest, _ending(decoder)]]


def halo(layers: Sequence[Layer]) -> int:
    """Positions of the input beyond a tile, each way, that the output within the tile sees.

    Counted backwards from the output, which needs none beyond: a 3x3 convolution sees one
    position further, and r positions beyond an upsampled tile lie within ceil(r / 2) positions
    beyond the tile before. Given their moments, norms see no further.
    """
    reach = 0
    for layer in reversed(layers):
        reach = math.ceil((reach + layer.reach) / layer.scale)
    return reach


def run_stage(layers: Sequence[Layer], x: FeatureMap, side: int) -> FeatureMap:
    """Output of a stage for one image, in tiles of `side` positions of the output each way."""
    scale = math.prod(layer.scale for layer in layers)
    grid = Grid.of(x, max(1, side // scale), halo(layers))
    moments: tuple[Moments, ...] = ()
    for _ in range(sum(layer.norms for layer in layers)):
        moments += (measure(partial(run_until, layers, moments), x, grid),)
    return grid.map(partial(run_until, layers, moments), x)


# -------------------------------------------------------------------------------------- moments


class Moments(NamedTuple):
    """What a GroupNorm knows of its input: mean and deviation of each group of channels.

    Attributes:
        size: values of a group.
        mean: their mean.
        squares: their squared deviations from the mean, summed.
    """

    size: Float[Array, ""]
    mean: Float[Array, " groups"]
    squares: Float[Array, " groups"]


def measure(local: Callable[[FeatureMap], FeatureMap], x: FeatureMap, grid: Grid) -> Moments:
    """Moments of local(x) for one image."""

    def add(known: Moments, tile: Tile) -> Moments:
        return merge(known, moments_of(tile.values, tile.new))

    nothing = Moments(jnp.zeros(()), jnp.zeros(NORM_GROUPS), jnp.zeros(NORM_GROUPS))
    return grid.fold(add, nothing, local, x)


def moments_of(x: FeatureMap, counted: Bool[Array, "_ _"]) -> Moments:
    """Moments of one image's counted positions, in two passes as the decoder's norms take them."""
    groups = x.astype(jnp.float32).reshape(*x.shape[1:3], NORM_GROUPS, -1)
    where = counted[:, :, None, None]
    size = counted.sum(dtype=jnp.float32) * groups.shape[-1]
    mean = jnp.sum(groups, (0, 1, 3), where=where) / size
    squares = jnp.sum(jnp.square(groups - mean[:, None]), (0, 1, 3), where=where)
    return Moments(size, mean, squares)


def merge(a: Moments, b: Moments) -> Moments:
    """Moments of two sets of values together (Chan, Golub, LeVeque 1983); `a` may be empty."""
    size = a.size + b.size
    difference = b.mean - a.mean
    mean = a.mean + difference * (b.size / size)
    between = jnp.square(difference) * (a.size * (b.size / size))
    return Moments(size, mean, a.squares + b.squares + between)


def normalize(norm: nnx.GroupNorm, x: FeatureMap, moments: Moments) -> FeatureMap:
    """Apply a norm with given moments instead of those of `x`, in float32."""
    channels = x.shape[-1] // NORM_GROUPS
    mean = jnp.repeat(moments.mean, channels)
    variance = jnp.repeat(moments.squares / moments.size, channels)
    # Every norm of the decoder has a scale and a bias, which its type does not say.
    scale, bias = norm.scale[...], norm.bias[...]  # type: ignore[index]
    return (x.astype(jnp.float32) - mean) * (jax.lax.rsqrt(variance + norm.epsilon) * scale) + bias
