"""Attention with its log-sum-exp, and reference attention built on it (SPEC: one pass over y-y).

Softmax and log-sum-exp are float32 whatever the inputs are.
"""

import math
from typing import NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

# Finite, so that a row without any valid key has defined values and gradients.
MASKED_LOGIT = -1e30

# Logits of one chunk of queries stay under this many elements (256 MiB in float32).
MAX_LOGITS = 1 << 26


class Attended(NamedTuple):
    """Result of one softmax attention.

    Attributes:
        values: (batch, q, heads, d), in the queries' dtype.
        log_normalizer: (batch, q, heads) float32, log-sum-exp of the scaled logits.
    """

    values: Float[Array, "batch q heads d"]
    log_normalizer: Float[Array, "batch q heads"]


@runtime_checkable
class Attend(Protocol):
    """A scaled dot-product attention backend; must be differentiable through both results."""

    def __call__(
        self,
        query: Float[Array, "batch q heads d"],
        key: Float[Array, "batch k heads d"],
        value: Float[Array, "batch k heads d"],
        key_valid: Bool[Array, "batch k"] | None = None,
    ) -> Attended:
        """Softmax(query . key / sqrt(d)) value over the valid keys."""
        ...


def attend(
    query: Float[Array, "batch q heads d"],
    key: Float[Array, "batch k heads d"],
    value: Float[Array, "batch k heads d"],
    key_valid: Bool[Array, "batch k"] | None = None,
) -> Attended:
    """Portable backend: plain XLA, over chunks of queries once the logits would be large."""
    batch, queries, heads, _ = query.shape
    chunks = math.ceil(batch * heads * queries * key.shape[1] / MAX_LOGITS)
    if chunks <= 1 or queries == 1:
        return _attend_at_once(query, key, value, key_valid)
    size = math.ceil(queries / min(chunks, queries))
    count = math.ceil(queries / size)
    padded = jnp.pad(query, ((0, 0), (0, count * size - queries), (0, 0), (0, 0)))
    stacked = padded.reshape(batch, count, size, heads, -1).swapaxes(0, 1)

    # Recomputed in the backward pass: keeping every chunk's logits would defeat the chunking.
    @jax.checkpoint
    def one_chunk(chunk: Array) -> Attended:
        return _attend_at_once(chunk, key, value, key_valid)

    def unstack(parts: Array) -> Array:
        return parts.swapaxes(0, 1).reshape(batch, count * size, *parts.shape[3:])[:, :queries]

    values, log_normalizer = jax.lax.map(one_chunk, stacked)
    return Attended(unstack(values), unstack(log_normalizer))


def _attend_at_once(query: Array, key: Array, value: Array, key_valid: Array | None) -> Attended:
    logits = jnp.einsum("bqhd,bkhd->bhqk", query, key, preferred_element_type=jnp.float32)
    logits = logits / math.sqrt(query.shape[-1])
    if key_valid is not None:
        logits = jnp.where(key_valid[:, None, None, :], logits, MASKED_LOGIT)
    log_normalizer = jax.nn.logsumexp(logits, axis=-1)
    weights = jnp.exp(logits - log_normalizer[..., None]).astype(value.dtype)
    values = jnp.einsum("bhqk,bkhd->bqhd", weights, value, preferred_element_type=jnp.float32)
    return Attended(values.astype(query.dtype), log_normalizer.swapaxes(1, 2))


def attend_with_references(
    attend: Attend,
    query: Float[Array, "batch q heads d"],
    own: tuple[Float[Array, "batch q heads d"], Float[Array, "batch q heads d"]],
    reference: tuple[Float[Array, "sets k heads d"], Float[Array, "sets k heads d"]],
    reference_valid: Bool[Array, "sets k"],
    strength: Float[Array, " rows"],
) -> Float[Array, "batch q heads d"]:
    """λ·Attn(q, [own, reference]) + (1-λ)·Attn(q, own), with the own part computed once.

    With B and R the attentions over own and reference keys alone, and l_B, l_R their
    log-sum-exps, this is B + λ·σ(l_R - l_B)·(R - B), exactly.

    Args:
        attend: the attention backend.
        query: queries of every row of the batch.
        own: key and value of the row itself.
        reference: key and value of the references of each set.
        reference_valid: which reference keys exist. A set without any leaves B.
        strength: λ of the first `rows` rows; later rows see no reference and cost none.
            Row r sees set r mod sets: one shared set, a set a row, or a set a sample when the
            rows are guidance branches x samples.

    Returns:
        The blended attention of every row, before the output projection.
    """
    base = attend(query, *own)
    rows, sets = strength.shape[0], reference_valid.shape[0]
    if rows % sets:
        raise ValueError(f"{rows} rows cannot share {sets} reference sets evenly.")
    seen = _attend_to_sets(attend, query[:rows], reference, reference_valid)
    share = jax.nn.sigmoid(seen.log_normalizer - base.log_normalizer[:rows])
    weight = (strength[:, None, None] * share)[..., None]
    own_values = base.values[:rows].astype(jnp.float32)
    blended = own_values + weight * (seen.values.astype(jnp.float32) - own_values)
    return jnp.concatenate([blended.astype(query.dtype), base.values[rows:]])


def _attend_to_sets(
    attend: Attend, query: Array, reference: tuple[Array, Array], valid: Array
) -> Attended:
    """Attention of each row to set (row mod sets); every set's keys are read once."""
    rows, queries, *head = query.shape
    sets = valid.shape[0]

    def by_set(x: Array) -> Array:
        return x.reshape(rows // sets, sets, *x.shape[1:]).swapaxes(0, 1)

    def by_row(x: Array) -> Array:
        x = x.reshape(sets, rows // sets, queries, *x.shape[2:])
        return x.swapaxes(0, 1).reshape(rows, *x.shape[2:])

    # The rows of a set ask as one long sequence of queries.
    flat = by_set(query).reshape(sets, rows // sets * queries, *head)
    values, log_normalizer = attend(flat, *reference, valid)
    return Attended(by_row(values), by_row(log_normalizer))
