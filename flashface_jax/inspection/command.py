"""Look at a dataset id_clusters: a page, contact sheets, numbers, and a datasheet to fill in.

    flashface data inspect data --out inspection
    flashface data inspect data --verify

Writes OUT/report.html (one page that needs nothing else, 12 MB at most with the default options:
numbers, suspicious clusters with their photos, and what the model sees), the same pictures as PNG
files, OUT/statistics.json and OUT/datasheet.md. By default some thousand photos of each split are
read, all of some people, drawn with a seed; the sizes of clusters are always those of the whole
dataset. The page and the pictures show faces and names: keep them as private as the dataset.

--verify reads every record, decodes every picture and computes the checksum of the contents anew;
the command exits with 1 if something is wrong, and names it, as it does without --verify if a
record cannot be read.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from flashface_jax.common.command_line import FAILED, Parser, run_command
from flashface_jax.common.files import require_exists
from flashface_jax.inspection.options import InspectOptions


def make_parser(prog: str) -> Parser:
    """Describe the command line."""
    parser = Parser(prog=prog, description=__doc__)
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
    return parser


def _add_training_options(parser: Parser) -> None:
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


def main(arguments: Sequence[str] | None = None, prog: str = "flashface data inspect") -> int:
    """Run the command; 0 when the report is written, 1 on an error or damage, 130 after Ctrl-C."""
    return run_command(partial(_run, arguments, prog), on_stop="the same command begins again.")


def _run(arguments: Sequence[str] | None, prog: str) -> int:
    asked = make_parser(prog).parse_args(arguments)
    require_exists(asked.dataset, "a dataset's directory, or the one above it")
    from flashface_jax.inspection.run import complain, run, said  # noqa: PLC0415  (slow to import)

    report, written = run(asked)
    print(f"{said(report)}\nwrote {', '.join(map(str, written))}")
    print("They show faces and names: keep them as private as the dataset.")
    complain(report)
    return 0 if report.whole else FAILED
