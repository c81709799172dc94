"""Build the dataset id_clusters from a manifest of photos.

    flashface data build --source curated --out data

The source is a folder with a manifest.jsonl, as flashface curate writes it, or such a file. A line
is a photo:

    {"photo": "ann/1.jpg", "identity": "Ann", "face_box": [310, 120, 530, 410],
     "landmarks": [[370, 230], [470, 228], [421, 290], [380, 345], [462, 343]],
     "caption": "a woman in red", "source_id": "flickr/123", "provenance": "CC0, flickr.com"}

face_box is x1, y1, x2, y2 and landmarks are both eyes, nose and mouth's corners from the image's
left, in pixels of the photo as it is looked at (turned as its EXIF says). Only photo, identity and
face_box are needed. Every photo that is not kept is counted, and named with the reason in
OUT/outcomes.jsonl. Stopped at any moment, the same command goes on.
"""

import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from flashface_jax.common.command_line import Parser, run_command
from flashface_jax.data.building.options import BuildOptions, PhotoFormat
from flashface_jax.data.building.removals import Removals, in_vain, read_removals
from flashface_jax.data.manifest import find_manifest


def make_parser(prog: str) -> Parser:
    """Describe the command line."""
    parser = Parser(prog=prog, description=__doc__)
    default, add = BuildOptions(), parser.add_argument
    add("--source", type=Path, required=True, help="a manifest, or the folder that holds it")
    add("--out", type=Path, required=True, help="directory for the dataset (TFDS' data_dir)")
    add(
        "--held-out",
        type=int,
        default=default.held_out,
        help="identities in the validation split, a tenth of all at most (default: %(default)s)",
    )
    add(
        "--held-out-as",
        type=Path,
        metavar="DATASET",
        help="hold out whom this dataset holds out, as far as they have photos, in place of "
        "drawing them: nobody changes sides when people are added or removed",
    )
    add("--seed", type=int, default=0, help="of the choice of held-out identities (default: 0)")
    add("--remove", type=Path, help="list of removals: lines 'identity: NAME', 'source_id: ID'")
    _add_storage(parser)
    return parser


def _add_storage(parser: Parser) -> None:
    """Options of how photos are examined and stored."""
    form, default, add = PhotoFormat(), BuildOptions(), parser.add_argument
    add(
        "--reference-size",
        type=int,
        default=0,
        metavar="PIXELS",
        help="also store upright face crops of this side, which makes training read much less "
        "(224 for the paper's networks; default: none)",
    )
    add(
        "--longest-side",
        type=int,
        default=form.longest_side,
        metavar="PIXELS",
        help="reduce longer photos to this (default: %(default)s)",
    )
    add(
        "--quality",
        type=int,
        default=form.quality,
        help="of JPEGs that must be encoded anew (default: %(default)s)",
    )
    add(
        "--check-pixels",
        action="store_true",
        help="decode every photo to see that it is whole, which takes four times as long; done "
        "anyway where face crops are stored",
    )
    add(
        "--shard-megabytes",
        type=int,
        default=default.shard_bytes // 1_000_000,
        help="pictures in a file of the dataset (default: %(default)s)",
    )
    add(
        "--threads",
        type=int,
        default=default.threads,
        help="photos examined at the same time (default: the machine's cores)",
    )


def main(arguments: Sequence[str] | None = None, prog: str = "flashface data build") -> int:
    """Run the command; 0 when the dataset is there, 1 on an error, 130 after Ctrl-C."""
    on_stop = "the same command goes on from here."
    return run_command(partial(_run, arguments, prog), on_stop=on_stop)


def _run(arguments: Sequence[str] | None, prog: str) -> None:
    asked = make_parser(prog).parse_args(arguments)
    find_manifest(asked.source)
    options = BuildOptions(
        form=PhotoFormat(
            asked.longest_side, asked.quality, asked.reference_size, asked.check_pixels
        ),
        held_out=asked.held_out,
        seed=asked.seed,
        shard_bytes=asked.shard_megabytes * 1_000_000,
        removals=Removals() if asked.remove is None else read_removals(asked.remove),
        threads=asked.threads,
    )
    from flashface_jax.data.id_clusters import build as building  # noqa: PLC0415  (slow to import)

    options = replace(options, held_out_names=building.held_out_by(asked.held_out_as))
    place = building.build(asked.source, asked.out, options)
    unmatched = building.unmatched(options.removals, asked.out)
    print("\n".join([building.summary(place), *in_vain(unmatched)]))
    print(f"wrote {place}, {asked.out / building.OUTCOMES}")
    print(f"look at it: flashface data inspect {place}")


if __name__ == "__main__":
    sys.exit(main(prog="python -m flashface_jax.data.build"))
