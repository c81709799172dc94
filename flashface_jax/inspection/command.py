"""Look at a dataset id_clusters: a page, contact sheets, numbers, and a datasheet to fill in.

    python -m flashface_jax.inspection.command data --out inspection
    python -m flashface_jax.inspection.command data --verify

Writes OUT/report.html (one page that needs nothing else, 12 MB at most with the default options:
numbers, suspicious clusters with their photos, and what the model sees), the same pictures as PNG
files, OUT/statistics.json and OUT/datasheet.md. By default some thousand photos of each split are
read, all of some people, drawn with a seed; the sizes of clusters are always those of the whole
dataset. The page and the pictures show faces and names: keep them as private as the dataset.

--verify reads every record, decodes every picture and computes the checksum of the contents anew;
the command exits with 1 if something is wrong, and names it, as it does without --verify if a
record cannot be read.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from flashface_jax.common.errors import sentence, stopped
from flashface_jax.common.files import require_writable
from flashface_jax.data.dataset import IdClusters
from flashface_jax.inspection.inspecting import InspectOptions, inspect_dataset
from flashface_jax.inspection.page.page import checksum_words
from flashface_jax.inspection.report import Report
from flashface_jax.inspection.writing import write_report
from flashface_jax.weights.tokenizer import Tokenizer

PROBLEMS_PRINTED = 20
REMEDY = (
    "Restore the dataset from a copy or build it again; photos that never decoded are taken out "
    "with python -m flashface_jax.data.remove."
)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    text = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="python -m flashface_jax.inspection.command", description=__doc__, formatter_class=text
    )
    default, add = InspectOptions(), parser.add_argument
    add("dataset", type=Path, metavar="DIR", help="a dataset, or TFDS' data_dir above it")
    add(
        "--out",
        type=Path,
        default=Path("inspection"),
        help="folder to write (default: %(default)s)",
    )
    add("--split", help="look at this split alone (default: all)")
    add(
        "--sample",
        type=int,
        default=default.sample,
        metavar="PHOTOS",
        help="photos to read of each split, about; 0 for all (default: %(default)s)",
    )
    add("--seed", type=int, default=0, help="of what is read and drawn (default: %(default)s)")
    add("--verify", action="store_true", help="check every record and the checksum")
    add(
        "--clusters",
        type=int,
        default=default.clusters,
        help="suspicious clusters to show, 200 at most; each takes about 0.1 MB of the page "
        "(default: %(default)s)",
    )
    add(
        "--samples",
        type=int,
        default=default.samples,
        help="training samples to show, 50 at most (default: %(default)s)",
    )
    _add_training_options(parser)
    return parser.parse_args(arguments)


def _add_training_options(parser: argparse.ArgumentParser) -> None:
    """Options of what the model sees, and how fast."""
    default, add = InspectOptions(), parser.add_argument
    for name, of in {"image": "targets", "reference": "references"}.items():
        size = getattr(default, f"{name}_size")
        said = f"side of the samples' {of} in pixels (default: %(default)s)"
        add(f"--{name}-size", type=int, default=size, metavar="PIXELS", help=said)
    add("--tokenizer", type=Path, metavar="DIR", help="the text tower's: counts captions' tokens")
    add(
        "--seconds",
        type=float,
        default=default.seconds,
        help="to measure training's input pipeline for, twice; 0 skips it (default: %(default)s)",
    )
    add(
        "--threads",
        type=int,
        default=default.threads,
        help="photos read at the same time (default: the machine's cores)",
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


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 0 when the report is written, 1 on an error or damage, 130 after Ctrl-C."""
    asked = parse(arguments)
    try:
        report, written = run(asked)
    except KeyboardInterrupt:
        return stopped("the same command begins again.")
    except (ValueError, OSError) as error:
        print(f"error: {sentence(error)}", file=sys.stderr)
        return 1
    print(f"{said(report)}\nwrote {', '.join(map(str, written))}")
    print("They show faces and names: keep them as private as the dataset.")
    complain(report)
    return 0 if report.whole else 1


if __name__ == "__main__":
    sys.exit(main())
