"""Compiled programs as XLA writes them: which instructions run, and how often.

XLA has no public way to walk a compiled program but its text, `jax.stages.Compiled.as_text()`.
Only what is needed is read of it: names, types, operations, operands and attributes.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"^\s+(ROOT )?%?([\w.\-]+) = (.*)$")
_ARRAY = re.compile(r"\b(pred|bf16|[sufc]\d+\w*)\[([\d,]*)\]")


@dataclass(frozen=True)
class Instruction:
    """One line of a compiled program.

    Attributes:
        name: as the program calls it, without the percent sign.
        type: of its result, e.g. `bf16[8,128]{1,0}`, or several in parentheses.
        operation: e.g. `all-gather`.
        operands: what stands in its parentheses.
        attributes: what stands behind them.
        root: whether it is the result of its computation.
    """

    name: str
    type: str
    operation: str
    operands: str
    attributes: str
    root: bool


@dataclass(frozen=True)
class Execution:
    """An instruction where it runs.

    Attributes:
        instruction: the instruction.
        computation: name of the computation that it is in.
        count: times that it runs in one run of the program, as far as loops tell their turns.
        in_loop: whether it is in a loop.
        counted: whether all loops around it tell their turns; others count as one turn.
    """

    instruction: Instruction
    computation: str
    count: int
    in_loop: bool
    counted: bool


@dataclass
class Program:
    """Computations by name, and the name of the one that is the program."""

    computations: dict[str, list[Instruction]] = field(default_factory=dict)
    entry: str = ""


def read_program(text: str) -> Program:
    """Read a compiled program.

    Raises:
        ValueError: if the text is no program of XLA's.
    """
    program, current = Program(), None
    for line in text.splitlines():
        if header := _COMPUTATION.match(line):
            current = program.computations.setdefault(header[2], [])
            program.entry = header[2] if header[1] else program.entry
        elif current is not None and (match := _INSTRUCTION.match(line)):
            current.append(_instruction(match[2], match[3], bool(match[1])))
        elif line.startswith("}") and line.strip() == "}":
            current = None
        elif current:  # a kernel's attributes go on over several lines
            current[-1] = replace(current[-1], attributes=f"{current[-1].attributes}\n{line}")
    if not program.entry:
        raise ValueError("The text of the compiled program cannot be read: it has no ENTRY.")
    return program


def executions(program: Program) -> Iterator[Execution]:
    """Go through every instruction that runs, in fusions, loops and branches too."""
    yield from _within(program, program.entry, count=1, in_loop=False, counted=True)


def array_bytes(type_: str) -> int:
    """Bytes of all arrays of a type, without padding."""
    return sum(_bits(dtype) * _elements(sizes) for dtype, sizes in _ARRAY.findall(type_)) // 8


def arrays(type_: str) -> list[tuple[str, tuple[int, ...]]]:
    """Dtype and shape of each array of a type."""
    found = _ARRAY.findall(type_)
    return [(dtype, tuple(int(n) for n in sizes.split(",") if n)) for dtype, sizes in found]


def _bits(dtype: str) -> int:
    digits = re.search(r"\d+", dtype)
    return int(digits[0]) if digits else 8  # pred


def _elements(sizes: str) -> int:
    elements = 1
    for size in sizes.split(","):
        elements *= int(size) if size else 1
    return elements


def _instruction(name: str, text: str, root: bool) -> Instruction:
    end = _closing(text, 0) + 1 if text.startswith("(") else text.index(" ")
    type_, rest = text[:end], text[end:].strip()
    opening = rest.index("(")
    closing = _closing(rest, opening)
    operation, operands = rest[:opening], rest[opening + 1 : closing]
    return Instruction(name, type_, operation, operands, rest[closing + 1 :], root)


def _closing(text: str, opening: int) -> int:
    """Place of the parenthesis that closes one; the end where it is on another line."""
    depth = 0
    for place in range(opening, len(text)):
        depth += (text[place] == "(") - (text[place] == ")")
        if depth == 0:
            return place
    return len(text)


def _within(
    program: Program, computation: str, *, count: int, in_loop: bool, counted: bool
) -> Iterator[Execution]:
    for instruction in program.computations.get(computation, []):
        yield Execution(instruction, computation, count, in_loop, counted)
        loop = instruction.operation == "while"
        turns = _turns(program, instruction) if loop else 1
        for called in _called(instruction):
            yield from _within(
                program,
                called,
                count=count * (turns or 1),
                in_loop=in_loop or loop,
                counted=counted and turns is not None,
            )


def _called(instruction: Instruction) -> list[str]:
    """Computations that an instruction runs; the second half of an asynchronous one runs none."""
    if instruction.operation in ("async-update", "async-done"):
        return []
    found = re.findall(r"\b(?:calls|body|to_apply)=%?([\w.\-]+)", instruction.attributes)
    branches = re.search(r"branch_computations=\{([^}]*)\}", instruction.attributes)
    if branches:
        found += [name.strip().lstrip("%") for name in branches[1].split(",")]
    either = r"\b(?:true|false)_computation=%?([\w.\-]+)"
    return found + re.findall(either, instruction.attributes)


def _turns(program: Program, loop: Instruction) -> int | None:
    """Turns of a loop: as XLA notes them, or of a count from 0 in steps of 1 as JAX writes it."""
    if known := re.search(r'"known_trip_count":\{"n":"(\d+)"', loop.attributes):
        return int(known[1])
    condition = re.search(r"condition=%?([\w.\-]+)", loop.attributes)
    inside = program.computations.get(condition[1], []) if condition else []
    constants = {one.name: one.operands for one in inside if one.operation == "constant"}
    for one in inside:
        if one.root and one.operation == "compare" and "direction=LT" in one.attributes:
            bound = constants.get(one.operands.split(",")[-1].split()[-1].lstrip("%"), "")
            return int(bound) if bound.isdigit() else None
    return None
