"""Plans as tables: for a terminal, and in Markdown."""

from collections.abc import Callable, Sequence

from flashface_jax.planning.breakdown import Part
from flashface_jax.planning.hlo.collectives import Total
from flashface_jax.planning.plan import Plan

GIB, TERA, GIGA = 1 << 30, 1e12, 1e9
LABEL_WIDTH = 38
NOTICEABLE = 0.005  # share of the time

Row = list[str]
"""A label and a cell for each plan; a label alone is a heading."""


def table(plans: Sequence[Plan]) -> str:
    """Draw plans side by side, one a column; four fit in 100 columns."""
    rows = _rows(plans)
    cells = [row[1:] for row in rows if len(row) > 1]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join(_line(row, widths) for row in rows) + _notes(plans, "  ")


def markdown(plans: Sequence[Plan]) -> str:
    """Write plans side by side as a Markdown table, headings in bold."""
    header, *rows = _rows(plans)
    empty = [""] * len(plans)
    body = [row if len(row) > 1 else [f"**{row[0]}**", *empty] for row in rows]
    lines = [header, ["---", *["---:"] * len(plans)], *body]
    return "\n".join(f"| {' | '.join(row)} |" for row in lines) + _notes(plans, "- ")


def _line(row: Row, widths: Sequence[int]) -> str:
    if len(row) == 1:
        return row[0]
    cells = (cell.rjust(width) for cell, width in zip(row[1:], widths, strict=True))
    return f"  {row[0]:{LABEL_WIDTH}s}  {'  '.join(cells)}"


def _notes(plans: Sequence[Plan], mark: str) -> str:
    notes = [f"{plan.topology}: {note}" for plan in plans for note in plan.notes]
    return "".join(f"\n{mark}{note}" for note in notes)


def _rows(plans: Sequence[Plan]) -> list[Row]:
    def row(label: str, cell: Callable[[Plan], str]) -> Row:
        return [label, *map(cell, plans)]

    steps = f"{plans[0].run.steps:,}"
    return [
        row("", lambda plan: plan.topology),
        row("chips", lambda plan: f"{plan.chips}"),
        *_mesh_rows(plans),
        row("images a step", lambda plan: f"{plan.run.batch_size}"),
        row("images a step and chip", lambda plan: f"{plan.run.batch_size / plan.chips:g}"),
        ["memory of a chip, GiB"],
        row("state and batch", lambda plan: f"{plan.memory.arguments / GIB:.2f}"),
        row("temporary", lambda plan: f"{plan.memory.temporary / GIB:.2f}"),
        row("results", lambda plan: f"{plan.memory.outputs / GIB:.2f}"),
        row("needed", lambda plan: f"{plan.memory.needed / GIB:.2f}"),
        row("there is", lambda plan: f"{plan.memory.available / GIB:.2f}"),
        row("spare", lambda plan: f"{plan.memory.spare:.0%}"),
        row("fits with a tenth to spare", lambda plan: "yes" if plan.memory.fits else "NO"),
        ["work of a step on a chip"],
        row("TFLOP outside of attention kernels", lambda plan: f"{plan.work.flops / TERA:.4g}"),
        row("TFLOP of attention kernels", lambda plan: f"{plan.work.kernel_flops / TERA:.4g}"),
        row(
            "the same, padded to the matrix unit",
            lambda plan: f"{plan.work.padded_kernel_flops / TERA:.4g}",
        ),
        row("GB from and to HBM", lambda plan: f"{plan.work.bytes / GIGA:.4g}"),
        *_collective_rows(plans),
        ["least time of a step, ms"],
        row("arithmetic", lambda plan: f"{1e3 * plan.bounds.arithmetic:.2f}"),
        row("memory", lambda plan: f"{1e3 * plan.bounds.memory:.2f}"),
        row("links between chips", lambda plan: f"{1e3 * plan.bounds.links:.2f}"),
        row("step", lambda plan: f"{1e3 * plan.bounds.step:.2f}"),
        row("limited by", lambda plan: plan.bounds.limit),
        *_part_rows(plans),
        ["at best"],
        row("images a second", lambda plan: f"{plan.images_per_second:,.0f}"),
        row(f"days for {steps} steps", lambda plan: f"{plan.days:.3g}"),
        row("model FLOPs utilisation (MFU)", lambda plan: f"{plan.mfu:.0%}"),
        row("hardware utilisation", lambda plan: f"{plan.hardware_utilisation:.0%}"),
        ["compilation"],
        row("seconds", lambda plan: f"{plan.compile_seconds:.0f}"),
    ]


def _mesh_rows(plans: Sequence[Plan]) -> list[Row]:
    axes = dict.fromkeys(axis for plan in plans for axis in plan.mesh)
    return [[f"chips along {axis}", *(str(p.mesh.get(axis, "-")) for p in plans)] for axis in axes]


def _collective_rows(plans: Sequence[Plan]) -> list[Row]:
    """What chips send each other, a row for each kind and axes that any plan has."""
    keys = dict.fromkeys((total.kind, total.axes) for plan in plans for total in plan.collectives)
    if not keys:
        return []
    rows: list[Row] = [["collectives of a step: number, GB"]]
    for kind, axes in keys:
        found = (
            [t for t in plan.collectives if (t.kind, t.axes) == (kind, axes)] for plan in plans
        )
        rows.append([f"{kind} over {axes}", *map(_count_and_size, found)])
    return rows


def _part_rows(plans: Sequence[Plan]) -> list[Row]:
    """What a step's work takes: a row for each noticeable part of the model, one for each kind."""
    if not any(plan.parts for plan in plans):
        return []
    names = dict.fromkeys(
        part.name
        for plan in plans
        for part in plan.parts
        if part.total >= NOTICEABLE * sum(each.total for each in plan.parts)
    )
    kinds: dict[str, Callable[[Part], float]] = {
        "all attention kernels": lambda part: part.kernels,
        "all matmuls, with what is fused": lambda part: part.matmuls,
        "all else: norms, sums, copies": lambda part: part.rest,
    }

    def row(label: str, seconds: Callable[[Part], float]) -> Row:
        return [
            label,
            *(f"{1e3 * sum(map(seconds, p.parts)):.2f}" if p.parts else "-" for p in plans),
        ]

    def in_part(name: str) -> Callable[[Part], float]:
        return lambda part: part.total if part.name == name else 0.0

    return [
        ["the compiler's estimate without links, ms"],
        *(row(name, in_part(name)) for name in names),
        *(row(label, seconds) for label, seconds in kinds.items()),
    ]


def _count_and_size(totals: Sequence[Total]) -> str:
    if not totals:
        return "-"
    count, size = sum(t.count for t in totals), sum(t.size for t in totals)
    return f"{count}, {size / GIGA:.3g}"
