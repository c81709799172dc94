"""Build the dataset id_clusters from a manifest of photos.

    python -m flashface_jax.data.build --source curated --out data

The source is a folder with a manifest.jsonl, as python -m flashface_jax.curation writes it, or such
a file. A line is a photo:

    {"photo": "ann/1.jpg", "identity": "Ann", "face_box": [310, 120, 530, 410],
     "landmarks": [[370, 230], [470, 228], [421, 290], [380, 345], [462, 343]],
     "caption": "a woman in red", "source_id": "flickr/123", "provenance": "CC0, flickr.com"}

face_box is x1, y1, x2, y2 and landmarks are both eyes, nose and mouth's corners from the image's
left, in pixels of the photo as it is looked at (turned as its EXIF says). Only photo, identity and
face_box are needed. Every photo that is not kept is counted, and named with the reason in
OUT/outcomes.jsonl. Stopped at any moment, the same command goes on.
"""

import argparse
import contextlib
import io
import json
import shutil
import sqlite3
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import tensorflow_datasets as tfds

from flashface_jax.common.errors import sentence, stopped
from flashface_jax.common.files import require_writable
from flashface_jax.data.building.examination import DROPS, NOTES, Form
from flashface_jax.data.building.lock import alone_in
from flashface_jax.data.building.preparation import BuildOptions
from flashface_jax.data.building.removals import Removals, in_vain, read_removals
from flashface_jax.data.dataset import VALIDATION, IdClusters
from flashface_jax.data.id_clusters.id_clusters_dataset_builder import OUTCOMES, Builder
from flashface_jax.data.manifest import find_manifest


def build(source: Path, out: Path, options: BuildOptions) -> Path:
    """Build the dataset below `out`, or go on with a build that was stopped there.

    Args:
        source: a manifest, or the folder that holds it.
        out: TFDS' data directory: the dataset becomes out/id_clusters/1.0.0.
        options: how it is built.

    Returns:
        The dataset's directory.

    Raises:
        ValueError: there is no manifest, the dataset exists already, or nothing can be kept.
        OSError: something cannot be written, as on a full disk.
    """
    manifest = find_manifest(source)
    require_writable(out)
    with alone_in(out):
        builder = Builder(source=source, options=options, data_dir=out)
        place = Path(builder.data_dir)
        try:
            if place.exists() and not builder.is_unfinished(manifest):
                raise ValueError(
                    f"{place} exists already: remove it, or build into another directory."
                )
            for left in place.parent.glob(f"incomplete.*_{place.name}"):  # by a killed build
                shutil.rmtree(left)
            _run(builder)
        except sqlite3.Error as error:
            raise OSError(f"{builder.staging_path}: {error}") from error
    return place


def _run(builder: Builder) -> None:
    """Build, or finish what was killed at its very end."""
    tfds.disable_progress_bar()  # the builder shows its own
    with tempfile.TemporaryDirectory() as unused, contextlib.redirect_stdout(io.StringIO()):
        builder.download_and_prepare(  # does nothing where the dataset is whole already
            download_dir=unused,
            download_config=tfds.download.DownloadConfig(compute_stats="skip"),
        )
    builder.finish()


def summary(place: Path) -> str:
    """What a dataset holds and what its build left out, as lines."""
    info = tfds.builder_from_directory(place).info
    outcomes, notes = dict(info.metadata["outcomes"]), info.metadata["notes"]
    clusters = info.metadata["clusters"]
    kept, photos = outcomes.pop("kept", 0), sum(info.metadata["outcomes"].values())
    lines = [f"{photos} photos in the manifest, {kept} kept"]
    lines += [f"  {n:8d} dropped: {name} ({DROPS[name]})" for name, n in outcomes.items()]
    lines += [f"  {n:8d} kept, but: {name} ({NOTES[name]})" for name, n in notes.items()]
    for split, where in clusters.items():
        lines.append(f"{split}: {where['offset'][-1]} photos of {len(where['identity'])} people")
    return "\n".join(lines)


def _held_out_by(path: Path | None) -> tuple[str, ...]:
    """People of a dataset's validation split; nobody if no dataset is named."""
    if path is None:
        return ()
    return tuple(IdClusters(path).photos(VALIDATION).clusters.identities)


def _unmatched(removals: Removals, out: Path) -> list[str]:
    """Entries of the list of removals that name nothing of the manifest."""
    if removals == Removals():
        return []
    with (out / OUTCOMES).open() as file:
        removed = [one for one in map(json.loads, file) if one["outcome"] == "removed"]
    return removals.unmatched((one["identity"], one["source_id"]) for one in removed)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    text = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="python -m flashface_jax.data.build", description=__doc__, formatter_class=text
    )
    form, default = Form(), BuildOptions()
    add = parser.add_argument
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
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 0 when the dataset is there, 1 on an error, 130 after Ctrl-C."""
    asked = parse(arguments)
    try:
        options = BuildOptions(
            form=Form(asked.longest_side, asked.quality, asked.reference_size, asked.check_pixels),
            held_out=asked.held_out,
            held_out_names=_held_out_by(asked.held_out_as),
            seed=asked.seed,
            shard_bytes=asked.shard_megabytes * 1_000_000,
            removals=Removals() if asked.remove is None else read_removals(asked.remove),
            threads=asked.threads,
        )
        place = build(asked.source, asked.out, options)
    except KeyboardInterrupt:
        return stopped("the same command goes on from here.")
    except (ValueError, OSError) as error:
        print(f"error: {sentence(error)}", file=sys.stderr)
        return 1
    print("\n".join([summary(place), *in_vain(_unmatched(options.removals, asked.out))]))
    print(f"wrote {place}, {asked.out / OUTCOMES}")
    print(f"look at it: python -m flashface_jax.inspection.command {place}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
