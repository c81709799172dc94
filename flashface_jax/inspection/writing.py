"""Writes a report: the page, pictures, numbers and datasheet."""

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from PIL import Image

from flashface_jax.common.files import atomic_file
from flashface_jax.inspection.page.charts import picture_of
from flashface_jax.inspection.page.datasheet import datasheet
from flashface_jax.inspection.page.page import page
from flashface_jax.inspection.report import Report
from flashface_jax.inspection.sheets import (
    cluster_sheets,
    remove_stale,
    sample_sheet,
    write_png,
)


def write_report(report: Report, out: Path) -> list[Path]:
    """Write everything; sheets of an earlier report that this one has not are removed.

    Returns:
        The files, the page first.
    """
    out.mkdir(parents=True, exist_ok=True)
    written = [
        _write_text(out / "report.html", page(report)),
        _write_text(out / "datasheet.md", datasheet(report)),
        _write_text(out / "statistics.json", json.dumps(numbers(report), indent=2) + "\n"),
        *(write_png(out / name, image) for name, image in _pictures(report)),
    ]
    remove_stale(out, written)
    return written


def _write_text(path: Path, text: str) -> Path:
    with atomic_file(path) as draft:
        draft.write_text(text, encoding="utf-8")
    return path


def _pictures(report: Report) -> Iterator[tuple[str, Image.Image]]:
    """Names and pictures."""
    for number, sheet in enumerate(cluster_sheets(report.suspicious), start=1):
        yield f"clusters_{number}.png", sheet
    for sheet in cluster_sheets(report.ordinary):
        yield "clusters_ordinary.png", sheet
    if report.samples:
        yield "samples.png", sample_sheet(report.samples)
    charts = [
        picture_of(split.measures["cluster_sizes"], f"{split.split}: people by number of photos")
        for split in report.splits
    ]
    whole = Image.new("RGB", (charts[0].width, sum(chart.height for chart in charts)))
    for row, chart in enumerate(charts):
        whole.paste(chart, (0, row * chart.height))
    yield "sizes.png", whole


def numbers(report: Report) -> dict[str, Any]:
    """The report without pictures, as JSON holds it."""
    return {
        "build": asdict(report.build),
        "seed": report.seed,
        "limits": asdict(report.limits),
        "splits": [asdict(split) for split in report.splits],
        "suspicious_clusters": report.suspicious_total,
        "shown_clusters": [
            {
                "split": drawn.cluster.split,
                "identity": drawn.cluster.name,
                "photos": drawn.cluster.photos,
                "suspicions": [
                    {"kind": odd.kind, "words": odd.words, "share": odd.share}
                    for odd in drawn.cluster.found
                ],
            }
            for drawn in report.suspicious
        ],
        "samples": [
            {
                "identity": sample.name,
                "source_ids": sample.source_ids,
                "caption": sample.caption,
                "dropped": sample.dropped,
            }
            for sample in report.samples
        ],
        "throughput": None if report.throughput is None else asdict(report.throughput),
        "verifications": [
            {**asdict(verification), "whole": verification.whole}
            for verification in report.verifications
        ],
    }
