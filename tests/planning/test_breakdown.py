"""Where a compiled program's time goes, read from lines as the TPU's compiler writes them."""

import pytest

from flashface_jax.planning.breakdown import Part, break_down, part_of
from flashface_jax.planning.hardware import TPUS
from flashface_jax.planning.hlo.text import read_program

V5E = next(chip for chip in TPUS if chip.name == "v5e")


def noted(scopes, cycles):
    return (
        f'metadata={{op_name="jit(step)/{scopes}" stack_frame_id=1}}, '
        f'backend_config={{"window_config":{{"estimated_cycles":"{cycles}"}}}}'
    )


IN_A_LOOP = "while/body/closed_call/jvp()/shard_map/net/encoder/2/mul"
MADE_AGAIN = "transpose(jvp())/shard_map/net/encoder/1/net/encoder/1/checkpoint/dot_general"
PROGRAM = f"""HloModule hand

%multiplying (a: bf16[8,8]) -> bf16[8,8] {{
  %a = bf16[8,8]{{1,0}} parameter(0)
  ROOT %c = bf16[8,8]{{1,0}} convolution(%a, %a), dim_labels=bf_io->bf
}}

%turn (p: bf16[8,8]) -> bf16[8,8] {{
  %p = bf16[8,8]{{1,0}} parameter(0)
  ROOT %n = bf16[8,8]{{1,0}} add(%p, %p), {noted(IN_A_LOOP, 100)}
}}

ENTRY %main (x: bf16[8,8]) -> bf16[8,8] {{
  %x = bf16[8,8]{{1,0}} parameter(0)
  %one = bf16[8,8]{{1,0}} fusion(%x), kind=kOutput, calls=%multiplying, \
{noted("jvp()/shard_map/net/encoder/0/dot_general", 200)}
  %two = bf16[8,8]{{1,0}} fusion(%one), kind=kOutput, calls=%multiplying, \
{noted(MADE_AGAIN, 300)}
  %loop = bf16[8,8]{{1,0}} while(%two), condition=%until, body=%turn, \
backend_config={{"known_trip_count":{{"n":"4"}}}}
  %splash_mha_fwd_residuals.4 = bf16[8,1024,40]{{2,1,0}} custom-call(%loop), \
custom_call_target="tpu_custom_call", operand_layout_constraints={{s8[1,1,1]{{2,1,0}}, \
s8[1,1,1]{{2,1,0}}, bf16[8,1024,40]{{2,1,0}}, bf16[8,512,40]{{2,1,0}}}}, \
frontend_attributes={{kernel_metadata={{
"block_q": 1024
}}}}, metadata={{op_name="jit(step)/jvp()/net/middle/pallas_call"}}
  ROOT %sum = bf16[8,8]{{1,0}} add(%loop, %loop), {noted("reduce_sum", 100)}
}}
"""


def test_parts_share_the_compilers_time_as_they_share_its_cycles():
    """1,000 cycles in all, of which 500 are fusions with a convolution and 400 a loop's."""
    found = {part.name: part for part in break_down(read_program(PROGRAM), 2e-3, V5E)}
    flops = 2 * 2 * 8 * 1024 * 512 * 128  # 40 channels on a matrix unit of 128
    expected = {
        "net/encoder": Part("net/encoder", matmuls=1e-3, rest=0.8e-3),
        "net/middle": Part("net/middle", kernels=flops / V5E.flops),
        "other": Part("other", rest=0.2e-3),
    }
    assert set(found) == set(expected)
    for name, part in expected.items():
        for kind in ("kernels", "matmuls", "rest"):
            assert getattr(found[name], kind) == pytest.approx(getattr(part, kind), rel=1e-12)


def test_the_longest_part_comes_first():
    assert [part.name for part in break_down(read_program(PROGRAM), 2e-3, V5E)] == [
        "net/encoder",
        "other",
        "net/middle",
    ]


@pytest.mark.parametrize(
    ("scopes", "part"),
    [
        ("jit(train_step)/jvp()/shard_map/denoiser/decoder/3/add", "denoiser/decoder"),
        ("jit(train_step)/transpose(jvp())/denoiser/middle/jit(silu)/mul", "denoiser/middle"),
        ("jit(train_step)/optimizer/mul", "optimizer"),
        ("jit(train_step)/transpose(jvp())/shard_map/net/net/checkpoint/mul", "net"),
        ("jit(train_step)/jvp()/text_tower/reshape;text_tower/reshape", "text_tower"),
        ("jit(train_step)/cond/branch_1_fun/net/middle/add", "net/middle"),
        ("jit(train_step)/squeeze", "other"),
    ],
)
def test_scopes_name_the_part(scopes, part):
    assert part_of(f'metadata={{op_name="{scopes}" stack_frame_id=7}}') == part


def test_what_has_no_note_is_other():
    assert part_of("kind=kLoop, calls=%fused") == "other"


def test_a_program_whose_operations_tell_no_cycles_is_not_split():
    assert break_down(read_program(PROGRAM.replace("estimated_cycles", "bounds")), 2e-3, V5E) == []
