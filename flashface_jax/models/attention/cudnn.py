"""Attention by cuDNN for NVIDIA GPUs: no logits in memory, log-sum-exp in float32.

`jax.nn.dot_product_attention` rounds the log-sum-exp to the queries' dtype, which is too coarse
for the share of references; the function that it wraps does not. This file is the only one that
uses it. cuDNN has no gradient through the log-sum-exp l = log Σ_j exp(s q·k_j), but attention has
all that it takes: with p the softmax weights, dl/dq = s Σ_j p_j k_j is the attention with the keys
as values, and dl/dk_j = s p_j q is the gradient of those values for a cotangent s·q.
"""

import functools
import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax._src.cudnn.fused_attention_stablehlo import dot_product_attention
from jax.ad_checkpoint import checkpoint_name
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array, Float

from flashface_jax.models.attention.attend import ATTENDED, Attend, Attended, KeyWeight
from flashface_jax.models.attention.weight_channels import (
    CHANNELS,
    with_weight_channels,
    without_absent_sets,
)

AMPERE, HOPPER = (8, 0), (9, 0)


@dataclass(frozen=True)
class CudnnAttention:
    """cuDNN's fused attention of bfloat16; what is not worth it goes to another backend.

    Key weights get no gradient.

    Attributes:
        other: the backend for few tokens and for what cuDNN does not take.
        small: up to this many pairs of query and key of a head, `other` is used.
        capability: CUDA compute capability of the GPU; None if it has none.
    """

    other: Attend
    small: int
    capability: tuple[int, int] | None

    def __call__(
        self,
        query: Float[Array, "batch q heads d"],
        key: Float[Array, "batch k heads d"],
        value: Float[Array, "batch k heads d"],
        key_weight: KeyWeight | None = None,
    ) -> Attended:
        """Softmax(query . key / sqrt(d) + log(key_weight)) value."""
        d = query.shape[-1]
        if query.shape[1] * key.shape[1] <= self.small or self.refusal(query, key_weight):
            return self.other(query, key, value, key_weight)
        scale = 1 / math.sqrt(d)
        if key_weight is None:
            return Attended(*_cudnn(scale, query, key, value))
        query, key = with_weight_channels(query, key, key_weight, scale)
        # cuDNN wants values as wide as keys.
        value = jnp.pad(value, ((0, 0), (0, 0), (0, 0), (0, CHANNELS)))
        values, log_normalizer = _cudnn(scale, query, key, value)
        return Attended(values[..., :d], without_absent_sets(log_normalizer, key_weight))

    def refusal(
        self, query: Float[Array, "batch q heads d"], key_weight: KeyWeight | None = None
    ) -> str | None:
        """Return why cuDNN cannot serve this, in one sentence, or None if it can."""
        if self.capability is None or self.capability < AMPERE:
            return "cuDNN's fused attention needs an NVIDIA GPU of compute capability 8.0 or more."
        if query.dtype != jnp.bfloat16:
            return f"cuDNN's fused attention takes bfloat16, not {query.dtype}."
        most = 256 if self.capability >= HOPPER else 128
        channels = query.shape[-1] + (0 if key_weight is None else CHANNELS)
        if channels % 8 or channels > most:
            return (
                f"cuDNN's fused attention takes heads of a multiple of 8 channels up to {most} on "
                f"this GPU, not {channels}."
            )
        return None


def compute_capability() -> tuple[int, int] | None:
    """Return the CUDA compute capability of the first device, or None if it is no NVIDIA GPU."""
    name = str(getattr(jax.local_devices()[0], "compute_capability", ""))
    major, dot, minor = name.partition(".")
    return (int(major), int(minor)) if dot and major.isdigit() and minor.isdigit() else None


def _fused(scale: float, query: Array, key: Array, value: Array) -> tuple[Array, Array]:
    """Values (batch, q, heads, d) and log-sum-exp (batch, heads, q); differentiable in values."""
    return dot_product_attention(query, key, value, scale=scale, return_residual=True)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _cudnn(scale: float, query: Array, key: Array, value: Array) -> tuple[Array, Array]:
    """Values and log-sum-exp (batch, q, heads)."""
    values, log_normalizer = _fused(scale, query, key, value)
    return values, log_normalizer.swapaxes(1, 2)


def _forward(scale: float, *primals: Any) -> tuple[tuple[Array, Array], tuple[Any, ...]]:
    query, key, value = (primal.value for primal in primals)
    (values, log_normalizer), of_values = jax.vjp(
        functools.partial(_fused, scale), query, key, value
    )
    # What the gradient of the values keeps is named, too, or the kernel would run again for it.
    values, log_normalizer, of_values = checkpoint_name(
        (values, log_normalizer, of_values), ATTENDED
    )
    residuals = (query, key, log_normalizer, of_values)
    return (values, log_normalizer.swapaxes(1, 2)), residuals


def _backward(
    scale: float, residuals: tuple[Any, ...], cotangents: tuple[Any, Any]
) -> tuple[Array, Array, Array]:
    query, key, log_normalizer, of_values = residuals
    d_values, d_log_normalizer = cotangents
    ignored = jnp.zeros_like(log_normalizer)
    if isinstance(d_values, SymbolicZero):
        d_values = jnp.zeros(d_values.shape, d_values.dtype)
    d_query, d_key, d_value = of_values((d_values, ignored))
    # Where only the values are used, as in attention without references, this half is saved.
    if not isinstance(d_log_normalizer, SymbolicZero):
        weight = (scale * d_log_normalizer)[..., None]
        (mean_key, _), of_keys = jax.vjp(lambda keys: _fused(scale, query, key, keys), key)
        d_query = _add(d_query, weight * mean_key)
        d_key = _add(d_key, of_keys(((weight * query).astype(query.dtype), ignored))[0])
    return d_query, d_key, d_value


def _add(gradient: Array, further: Array) -> Array:
    return (gradient.astype(jnp.float32) + further).astype(gradient.dtype)


_cudnn.defvjp(_forward, _backward, symbolic_zeros=True)
