"""Attention against its definition: values, log-sum-exp, gradients, weights, blocks, people."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flashface_jax.models.attention.attend import (
    SMALL_HEAD,
    Attend,
    BlockedAttention,
    attend_with_references,
)
from flashface_jax.models.attention.backends import ALL_HEADS, HEAD_BY_HEAD

ROWS, QUERIES, REF_KEYS, HEADS, D = 4, 9, 14, 2, 8


def softmax_attention(query, key, value, weight=None):
    """The textbook form with keys counted `weight` times, in float64."""
    query, key, value = (np.asarray(x, np.float64) for x in (query, key, value))
    logits = np.einsum("bqhd,bkhd->bhqk", query, key) / np.sqrt(query.shape[-1])
    largest = logits.max(-1, keepdims=True)
    weights = np.exp(logits - largest)
    if weight is not None:
        weights = weights * np.asarray(weight, np.float64)[:, None, None, :]
    normalizer = weights.sum(-1, keepdims=True)
    values = np.einsum("bhqk,bkhd->bqhd", weights / normalizer, value)
    return values, (np.log(normalizer) + largest)[..., 0].swapaxes(1, 2)


def draw(*shapes, seed=0):
    rng = np.random.default_rng(seed)
    return [jnp.asarray(rng.standard_normal(shape), jnp.float32) for shape in shapes]


def close(ours, expected, tolerance):
    difference = float(np.abs(np.asarray(ours) - np.asarray(expected)).max())
    assert difference <= tolerance, f"differs by {difference:.2e}, allowed {tolerance:.0e}"


def head_shape(rows, length):
    return (rows, length, HEADS, D)


def three(rows=2, queries=QUERIES, keys=REF_KEYS):
    return draw(head_shape(rows, queries), *[head_shape(rows, keys)] * 2)


@partial(jax.jit, static_argnums=0)
def attended(attend, *inputs):
    return attend(*inputs)


@partial(jax.jit, static_argnums=0)
def attended_and_gradients(attend, *inputs):
    """Result, and gradients of a number that every value and log-sum-exp has a part in."""

    def total(*inputs):
        ours = attend(*inputs)
        return jnp.sum(jnp.sin(ours.values)) + jnp.sum(jnp.sin(ours.log_normalizer)), ours

    gradients, ours = jax.grad(total, range(len(inputs)), has_aux=True)(*inputs)
    return ours, gradients


@partial(jax.jit, static_argnums=0)
def blended(attend, *inputs):
    return attend_with_references(attend, *inputs)


def blocks(limit):
    return BlockedAttention(max_logits=limit, head_by_head=False)


def heads(limit):
    return BlockedAttention(max_logits=limit, head_by_head=True)


@pytest.mark.parametrize("attend", [ALL_HEADS, HEAD_BY_HEAD])
def test_attend_equals_its_definition(attend):
    assert isinstance(attend, Attend)
    query, key, value = three()
    weight = (jnp.arange(14)[None] < jnp.array([[14], [5]])).astype(jnp.float32)
    ours = attended(attend, query, key, value, weight)
    values, log_normalizer = softmax_attention(query, key, value, weight)
    close(ours.values, values, 2e-6)
    close(ours.log_normalizer, log_normalizer, 2e-6)


@pytest.mark.parametrize("limit", [150, 60, 1])
def test_blocks_of_queries_change_nothing(limit):
    inputs = three()
    whole, whole_gradients = attended_and_gradients(ALL_HEADS, *inputs)
    parts, gradients = attended_and_gradients(blocks(limit), *inputs)
    jax.tree.map(lambda a, b: close(a, b, 2e-6), (parts, gradients), (whole, whole_gradients))


def softmax_gradients(query, key, value, weight):
    """Gradients of `total`, by hand, in float64."""
    q, k, v, w = (np.asarray(x, np.float64) for x in (query, key, value, weight))
    values, log_normalizer = softmax_attention(q, k, v, w)
    scale = 1 / np.sqrt(q.shape[-1])
    logits = np.einsum("bqhd,bkhd->bhqk", q, k) * scale
    p = w[:, None, None] * np.exp(logits - log_normalizer.swapaxes(1, 2)[..., None])
    from_values, from_normalizer = np.cos(values), np.cos(log_normalizer)
    along = np.einsum("bqhd,bkhd->bhqk", from_values, v)
    along = along - np.einsum("bqhd,bqhd->bhq", from_values, values)[..., None]
    by_logit = p * (along + from_normalizer.swapaxes(1, 2)[..., None])
    return (
        np.einsum("bhqk,bkhd->bqhd", by_logit, k) * scale,
        np.einsum("bhqk,bqhd->bkhd", by_logit, q) * scale,
        np.einsum("bhqk,bqhd->bkhd", p, from_values),
        by_logit.sum((1, 2)) / np.where(w > 0, w, np.inf),
    )


# Heads of more logits than SMALL_HEAD are taken one by one; queries that no block divides, too.
@pytest.mark.parametrize(
    ("attend", "rows", "queries", "keys"),
    [
        (ALL_HEADS, 2, 37, 450),
        (HEAD_BY_HEAD, 2, 9, 14),
        (HEAD_BY_HEAD, 1, 131, 127),
        (blocks(5_000), 2, 37, 450),
        (heads(5_000), 1, 131, 127),
        (heads(700), 2, 37, 450),
    ],
)
def test_backends_equal_the_definition_and_its_gradients(attend, rows, queries, keys):
    inputs = three(rows, queries, keys)
    weight = jnp.asarray(np.random.default_rng(9).integers(0, 4, (rows, keys)) / 2, jnp.float32)
    ours, gradients = attended_and_gradients(attend, *inputs, weight)
    values, log_normalizer = softmax_attention(*inputs, weight)
    close(ours.values, values, 2e-6)
    close(ours.log_normalizer, log_normalizer, 2e-6)
    expected = softmax_gradients(*inputs, weight)
    for ours, theirs in zip(gradients, expected, strict=True):
        close(ours, theirs, 1e-5 * max(1, np.abs(theirs).max()))


def test_some_of_these_shapes_have_large_heads():
    assert 9 * 14 <= SMALL_HEAD < min(131 * 127, 37 * 450)


@pytest.mark.parametrize("attend", [ALL_HEADS, blocks(60)], ids=["at once", "blocks"])
def test_a_weight_of_two_is_two_copies_and_of_zero_none(attend):
    query, key, value = three()
    order = jnp.array([1, 1, 2, 4, 4, 7])
    weight = jnp.zeros((2, REF_KEYS)).at[:, order].add(1.0)
    assert set(weight[0].tolist()) == {0, 1, 2}

    def copies(query, key, value):
        return attend(query, key[:, order], value[:, order])

    def weighted(query, key, value):
        return attend(query, key, value, weight)

    ours, gradients = attended_and_gradients(weighted, query, key, value)
    theirs, expected = attended_and_gradients(copies, query, key, value)
    jax.tree.map(lambda a, b: close(a, b, 2e-6), (ours, gradients), (theirs, expected))
    absent = np.flatnonzero(weight[0] == 0)
    close(gradients[1][:, absent], 0, 0)
    close(gradients[2][:, absent], 0, 0)


def test_half_a_weight_lies_between():
    """Weights in any ratio: 0.5 and 1 are 1 and 2 copies, but for ln 2 in the log-sum-exp."""
    query, key, value = three()
    weight = jnp.resize(jnp.array([0.5, 1.0, 0.0]), (2, REF_KEYS))
    half, whole = (attended(ALL_HEADS, query, key, value, weight * n) for n in (1, 2))
    close(half.values, whole.values, 2e-6)
    close(half.log_normalizer + np.log(2), whole.log_normalizer, 2e-6)


@pytest.mark.parametrize("attend", [ALL_HEADS, heads(5_000)], ids=["at once", "blocks of a head"])
def test_bfloat16_is_close_to_float32(attend):
    """8 bits of significance: errors of about 2^-8 of the values; the log-sum-exp stays float32."""
    inputs = three(queries=131, keys=127)
    weight = jnp.resize(jnp.array([1.0, 2.0, 0.0]), (2, 127))
    rounded = [x.astype(jnp.bfloat16) for x in inputs]
    ours = attended(attend, *rounded, weight)
    assert ours.values.dtype == jnp.bfloat16 and ours.log_normalizer.dtype == jnp.float32
    values, log_normalizer = softmax_attention(*(x.astype(jnp.float32) for x in rounded), weight)
    close(ours.values.astype(jnp.float32), values, 1e-2 * np.abs(values).max())
    close(ours.log_normalizer, log_normalizer, 1e-2)


def reference_inputs(sets, rows=ROWS):
    query, key, value = draw(*[head_shape(rows, QUERIES)] * 3)
    ref_key, ref_value = draw(*[head_shape(sets, REF_KEYS)] * 2, seed=7)
    return query, (key, value), (ref_key, ref_value)


def two_softmaxes(query, own, reference, weight, strength):
    """λ·Attn(q, [own, r]) + (1-λ)·Attn(q, own) with both attentions computed in full."""
    sets = len(weight)
    rows = np.arange(len(strength)) % sets
    keys, values = (
        np.concatenate([np.asarray(o)[: len(rows)], np.asarray(r)[rows]], axis=1)
        for o, r in zip(own, reference, strict=True)
    )
    seen = np.concatenate([np.ones((len(rows), own[0].shape[1])), np.asarray(weight)[rows]], axis=1)
    alone = softmax_attention(query, *own)[0]
    both = softmax_attention(query[: len(rows)], keys, values, seen)[0]
    share = np.asarray(strength, np.float64)[:, :, None, None]
    alone[: len(rows)] = share * both + (1 - share) * alone[: len(rows)]
    return alone


def existing(count, sets):
    """Weights of sets of which the first keys exist."""
    return (jnp.arange(REF_KEYS)[None] < jnp.array(count[:sets])[:, None]).astype(jnp.float32)


@pytest.mark.parametrize("sets", [1, 2, 4])
@pytest.mark.parametrize("rows", [0, 4])
def test_one_pass_equals_two_softmaxes(sets, rows):
    query, own, reference = reference_inputs(sets)
    weight = existing([14, 7, 7, 14], sets)
    strength = jnp.array([[0.0], [0.85], [1.2], [1.0]])[:rows]
    ours = blended(ALL_HEADS, query, own, reference, weight, strength)
    close(ours, two_softmaxes(query, own, reference, weight, strength), 2e-6)


def test_one_pass_equals_two_softmaxes_at_a_released_width():
    """320 channels in 8 heads, 576 tokens of the image and one reference of 784."""
    shapes = [(2, 576, 8, 40)] * 3 + [(1, 784, 8, 40)] * 2
    query, key, value, ref_key, ref_value = draw(*shapes)
    inputs = query, (key, value), (ref_key, ref_value)
    weight, strength = jnp.full((1, 784), 2.0), jnp.array([[1.2]])
    expected = two_softmaxes(*inputs, weight, strength)
    for attend in (ALL_HEADS, HEAD_BY_HEAD):
        ours = blended(attend, *inputs, weight, strength)
        close(ours, expected, 1e-5 * np.abs(expected).max())


def test_later_rows_see_no_reference():
    query, own, reference = reference_inputs(1)
    weight = jnp.ones((1, REF_KEYS))
    ours = blended(ALL_HEADS, query, own, reference, weight, jnp.array([[1.3]]))
    alone = attended(ALL_HEADS, query, *own).values
    close(ours[1:], alone[1:], 0)
    assert float(jnp.abs(ours[0] - alone[0]).max()) > 0.1


def test_gradients_equal_those_of_the_plain_form():
    query, own, reference = reference_inputs(ROWS)
    weight = existing([14, 7, 1, 14], ROWS)
    strength = jnp.array([[0.3], [0.85], [1.2], [1.0]])

    def plain(query, own, reference):
        key, value = (jnp.concatenate([o, r], axis=1) for o, r in zip(own, reference, strict=True))
        seen = jnp.concatenate([jnp.ones((ROWS, QUERIES)), weight], axis=1)
        share = strength[:, :, None, None]
        both, alone = ALL_HEADS(query, key, value, seen).values, ALL_HEADS(query, *own).values
        return share * both + (1 - share) * alone

    def one_pass(query, own, reference):
        return attend_with_references(ALL_HEADS, query, own, reference, weight, strength)

    def gradients(form):
        return jax.jit(jax.grad(lambda *x: jnp.sum(jnp.sin(form(*x))), (0, 1, 2)))(
            query, own, reference
        )

    jax.tree.map(lambda a, b: close(a, b, 2e-6), gradients(one_pass), gradients(plain))


def test_a_set_without_references_is_self_attention_with_finite_gradients():
    query, own, reference = reference_inputs(ROWS)
    weight = jnp.zeros((ROWS, REF_KEYS))

    everyone = jnp.ones((ROWS, 1))
    ours = blended(ALL_HEADS, query, own, reference, weight, everyone)
    close(ours, attended(ALL_HEADS, query, *own).values, 0)

    def squares(reference):
        blend = attend_with_references(ALL_HEADS, query, own, reference, weight, everyone)
        return jnp.sum(blend**2)

    gradient = jax.jit(jax.grad(squares))(reference)
    jax.tree.map(lambda g: close(g, jnp.zeros_like(g), 0), gradient)


def test_order_of_references_does_not_matter():
    query, own, reference = reference_inputs(1)
    weight = jnp.arange(1.0, REF_KEYS + 1)[None] / 7
    turned = tuple(x[:, ::-1] for x in reference)
    everyone = jnp.ones((4, 1))
    straight = blended(ALL_HEADS, query, own, reference, weight, everyone)
    ours = blended(ALL_HEADS, query, own, turned, weight[:, ::-1], everyone)
    close(ours, straight, 1e-6)


def mixed(query, own, reference, weight, strength):
    """B + Σ λ_i·σ(l_Ri - l_B)·(R_i - B), person by person and row by row, in float64."""
    expected, base = softmax_attention(query, *own)
    people = strength.shape[1]
    mixes = len(weight) // people
    blend = expected.copy()
    for row, shares in enumerate(np.asarray(strength, np.float64)):
        for person, share in enumerate(shares):
            one = slice(place := people * (row % mixes) + person, place + 1)
            seen, normalizer = softmax_attention(
                query[row : row + 1], reference[0][one], reference[1][one], weight[one]
            )
            gate = 1 / (1 + np.exp(base[row] - normalizer[0]))
            blend[row] += share * gate[..., None] * (seen[0] - expected[row])
    return blend


@pytest.mark.parametrize(
    ("mixes", "people", "rows", "attend"),
    [
        (1, 2, 4, ALL_HEADS),
        (2, 2, 2, ALL_HEADS),
        (2, 3, 6, ALL_HEADS),
        (2, 2, 4, blocks(60)),
    ],
)
def test_mixed_people_add_up(mixes, people, rows, attend):
    query, own, reference = reference_inputs(mixes * people, rows + 1)
    rng = np.random.default_rng(2)
    weight = jnp.asarray(rng.integers(0, 3, (mixes * people, REF_KEYS)), jnp.float32)
    strength = jnp.asarray(rng.random((rows, people)), jnp.float32)
    ours = blended(attend, query, own, reference, weight, strength)
    close(ours, mixed(query, own, reference, weight, strength), 2e-6)


@pytest.mark.parametrize("place", [0, 1])
def test_a_person_without_share_is_absent(place):
    query, own, reference = reference_inputs(2)
    weight = jnp.ones((2, REF_KEYS))
    strength = jnp.zeros((ROWS, 2)).at[:, 1 - place].set(0.9)
    ours = blended(ALL_HEADS, query, own, reference, weight, strength)
    other = slice(1 - place, 2 - place)
    alone = blended(
        ALL_HEADS,
        query,
        own,
        tuple(x[other] for x in reference),
        weight[other],
        strength[:, other],
    )
    close(ours, alone, 1e-6)


def test_one_person_in_two_halves_is_one():
    query, own, reference = reference_inputs(1)
    weight = existing([9], 1)
    one = blended(ALL_HEADS, query, own, reference, weight, jnp.full((ROWS, 1), 1.2))
    twice = tuple(jnp.repeat(x, 2, axis=0) for x in reference)
    halves = blended(
        ALL_HEADS, query, own, twice, jnp.repeat(weight, 2, axis=0), jnp.full((ROWS, 2), 0.6)
    )
    close(halves, one, 1e-6)


@pytest.mark.parametrize(
    ("sets", "people", "message"),
    [(3, 1, "4 rows x 1 people cannot share 3 sets"), (3, 2, "4 rows x 2 people cannot share 3")],
)
def test_sets_must_share_the_rows_evenly(sets, people, message):
    query, own, reference = reference_inputs(sets)
    with pytest.raises(ValueError, match=message):
        attend_with_references(
            ALL_HEADS, query, own, reference, jnp.ones((sets, REF_KEYS)), jnp.ones((4, people))
        )
