"""Attention by JAX's splash kernel for TPUs: no logits in memory, log-sum-exp in float32.

The kernel returns its log-sum-exp but defines no gradient for it. In the backward kernels the
gradient of a logit is p·(dp - di) with di = Σ o·do; a log-sum-exp's gradient is p·dlse, so that
di - dlse in place of di gives both. JAX has no public name for the backward kernels: this file is
the only one that uses the private ones, and a test fails where they change.
"""

import functools
import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as kernels
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks
from jaxtyping import Array, Float

from flashface_jax.models.attention.attend import ATTENDED, Attend, Attended, KeyWeight
from flashface_jax.models.attention.weight_channels import (
    CHANNELS,
    with_weight_channels,
    without_absent_sets,
)

LANES = 128
# A block's limits. Compiled for v4, v5e, v5p and v6e, forward and backward, none of the kernels ran
# out of vector memory with these; with 1024 tokens of 1 KiB each, three of the four did.
MOST_TOKENS = 1024
MOST_BYTES = 640 * 1024
MOST_CHANNELS = 512


@dataclass(frozen=True)
class SplashAttention:
    """Splash attention of bfloat16 or float32; what is not worth a kernel goes to another backend.

    A Pallas kernel is not partitioned by XLA: with several devices, call it within `shard_map`.
    Key weights get no gradient.

    Attributes:
        other: the backend for few tokens and for what the kernel does not take.
        small: up to this many pairs of query and key of a head, `other` is used.
        interpret: run the kernel's steps as plain JAX, which any device can; for tests.
    """

    other: Attend
    small: int
    interpret: bool = False

    def __call__(
        self,
        query: Float[Array, "batch q heads d"],
        key: Float[Array, "batch k heads d"],
        value: Float[Array, "batch k heads d"],
        key_weight: KeyWeight | None = None,
    ) -> Attended:
        """Softmax(query . key / sqrt(d) + log(key_weight)) value."""
        batch, queries, heads, d = query.shape
        keys = key.shape[1]
        if queries * keys <= self.small or self.refusal(query) is not None:
            return self.other(query, key, value, key_weight)
        blocks = _Blocks(
            block_size(queries, d, query.dtype.itemsize),
            block_size(keys, d, query.dtype.itemsize),
            self.interpret,
        )
        padded_keys = _whole(keys, blocks.keys)
        weight = key_weight
        if padded_keys > keys:
            counted = jnp.ones((batch, keys)) if key_weight is None else key_weight
            weight = _pad(counted, padded_keys)
            key, value = _pad(key, padded_keys), _pad(value, padded_keys)
        scaled = _pad(query * (1 / math.sqrt(d)), _whole(queries, blocks.queries))
        if weight is not None:
            scaled, key = with_weight_channels(scaled, key, weight, scale=1.0)
        values, log_normalizer = _splash(blocks, *map(_by_head, (scaled, key, value)))
        values = values[:, :queries].reshape(batch, heads, queries, d).swapaxes(1, 2)
        log_normalizer = log_normalizer[:, :queries].reshape(batch, heads, queries).swapaxes(1, 2)
        if key_weight is not None:
            log_normalizer = without_absent_sets(log_normalizer, key_weight)
        return Attended(values, log_normalizer)

    def refusal(self, query: Float[Array, "batch q heads d"]) -> str | None:
        """Return why the kernel cannot serve these queries, in one sentence, or None if it can."""
        if query.dtype not in (jnp.bfloat16, jnp.float32):
            return f"Splash attention takes bfloat16 or float32, not {query.dtype}."
        if query.shape[-1] > MOST_CHANNELS:
            return (
                f"Splash attention takes heads of up to {MOST_CHANNELS} channels, "
                f"not {query.shape[-1]}."
            )
        return None


def block_size(length: int, d: int, item_size: int) -> int:
    """Return the tokens of a block for sequences that are padded to whole blocks.

    A multiple of 128, at most what a TPU's vector memory holds, and no less than about half of
    that or of the sequence, as small blocks leave the kernel waiting for memory. Among those, the
    one that pads least, and the largest of several.

    Args:
        length: tokens.
        d: channels of a head, up to `MOST_CHANNELS`.
        item_size: bytes of a number.
    """
    whole = _whole(length, LANES)
    fitting = MOST_BYTES // (_whole(d + CHANNELS, LANES) * item_size) // LANES * LANES
    most = min(MOST_TOKENS, fitting, whole)
    sizes = range(max(LANES, most // 2 // LANES * LANES), most + 1, LANES)
    return min(sizes, key=lambda size: (_whole(length, size), -size))


def _whole(length: int, block: int) -> int:
    """Return the length of as many blocks as hold all tokens."""
    return -(-length // block) * block


@dataclass(frozen=True)
class _Blocks:
    queries: int
    keys: int
    interpret: bool


def _pad(x: Array, length: int) -> Array:
    """Zeros after the tokens, up to a length."""
    return jnp.pad(x, [(0, length - x.shape[1] if axis == 1 else 0) for axis in range(x.ndim)])


def _by_head(x: Array) -> Array:
    """(batch, tokens, heads, d) -> (batch·heads, tokens, d)."""
    batch, tokens, heads, d = x.shape
    return x.swapaxes(1, 2).reshape(batch * heads, tokens, d)


def _kernel(blocks: _Blocks, query: Array, key: Array) -> kernels.SplashAttentionKernel:
    heads, queries, _ = query.shape
    mask = masks.MultiHeadMask([masks.FullMask((queries, key.shape[1]))] * heads)
    sizes = kernels.BlockSizes(
        block_q=blocks.queries,
        block_kv=blocks.keys,
        block_kv_compute=blocks.keys,
        block_q_dkv=blocks.queries,
        block_kv_dkv=blocks.keys,
        block_kv_dkv_compute=blocks.keys,
        block_q_dq=blocks.queries,
        block_kv_dq=blocks.keys,
        # The fused one keeps a copy of the queries' gradient for every block of keys.
        use_fused_bwd_kernel=False,
    )
    return kernels.make_splash_mha_single_device(
        mask, block_sizes=sizes, save_residuals=True, interpret=blocks.interpret
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _splash(blocks: _Blocks, query: Array, key: Array, value: Array) -> tuple[Array, Array]:
    """Values and log-sum-exp of (heads, tokens, d), whole blocks each; queries are scaled."""
    values, (log_normalizer,) = _kernel(blocks, query, key)(query, key, value)
    return values, log_normalizer


def _forward(
    blocks: _Blocks, query: Array, key: Array, value: Array
) -> tuple[tuple[Array, Array], tuple[Array, ...]]:
    values, log_normalizer = checkpoint_name(_splash(blocks, query, key, value), ATTENDED)
    return (values, log_normalizer), (query, key, value, values, log_normalizer)


def _backward(
    blocks: _Blocks, residuals: tuple[Array, ...], cotangents: tuple[Array, Array]
) -> tuple[Array, Array, Array]:
    query, key, value, values, log_normalizer = residuals
    d_values, d_log_normalizer = cotangents
    kernel: Any = _kernel(blocks, query, key)
    product = values.astype(jnp.float32) * d_values.astype(jnp.float32)
    di = jnp.sum(product, axis=-1) - d_log_normalizer
    no_segments = no_sinks = None
    inputs = (query, key, value, no_segments, no_sinks, log_normalizer, d_values, di)
    layout = kernels.QKVLayout.HEAD_DIM_MINOR
    settings = {
        "bq": blocks.queries,
        "bkv": blocks.keys,
        "is_mqa": False,
        "mask_value": kernel.kwargs["mask_value"],
        "mask_function": kernel.kwargs["mask_function"],
        "attn_logits_soft_cap": None,
        "q_layout": layout,
        "k_layout": layout,
        "v_layout": layout,
        "interpret": blocks.interpret,
    }
    _, d_key, d_value = kernels._splash_attention_bwd_dkv(
        *inputs,
        mask_info=kernel.dkv_mask_info,
        bkv_compute=blocks.keys,
        use_fused_bwd_kernel=False,
        **settings,
    )
    d_query = kernels._splash_attention_bwd_dq(*inputs, mask_info=kernel.dq_mask_info, **settings)
    return d_query.astype(query.dtype), d_key.astype(key.dtype), d_value.astype(value.dtype)


_splash.defvjp(_forward, _backward)
