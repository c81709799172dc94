"""Taking photos out of a dataset, and finishing what was stopped."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from flashface_jax.common.errors import shortened
from flashface_jax.common.lock import exclusive_lock
from flashface_jax.data.building.removals import Removals, first_lines, in_vain
from flashface_jax.data.dataset import NAME, TRAIN, IdClusters, find_dataset
from flashface_jax.data.id_clusters.id_clusters_dataset_builder import STAGING
from flashface_jax.data.removing.replacement import WORKSHOP, recover, replacing
from flashface_jax.data.removing.rewriting import write_without
from flashface_jax.data.removing.selection import Named, digests, find_named


@dataclass(frozen=True)
class Outcome:
    """What a removal did.

    Attributes:
        place: the dataset's directory.
        named: what went, or would go.
        resumed: whether an earlier removal, which was stopped, was brought to its end.
    """

    place: Path
    named: Named
    resumed: bool


def remove(path: Path, removals: Removals, *, dry_run: bool = False) -> Outcome:
    """Take photos out of a dataset.

    Args:
        path: the dataset's directory, or TFDS' data_dir above it.
        removals: who and what goes.
        dry_run: only find out what would go.

    Raises:
        ValueError: there is no dataset, something else is at work on it, the list names nothing of
            it, or nobody would be left to train on.
        OSError: something cannot be written, as on a full disk.
    """
    above = _above(path)
    root = above.parent if above.name == NAME else above
    with exclusive_lock(root):
        resumed = recover(above / WORKSHOP) if (above / WORKSHOP).exists() else False
        dataset = IdClusters(path)
        if (root / STAGING).exists():
            raise ValueError(f"A build in {root} was stopped, and keeps photos: finish it first.")
        named = find_named(dataset, removals)
        if not named and not resumed:
            raise ValueError(f"{dataset.path} holds nothing that the list names.")
        clusters = dataset.photos(TRAIN).clusters
        if len(named.places.get(TRAIN, [])) == clusters.offsets[-1]:
            raise ValueError(
                f"The list names everybody of {dataset.path} who is trained on: remove the "
                "directory instead."
            )
        if named and not dry_run:
            _replace(dataset, named)
    return Outcome(dataset.path, named, resumed)


def _above(path: Path) -> Path:
    """The directory that holds the dataset's, which a stopped removal may have taken away."""
    for above in (path / NAME, path, path.parent):
        if (above / WORKSHOP).exists():
            return above
    return find_dataset(path).parent


def _replace(dataset: IdClusters, named: Named) -> None:
    """Put a dataset without some photos in the place of the one with them."""
    gone = digests(dataset, named.places)
    kinds = 2 if dataset.reference_size else 1
    total = kinds * sum(len(dataset.photos(split)) for split in dataset.splits)
    with (
        replacing(dataset.path) as draft,
        tqdm(total=total, desc="writing without them", unit="record") as bar,
    ):
        write_without(dataset.path, draft, gone, bar.update)
        left = IdClusters(draft)  # which finds out whether records and metadata agree
        for split in left.splits:
            left.photos(split), left.references(split)


def report(outcome: Outcome, *, dry_run: bool) -> str:
    """What went, what is left, and what the list names in vain, as lines."""
    named, lines = outcome.named, []
    if outcome.resumed:
        lines.append("an earlier removal was stopped at its end, and is finished now")
    if named:
        verb = "would remove" if dry_run else "removed"
        lines.append(f"{verb} {len(named)} photos of {len(named.photos)} people")
        lines += first_lines([f"{n:6d} of {shortened(name)}" for name, n in named.photos.items()])
    lines += in_vain(named.unmatched)
    return "\n".join(lines if dry_run else [*lines, *_left(IdClusters(outcome.place))])


def _left(dataset: IdClusters) -> list[str]:
    """What a dataset holds, and whom nobody can be trained on."""
    lines = []
    for split in dataset.splits:
        sizes = dataset.photos(split).clusters.sizes
        lines.append(f"{split}: {sizes.sum()} photos of {len(sizes)} people are left")
        if alone := int(np.sum(sizes < 2)):
            lines.append(f"  {alone} of them with a single photo: they are not trained on")
    return lines
