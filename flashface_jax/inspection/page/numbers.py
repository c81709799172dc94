"""The page's parts without pictures: numbers, the build, throughput."""

from collections.abc import Mapping

from flashface_jax.data.building.outcomes import DROPS, NOTES
from flashface_jax.inspection.measuring.statistics import Measure, SplitStatistics
from flashface_jax.inspection.measuring.throughput import Throughput
from flashface_jax.inspection.page.charts import number, svg_bars
from flashface_jax.inspection.page.markup import counted, size, table, text
from flashface_jax.inspection.report import Build, Report


def _tile(value: str, name: str) -> str:
    return f'<div class="tile"><b>{value}</b><span>{name}</span></div>'


def split_numbers(split: SplitStatistics) -> str:
    """Tiles, charts and tables of a split."""
    tiles = [
        _tile(f"{split.identities:,}", "people"),
        _tile(f"{split.photos:,}", "photos"),
        _tile(size(split.bytes_on_disk), "of photos"),
    ]
    if split.reference_bytes:
        tiles.append(_tile(size(split.reference_bytes), "of stored face crops"))
    tiles.append(_tile(f"{split.alone:,}", "people with under 2 photos, not trained on"))
    odd = f"{split.suspicious_clusters:,} of {split.identities_read:,}"
    tiles.append(_tile(odd, "clusters read look odd"))
    charts = [
        f'<div class="card"><h3>{_title(measure)}</h3>'
        f"{svg_bars(measure, 'people' if name == 'cluster_sizes' else 'photos')}</div>"
        for name, measure in split.measures.items()
    ]
    return (
        f'<h3 class="split">{text(split.split)}</h3>'
        f'<div class="tiles">{"".join(tiles)}</div><div class="charts">{"".join(charts)}</div>'
        f'<div class="card"><h3>Quantities</h3>{_measures(split)}</div><div class="pair">'
        f'<div class="card"><h3>Among the {counted(split.photos_read, "photo")} read</h3>'
        f"{_counts(split)}</div>"
        '<div class="card"><h3>Where the photos read are from</h3>'
        f"{_provenances(split)}</div></div>"
    )


def _title(measure: Measure) -> str:
    return measure.name[0].upper() + measure.name[1:]


def _measures(split: SplitStatistics) -> str:
    head = ["", "smallest", "5 %", "median", "mean", "95 %", "largest"]
    names = ("smallest", "low", "median", "mean", "high", "largest")
    rows = [
        [measure.name, *(number(getattr(measure, name)) for name in names)]
        for measure in split.measures.values()
    ]
    return table(head, rows, numbers=range(1, 7))


def _counts(split: SplitStatistics) -> str:
    whole = max(1, split.photos_read)
    rows = [
        [name, f"{count:,}", f"{100 * count / whole:.1f} %"] for name, count in split.counts.items()
    ]
    return table(["property", "photos", "share"], rows, numbers=(1, 2))


def _provenances(split: SplitStatistics) -> str:
    rows = [[text(name) if name else "not known", f"{n:,}"] for name, n in split.provenances]
    if split.other_provenances:
        rows.append(["others", f"{split.other_provenances:,}"])
    return table(["provenance", "photos"], rows, numbers=(1,))


def build_numbers(build: Build) -> str:
    """What the build kept, changed and dropped."""
    outcomes = dict(build.outcomes)
    kept, total = outcomes.pop("kept", 0), sum(build.outcomes.values())
    side = build.form.get("reference_size", 0)
    crops = f"Face crops of {side} pixels are" if side else "No face crops are"
    checksums = [
        [text(split), f"<code>{text(digest)}</code>"] for split, digest in build.contents.items()
    ]
    return (
        f"<p>The manifest named {counted(total, 'photo')}; {kept:,} were kept, at most "
        f"{build.form.get('longest_side', 0):,} pixels long. {crops} stored beside them.</p>"
        f'<div class="card">{_outcomes(outcomes, build.notes)}</div>'
        '<div class="card"><h3>Checksums of the contents</h3>'
        f"{table(['split', 'checksum'], checksums)}</div>"
    )


def _outcomes(dropped: Mapping[str, int], notes: Mapping[str, int]) -> str:
    rows = [(f"dropped: {name}", DROPS.get(name, ""), n) for name, n in dropped.items()]
    rows += [(f"kept, but: {name}", NOTES.get(name, ""), n) for name, n in notes.items()]
    if not rows:
        return "Nothing was dropped or changed."
    cells = [[text(outcome), text(meaning), f"{n:,}"] for outcome, meaning, n in rows]
    return table(["outcome", "meaning", "photos"], cells, numbers=(2,))


def rates(report: Report) -> str:
    """How fast samples are made; empty if it was not measured."""
    if report.throughput_problem:
        return f"<p>Not measured: {text(report.throughput_problem)}</p>"
    if report.throughput is None:
        return ""
    measured: Throughput = report.throughput
    rows = [
        [
            "training's pipeline",
            f"{measured.samples_per_second:,.1f}",
            f"{measured.images_per_second:,.1f}",
        ],
        [
            "only decoding the JPEGs",
            f"{measured.decoded_samples_per_second:,.1f}",
            f"{measured.decoded_images_per_second:,.1f}",
        ],
    ]
    share = measured.samples_per_second / measured.decoded_samples_per_second
    head = ["", "samples a second", "images a second"]
    return (
        f"<p>On this machine, in one process with {counted(measured.threads, 'thread')}, each "
        f"measured for {measured.seconds:g} s: the pipeline reaches {100 * share:.0f} % of what "
        f'decoding alone allows.</p><div class="card">{table(head, rows, numbers=(1, 2))}</div>'
    )
