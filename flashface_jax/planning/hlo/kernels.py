"""Operations of the attention kernels in a program compiled for TPUs, which XLA counts as none."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from flashface_jax.planning.hlo.text import Execution, Instruction, Program, arrays, executions

# Matmuls of queries x keys x channels of a head in each kernel of splash attention: logits and
# values; logits, gradients of weights and queries; logits and gradients of weights, keys, values.
MATMULS = {"splash_mha_fwd": 2, "splash_mha_dq": 3, "splash_mha_dkv": 4}


@dataclass(frozen=True)
class KernelRun:
    """A kernel, as one place of a program calls it.

    Attributes:
        name: as XLA calls it, e.g. splash_mha_fwd_residuals.
        count: times that it runs in one run of the program.
        matmuls: matmuls in it; 0 if the kernel is not known.
        heads: heads of all samples on a chip.
        queries: padded number of queries.
        keys: padded number of keys.
        channels: of a head.
    """

    name: str
    count: int
    matmuls: int
    heads: int
    queries: int
    keys: int
    channels: int

    def flops(self, width: int = 1) -> int:
        """Operations in one run of the program.

        Args:
            width: side of the systolic array, whose multiples dimensions are padded to; with 1,
                the operations that are asked for.
        """
        queries, keys, channels = (
            -(-size // width) * width for size in (self.queries, self.keys, self.channels)
        )
        return 2 * self.count * self.matmuls * self.heads * queries * keys * channels


def list_kernels(program: Program) -> list[KernelRun]:
    """Find all Pallas kernels of a program compiled for TPUs."""
    return list_kernels_of(executions(program))


def is_kernel(instruction: Instruction) -> bool:
    """Whether an instruction runs a Pallas kernel."""
    return 'custom_call_target="tpu_custom_call"' in instruction.attributes


def list_kernels_of(runs: Iterable[Execution]) -> list[KernelRun]:
    """Find the Pallas kernels among what a program executes."""
    return [_kernel_run(run) for run in runs if is_kernel(run.instruction)]


def _kernel_run(run: Execution) -> KernelRun:
    instruction = run.instruction
    name = re.sub(r"(\.clone|\.remat\d*|\.\d+)+$", "", instruction.name)
    matmuls = next((n for start, n in MATMULS.items() if name.startswith(start)), 0)
    # Two tables of blocks come first, then queries, keys and values by head.
    layouts = instruction.attributes.partition("operand_layout_constraints={")[2]
    operands = [shape for _, shape in arrays(layouts) if len(shape) == 3][2:4]
    if not matmuls or len(operands) != 2:
        return KernelRun(name, run.count, 0, 0, 0, 0, 0)
    (heads, queries, channels), (_, keys, _) = operands
    return KernelRun(name, run.count, matmuls, heads, queries, keys, channels)
