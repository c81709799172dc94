"""Collectives of programs compiled for eight CPU devices, for TPUs, and in forms of the text."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from flashface_jax.planning.hlo.collectives import (
    Collective,
    list_collectives,
    mesh_axes,
)
from flashface_jax.planning.hlo.text import read_program

ROOT = Path(__file__).parents[2]
# Another process, as the number of CPU devices is fixed when JAX begins.
ON_EIGHT_DEVICES = """
import dataclasses, functools, json
import jax, jax.numpy as jnp
from jax import lax
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 8)
from flashface_jax.planning.hlo.collectives import list_collectives, total_collectives
from flashface_jax.planning.hlo.text import read_program

mesh = jax.make_mesh((2, 4), ("data", "fsdp"), axis_types=(AxisType.Auto,) * 2)

def gathered_in_a_loop(x):
    def turn(carry, _):
        return jnp.sin(lax.all_gather(carry, "fsdp", axis=0, tiled=True)[: len(carry)]), ()
    return lax.scan(turn, x, length=3)[0]

FUNCTIONS = {
    "all-gather": lambda x: lax.all_gather(x, "fsdp", axis=0, tiled=True),
    "all-reduce": lambda x: lax.psum(x, "data"),
    "all-reduce of all": lambda x: lax.psum(x, ("data", "fsdp")),
    "reduce-scatter": lambda x: lax.psum_scatter(x, "fsdp", scatter_dimension=0, tiled=True),
    "all-to-all": lambda x: lax.all_to_all(x, "fsdp", 0, 0, tiled=True),
    "collective-permute": lambda x: lax.ppermute(x, "data", [(0, 1), (1, 0)]),
    "loop": gathered_in_a_loop,
}
found = {}
for name, function in FUNCTIONS.items():
    mapped = jax.shard_map(
        function, mesh=mesh, in_specs=P(("data", "fsdp")), out_specs=P(("data", "fsdp")),
        check_vma=False,
    )
    rows = NamedSharding(mesh, P(("data", "fsdp")))
    x = jax.ShapeDtypeStruct((8 * 8, 16), jnp.float32, sharding=rows)
    program = read_program(jax.jit(mapped).lower(x).compile().as_text())
    totals = total_collectives(list_collectives(program, 8), mesh.shape)
    found[name] = [dataclasses.asdict(total) for total in totals]
print(json.dumps(found))
"""
SHARD = 8 * 16 * 4  # bytes of each device


@pytest.fixture(scope="module")
def on_eight_devices():
    command = [sys.executable, "-c", ON_EIGHT_DEVICES]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    ("name", "kind", "axes", "group", "size"),
    [
        ("all-gather", "all-gather", "fsdp", 4, 4 * SHARD),
        ("all-reduce", "all-reduce", "data", 2, SHARD),
        ("all-reduce of all", "all-reduce", "data+fsdp", 8, SHARD),
        ("reduce-scatter", "reduce-scatter", "fsdp", 4, SHARD),
        ("all-to-all", "all-to-all", "fsdp", 4, SHARD),
        ("collective-permute", "collective-permute", "data", 2, SHARD),
    ],
)
def test_each_collective_is_found_with_its_axes_and_bytes(
    on_eight_devices, name, kind, axes, group, size
):
    assert on_eight_devices[name] == [
        {
            "kind": kind,
            "axes": axes,
            "group_size": group,
            "dtypes": ["f32"],
            "count": 1,
            "size": size,
        }
    ]


def test_a_collective_in_a_loop_counts_every_turn(on_eight_devices):
    (total,) = on_eight_devices["loop"]
    assert (total["kind"], total["count"], total["size"]) == ("all-gather", 3, 3 * 4 * SHARD)


def lines(*instructions, before=""):
    """A program of four devices with some instructions."""
    body = "".join(f"  {instruction}\n" for instruction in instructions)
    return read_program(
        f"HloModule hand\n{before}\nENTRY %main (x: f32[8]) -> f32[8] {{\n{body}}}\n"
    )


GATHER = "%g = bf16[8,4]{1,0} all-gather(%x), "


@pytest.mark.parametrize(
    ("groups", "first"),
    [
        ("replica_groups={{0,2},{1,3}}", (0, 2)),
        ("replica_groups={{0,1,2,3}}", (0, 1, 2, 3)),
        ("replica_groups={}", (0, 1, 2, 3)),
        ("replica_groups=[2,2]<=[4]", (0, 1)),
        ("replica_groups=[2,2]<=[2,2]T(1,0)", (0, 2)),
        ("replica_groups=mesh['a'=2,'b'=2] {'b'}", (0, 1)),
        ("replica_groups=mesh['a'=2,'b'=2] {'a'}", (0, 2)),
        ("replica_groups=mesh['a'=2,'b'=2] {'a','b'}", (0, 1, 2, 3)),
        ("replica_groups=mesh['a'=2,'b'=1,'c'=2], device_ids=([2,2]T(1,0)) {'a'}", (0, 1)),
        ("replica_groups=mesh['a'=4] {'a':(1)2}", (0, 2)),
        ("replica_groups=mesh['a'=4] {'a':(2)2}", (0, 1)),
    ],
)
def test_groups_are_read_in_all_ways_that_xla_writes_them(groups, first):
    (found,) = list_collectives(lines(GATHER + groups + ", dimensions={0}"), 4)
    assert found == Collective("all-gather", "bf16", 64, first, 1, False)


def test_groups_in_another_way_are_refused():
    with pytest.raises(
        ValueError, match="groups its devices in an unknown way: 'replica_groups=ne"
    ):
        list_collectives(lines(GATHER + "replica_groups=new[4], dimensions={0}"), 4)


GROUPS = "replica_groups={{0,1},{2,3}}"


@pytest.mark.parametrize(
    ("instruction", "kind", "size"),
    [
        ("(bf16[4,4], bf16[8,4]) all-gather-start(%x), ", "all-gather", 64),
        ("bf16[8,4] all-gather-done(%x), ", None, 0),
        ("f32[8,4] all-reduce-start(%x), ", "all-reduce", 128),
        ("(f32[8,4], f32[2]) all-reduce(%x, %y), ", "all-reduce", 136),
        ("f32[8,4] reduce-scatter(%x), ", "reduce-scatter", 256),
        ("(f32[8], f32[8], u32[], u32[]) collective-permute-start(%x), ", "collective-permute", 32),
    ],
)
def test_halves_of_asynchronous_collectives_count_as_one(instruction, kind, size):
    found = list_collectives(lines(f"%c = {instruction}{GROUPS}"), 4)
    assert [(one.kind, one.size) for one in found] == ([(kind, size)] if kind else [])


def test_an_all_reduce_fused_with_the_choice_of_a_shard_is_a_reduce_scatter():
    before = (
        "%all-reduce-scatter.1 (i: f32[8]) -> f32[4] {\n"
        f"  %a = f32[8]{{0}} all-reduce(%i), {GROUPS}, to_apply=%add\n"
        "  ROOT %s = f32[4]{0} dynamic-slice(%a, %k), dynamic_slice_sizes={4}\n}\n"
    )
    call = "%f = f32[4]{0} fusion(%x), kind=kCustom, calls=%all-reduce-scatter.1"
    (found,) = list_collectives(lines(call, before=before), 4)
    assert (found.kind, found.size, found.group) == ("reduce-scatter", 32, (0, 1))


def test_a_chain_of_fusions_with_parts_of_a_collective_counts_once():
    gather = f'{GATHER}{GROUPS}, frontend_attributes={{chain_id="2"}}'
    start = "ROOT %s = (bf16[8,4]) custom-call(%g), custom_call_target="
    before = "".join(
        f"%{name} (i: bf16[4,4]) -> bf16[8,4] {{\n  {gather}\n  {root}\n}}\n"
        for name, root in [
            ("begin", f'{start}"AsyncCollectiveStart"'),
            ("between", "ROOT %m = bf16[8,4] multiply(%g, %g)"),
            ("end", f'{start}"AsyncCollectiveDone"'),
        ]
    )
    names = ("begin", "between", "end")
    calls = (f"%{name}.f = bf16[8,4] fusion(%x), calls=%{name}" for name in names)
    assert len(list_collectives(lines(*calls, before=before), 4)) == 1


def test_the_second_half_of_a_generic_asynchronous_operation_is_no_second_collective():
    before = f"%wrapped (i: f32[8]) -> f32[4] {{\n  %r = f32[4] reduce-scatter(%i), {GROUPS}\n}}\n"
    calls = (
        "%s = ((f32[8]), f32[4]) async-start(%x), calls=%wrapped",
        "%d = f32[4] async-done(%s), calls=%wrapped",
    )
    assert [one.size for one in list_collectives(lines(*calls, before=before), 4)] == [32]


@pytest.mark.parametrize(
    ("group", "axes"),
    [
        ((0, 1, 2, 3), "fsdp"),
        ((1, 5), "data"),
        (tuple(range(8)), "data+fsdp"),
        ((0, 1), "part of fsdp"),
    ],
)
def test_axes_are_those_along_which_a_group_differs(group, axes):
    assert mesh_axes(group, {"data": 2, "fsdp": 4}) == axes


def test_a_device_alone_sends_nothing():
    assert list_collectives(lines(GATHER + "replica_groups={{0},{1}}, dimensions={0}"), 2) == []
