"""Where the time of a program compiled for TPUs goes, by part of the model and kind of work.

JAX notes with every operation the named scopes that it comes from, and the compiler how many cycles
it reckons with. The cycles' sum is larger than the compiler's own time for the program: that time
is shared out as they are. Attention kernels have no such note: their time is that of their
operations at the chip's peak, padding included.
"""

import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from flashface_jax.planning.hardware import Accelerator
from flashface_jax.planning.hlo.kernels import is_kernel, list_kernels_of
from flashface_jax.planning.hlo.text import Execution, Program, executions

OTHER = "other"
TRANSFORMED = re.compile(
    r".*\(.*|\d+|shard_map|checkpoint|rematted_computation|while|body|cond|closed_call|branch_\d+_fun"
)
"""Words that JAX puts among the scopes, and numbers of stages."""
LEVELS = 2  # of nested scopes that make a part: denoiser/decoder, but not denoiser/decoder/3


@dataclass(frozen=True)
class Part:
    """The least time of one part of a program, in seconds, forward and backward together.

    Attributes:
        name: its scopes, e.g. "denoiser/decoder".
        kernels: of attention kernels.
        matmuls: of matmuls and convolutions, and what is directly fused with them.
        rest: of all else: norms, activations, copies, sums.
    """

    name: str
    kernels: float = 0.0
    matmuls: float = 0.0
    rest: float = 0.0

    @property
    def total(self) -> float:
        """Of all kinds."""
        return self.kernels + self.matmuls + self.rest


def break_down(program: Program, compiler_seconds: float, chip: Accelerator) -> list[Part]:
    """Split the time of kernels, and of all else but links, up; the longest part comes first.

    Nothing is returned for a program whose operations tell no cycles.

    Args:
        program: compiled for a TPU.
        compiler_seconds: what the compiler reckons with for everything outside of kernels.
        chip: the TPU.
    """
    multiplying = _with_matmuls(program)
    cycles: dict[tuple[str, str], float] = defaultdict(float)
    kernels: dict[str, float] = defaultdict(float)
    for run in executions(program):
        name = part_of(run.instruction.attributes)
        if is_kernel(run.instruction):
            done = sum(kernel.flops(chip.matrix_width) for kernel in list_kernels_of([run]))
            kernels[name] += done / chip.flops
        else:
            kind = "matmuls" if _multiplies(run, multiplying) else "rest"
            cycles[name, kind] += run.count * _cycles(run.instruction.attributes)
    everything = sum(cycles.values())
    if not everything:
        return []
    second = compiler_seconds / everything
    names = {name for name, _ in cycles} | set(kernels)
    parts = [
        Part(name, kernels[name], *(second * cycles[name, kind] for kind in ("matmuls", "rest")))
        for name in names
    ]
    return sorted((part for part in parts if part.total), key=lambda part: -part.total)


def part_of(attributes: str) -> str:
    """Name the part that an instruction belongs to, from JAX's note of its scopes."""
    noted = re.search(r'op_name="([^"]*)"', attributes)
    if noted is None:
        return OTHER
    # The last word is the operation. Operations that the compiler joined have several names.
    words = noted[1].split(";")[0].split("/")[:-1]
    scopes = [word for word in words if not TRANSFORMED.fullmatch(word)]
    if not scopes:
        return OTHER
    # What is made again for the backward pass has its scopes twice.
    last = len(scopes) - 1 - scopes[::-1].index(scopes[0])
    return "/".join(scopes[last : last + LEVELS])


def _cycles(attributes: str) -> int:
    noted = re.search(r'"estimated_cycles":"(\d+)"', attributes)
    return int(noted[1]) if noted else 0


def _with_matmuls(program: Program) -> Mapping[str, bool]:
    """Which computations have a matmul or convolution in them."""
    return {
        name: any(one.operation in ("dot", "convolution") for one in inside)
        for name, inside in program.computations.items()
    }


def _multiplies(run: Execution, multiplying: Mapping[str, bool]) -> bool:
    instruction = run.instruction
    if instruction.operation in ("dot", "convolution"):
        return True
    called = re.search(r"\bcalls=%?([\w.\-]+)", instruction.attributes)
    return called is not None and multiplying.get(called[1], False)
