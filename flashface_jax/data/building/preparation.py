"""The work of a build before anything is written: every photo examined, in parallel."""

import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tqdm import tqdm

from flashface_jax.data.building.examination import Dropped, Kept, examine
from flashface_jax.data.building.options import BuildOptions
from flashface_jax.data.building.staging import Staging
from flashface_jax.data.manifest import Line, PhotoEntry, read_manifest

AT_ONCE = 128


def prepare(manifest: Path, staging: Staging, options: BuildOptions) -> None:
    """Take a manifest in and examine its photos; what was done before a stop is not done again."""
    staging.fill(_lines(manifest), options.removals)
    folder = manifest.parent

    def look(row: tuple[int, PhotoEntry]) -> tuple[int, Kept | Dropped]:
        line, entry = row
        return line, examine(folder, entry, options.form)

    total, pending = staging.count(), staging.count(pending=True)
    with (
        # Here, because what each photo's reader sets in its thread, another one's takes back.
        warnings.catch_warnings(action="ignore"),
        ThreadPoolExecutor(options.threads) as pool,
        tqdm(total=total, initial=total - pending, desc="examining photos", unit="photo") as bar,
    ):
        while rows := staging.pending(AT_ONCE):
            staging.record(pool.map(look, rows))
            bar.update(len(rows))
    staging.drop_same_pictures()
    staging.note_shared_pictures()
    staging.index_identities()


def _lines(manifest: Path) -> Iterator[Line]:
    """The manifest's lines, with a bar from the first that is asked for."""
    yield from tqdm(read_manifest(manifest), desc="reading the manifest", unit="line")
