"""Everything that is foretold of a program on one topology."""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import jax

from flashface_jax.planning.breakdown import Part, break_down
from flashface_jax.planning.compiling import compile_program, mesh_of
from flashface_jax.planning.hardware import Accelerator
from flashface_jax.planning.hlo.collectives import (
    CHAIN_START,
    Total,
    list_collectives,
    total_collectives,
)
from flashface_jax.planning.hlo.kernels import list_kernels
from flashface_jax.planning.hlo.loops import loop_work
from flashface_jax.planning.hlo.text import Program, executions, read_program
from flashface_jax.planning.links import links_seconds
from flashface_jax.planning.memory import Memory, memory_of
from flashface_jax.planning.roofline import (
    Roofline,
    Work,
    days,
    hardware_utilisation,
    model_utilisation,
    roofline,
)
from flashface_jax.planning.topology import Topology
from flashface_jax.planning.topology_devices import places_of


@dataclass(frozen=True)
class Run:
    """What a program is run for.

    Attributes:
        steps: times that it runs.
        batch_size: images a step, on all chips.
        model_flops: operations that the mathematics of a step asks for, on all chips.
    """

    steps: int
    batch_size: int
    model_flops: float


@dataclass(frozen=True)
class Plan:
    """A program on a topology.

    Attributes:
        topology: its name.
        chips: number of chips.
        mesh: sizes of the mesh's axes.
        run: what the program is run for.
        memory: of each chip.
        work: of each chip.
        collectives: exchanges of a step, by kind and axes.
        bounds: of the time of a step.
        parts: what takes time but for links, the longest first; empty if the compiler gives none.
        mfu: model FLOPs utilisation at the least time of a step, 0 to 1; none is reached in truth.
        hardware_utilisation: the same of all operations that are done.
        images_per_second: at most.
        days: that all steps take at least.
        compile_seconds: time that compilation took.
        notes: what the numbers leave out.
    """

    topology: str
    chips: int
    mesh: dict[str, int]
    run: Run
    memory: Memory
    work: Work
    collectives: tuple[Total, ...]
    bounds: Roofline
    parts: tuple[Part, ...]
    mfu: float
    hardware_utilisation: float
    images_per_second: float
    days: float
    compile_seconds: float
    notes: tuple[str, ...]


def make_plan(lowered: jax.stages.Lowered, topology: Topology, run: Run, fast: bool) -> Plan:
    """Compile a program for a topology and foretell how it runs.

    Args:
        lowered: the program, lowered for the topology's devices.
        topology: a slice of TPU chips.
        run: what the program is run for.
        fast: optimise less, to compile in minutes.

    Raises:
        DoesNotFitError: if the compiler finds that a chip's memory does not suffice.
    """
    began = time.perf_counter()
    compiled = compile_program(lowered, fast)
    compile_seconds = time.perf_counter() - began
    chip, program = topology.accelerator, read_program(compiled.as_text() or "")
    mesh = mesh_of(compiled)
    sizes: Mapping[str, int] = mesh.shape if mesh else {"device": 1}
    collectives = list_collectives(program, topology.chips)
    sending = 0.0
    if mesh and collectives:
        places = places_of(list(mesh.devices.flat), topology)
        sending = links_seconds(collectives, places, topology.shape, chip.interconnect)
    work = work_of(compiled, program, chip.matrix_width, sending)
    bounds = roofline(work, chip)
    return Plan(
        topology=topology.name,
        chips=topology.chips,
        mesh=dict(sizes),
        run=run,
        memory=memory_of(compiled.memory_analysis(), chip.memory),
        work=work,
        collectives=tuple(total_collectives(collectives, sizes)),
        bounds=bounds,
        parts=tuple(_parts(program, work, chip)),
        mfu=model_utilisation(run.model_flops, bounds.step, topology.chips, chip.flops),
        hardware_utilisation=hardware_utilisation(work, bounds.step, chip),
        images_per_second=run.batch_size / bounds.step,
        days=days(run.steps, bounds.step),
        compile_seconds=compile_seconds,
        notes=tuple(_notes(program, work)),
    )


def _parts(program: Program, work: Work, chip: Accelerator) -> list[Part]:
    return break_down(program, work.compiler_seconds, chip) if work.compiler_seconds else []


def work_of(
    compiled: jax.stages.Compiled, program: Program, matrix_width: int, links_seconds: float
) -> Work:
    """Gather what a step asks of each chip.

    XLA counts one turn of every loop. The further turns' matmuls are added; bytes and the
    compiler's time are taken to grow as the matmuls do.
    """
    costs = compiled.cost_analysis() or {}
    seconds, kernels = costs.get("optimal_seconds", -1.0), list_kernels(program)
    loops = loop_work(program)
    return Work(
        flops=float(costs.get("flops", 0.0)) + loops.all_turns - loops.one_turn,
        kernel_flops=float(sum(kernel.flops() for kernel in kernels)),
        padded_kernel_flops=float(sum(kernel.flops(matrix_width) for kernel in kernels)),
        bytes=float(costs.get("bytes accessed", 0.0)) * loops.ratio,
        # Negative where parts of collectives run beside arithmetic, whose times XLA cannot tell.
        compiler_seconds=float(seconds) * loops.ratio if seconds > 0 else None,
        links_seconds=float(links_seconds),
    )


def _notes(program: Program, work: Work) -> Iterator[str]:
    """What the numbers leave out, or count too often."""
    loops = loop_work(program)
    if loops.all_turns > loops.one_turn:
        yield (
            "XLA counts one turn of every loop: bytes and the compiler's time are multiplied by "
            f"{loops.ratio:.3g}, as its matmuls are with all turns."
        )
    if loops.untold:
        yield (
            f"{loops.untold} matmuls or convolutions are in loops that do not tell their number of "
            "turns, and count once: operations, bytes and time are larger than said."
        )
    unknown = sorted({kernel.name for kernel in list_kernels(program) if not kernel.matmuls})
    if unknown:
        yield f"Operations of these kernels are not counted: {', '.join(unknown)}."
    if work.compiler_seconds is None:
        yield "The compiler gives no time of its own: the step's is that of its largest term."
    if any(CHAIN_START in run.instruction.attributes for run in executions(program)):
        yield (
            "Collectives run in parts beside arithmetic, and XLA counts their bytes with each: "
            "less is moved from and to HBM than said."
        )
