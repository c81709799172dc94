"""Building the dataset id_clusters, or going on with a build that was stopped."""

import contextlib
import io
import json
import shutil
import sqlite3
import tempfile
from pathlib import Path

import tensorflow_datasets as tfds

from flashface_jax.common.files import require_writable
from flashface_jax.common.lock import exclusive_lock
from flashface_jax.data.building.options import BuildOptions
from flashface_jax.data.building.outcomes import DROPS, NOTES
from flashface_jax.data.building.removals import Removals
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
    with exclusive_lock(out):
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


def held_out_by(path: Path | None) -> tuple[str, ...]:
    """People of a dataset's validation split; nobody if no dataset is named."""
    if path is None:
        return ()
    return tuple(IdClusters(path).photos(VALIDATION).clusters.identities)


def unmatched(removals: Removals, out: Path) -> list[str]:
    """Entries of the list of removals that name nothing of the manifest."""
    if removals == Removals():
        return []
    with (out / OUTCOMES).open() as file:
        removed = [one for one in map(json.loads, file) if one["outcome"] == "removed"]
    return removals.unmatched((one["identity"], one["source_id"]) for one in removed)
