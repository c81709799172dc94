"""The work of a build before anything is written: every photo examined, in parallel."""

import os
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from flashface_jax.data.building.examination import Dropped, Form, Kept, examine
from flashface_jax.data.building.removals import Removals
from flashface_jax.data.building.staging import Staging
from flashface_jax.data.manifest import Line, PhotoEntry, read_manifest

AT_ONCE = 128


@dataclass(frozen=True)
class BuildOptions:
    """How a dataset is built.

    Attributes:
        form: how photos are stored.
        held_out: identities in the validation split, a tenth of all at most.
        held_out_names: these identities instead, as far as they have photos.
        seed: of which identities are held out.
        shard_bytes: about how many bytes of pictures a file of the dataset holds.
        removals: who and what must not be in the dataset.
        threads: photos examined at the same time.
    """

    form: Form = field(default_factory=Form)
    held_out: int = 200
    held_out_names: tuple[str, ...] = ()
    seed: int = 0
    shard_bytes: int = 400_000_000
    removals: Removals = field(default_factory=Removals)
    threads: int = field(default_factory=lambda: os.cpu_count() or 1)

    def __post_init__(self) -> None:
        for name, least in {"held_out": 0, "seed": 0, "shard_bytes": 1, "threads": 1}.items():
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be {least} or more.")


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
