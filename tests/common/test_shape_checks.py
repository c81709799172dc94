"""What `checked` functions say of wrong arrays, and that right ones pass however they come."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Float, Int, UInt8

from flashface_jax.common.shape_checks import check_fields, checked


@dataclass
class Pair:
    """Two arrays, one of which may be missing."""

    first: Float[Array, "batch c"]
    second: Float[Array, "batch _"] | None = None


class Layer:
    """Has a configuration that decides a size."""

    channels = 3

    @checked(lambda layer: {"c": layer.channels})
    def scale(self, x: Float[Array, "batch c"], by: Float[Array, " batch"], power=1):
        """Scale rows."""
        return x * by[:, None] ** power


@checked()
def total(
    pair: Pair,
    named: dict[str, Float[Array, "batch side side 2"]] | None,
    index: Int[Array, ""],
):
    """Sum of everything."""
    return pair.first.sum() + index + sum(x.sum() for x in (named or {}).values())


X, BY = jnp.ones((2, 3)), jnp.ones(2)
MAPS = {"a": jnp.ones((2, 5, 5, 2))}
ZERO = jnp.zeros((), jnp.int32)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: Layer().scale(jnp.ones((2, 4)), BY),
            "argument `x` of Layer.scale has shape (2, 4); wanted (batch, c) with c = 3 "
            "(configured).",
        ),
        (
            lambda: Layer().scale(X, by=jnp.ones(3), power=2),
            "argument `by` of Layer.scale has shape (3,); wanted (batch,) with batch = 2 "
            "(as in `x`).",
        ),
        (
            lambda: Layer().scale(X[0], BY),
            "argument `x` of Layer.scale has shape (3,); wanted (batch, c) with c = 3 "
            "(configured).",
        ),
        (
            lambda: total(Pair(X, jnp.ones((1, 9))), None, ZERO),
            "argument `pair.second` of total has shape (1, 9); wanted (batch, _) with batch = 2 "
            "(as in `pair.first`).",
        ),
        (
            lambda: total(Pair(X), {**MAPS, "b": jnp.ones((2, 5, 4, 2))}, ZERO),
            "argument `named['b']` of total has shape (2, 5, 4, 2); wanted (batch, side, side, 2) "
            "with batch = 2 (as in `pair.first`), side = 5 (as in `named['a']`).",
        ),
        (
            lambda: total(Pair(X), {"a": jnp.ones((2, 5, 4, 2))}, ZERO),
            "argument `named['a']` of total has shape (2, 5, 4, 2); wanted (batch, side, side, 2) "
            "with batch = 2 (as in `pair.first`).",
        ),
        (
            lambda: total(Pair(X), {"a": jnp.ones((2, 5, 5, 3))}, ZERO),
            "argument `named['a']` of total has shape (2, 5, 5, 3); wanted (batch, side, side, 2) "
            "with batch = 2 (as in `pair.first`).",
        ),
        (
            lambda: total(Pair(X), MAPS, jnp.zeros(1, jnp.int32)),
            "argument `index` of total has shape (1,); wanted ().",
        ),
    ],
)
def test_a_wrong_shape_is_told_in_a_sentence(call, message):
    with pytest.raises(ValueError) as raised:
        call()
    assert str(raised.value) == message


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: Layer().scale(X.astype(int), BY),
            "argument `x` of Layer.scale has dtype int32; wanted an array of float, (batch, c).",
        ),
        (
            lambda: Layer().scale([[1.0]], BY),
            "argument `x` of Layer.scale has type list; wanted an array of float, (batch, c).",
        ),
        (
            lambda: total(Pair(None), MAPS, ZERO),
            "argument `pair.first` of total has type NoneType; wanted an array of float, "
            "(batch, c).",
        ),
        (
            lambda: total({"first": X}, MAPS, ZERO),
            "argument `pair` of total has type dict; wanted Pair.",
        ),
        (
            lambda: total(Pair(X), MAPS, jnp.zeros(())),
            "argument `index` of total has dtype float32; wanted an array of int, ().",
        ),
    ],
)
def test_a_wrong_dtype_is_told_in_a_sentence(call, message):
    with pytest.raises(TypeError) as raised:
        call()
    assert str(raised.value) == message


def test_right_arrays_pass_however_they_come():
    layer = Layer()
    np.testing.assert_array_equal(layer.scale(X, BY), X)
    np.testing.assert_array_equal(layer.scale(np.asarray(X), by=np.asarray(BY)), X)
    assert layer.scale(X.astype(jnp.bfloat16), BY.astype(jnp.bfloat16)).dtype == jnp.bfloat16
    assert jax.eval_shape(layer.scale, X, BY).shape == (2, 3)
    gradient = jax.jit(jax.grad(lambda x: layer.scale(x, BY, power=2).sum()))(X)
    np.testing.assert_array_equal(gradient, X)
    np.testing.assert_array_equal(jax.vmap(layer.scale)(X[None], BY[None])[0], X)
    rows = PartitionSpec("rows")
    spread = jax.shard_map(
        layer.scale, mesh=Mesh(jax.devices()[:1], "rows"), in_specs=rows, out_specs=rows
    )
    np.testing.assert_array_equal(jax.jit(spread)(X, BY), X)
    assert float(total(Pair(X, X), MAPS, ZERO)) == 6 + 100


@pytest.mark.parametrize("transform", [jax.jit, jax.grad, lambda f: lambda x: jax.eval_shape(f, x)])
def test_wrong_ones_are_told_when_they_are_traced(transform):
    with pytest.raises(ValueError, match=r"argument `x` of Layer.scale has shape \(2, 4\)"):
        transform(lambda x: Layer().scale(x, BY).sum())(jnp.ones((2, 4)))


def test_compiled_functions_do_not_check_again(monkeypatch):
    layer = Layer()
    run = jax.jit(layer.scale)
    run(X, BY)
    monkeypatch.setattr(Layer, "channels", 4)
    run(X, BY)


def test_fields_of_a_record_are_checked():
    @dataclass
    class Faces:
        pixels: UInt8[np.ndarray, "refs R R 3"]

        def __post_init__(self):
            check_fields(self)

    Faces(np.zeros((2, 4, 4, 3), np.uint8))
    with pytest.raises(ValueError, match="argument `pixels` of Faces has shape"):
        Faces(np.zeros((2, 4, 5, 3), np.uint8))
    with pytest.raises(TypeError, match="has dtype float64; wanted an array of uint8"):
        Faces(np.zeros((2, 4, 4, 3)))


def test_missing_arguments_are_pythons_matter():
    with pytest.raises(TypeError, match="missing a required argument: 'by'"):
        Layer().scale(X)
