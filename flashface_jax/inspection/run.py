"""Inspecting as a command line asks for it, and what is said of it on the terminal."""

import argparse
import sys
from pathlib import Path

from flashface_jax.common.files import require_writable
from flashface_jax.data.dataset import IdClusters
from flashface_jax.inspection.inspecting import inspect_dataset
from flashface_jax.inspection.options import InspectOptions
from flashface_jax.inspection.page.page import checksum_words
from flashface_jax.inspection.report import Report
from flashface_jax.inspection.writing import write_report
from flashface_jax.weights.tokenizer import Tokenizer

PROBLEMS_PRINTED = 20
REMEDY = (
    "Restore the dataset from a copy or build it again; photos that never decoded are taken out "
    "with flashface data remove."
)


def run(asked: argparse.Namespace) -> tuple[Report, list[Path]]:
    """Inspect and write.

    Returns:
        The report, and the files that were written.

    Raises:
        ValueError: naming what is wrong with the dataset or an option.
    """
    names = InspectOptions.__dataclass_fields__
    options = InspectOptions(**{name: getattr(asked, name) for name in names})
    dataset = IdClusters(asked.dataset)
    splits = dataset.splits if asked.split is None else [asked.split]
    out = asked.out.resolve()
    if out.is_relative_to(dataset.path.resolve()):
        raise ValueError(f"{asked.out} is in the dataset: name another folder with --out.")
    require_writable(out)
    tokenizer = None if asked.tokenizer is None else Tokenizer.from_directory(asked.tokenizer)
    report = inspect_dataset(dataset, splits, options, tokenizer)
    return report, write_report(report, asked.out)


def said(report: Report) -> str:
    """The report in a few lines."""
    lines = []
    for split in report.splits:
        lines.append(
            f"{split.split}: {split.photos} photos of {split.identities} people, "
            f"{split.photos_read} read; {split.suspicious_clusters} of {split.identities_read} "
            "clusters read look odd"
        )
    if (rates := report.throughput) is not None:
        lines.append(
            f"training's pipeline: {rates.samples_per_second:.1f} samples/s, "
            f"{rates.images_per_second:.1f} images/s; decoding alone would allow "
            f"{rates.decoded_samples_per_second:.1f} and {rates.decoded_images_per_second:.1f}"
        )
    lines += [f"{check.split}: verified, whole" for check in report.verifications if check.whole]
    return "\n".join(lines)


def complain(report: Report) -> None:
    """Say on stderr what is wrong with the dataset."""
    for split, count in report.unreadable.items():
        print(
            f"error: {count} of the records of {split} that were tried cannot be read: files of "
            f"the dataset are damaged or missing; --verify names the records. {REMEDY}",
            file=sys.stderr,
        )
    for check in report.verifications:
        if check.whole:
            continue
        for problem in check.problems[:PROBLEMS_PRINTED]:
            print(f"{check.split}: {problem}", file=sys.stderr)
        more = len(check.problems) + check.further_problems - PROBLEMS_PRINTED
        if more > 0:
            print(f"{check.split}: and {more} more; statistics.json lists them", file=sys.stderr)
        print(f"error: {check.split} is damaged. {checksum_words(check)} {REMEDY}", file=sys.stderr)
