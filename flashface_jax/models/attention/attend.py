"""Attention with its log-sum-exp, and reference attention built on it, in one pass.

Logits, exponentials and sums are float32 whatever the inputs are; the weights that are summed are
rounded to the inputs' dtype, as those that multiply the values are.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

# Finite, so that a row without any key has defined values and gradients.
MASKED_LOGIT = -1e30

# Logits of a head below which a CPU, too, does better with all heads at once.
SMALL_HEAD = 1 << 14

LANES = 16  # float32 numbers that a CPU's widest register holds

ATTENDED = "attended"
"""Name of fused attention's results, for `jax.checkpoint` policies: making them again takes as much
as all the rest of a block, and the backward pass needs nothing else that is large."""

KeyWeight = Float[Array, "batch k"]
"""How often a key counts: 1 once, 2 as two copies of it would, 0 not at all."""


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
        key_weight: KeyWeight | None = None,
    ) -> Attended:
        """Softmax(query . key / sqrt(d) + log(key_weight)) value."""
        ...


@dataclass(frozen=True)
class BlockedAttention:
    """Portable backend: plain XLA, over blocks of queries once the logits would be large.

    Attributes:
        max_logits: logits of one block stay under this many elements.
        head_by_head: one head of one row after the other, once a head's logits are many. It keeps
            a CPU's logits in its cache; a GPU or TPU wants all heads at once.
    """

    max_logits: int
    head_by_head: bool

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
        # (batch·heads, tokens, d): what a block of one or of all heads is cut from.
        query, value = (
            x.swapaxes(1, 2).reshape(batch * heads, x.shape[1], d) for x in (query, value)
        )
        # Laid out as the product wants it, which otherwise every block would do again.
        key = key.transpose(0, 2, 3, 1).reshape(batch * heads, d, keys)
        bias = None if key_weight is None else jnp.repeat(_log(key_weight), heads, axis=0)
        if self.head_by_head and queries * keys > SMALL_HEAD:
            # A head a time: each with a leading axis of its own for the function of all heads.
            inputs = jax.tree.map(lambda x: x[:, None], (query, key, value, bias))
            values, log_normalizer = jax.tree.map(
                lambda x: x[:, 0], jax.lax.map(lambda head: self._heads(*head), inputs)
            )
        else:
            values, log_normalizer = self._heads(query, key, value, bias)
        values = values.reshape(batch, heads, queries, d).swapaxes(1, 2)
        return Attended(values, log_normalizer.reshape(batch, heads, queries).swapaxes(1, 2))

    def _heads(
        self, query: Array, key: Array, value: Array, bias: Array | None
    ) -> tuple[Array, Array]:
        """Attention of (heads, tokens, d), keys (heads, d, tokens), over blocks of queries."""
        heads, queries, d = query.shape
        blocks = min(math.ceil(heads * queries * key.shape[2] / self.max_logits), queries)
        if blocks <= 1:
            return _attend_at_once(query, key, value, bias)
        size = math.ceil(queries / blocks)
        count = math.ceil(queries / size)
        padded = jnp.pad(query, ((0, 0), (0, count * size - queries), (0, 0)))

        # Recomputed in the backward pass: keeping every block's logits would defeat the blocks.
        @jax.checkpoint
        def one_block(block: Array) -> tuple[Array, Array]:
            return _attend_at_once(block, key, value, bias)

        def join(parts: Array) -> Array:
            joined = parts.swapaxes(0, 1).reshape(heads, count * size, *parts.shape[3:])
            return joined[:, :queries]

        parts = jax.lax.map(one_block, padded.reshape(heads, count, size, d).swapaxes(0, 1))
        return jax.tree.map(join, parts)


def _log(key_weight: KeyWeight) -> KeyWeight:
    counted = key_weight > 0
    return jnp.where(counted, jnp.log(jnp.where(counted, key_weight, 1)), MASKED_LOGIT)


def _attend_at_once(
    query: Array, key: Array, value: Array, bias: Array | None
) -> tuple[Array, Array]:
    logits = jnp.einsum("nqd,ndk->nqk", query, key, preferred_element_type=jnp.float32)
    logits = logits * (1 / math.sqrt(query.shape[-1]))  # here, as 1/√d is no bfloat16 number
    if bias is not None:
        logits = logits + bias[:, None, :]
    largest = jax.lax.stop_gradient(_row_max(logits))
    weights = jnp.exp(logits - largest).astype(value.dtype)
    # Columns of ones make the product give the sums as well, of the weights as they are used.
    d = value.shape[-1]
    with_ones = jnp.pad(value, ((0, 0), (0, 0), (0, LANES - d % LANES)), constant_values=1)
    sums = jnp.einsum("nqk,nkd->nqd", weights, with_ones, preferred_element_type=jnp.float32)
    # Divided after the product: there are fewer values than weights.
    values, total = sums[..., :d], sums[..., d : d + 1]
    return (values / total).astype(query.dtype), (largest + jnp.log(total))[..., 0]


def _row_max(logits: Array) -> Array:
    """Largest of the last axis, kept as an axis of one.

    By halves while there are many: XLA's CPU code goes through a row one element at a time, but
    through two halves a register at a time.
    """
    while logits.shape[-1] % 2 == 0 and logits.shape[-1] > 4 * LANES:
        logits = jnp.maximum(*jnp.split(logits, 2, axis=-1))
    return jnp.max(logits, axis=-1, keepdims=True)


def attend_with_references(
    attend: Attend,
    query: Float[Array, "batch q heads d"],
    own: tuple[Float[Array, "batch q heads d"], Float[Array, "batch q heads d"]],
    reference: tuple[Float[Array, "sets k heads d"], Float[Array, "sets k heads d"]],
    reference_weight: Float[Array, "sets k"],
    strength: Float[Array, "rows people"],
) -> Float[Array, "batch q heads d"]:
    """λ·Attn(q, [own, reference]) + (1-λ)·Attn(q, own), with the own part computed once.

    With B and R the attentions over own and reference keys alone, and l_B, l_R their
    log-sum-exps, this is B + λ·σ(l_R - l_B)·(R - B), exactly; several people add up.

    Args:
        attend: the attention backend.
        query: queries of every row of the batch.
        own: key and value of the row itself.
        reference: key and value of the references of each set; a set is of one person.
        reference_weight: how often each reference key counts. A set of zeros leaves B.
        strength: λ of each person that the first `rows` rows see; later rows see no reference and
            cost none. With m = sets / people, row r sees the sets from people·(r mod m) on: the
            same for all rows, or others for each row, or for each sample when the rows are
            guidance branches x samples.

    Returns:
        The blended attention of every row, before the output projection.
    """
    base = attend(query, *own)
    (rows, people), sets = strength.shape, reference_weight.shape[0]
    if sets % people or rows % (sets // people):
        raise ValueError(f"{rows} rows x {people} people cannot share {sets} sets evenly.")
    seen = _attend_to_sets(attend, query[:rows], reference, reference_weight, people)
    own_values = base.values[:rows, None].astype(jnp.float32)
    share = jax.nn.sigmoid(seen.log_normalizer - base.log_normalizer[:rows, None])
    weight = (strength[:, :, None, None] * share)[..., None]
    change = jnp.sum(weight * (seen.values.astype(jnp.float32) - own_values), axis=1)
    blended = own_values[:, 0] + change
    return jnp.concatenate([blended.astype(query.dtype), base.values[rows:]])


class AttendedToPeople(NamedTuple):
    """Attention of every row to every person it sees, as in `Attended`."""

    values: Float[Array, "rows people q heads d"]
    log_normalizer: Float[Array, "rows people q heads"]


def _attend_to_sets(
    attend: Attend, query: Array, reference: tuple[Array, Array], weight: Array, people: int
) -> AttendedToPeople:
    """Attention of each row to its people's sets; every set's keys are read once."""
    rows, queries, *head = query.shape
    mixes = weight.shape[0] // people
    again = rows // mixes  # rows that see the same people
    by_mix = query.reshape(again, mixes, queries, *head).swapaxes(0, 1)
    # The rows of a set ask as one long sequence of queries.
    asked = jnp.repeat(by_mix.reshape(mixes, again * queries, *head), people, axis=0)

    def by_row(x: Array) -> Array:
        x = x.reshape(mixes, people, again, queries, *x.shape[2:])
        return jnp.moveaxis(x, 2, 0).reshape(rows, people, queries, *x.shape[4:])

    values, log_normalizer = attend(asked, *reference, weight)
    return AttendedToPeople(by_row(values), by_row(log_normalizer))
