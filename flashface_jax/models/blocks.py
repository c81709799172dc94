"""The blocks that U-Net and ReferenceNet are made of (Stable Diffusion 1.5, channels last)."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx, struct
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from flashface_jax.common.compilation import drawing_options
from flashface_jax.common.shapes import (
    FeatureMap,
    ReferenceWeight,
    Strength,
    TextContext,
    Timestep,
    Tokens,
)
from flashface_jax.models.attention.attend import Attend, attend_with_references
from flashface_jax.models.attention.backends import best_attention
from flashface_jax.models.convolution import Convolve, best_convolution

NORM_GROUPS = 32
GROUP_NORM_EPSILON = 1e-6  # the released model's; SD-1.5 had 1e-5 inside residual blocks
LAYER_NORM_EPSILON = 1e-5

# PyTorch's default, U(±1/√fan_in). It also compiles several times faster than a normal.
_UNIFORM = nnx.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


@functools.cache
def _draw_kernel() -> Callable[..., Array]:
    return jax.jit(_UNIFORM, static_argnums=(1, 2), compiler_options=drawing_options())


def kernel_init(key: jax.Array, shape: Sequence[int], dtype: DTypeLike = jnp.float32) -> Array:
    """Draw a kernel; one program serves all of a shape.

    There are ten times as many kernels as shapes, so that a single program that draws all of a
    network takes several times as long to compile.
    """
    if isinstance(key, jax.core.Tracer):  # JAX takes compiler options for whole programs only
        return _UNIFORM(key, shape, dtype)
    return _draw_kernel()(key, tuple(shape), dtype)


RunBlock = Callable[..., Any]
"""Called with a block and its arguments; returns what the block does."""


def run_directly(block: Callable[..., Any], *arguments: Any) -> Any:
    """Call the block."""
    return block(*arguments)


@dataclass(frozen=True)
class Compute:
    """How layers compute: the dtype of matmuls and activations, attention, and convolution.

    Norms, softmax and log-sum-exps compute in float32 whatever the dtype.

    Attributes:
        dtype: of matmuls and activations.
        attend: attention.
        convolve: convolution.
        run: how networks call their blocks, the smallest modules that are worth recomputing or
            whose parameters are worth fetching one after another; training on many devices does.
    """

    dtype: DTypeLike = jnp.float32
    attend: Attend = field(default_factory=best_attention)
    convolve: Convolve = field(default_factory=best_convolution)
    run: RunBlock = run_directly


class ParameterKeys(nnx.Rngs):
    """A key for each new parameter: fold_in(key, counter).

    Stands in for `nnx.Rngs`, whose counters are Variables and make tracing the initialisation
    of a thousand parameters quadratic.
    """

    def __init__(self, key: jax.Array):
        self._key = nnx.data(key)
        self._count = 0

    def params(self) -> jax.Array:
        """Return the next key."""
        self._count += 1
        return jax.random.fold_in(self._key, self._count)


@struct.dataclass
class BlockReference:
    """What one transformer block sees of the references.

    Attributes:
        features: the ReferenceNet's norm1 output at the same block.
        weight: how often each reference counts; 0 where there is none.
        strength: λ_feat of each person for the first `rows` rows of the batch; the others see no
            reference.
    """

    features: Float[Array, "sets refs ref_tokens c"]
    weight: ReferenceWeight
    strength: Strength


def group_norm(channels: int, keys: nnx.Rngs, groups: int = NORM_GROUPS) -> nnx.GroupNorm:
    """GroupNorm in float32; the two-pass variance is the one that equals PyTorch's."""
    return nnx.GroupNorm(
        channels, groups, epsilon=GROUP_NORM_EPSILON, use_fast_variance=False, rngs=keys
    )


def layer_norm(channels: int, keys: nnx.Rngs) -> nnx.LayerNorm:
    """LayerNorm in float32 with PyTorch's epsilon."""
    return nnx.LayerNorm(channels, epsilon=LAYER_NORM_EPSILON, use_fast_variance=False, rngs=keys)


def conv(
    in_channels: int,
    out_channels: int,
    compute: Compute,
    keys: nnx.Rngs,
    *,
    size: int = 3,
    stride: int = 1,
    padding: tuple[int, int] | None = None,
    zero: bool = False,
) -> nnx.Conv:
    """Convolution padded as PyTorch pads: by size // 2 on every side, unless told otherwise."""
    side = padding or (size // 2, size // 2)
    return nnx.Conv(
        in_channels,
        out_channels,
        (size, size),
        strides=stride,
        padding=(side, side),
        dtype=compute.dtype,
        kernel_init=nnx.initializers.zeros if zero else kernel_init,
        conv_general_dilated=compute.convolve,
        rngs=keys,
    )


def linear(
    in_channels: int, out_channels: int, compute: Compute, keys: nnx.Rngs, *, bias: bool = True
) -> nnx.Linear:
    """Dense layer in the compute dtype."""
    return nnx.Linear(
        in_channels,
        out_channels,
        use_bias=bias,
        dtype=compute.dtype,
        kernel_init=kernel_init,
        rngs=keys,
    )


def sinusoidal_embedding(timestep: Timestep, channels: int) -> Float[Array, "batch c"]:
    """Cosines, then sines, of t·10000^(-i/half); float32."""
    half = channels // 2
    # Rounded in float32 step by step as the released model was trained: at t = 999 one
    # rounding of the frequency moves the phase by 1e-4.
    frequency = np.power(np.float32(10000), -np.arange(half, dtype=np.float32) / np.float32(half))
    phase = timestep.astype(jnp.float32)[:, None] * frequency
    return jnp.concatenate([jnp.cos(phase), jnp.sin(phase)], axis=-1)


class TimeEmbedding(nnx.Module):
    """Timestep -> embedding of four times the base width."""

    def __init__(self, channels: int, compute: Compute, keys: nnx.Rngs):
        self.channels = channels
        self.linear1 = linear(channels, 4 * channels, compute, keys)
        self.linear2 = linear(4 * channels, 4 * channels, compute, keys)

    def __call__(self, timestep: Timestep) -> Float[Array, "batch c"]:
        """Embed timesteps in [0, 1000)."""
        return self.linear2(nnx.silu(self.linear1(sinusoidal_embedding(timestep, self.channels))))


class ResidualBlock(nnx.Module):
    """GroupNorm, SiLU, conv, twice; the time embedding is added between the two."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        time_channels: int,
        groups: int,
        compute: Compute,
        keys: nnx.Rngs,
    ):
        self.norm1 = group_norm(in_channels, keys, groups)
        self.conv1 = conv(in_channels, out_channels, compute, keys)
        self.time = linear(time_channels, out_channels, compute, keys)
        self.norm2 = group_norm(out_channels, keys, groups)
        self.conv2 = conv(out_channels, out_channels, compute, keys, zero=True)
        self.shortcut = (
            None
            if in_channels == out_channels
            else conv(in_channels, out_channels, compute, keys, size=1)
        )

    def __call__(self, x: FeatureMap, time: Float[Array, "batch t"]) -> FeatureMap:
        """Return the block's output at `out_channels`."""
        y = self.conv1(nnx.silu(self.norm1(x)))
        y = y + self.time(nnx.silu(time))[:, None, None, :]
        y = self.conv2(nnx.silu(self.norm2(y)))
        return y + (x if self.shortcut is None else self.shortcut(x))


class Attention(nnx.Module):
    """Multi-head projections; q, k and v have no bias, o has one."""

    def __init__(
        self, channels: int, context_channels: int, heads: int, compute: Compute, keys: nnx.Rngs
    ):
        self.heads = heads
        self.attend = compute.attend
        self.q = linear(channels, channels, compute, keys, bias=False)
        self.k = linear(context_channels, channels, compute, keys, bias=False)
        self.v = linear(context_channels, channels, compute, keys, bias=False)
        self.o = linear(channels, channels, compute, keys)

    def query(self, x: Tokens) -> Float[Array, "batch tokens heads d"]:
        """Project queries."""
        return self._split(self.q(x))

    def key_value(self, x: Float[Array, "batch k c"]) -> tuple[Array, Array]:
        """Project keys and values, each (batch, k, heads, d)."""
        return self._split(self.k(x)), self._split(self.v(x))

    def output(self, values: Float[Array, "batch tokens heads d"]) -> Tokens:
        """Merge the heads and project."""
        return self.o(values.reshape(*values.shape[:2], -1))

    def __call__(self, x: Tokens, context: Float[Array, "contexts k context"]) -> Tokens:
        """Attention of x to its context; each context is read once for all its rows.

        The batch is `contexts` runs of equal length, one a context: a context a row, one for
        all rows, or anything between.
        """
        query = self.query(x)
        runs = query.reshape(context.shape[0], -1, *query.shape[2:])
        values = self.attend(runs, *self.key_value(context)).values
        return self.output(values.reshape(query.shape))

    def _split(self, x: Array) -> Array:
        return x.reshape(*x.shape[:2], self.heads, -1)


class ReferenceAttention(Attention):
    """The second attention layer of a denoiser block, over [y, r_1 .. r_N] (paper, Eq. 3)."""

    def with_references(self, y: Tokens, reference: BlockReference) -> Tokens:
        """λ·RefAttn(y, [y, r]) + (1-λ)·RefAttn(y, [y]); references are projected once a set."""
        sets, refs, ref_tokens, channels = reference.features.shape
        flat = reference.features.reshape(sets, refs * ref_tokens, channels)
        blended = attend_with_references(
            self.attend,
            self.query(y),
            self.key_value(y),
            self.key_value(flat),
            jnp.repeat(reference.weight, ref_tokens, axis=1),
            reference.strength,
        )
        return self.output(blended)


class FeedForward(nnx.Module):
    """GEGLU with the exact (erf) GELU."""

    def __init__(self, channels: int, compute: Compute, keys: nnx.Rngs):
        self.proj = linear(channels, 8 * channels, compute, keys)
        self.out = linear(4 * channels, channels, compute, keys)

    def __call__(self, x: Tokens) -> Tokens:
        """Position-wise feed-forward."""
        value, gate = jnp.split(self.proj(x), 2, axis=-1)
        return self.out(value * nnx.gelu(gate, approximate=False))


class TransformerBlock(nnx.Module):
    """Self-attention, reference attention where it has one, cross-attention, feed-forward."""

    def __init__(
        self,
        channels: int,
        context_channels: int,
        heads: int,
        reference_attention: bool,
        compute: Compute,
        keys: nnx.Rngs,
    ):
        self.norm1 = layer_norm(channels, keys)
        self.self_attention = Attention(channels, channels, heads, compute, keys)
        self.reference_attention = (
            ReferenceAttention(channels, channels, heads, compute, keys)
            if reference_attention
            else None
        )
        self.norm2 = layer_norm(channels, keys)
        self.cross_attention = Attention(channels, context_channels, heads, compute, keys)
        self.norm3 = layer_norm(channels, keys)
        self.feed_forward = FeedForward(channels, compute, keys)

    def __call__(
        self, x: Tokens, context: TextContext, references: list[BlockReference] | None
    ) -> tuple[Tokens, Tokens]:
        """Return the block's output and `norm1(x)`, which is what a ReferenceNet hands out.

        Reference attention is over the image and the one entry of `references`, or over the image
        alone if that is empty; None leaves it out.
        """
        y = self.norm1(x).astype(x.dtype)
        x = x + self.self_attention(y, y)
        second = self.reference_attention
        if references is not None and second is not None:
            x = x + (second.with_references(y, *references) if references else second(y, y))
        x = x + self.cross_attention(self.norm2(x), context)
        return x + self.feed_forward(self.norm3(x)), y


class SpatialTransformer(nnx.Module):
    """A stack of transformer blocks over the positions of a feature map, with a residual."""

    def __init__(
        self,
        channels: int,
        context_channels: int,
        heads: int,
        depth: int,
        groups: int,
        reference_attention: bool,
        compute: Compute,
        keys: nnx.Rngs,
    ):
        self.norm = group_norm(channels, keys, groups)
        self.conv_in = conv(channels, channels, compute, keys, size=1)
        self.blocks = nnx.List(
            TransformerBlock(channels, context_channels, heads, reference_attention, compute, keys)
            for _ in range(depth)
        )
        self.conv_out = conv(channels, channels, compute, keys, size=1, zero=True)

    def __call__(
        self, x: FeatureMap, context: TextContext, references: list[BlockReference] | None
    ) -> tuple[FeatureMap, list[Tokens]]:
        """Return the output and each block's `norm1(x)`.

        `references` is one a block, empty where there is only the image to see, or None to leave
        reference attention out.
        """
        batch, height, width, channels = x.shape
        tokens = self.conv_in(self.norm(x)).reshape(batch, height * width, channels)
        features = []
        for i, block in enumerate(self.blocks):
            seen = None if references is None else references[i : i + 1]
            tokens, feature = block(tokens, context, seen)
            features.append(feature)
        return x + self.conv_out(tokens.reshape(x.shape)), features


def upsample_nearest(x: FeatureMap, height: int, width: int) -> FeatureMap:
    """Double by repetition and crop to (height, width), each 2n or 2n - 1.

    For those sizes this equals PyTorch's nearest rule, source = floor(i·in / out).
    """
    doubled = jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)
    return doubled[:, :height, :width]
