"""Take people and photos out of a dataset, without building it again.

    python -m flashface_jax.data.remove data --list removals.txt

The list is a text file; a line names a person or a photo, # begins a comment:

    identity: Ann Lee
    source_id: flickr/123

Only files of the dataset that hold such photos are written anew, and what was there is removed from
the disk. Stopped at any moment, the dataset is whole, with or without the photos, and the same
command goes on. Keep the list: the photos' sources still have them, and python -m
flashface_jax.data.build --remove leaves them out of the next build. The build's outcomes.jsonl, if
you kept it, may still name them. Latents that python -m flashface_jax.data.precompute made are
pictures of them, too: remove that directory and make it again. A training run on the dataset cannot
be resumed afterwards: its samples would be others. Begin another run from its weights.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from flashface_jax.common.errors import sentence, shortened, stopped
from flashface_jax.data.building.lock import alone_in
from flashface_jax.data.building.removals import Removals, first_lines, in_vain, read_removals
from flashface_jax.data.building.replacement import WORKSHOP, recover, replacing
from flashface_jax.data.building.rewriting import write_without
from flashface_jax.data.building.selection import Named, digests, find_named
from flashface_jax.data.dataset import NAME, TRAIN, IdClusters, find_dataset
from flashface_jax.data.id_clusters.id_clusters_dataset_builder import STAGING


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
    with alone_in(root):
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


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    text = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="python -m flashface_jax.data.remove", description=__doc__, formatter_class=text
    )
    add = parser.add_argument
    add("dataset", type=Path, help="the dataset's directory, or TFDS' data_dir above it")
    add("--list", type=Path, required=True, help="who and what is removed, a line each")
    add("--dry-run", action="store_true", help="only say what would be removed")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 0 when all that the list names is gone, 1 on an error, 130 after Ctrl-C."""
    asked = parse(arguments)
    try:
        outcome = remove(asked.dataset, read_removals(asked.list), dry_run=asked.dry_run)
        told = report(outcome, dry_run=asked.dry_run)
    except KeyboardInterrupt:
        return stopped("the dataset is whole, and the same command goes on.")
    except (ValueError, OSError) as error:
        print(f"error: {sentence(error)}", file=sys.stderr)
        return 1
    print(told if asked.dry_run else f"{told}\nwrote {outcome.place}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
