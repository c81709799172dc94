"""A datasheet for the dataset: measured numbers filled in, and blanks that only the owner fills.

Source of the questions' order: Gebru et al., Datasheets for Datasets, 2021.
"""

import string
from collections import Counter
from collections.abc import Iterable, Sequence
from importlib import resources

from flashface_jax.data.building.outcomes import DROPS, NOTES
from flashface_jax.inspection.measuring.statistics import SplitStatistics
from flashface_jax.inspection.page.charts import number
from flashface_jax.inspection.page.markup import counted, markdown, size
from flashface_jax.inspection.report import Build, Report


def datasheet(report: Report) -> str:
    """The datasheet in Markdown."""
    template = resources.files(__package__).joinpath("datasheet.md").read_text(encoding="utf-8")
    build = report.build
    return string.Template(template).substitute(
        name=markdown(build.name),
        composition="\n".join(_composition(split) for split in report.splits),
        quantities="\n\n".join(_quantities(split) for split in report.splits),
        flaws="\n\n".join(_flaws(split) for split in report.splits),
        provenances=_provenances(report.splits),
        longest_side=build.form.get("longest_side", 0),
        build="\n".join(_build(build)),
        checksums=_table(["split", "checksum"], build.contents.items()),
        seed=report.seed,
        read="; ".join(
            f"{split.photos_read:,} of {counted(split.photos, 'photo')} of {markdown(split.split)} "
            "were read"
            for split in report.splits
        )
        + ".",
    )


def _composition(split: SplitStatistics) -> str:
    sizes = split.measures["cluster_sizes"]
    crops = f" and {size(split.reference_bytes)} of face crops" if split.reference_bytes else ""
    return (
        f"- Split {markdown(split.split)}: {counted(split.photos, 'photo')} of "
        f"{counted(split.identities, 'person', 'people')}, {number(sizes.smallest)} to "
        f"{number(sizes.largest)} each (median {number(sizes.median)}); "
        f"{size(split.bytes_on_disk)} of photos{crops}. With fewer than two photos, and so not "
        f"trained on: {counted(split.alone, 'person', 'people')}."
    )


def _quantities(split: SplitStatistics) -> str:
    head = [f"{markdown(split.split)}", "smallest", "5 %", "median", "95 %", "largest"]
    rows = [
        [m.name, *map(number, (m.smallest, m.low, m.median, m.high, m.largest))]
        for m in split.measures.values()
    ]
    return _table(head, rows)


def _flaws(split: SplitStatistics) -> str:
    head = [f"{markdown(split.split)}: of {counted(split.photos_read, 'photo')} read", "photos"]
    return _table(head, ([name, f"{count:,}"] for name, count in split.counts.items()))


def _provenances(splits: Sequence[SplitStatistics]) -> str:
    named: Counter[str] = Counter()
    for split in splits:
        named.update(dict(split.provenances))
    rows = [[markdown(name) or "not known", f"{count:,}"] for name, count in named.most_common()]
    if others := sum(split.other_provenances for split in splits):
        rows.append(["others", f"{others:,}"])
    return _table(["provenance", "photos read"], rows)


def _build(build: Build) -> list[str]:
    outcomes = dict(build.outcomes)
    kept, total = outcomes.pop("kept", 0), sum(build.outcomes.values())
    lines = [f"- Of {counted(total, 'photo')} in the manifest, {kept:,} were kept."]
    lines += [_outcome("Dropped", name, n, DROPS) for name, n in outcomes.items()]
    return lines + [_outcome("Kept with a note", name, n, NOTES) for name, n in build.notes.items()]


def _outcome(what: str, name: str, count: int, meanings: dict[str, str]) -> str:
    return f"- {what}: {count:,} ({meanings.get(name) or markdown(name)})."


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
