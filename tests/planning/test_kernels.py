"""Operations of attention kernels, read from programs compiled for TPUs."""

import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from flashface_jax.models.attention.backends import ALL_HEADS
from flashface_jax.models.attention.splash import SplashAttention
from flashface_jax.planning.flops import count_flops
from flashface_jax.planning.hlo.collectives import list_collectives, total_collectives
from flashface_jax.planning.hlo.kernels import list_kernels
from flashface_jax.planning.hlo.text import read_program
from flashface_jax.planning.topology import parse_topology
from flashface_jax.planning.topology_devices import devices_of

FORWARD = """HloModule hand

ENTRY %main (q: bf16[8,1024,40]) -> bf16[8,1024,40] {
  %splash_mha_fwd_residuals.4.clone.1 = (f32[1024,128]{1,0}, bf16[8,1024,40]{2,1,0}) \
custom-call(%a, %b, %q, %k, %k), custom_call_target="tpu_custom_call", \
operand_layout_constraints={s8[1,1,1]{2,1,0}, s8[1,1,1]{2,1,0}, bf16[8,1024,40]{2,1,0}, \
bf16[8,512,40]{2,1,0}, bf16[8,512,40]{2,1,0}}, frontend_attributes={kernel_metadata={
"block_q": 1024
}}
  %mine.2 = f32[8] custom-call(%a), custom_call_target="tpu_custom_call"
  ROOT %other = f32[8] custom-call(%a), custom_call_target="AllocateBuffer"
}
"""


def test_a_kernel_is_read_by_its_name_and_operands():
    forward, unknown = list_kernels(read_program(FORWARD))
    assert (forward.name, forward.heads, forward.queries, forward.keys, forward.channels) == (
        "splash_mha_fwd_residuals",
        8,
        1024,
        512,
        40,
    )
    assert forward.flops() == 2 * 2 * 8 * 1024 * 512 * 40
    assert forward.flops(width=128) == 2 * 2 * 8 * 1024 * 512 * 128
    assert forward.flops(width=256) == 2 * 2 * 8 * 1024 * 512 * 256
    assert (unknown.name, unknown.matmuls, unknown.flops()) == ("mine", 0, 0)


needs_libtpu = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None,
    reason="libtpu is not installed: pip install 'flashface-jax[plan]'",
)
LAYERS, ROWS, TOKENS, CHANNELS = 3, 4, 256, 320
# Compiled for TPUs in float32, matmuls would be several passes; the kernels too.
BFLOAT16 = jnp.bfloat16


@pytest.fixture(scope="module")
def compiled_for_tpu():
    """A layer of attention with gathered weights in a scan, and its gradient, for four chips."""
    topology = parse_topology("v5e:2x2")
    devices = np.array(devices_of(topology)).reshape(2, 2)
    mesh = jax.sharding.Mesh(devices, ("data", "fsdp"), axis_types=(AxisType.Auto,) * 2)
    attend = SplashAttention(ALL_HEADS, small=1)

    def layer(x, w):
        whole = lax.all_gather(w.astype(BFLOAT16), "fsdp", axis=0, tiled=True)
        heads = (x @ whole).reshape(*x.shape[:2], 8, -1)
        return attend(heads, heads, heads).values.reshape(x.shape), ()

    def loss(w, x):
        return lax.scan(jax.checkpoint(layer), x, w)[0].astype(jnp.float32).mean()

    rows, shards = P(("data", "fsdp")), P(None, "fsdp")
    step = jax.shard_map(
        lambda w, x: lax.psum(jax.grad(loss)(w, x), "data"),
        mesh=mesh,
        in_specs=(shards, rows),
        out_specs=shards,
        check_vma=False,
    )
    arguments = (
        jax.ShapeDtypeStruct(
            (LAYERS, CHANNELS, CHANNELS), jnp.float32, sharding=NamedSharding(mesh, shards)
        ),
        jax.ShapeDtypeStruct(
            (ROWS, TOKENS, CHANNELS), BFLOAT16, sharding=NamedSharding(mesh, rows)
        ),
    )
    with jax.default_matmul_precision("bfloat16"), jax.set_mesh(mesh):
        traced = jax.jit(step).trace(*arguments)
        options = {"exec_time_optimization_effort": -1.0}
        text = traced.lower().compile(compiler_options=options).as_text()
    return traced.jaxpr, read_program(text), mesh


@needs_libtpu
def test_kernels_compiled_for_a_tpu_count_as_in_the_trace(compiled_for_tpu):
    jaxpr, program, mesh = compiled_for_tpu
    kernels = list_kernels(program)
    # The trace counts all chips; forward twice, as it is recomputed.
    a_chip = count_flops(jaxpr).kernel / mesh.size
    one_matmul = 2 * 8 * TOKENS**2 * 40
    assert a_chip == LAYERS * (2 + 2 + 3 + 4) * one_matmul
    assert sum(kernel.flops() for kernel in kernels) == a_chip


@needs_libtpu
def test_collectives_compiled_for_a_tpu_are_those_that_were_written(compiled_for_tpu):
    _, program, mesh = compiled_for_tpu
    totals = total_collectives(list_collectives(program, mesh.size), mesh.shape)
    weight = CHANNELS * CHANNELS * 2  # bytes of a layer in bfloat16
    found = {(total.kind, total.axes): (total.count, total.size) for total in totals}
    assert found[("all-gather", "fsdp")] == (2 * LAYERS, 2 * LAYERS * weight)
    assert found[("reduce-scatter", "fsdp")] == (LAYERS, LAYERS * weight)
    assert found[("all-reduce", "data")][1] == LAYERS * weight  # half the weights in float32
