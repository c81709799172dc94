"""Which photos of a dataset a list of removals names, and what its records stand for."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import cast

from tqdm import tqdm

from flashface_jax.data.building.examination import record_digest
from flashface_jax.data.building.removals import Removals
from flashface_jax.data.dataset import IdClusters, PhotoRecord
from flashface_jax.data.manifest import Box, Landmarks, PhotoEntry


@dataclass(frozen=True)
class Named:
    """What a list of removals names of a dataset.

    Attributes:
        places: by split of photos: where those are that go, in order.
        photos: by identity: how many go.
        unmatched: entries of the list that name nothing of it.
    """

    places: dict[str, list[int]]
    photos: dict[str, int]
    unmatched: list[str]

    def __len__(self) -> int:
        return sum(self.photos.values())


def find_named(dataset: IdClusters, removals: Removals) -> Named:
    """Find the photos that a list names; all records are read only if it names source ids."""
    places: dict[str, list[int]] = {}
    photos: dict[str, int] = {}
    removed: set[tuple[str, str]] = set()
    for split in dataset.splits:
        clusters = dataset.photos(split).clusters
        ids = _source_ids(dataset, split) if removals.source_ids else None
        found = []
        for i, identity in enumerate(clusters.identities):
            for place in clusters.photos_of(i):
                source_id = "" if ids is None else next(ids)
                if removals.name(identity, source_id):
                    found.append(place)
                    removed.add((identity, source_id))
                    photos[identity] = photos.get(identity, 0) + 1
        if found:
            places[split] = found
    return Named(places, photos, removals.unmatched(removed))


def _source_ids(dataset: IdClusters, split: str) -> Iterator[str]:
    """Source ids of a split's photos; from the face crops if there are any, which are smaller."""
    records = dataset.references(split) or dataset.photos(split)
    for record in tqdm(records, desc=f"looking through {split}", unit="photo", leave=False):
        yield record.source_id


def digests(dataset: IdClusters, places: Mapping[str, Sequence[int]]) -> dict[str, dict[int, int]]:
    """What the records at some places of each split add to its contents."""
    found: dict[str, dict[int, int]] = {}
    for split, wanted in places.items():
        photos, crops = dataset.photos(split), dataset.references(split)
        bar = tqdm(wanted, desc=f"reading what goes of {split}", unit="photo", leave=False)
        found[split] = {i: _digest(photos[i], crops[i] if crops else None) for i in bar}
    return found


def _digest(photo: PhotoRecord, crop: PhotoRecord | None) -> int:
    landmarks = None if photo.landmarks is None else tuple(map(tuple, photo.landmarks.tolist()))
    entry = PhotoEntry(
        photo=photo.source_id,
        identity=photo.identity,
        face_box=cast(Box, tuple(photo.face_box.tolist())),
        landmarks=cast(Landmarks | None, landmarks),
        caption=photo.caption,
        source_id=photo.source_id,
        provenance=photo.provenance,
    )
    return record_digest(entry, sha256(photo.jpeg).digest(), crop.jpeg if crop else None)
