"""Where the time of a program compiled for TPUs goes, by part of the model and kind of work.

JAX notes with every operation the named scopes that it comes from, and the compiler how many cycles
it reckons with. Attention kernels have no such note: their time is that of their operations at the
chip's peak, padding included.
"""

import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from flashface_jax.planning.hardware import Accelerator
from flashface_jax.planning.hlo import Execution, Program, executions
from flashface_jax.planning.kernels import is_kernel, list_kernels_of

OTHER = "other"
TRANSFORMATIONS = {"shard_map", "checkpoint", "rematted_computation", "while", "body", "cond"}
"""Words that JAX puts among the scopes."""
LEVELS = 2  # of nested scopes that make a part: denoiser/decoder, but not denoiser/decoder/3


@dataclass(frozen=True)
class Part:
    """The least time of one part of a program, in seconds, forward and backward together.

    Attributes:
        name: its scopes, e.g. "denoiser/decoder".
        kernels: of attention kernels.
        matmuls: of operations with a matmul or convolution in them, and what is fused with it.
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
    """Split a step's time up; the longest part comes first.

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
    second = compiler_seconds / everything if everything else 0.0
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
    # The last word is the operation; transformations and inner functions have parentheses.
    scopes = [word for word in noted[1].split("/")[:-1] if _names_a_scope(word)]
    return "/".join(scopes[:LEVELS]) or OTHER


def _names_a_scope(word: str) -> bool:
    return not ("(" in word or word.isdigit() or word in TRANSFORMATIONS)


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
