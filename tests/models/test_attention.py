"""Attention against its definition: values, log-sum-exp, gradients, masks, chunks, sets."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flashface_jax.models import attention
from flashface_jax.models.attention import attend, attend_with_references

ROWS, QUERIES, REF_KEYS, HEADS, D = 4, 9, 14, 2, 8


def softmax_attention(query, key, value, valid=None):
    """The textbook form, in float64."""
    query, key, value = (np.asarray(x, np.float64) for x in (query, key, value))
    logits = np.einsum("bqhd,bkhd->bhqk", query, key) / np.sqrt(query.shape[-1])
    if valid is not None:
        logits = np.where(np.asarray(valid)[:, None, None, :], logits, -np.inf)
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    normalizer = weights.sum(-1, keepdims=True)
    values = np.einsum("bhqk,bkhd->bqhd", weights / normalizer, value)
    return values, (np.log(normalizer) + logits.max(-1, keepdims=True))[..., 0].swapaxes(1, 2)


def draw(*shapes, seed=0):
    return [jax.random.normal(jax.random.key(seed + i), shape) for i, shape in enumerate(shapes)]


def close(ours, expected, tolerance):
    difference = float(np.abs(np.asarray(ours) - np.asarray(expected)).max())
    assert difference <= tolerance, f"differs by {difference:.2e}, allowed {tolerance:.0e}"


def head_shape(rows, length):
    return (rows, length, HEADS, D)


def test_attend_equals_its_definition():
    query, key, value = draw(head_shape(2, 9), head_shape(2, 14), head_shape(2, 14))
    valid = jnp.arange(14)[None] < jnp.array([[14], [5]])
    ours = attend(query, key, value, valid)
    values, log_normalizer = softmax_attention(query, key, value, valid)
    close(ours.values, values, 2e-6)
    close(ours.log_normalizer, log_normalizer, 2e-6)


@pytest.mark.parametrize("limit", [150, 60, 1])
def test_chunks_of_queries_change_nothing(monkeypatch, limit):
    query, key, value = draw(head_shape(2, 9), head_shape(2, 14), head_shape(2, 14))

    def loss(query, key, value):
        attended = attend(query, key, value)
        return jnp.sum(attended.values**2) + jnp.sum(jnp.sin(attended.log_normalizer))

    whole, whole_gradient = jax.value_and_grad(loss, (0, 1, 2))(query, key, value)
    monkeypatch.setattr(attention, "MAX_LOGITS", limit)
    chunked, chunked_gradient = jax.value_and_grad(loss, (0, 1, 2))(query, key, value)
    close(chunked, whole, 2e-5)
    jax.tree.map(lambda a, b: close(a, b, 2e-6), chunked_gradient, whole_gradient)


def reference_inputs(sets):
    query, key, value = draw(*[head_shape(ROWS, QUERIES)] * 3)
    ref_key, ref_value = draw(*[head_shape(sets, REF_KEYS)] * 2, seed=7)
    return query, (key, value), (ref_key, ref_value)


def two_softmaxes(query, own, reference, valid, strength):
    """λ·Attn(q, [own, r]) + (1-λ)·Attn(q, own) with both attentions computed in full."""
    sets = len(valid)
    rows = np.arange(len(strength)) % sets
    keys, values = (
        np.concatenate([np.asarray(o)[: len(rows)], np.asarray(r)[rows]], axis=1)
        for o, r in zip(own, reference, strict=True)
    )
    seen = np.concatenate([np.ones((len(rows), QUERIES), bool), np.asarray(valid)[rows]], axis=1)
    alone = softmax_attention(query, *own)[0]
    both = softmax_attention(query[: len(rows)], keys, values, seen)[0]
    weight = np.asarray(strength, np.float64)[:, None, None, None]
    alone[: len(rows)] = weight * both + (1 - weight) * alone[: len(rows)]
    return alone


@pytest.mark.parametrize("sets", [1, 2, 4])
@pytest.mark.parametrize("rows", [0, 4])
def test_one_pass_equals_two_softmaxes(sets, rows):
    query, own, reference = reference_inputs(sets)
    valid = jnp.arange(REF_KEYS)[None] < jnp.array([14, 7, 7, 14][:sets])[:, None]
    strength = jnp.array([0.0, 0.85, 1.2, 1.0])[:rows]
    ours = attend_with_references(attend, query, own, reference, valid, strength)
    close(ours, two_softmaxes(query, own, reference, valid, strength), 2e-6)


def test_later_rows_see_no_reference():
    query, own, reference = reference_inputs(1)
    valid = jnp.ones((1, REF_KEYS), bool)
    ours = attend_with_references(attend, query, own, reference, valid, jnp.array([1.3]))
    close(ours[1:], attend(query, *own).values[1:], 0)
    assert float(jnp.abs(ours[0] - attend(query, *own).values[0]).max()) > 0.1


def test_gradients_equal_those_of_the_plain_form():
    query, own, reference = reference_inputs(ROWS)
    valid = jnp.arange(REF_KEYS)[None] < jnp.array([[14], [7], [1], [14]])
    strength = jnp.array([0.3, 0.85, 1.2, 1.0])

    def plain(query, own, reference):
        key, value = (jnp.concatenate([o, r], axis=1) for o, r in zip(own, reference, strict=True))
        seen = jnp.concatenate([jnp.ones((ROWS, QUERIES), bool), valid], axis=1)
        weight = strength[:, None, None, None]
        both, alone = attend(query, key, value, seen).values, attend(query, *own).values
        return jnp.sum(jnp.sin(weight * both + (1 - weight) * alone))

    def one_pass(query, own, reference):
        blended = attend_with_references(attend, query, own, reference, valid, strength)
        return jnp.sum(jnp.sin(blended))

    inputs = query, own, reference
    expected = jax.grad(plain, (0, 1, 2))(*inputs)
    jax.tree.map(lambda a, b: close(a, b, 2e-6), jax.grad(one_pass, (0, 1, 2))(*inputs), expected)


def test_a_set_without_references_is_self_attention_with_finite_gradients():
    query, own, reference = reference_inputs(ROWS)
    valid = jnp.zeros((ROWS, REF_KEYS), bool)

    def blend(reference):
        return attend_with_references(attend, query, own, reference, valid, jnp.ones(ROWS))

    close(blend(reference), attend(query, *own).values, 0)
    gradient = jax.grad(lambda reference: jnp.sum(blend(reference) ** 2))(reference)
    jax.tree.map(lambda g: close(g, jnp.zeros_like(g), 0), gradient)


def test_order_of_references_does_not_matter():
    query, own, reference = reference_inputs(1)
    valid = jnp.ones((1, REF_KEYS), bool)
    turned = tuple(x[:, ::-1] for x in reference)
    straight = attend_with_references(attend, query, own, reference, valid, jnp.ones(4))
    close(attend_with_references(attend, query, own, turned, valid, jnp.ones(4)), straight, 1e-6)


def test_sets_must_share_the_rows_evenly():
    query, own, reference = reference_inputs(3)
    with pytest.raises(ValueError, match="4 rows cannot share 3 reference sets"):
        attend_with_references(
            attend, query, own, reference, jnp.ones((3, REF_KEYS), bool), jnp.ones(4)
        )
