"""Key weights as channels of queries and keys, for fused kernels that take no bias.

q·k + log w is [q, 1]·[k, log w]: the kernel itself need not know of weights, and an absent key
costs no mask. SD-1.5's heads leave room: matrix units work on multiples of 64 or 128 channels.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from flashface_jax.models.attention.attend import MASKED_LOGIT, KeyWeight

# log w is the sum of three bfloat16 numbers to within 2^-25 of itself, where one alone would be off
# by up to 2^-9: log 2 by 0.001.
PARTS = 3
# Kernels want head dimensions that are multiples of 8.
CHANNELS = 8

# Far below any logit, so that the exponential of an absent key is exactly 0. Not MASKED_LOGIT:
# kernels subtract such logits from each other, and huge ones would lose all digits.
ABSENT_LOGIT = -(2.0**20)


def with_weight_channels(
    query: Float[Array, "batch q heads d"],
    key: Float[Array, "batch k heads d"],
    key_weight: KeyWeight,
    scale: float,
) -> tuple[Float[Array, "batch q heads _"], Float[Array, "batch k heads _"]]:
    """Return query and key with `CHANNELS` more channels that add log(key_weight) to the logits.

    Args:
        query: queries, of any scale.
        key: keys.
        key_weight: how often each key counts; no gradient flows to it.
        scale: what the kernel multiplies the products of query and key by.
    """
    log_weight = jnp.maximum(jnp.log(jax.lax.stop_gradient(key_weight)), ABSENT_LOGIT)
    parts = _in_bfloat16(log_weight / scale)
    unused = CHANNELS - PARTS
    of_key = jnp.pad(parts, ((0, 0), (0, 0), (0, unused)))[:, :, None].astype(key.dtype)
    of_query = jnp.pad(jnp.ones(PARTS, query.dtype), (0, unused))
    return (
        jnp.concatenate([query, jnp.broadcast_to(of_query, (*query.shape[:3], CHANNELS))], axis=-1),
        jnp.concatenate([key, jnp.broadcast_to(of_key, (*key.shape[:3], CHANNELS))], axis=-1),
    )


def without_absent_sets(
    log_normalizer: Float[Array, "batch q heads"], key_weight: KeyWeight
) -> Float[Array, "batch q heads"]:
    """Log-sum-exp with that of sets whose weights are all zero put at MASKED_LOGIT."""
    any_key = jnp.any(key_weight > 0, axis=1)
    return jnp.where(any_key[:, None, None], log_normalizer, MASKED_LOGIT)


def _in_bfloat16(x: Float[Array, "batch k"]) -> Float[Array, "batch k parts"]:
    """Numbers that bfloat16 holds exactly, whose sum over the last axis is x."""
    parts = []
    for _ in range(PARTS):
        # Not a cast to bfloat16 and back, which XLA may leave out.
        part = jax.lax.reduce_precision(x, exponent_bits=8, mantissa_bits=7)
        parts.append(part)
        x = x - part
    return jnp.stack(parts, axis=-1)
