"""Work within a compiled program's loops, of which XLA's analysis for TPUs counts one turn.

Gradients that are added up over smaller batches are such a loop, with all of the step's work in it.
Matmuls and convolutions can be counted from the program's text, by the rules of
`flashface_jax.planning.flops`; the compiler makes convolutions of most matmuls.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from flashface_jax.planning.flops import valid_taps
from flashface_jax.planning.hlo.text import Instruction, Program, arrays, executions


@dataclass(frozen=True)
class LoopWork:
    """Operations of matmuls and convolutions of a program.

    Attributes:
        one_turn: with one turn of every loop, as XLA counts them.
        all_turns: with all turns, as far as loops tell their number.
        untold: matmuls and convolutions in loops that do not tell their number of turns.
    """

    one_turn: int
    all_turns: int
    untold: int

    @property
    def ratio(self) -> float:
        """How many times as much there is as XLA counts, 1 or more."""
        return self.all_turns / self.one_turn if self.one_turn else 1.0


def loop_work(program: Program) -> LoopWork:
    """Count matmuls and convolutions with one turn of every loop, and with all."""
    types = {
        name: {one.name: one.type for one in inside}
        for name, inside in program.computations.items()
    }
    one_turn = all_turns = untold = 0
    for run in executions(program):
        flops = instruction_flops(run.instruction, types[run.computation])
        one_turn += flops
        all_turns += run.count * flops
        untold += bool(flops) and not run.counted
    return LoopWork(one_turn, all_turns, untold)


def instruction_flops(instruction: Instruction, types: Mapping[str, str]) -> int:
    """Operations of one run of an instruction; 0 for what is no matmul nor convolution.

    Args:
        instruction: one line of a program.
        types: types by the names of its operands.
    """
    if instruction.operation not in ("dot", "convolution"):
        return 0
    operands = re.findall(r"%([\w.\-]+)", instruction.operands)[:2]
    left, right = (arrays(types[name])[0][1] for name in operands)
    out = arrays(instruction.type)[0][1]
    if instruction.operation == "dot":
        contracted = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", instruction.attributes)
        axes = contracted[1].split(",") if contracted and contracted[1] else []
        return 2 * math.prod(out) * math.prod(left[int(axis)] for axis in axes)
    return _convolution_flops(instruction.attributes, left, right, out)


def _convolution_flops(
    attributes: str, image: tuple[int, ...], kernel: tuple[int, ...], out: tuple[int, ...]
) -> int:
    labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", attributes)
    if labels is None:
        raise ValueError(f"A convolution of the compiled program cannot be read: {attributes!r}.")
    of_image, of_kernel, of_out = labels[1], labels[2], labels[3]
    taps = 1
    for axis, label in enumerate(sorted(filter(str.isdigit, of_out))):
        stride, low, dilation, kernel_dilation = _window(attributes, axis)
        taps *= valid_taps(
            image[of_image.index(label)],
            kernel[of_kernel.index(label)],
            out[of_out.index(label)],
            low,
            stride,
            dilation,
            kernel_dilation,
        )
    groups = re.search(r"batch_group_count=(\d+)", attributes)
    samples = image[of_image.index("b")] // (int(groups[1]) if groups else 1)
    return 2 * taps * samples * kernel[of_kernel.index("i")] * kernel[of_kernel.index("o")]


def _window(attributes: str, axis: int) -> tuple[int, int, int, int]:
    """Stride, padding before, and dilations of image and kernel along one axis of a window."""
    window = re.search(r"window=\{([^}]*)\}", attributes)
    said = dict(part.split("=") for part in window[1].split()) if window else {}

    def along(name: str, default: str) -> str:
        return said[name].split("x")[axis] if name in said else default

    low = along("pad", "0_0").split("_")[0]
    dilations = along("lhs_dilate", "1"), along("rhs_dilate", "1")
    return int(along("stride", "1")), int(low), int(dilations[0]), int(dilations[1])
