"""Counted operations are those of hand counts, and XLA's where nothing else is computed."""

import functools

import jax
import jax.numpy as jnp
import pytest
from jax import lax
from jax._src.cudnn import fused_attention_stablehlo
from jax.sharding import AbstractMesh, AxisType
from jax.sharding import PartitionSpec as P

from flashface_jax.models.attention.backends import ALL_HEADS
from flashface_jax.models.attention.splash import SplashAttention
from flashface_jax.planning.flops import Flops, count_flops

MATMUL = 2 * 3 * 4 * 5
X, W = jnp.zeros((3, 4)), jnp.zeros((4, 5))


def counted(function, *arguments):
    return count_flops(jax.make_jaxpr(function)(*arguments))


def by_xla(function, *arguments):
    return jax.jit(function).lower(*arguments).cost_analysis()["flops"]


@pytest.mark.parametrize(
    ("equation", "left", "right"),
    [
        ("mk,kn->mn", (3, 4), (4, 5)),
        ("bqhd,bkhd->bhqk", (2, 7, 3, 4), (2, 5, 3, 4)),
        ("abc,abc->", (2, 3, 4), (2, 3, 4)),
        ("km,kn->nm", (4, 3), (4, 5)),
    ],
)
def test_a_matmul_counts_as_xla_counts_it(equation, left, right):
    arguments = (functools.partial(jnp.einsum, equation), jnp.zeros(left), jnp.zeros(right))
    assert counted(*arguments).matmul == by_xla(*arguments) > 0


CONVOLUTIONS = {
    "plain": {"window_strides": (1, 1), "padding": "VALID"},
    "padded": {"window_strides": (1, 1), "padding": ((1, 1), (1, 1))},
    "strided": {"window_strides": (2, 2), "padding": ((0, 1), (1, 1))},
    "transposed": {"window_strides": (1, 1), "padding": ((2, 2), (2, 1)), "lhs_dilation": (2, 3)},
    "dilated": {"window_strides": (1, 2), "padding": "SAME", "rhs_dilation": (2, 1)},
    "grouped": {"window_strides": (1, 1), "padding": "SAME", "feature_group_count": 2},
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_a_convolution_and_its_gradients_count_as_xla_counts_them(name):
    options = CONVOLUTIONS[name]
    groups = options.get("feature_group_count", 1)
    image, kernel = jnp.zeros((2, 9, 8, 4)), jnp.zeros((3, 3, 4 // groups, 6))

    def convolve(image, kernel):
        return lax.conv_general_dilated(
            image, kernel, dimension_numbers=("NHWC", "HWIO", "NHWC"), **options
        )

    assert counted(convolve, image, kernel).convolution == by_xla(convolve, image, kernel) > 0
    cotangent = jnp.zeros(jax.eval_shape(convolve, image, kernel).shape)

    def gradients(image, kernel, cotangent):
        return jax.vjp(convolve, image, kernel)[1](cotangent)

    arguments = (gradients, image, kernel, cotangent)
    # The trace keeps the forward convolution, which XLA drops as nobody wants its result.
    both = counted(*arguments).convolution - counted(convolve, image, kernel).convolution
    assert both == by_xla(*arguments) > 0


def test_a_hand_counted_padded_convolution():
    # 3 taps over 4 elements padded by 1: 2 + 3 + 3 + 2 taps hit an element.
    image, kernel = jnp.zeros((1, 4, 5)), jnp.zeros((3, 5, 7))
    found = counted(
        lambda a, b: lax.conv_general_dilated(
            a, b, (1,), ((1, 1),), dimension_numbers=("NHC", "HIO", "NHC")
        ),
        image,
        kernel,
    )
    assert found == Flops(convolution=2 * 10 * 5 * 7)


def test_a_scan_counts_every_turn():
    def turn(carry, _):
        return jnp.tanh(carry @ W @ W.T), ()

    assert counted(lambda x: lax.scan(turn, x, length=6)[0], X).matmul == 6 * 2 * MATMUL


def test_a_loop_of_unknown_turns_is_refused_only_if_it_computes():
    counting = counted(lambda x: lax.while_loop(lambda i: i < x.sum(), lambda i: i + 1, 0.0), X)
    assert counting == Flops()
    with pytest.raises(ValueError, match="unknown number of turns: write it as a scan"):
        counted(lambda x: lax.while_loop(lambda x: x[0, 0] < 1, lambda x: x @ W @ W.T, x), X)


def test_a_branch_counts_as_the_largest():
    def either(x):
        return lax.cond(x[0, 0] > 0, lambda x: x @ W @ W.T, lambda x: x, x)

    assert counted(either, X).matmul == 2 * MATMUL


@jax.custom_vjp
def _custom(x):
    return x @ W


_custom.defvjp(lambda x: (x @ W, ()), lambda _, d: (d @ W.T,))


@pytest.mark.parametrize(
    "function",
    [jax.jit(lambda x: x @ W), _custom, jax.checkpoint(lambda x: x @ W)],
    ids=["jit", "custom_vjp", "checkpoint"],
)
def test_a_function_within_counts_once(function):
    assert counted(function, X).matmul == MATMUL


def test_what_a_checkpoint_recomputes_counts_again():
    def loss(x, remat):
        body = jax.checkpoint(lambda x: jnp.sin(x @ W)) if remat else lambda x: jnp.sin(x @ W)
        return jnp.sum(body(x))

    plain = counted(jax.grad(functools.partial(loss, remat=False)), X).matmul
    assert plain == 2 * MATMUL
    assert counted(jax.grad(functools.partial(loss, remat=True)), X).matmul == plain + MATMUL


def test_a_shard_map_counts_for_all_its_devices():
    mesh = AbstractMesh((2, 4), ("data", "fsdp"), axis_types=(AxisType.Auto,) * 2)
    rows = jnp.zeros((16, 4))

    def split(x):
        return jax.shard_map(lambda x: x @ W, mesh=mesh, in_specs=P("data"), out_specs=P("data"))(x)

    # Each half of the rows is on the four devices of "fsdp", which all compute it.
    assert counted(split, rows).matmul == 4 * 2 * 16 * 4 * 5


def test_attention_by_a_kernel_counts_its_blocks():
    attend = SplashAttention(ALL_HEADS, small=1, interpret=True)
    query, key = jnp.zeros((2, 256, 3, 40)), jnp.zeros((2, 128, 3, 40))

    def loss(query, key):
        return attend(query, key, key).values.sum()

    one_matmul = 2 * 2 * 3 * 256 * 128 * 40
    assert counted(loss, query, key) == Flops(kernel=2 * one_matmul)
    # Three for the queries' gradient, four for that of keys and values.
    assert counted(jax.grad(loss, (0, 1)), query, key).kernel == (2 + 3 + 4) * one_matmul


def test_what_cannot_be_counted_is_refused(monkeypatch):
    q = jnp.zeros((1, 8, 1, 8), jnp.bfloat16)

    def attend(q):
        return jax.nn.dot_product_attention(q, q, q, implementation="cudnn")

    # As on a machine that has cuDNN: the call is traced, not run.
    monkeypatch.setattr(fused_attention_stablehlo, "check_cudnn_version", lambda: 91000)
    monkeypatch.setattr(fused_attention_stablehlo, "check_compute_capability", lambda _: True)
    with pytest.raises(ValueError, match="trace the function with plain attention"):
        counted(attend, q)


def test_plain_attention_and_its_gradient_are_six_matmuls():
    q, k = jnp.zeros((2, 16, 3, 8)), jnp.zeros((2, 12, 3, 8))

    def loss(q, k, v):
        return jax.nn.dot_product_attention(q, k, v, implementation="xla").sum()

    assert counted(jax.grad(loss, (0, 1, 2)), q, k, k).total == 6 * 2 * 2 * 3 * 16 * 12 * 8
