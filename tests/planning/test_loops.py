"""Matmuls in a compiled program's text: XLA's own count, times the turns of loops."""

import importlib.util

import jax
import jax.numpy as jnp
import pytest
from jax import lax

from flashface_jax.planning.hlo.loops import instruction_flops, loop_work
from flashface_jax.planning.hlo.text import executions, read_program
from flashface_jax.planning.topology import parse_topology
from flashface_jax.planning.topology_devices import devices_of

MATMUL = 2 * 64**3
X = jax.ShapeDtypeStruct((64, 64), jnp.float32)
needs_libtpu = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None,
    reason="libtpu is not installed: pip install 'flashface-jax[plan]'",
)


def accumulated(x):
    """Four turns of two matmuls, and one after them."""

    def turn(total, _):
        return total + jnp.sin(x @ total) @ x, ()

    return jnp.cos(lax.scan(turn, x, length=4)[0]) @ x


def test_matmuls_in_a_loop_count_every_turn():
    program = read_program(jax.jit(accumulated).lower(X).compile().as_text())
    work = loop_work(program)
    assert (work.one_turn, work.all_turns, work.untold) == (3 * MATMUL, 9 * MATMUL, 0)
    assert work.ratio == 3.0


def test_matmuls_in_a_loop_that_does_not_tell_its_turns_are_counted_once_and_told():
    def until(x):
        return lax.while_loop(lambda x: x[0, 0] < 1, lambda x: x @ x, x)

    work = loop_work(read_program(jax.jit(until).lower(X).compile().as_text()))
    assert (work.one_turn, work.all_turns, work.untold) == (MATMUL, MATMUL, 1)


def test_a_program_without_matmuls_is_as_much_as_xla_counts():
    work = loop_work(read_program(jax.jit(jnp.sin).lower(X).compile().as_text()))
    assert (work.one_turn, work.ratio) == (0, 1.0)


@pytest.mark.parametrize(
    ("attributes", "flops"),
    [
        # Each output element adds up 6 channels at 3x3 taps, fewer at the border.
        ("window={size=3x3 pad=1_1x1_1}, dim_labels=b01f_01io->b01f", 2 * 2 * 6 * 7 * 22 * 22),
        ("window={size=3x3 pad=1_1x1_1}, dim_labels=b01f_01io->b01f, batch_group_count=2", None),
    ],
)
def test_a_convolution_counts_its_taps_on_the_image(attributes, flops):
    types = {"a": "f32[2,8,8,6]{3,2,1,0}", "b": "f32[3,3,6,7]{3,2,1,0}"}
    text = (
        "HloModule h\nENTRY %main (a: f32[]) -> f32[] {\n"
        f"  ROOT %c = f32[2,8,8,7]{{3,2,1,0}} convolution(%a, %b), {attributes}\n}}\n"
    )
    ((convolution),) = (run.instruction for run in executions(read_program(text)))
    expected = 2 * 2 * 6 * 7 * 22 * 22 // 2 if flops is None else flops
    assert instruction_flops(convolution, types) == expected


def convolution(stride):
    """A convolution and both its gradients, without operations by elements."""

    def both(x, w, d):
        y, backward = jax.vjp(
            lambda x, w: lax.conv_general_dilated(
                x, w, (stride,) * 2, ((1, 1),) * 2, dimension_numbers=("NHWC", "HWIO", "NHWC")
            ),
            x,
            w,
        )
        return y, *backward(d)

    side = 32 // stride
    # Of small batches the compiler makes larger ones of overlapping parts, with additions.
    return both, ((128, 32, 32, 128), (3, 3, 128, 256), (128, side, side, 256))


def attention_logits(q, k):
    return jnp.einsum("bqhd,bkhd->bhqk", q, k)


CASES = {
    "convolution": convolution(1),
    "strided convolution": convolution(2),
    "matmul": (jnp.matmul, ((512, 256), (256, 384))),
    "batched matmul": (attention_logits, ((2, 256, 8, 40), (2, 384, 8, 40))),
}


@needs_libtpu
@pytest.mark.parametrize("name", CASES)
def test_a_program_for_a_tpu_counts_as_its_compiler_counts(name):
    function, shapes = CASES[name]
    (device,) = devices_of(parse_topology("v5e:1x1"))
    sharding = jax.sharding.SingleDeviceSharding(device)
    arguments = [jax.ShapeDtypeStruct(s, jnp.bfloat16, sharding=sharding) for s in shapes]
    with jax.default_matmul_precision("bfloat16"):
        lowered = jax.jit(function).lower(*arguments)
    compiled = lowered.compile(compiler_options={"exec_time_optimization_effort": -1.0})
    ours = loop_work(read_program(compiled.as_text())).one_turn
    assert compiled.cost_analysis()["flops"] == ours > 0


@needs_libtpu
def test_a_compiler_for_tpus_counts_one_turn_of_a_loop_and_we_count_all():
    (device,) = devices_of(parse_topology("v5e:1x1"))
    sharding = jax.sharding.SingleDeviceSharding(device)
    x = jax.ShapeDtypeStruct((256, 256), jnp.bfloat16, sharding=sharding)
    with jax.default_matmul_precision("bfloat16"):
        lowered = jax.jit(lambda x: lax.scan(lambda y, _: (x @ y, ()), x, length=5)[0]).lower(x)
    compiled = lowered.compile(compiler_options={"exec_time_optimization_effort": -1.0})
    work, one = loop_work(read_program(compiled.as_text())), 2 * 256**3
    assert (work.one_turn, work.all_turns, work.untold) == (one, 5 * one, 0)
    # And a few operations that count turns.
    assert one <= compiled.cost_analysis()["flops"] < one + 100
