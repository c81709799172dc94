"""What a compiled program's devices send each other."""

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from flashface_jax.planning.hlo.text import Execution, Program, array_bytes, arrays, executions

KINDS = (
    "all-gather",
    "all-reduce",
    "reduce-scatter",
    "all-to-all",
    "collective-permute",
    "collective-broadcast",
    "ragged-all-to-all",
)
# A TPU's chain of fusions with computation in between: a start, some parts of it, and an end.
CHAINED, CHAIN_START = "chain_id=", '"AsyncCollectiveStart"'


@dataclass(frozen=True)
class Collective:
    """One exchange among groups of devices.

    Attributes:
        kind: one of `KINDS`.
        dtype: of what is sent, as XLA calls it.
        size: bytes of the whole: what an all-gather gives each device, what a reduce-scatter takes
            from each, what an all-reduce, all-to-all or permutation takes and gives.
        group: devices of the first group, numbered as in the program.
        count: times that it runs in one run of the program.
        in_loop: whether it is in a loop.
    """

    kind: str
    dtype: str
    size: int
    group: tuple[int, ...]
    count: int
    in_loop: bool


@dataclass(frozen=True)
class Total:
    """Collectives of one kind over the same axes of the mesh.

    Attributes:
        kind: of `Collective`.
        axes: the mesh's axes that the groups run along, joined by +.
        group_size: devices in a group.
        dtypes: what is sent, in alphabetical order.
        count: exchanges in one run of the program.
        size: bytes of all of them, as in `Collective`.
    """

    kind: str
    axes: str
    group_size: int
    dtypes: tuple[str, ...]
    count: int
    size: int


def list_collectives(program: Program, devices: int) -> list[Collective]:
    """Find all exchanges among several devices, asynchronous ones once.

    Args:
        program: the compiled program, of one device.
        devices: number of devices that it runs on.
    """
    runs = list(executions(program))
    starts = {run.computation for run in runs if CHAIN_START in run.instruction.attributes}
    found = [_collective(run, devices) for run in runs if _counts(run, starts)]
    return [one for one in found if len(one.group) > 1]


def total_collectives(collectives: Iterable[Collective], mesh: Mapping[str, int]) -> list[Total]:
    """Add up collectives by kind and axes of the mesh, the largest first.

    Args:
        collectives: of one run of a program.
        mesh: its axes and their sizes, `jax.sharding.Mesh.shape`.
    """
    sums: dict[tuple[str, str, int], list[Collective]] = {}
    for one in collectives:
        key = one.kind, mesh_axes(one.group, mesh), len(one.group)
        sums.setdefault(key, []).append(one)
    totals = [
        Total(
            *key,
            tuple(sorted({one.dtype for one in some})),
            sum(one.count for one in some),
            sum(one.count * one.size for one in some),
        )
        for key, some in sums.items()
    ]
    return sorted(totals, key=lambda total: (-total.size, total.kind, total.axes))


def mesh_axes(group: tuple[int, ...], mesh: Mapping[str, int]) -> str:
    """Name the axes along which a group's places in a mesh differ; "part of" if not wholly so."""
    places = np.unravel_index(group, tuple(mesh.values()))
    along = [name for name, place in zip(mesh, places, strict=True) if len(set(place.tolist())) > 1]
    whole = math.prod(mesh[name] for name in along)
    return ("" if len(group) == whole else "part of ") + "+".join(along)


def _kind(run: Execution) -> str:
    kind = run.instruction.operation.removesuffix("-start")
    # On TPUs, the fusion of an all-reduce and the choice of a shard: one pass over a ring, not two.
    scattered = kind == "all-reduce" and run.computation.startswith("all-reduce-scatter")
    return "reduce-scatter" if scattered else kind


def _counts(run: Execution, starts: set[str]) -> bool:
    chained = CHAINED in run.instruction.attributes and run.computation not in starts
    return _kind(run) in KINDS and not chained


def _collective(run: Execution, devices: int) -> Collective:
    instruction, kind = run.instruction, _kind(run)
    group = next(_groups(instruction.attributes, devices))
    size = array_bytes(instruction.type)
    if instruction.operation == "all-gather-start":  # gives back its operand, too
        size = size * len(group) // (len(group) + 1)
    if instruction.operation == "reduce-scatter":
        size *= len(group)
    first = arrays(instruction.type)[0]
    if instruction.operation == "collective-permute-start":  # and its operand and flags
        size = array_bytes(f"{first[0]}[{','.join(map(str, first[1]))}]")
    return Collective(kind, first[0], size, group, run.count, run.in_loop)


def _groups(attributes: str, devices: int) -> Iterator[tuple[int, ...]]:
    """Groups of devices, in the four ways that XLA writes them.

    Raises:
        ValueError: if they are written in another way.
    """
    if listed := re.search(
        r"(?:replica_groups|source_target_pairs)=\{\{([\d,{}]+)\}\}", attributes
    ):
        for group in listed[1].split("},{"):
            yield tuple(int(device) for device in group.split(","))
    elif iota := re.search(r"replica_groups=\[([\d,]+)\]<=(\[[^ ]+)", attributes):
        yield from map(tuple, _iota(iota[2]).reshape(_numbers(iota[1])).tolist())
    elif mesh := re.search(
        r"replica_groups=mesh\[([^\]]*)\](?:, device_ids=\(([^ ]+)\))? \{([^}]*)\}", attributes
    ):
        yield from _along_axes(mesh[1], mesh[2], mesh[3])
    elif "replica_groups={}" in attributes or "replica_groups" not in attributes:
        yield tuple(range(devices))
    else:
        text = attributes[attributes.index("replica_groups") :][:80]
        raise ValueError(f"The compiled program groups its devices in an unknown way: {text!r}.")


def _along_axes(axes: str, order: str | None, grouped: str) -> Iterator[tuple[int, ...]]:
    """Groups along some axes of a mesh, or along a part of one, as in 'a':(2)4 of 'a'=8."""
    sizes = {name: int(size) for name, size in re.findall(r"'([^']+)'=(\d+)", axes)}
    along = re.findall(r"'([^']+)'(?::\((\d+)\)(\d+))?", grouped)
    shape: list[int] = []
    moved: list[int] = []
    for name, size in sizes.items():
        parts = {
            (int(before or 1), int(part or size)) for one, before, part in along if one == name
        }
        for before, part in sorted(parts):
            moved.append(len(shape) + 1)
            shape += [before, part, size // (before * part)]
        shape += [] if parts else [size]
    everyone = _iota(order) if order else np.arange(int(np.prod(shape)))
    kept = [axis for axis in range(len(shape)) if axis not in moved]
    members = int(np.prod([shape[axis] for axis in moved]))
    grid = everyone.reshape(shape).transpose(*kept, *moved)
    yield from map(tuple, grid.reshape(-1, members).tolist())


def _iota(text: str) -> np.ndarray:
    """Devices 0, 1, ... by shape and order of axes: `[16]`, or `[4,4]T(1,0)`."""
    match = re.match(r"\[([\d,]+)\](?:T\(([\d,]+)\))?", text)
    assert match is not None
    shape = _numbers(match[1])
    everyone = np.arange(int(np.prod(shape))).reshape(shape)
    return everyone.transpose(_numbers(match[2])) if match[2] else everyone


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]
