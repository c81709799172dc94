"""Walking compiled programs: what runs, how often, and how large it is."""

import jax
import jax.numpy as jnp
import pytest
from jax import lax

from flashface_jax.planning.hlo.text import array_bytes, arrays, executions, read_program

LOOPS = """HloModule hand, num_partitions=4

%body (p: (s32[], f32[4])) -> (s32[], f32[4]) {
  %p = (s32[]{:T(128)}, f32[4]{0}) parameter(0)
  %inside = f32[4]{0} negate(%p)
  ROOT %t = (s32[], f32[4]) tuple(%p, %inside)
}

%bounded (p.1: (s32[], f32[4])) -> pred[] {
  %limit = s32[]{:T(128)} constant(7)
  %i = s32[] get-tuple-element(%p.1), index=0
  ROOT %lt = pred[]{:T(512)} compare(%i, %limit), direction=LT
}

%open (p.2: (s32[], f32[4])) -> pred[] {
  ROOT %any = pred[] custom-call(%p.2), custom_call_target="f"
}

ENTRY %main (x: f32[4]) -> f32[4] {
  %x = f32[4]{0} parameter(0)
  %first = (s32[], f32[4]) while(%x), condition=%bounded, body=%body
  %second = (s32[], f32[4]) while(%first), condition=%open, body=%body, metadata={a="
%no = f32[4]{0} negate(%x)"}
  ROOT %out = f32[4]{0} get-tuple-element(%second), index=1
}
"""


def compiled(function, *arguments):
    return read_program(jax.jit(function).lower(*arguments).compile().as_text())


def test_a_loop_that_tells_its_turns_multiplies_and_another_counts_once():
    inside = [run for run in executions(read_program(LOOPS)) if run.instruction.name == "inside"]
    assert [(run.count, run.in_loop, run.counted) for run in inside] == [
        (7, True, True),
        (1, True, False),
    ]


def test_a_scan_that_was_compiled_tells_its_turns():
    w = jnp.ones((64, 64))

    def nested(x):
        def inner(x, _):
            return jnp.sin(x @ w), ()

        def outer(x, _):
            return lax.scan(inner, x, length=3)[0], ()

        return lax.scan(outer, x, length=5)[0]

    runs = executions(compiled(nested, w))
    assert 15 in {run.count for run in runs if run.in_loop and run.counted}


def test_what_is_in_a_fusion_runs():
    runs = list(executions(compiled(lambda x: jnp.sin(x) * 2 + 1, jnp.ones(1000))))
    assert [run.count for run in runs if run.instruction.operation == "sine"] == [1]


@pytest.mark.parametrize(
    ("type_", "size"),
    [
        ("bf16[8,128]{1,0:T(8,128)(2,1)}", 2048),
        ("(f32[3], /*index=1*/pred[4,2], u8[])", 12 + 8 + 1),
        ("s4[6]{0}", 3),
        ("f8e4m3fn[10]", 10),
        ("c64[2]", 16),
        ("token[]", 0),
    ],
)
def test_bytes_of_a_type(type_, size):
    assert array_bytes(type_) == size


def test_shapes_of_a_type():
    assert arrays("(f32[3,4]{1,0}, s32[])") == [("f32", (3, 4)), ("s32", ())]


def test_another_text_is_refused():
    with pytest.raises(ValueError, match="has no ENTRY"):
        read_program("module @jit_f {}")
