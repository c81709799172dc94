"""Whether a dataset holds what its build wrote: every record read, its checksum computed anew."""

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import cast

import numpy as np
from tqdm import tqdm

from flashface_jax.common.errors import sentence
from flashface_jax.data.building.arrangement import DIGESTS
from flashface_jax.data.building.examination import record_digest
from flashface_jax.data.dataset import IdClusters, PhotoRecord, Photos
from flashface_jax.data.loading.transforms import UndecodableError, decode
from flashface_jax.data.manifest import Landmarks, PhotoEntry
from flashface_jax.inspection.measuring.reading import read_record

AT_ONCE = 256
MOST_PROBLEMS = 1000


@dataclass(frozen=True)
class Verification:
    """What checking a split found.

    Attributes:
        split: its name.
        photos: records that were read.
        expected: the checksum of the contents that the build wrote.
        computed: the checksum of what is there; empty if a record cannot be read.
        problems: sentences, each naming a record; the first ones, if there are very many.
        further_problems: how many more there are.
    """

    split: str
    photos: int
    expected: str
    computed: str
    problems: tuple[str, ...]
    further_problems: int

    @property
    def whole(self) -> bool:
        """Whether the split is what the build wrote, and every picture of it decodes."""
        return not self.problems and self.expected == self.computed


@dataclass(frozen=True)
class _Checked:
    """One record: its digest, None if it cannot be told, and what is wrong with it."""

    digest: int | None
    problems: tuple[str, ...]


def verify(dataset: IdClusters, split: str, threads: int) -> Verification:
    """Read every record of a split, and decode every picture, with a progress bar.

    Raises:
        ValueError: there is no such split.
    """
    photos, crops = dataset.photos(split), dataset.references(split)
    expected = dataset.metadata["contents"][split]
    contents, unread, problems = 0, False, list[str]()
    further = 0
    with tqdm(total=len(photos), desc=f"verifying {split}", unit="photo") as bar:
        for checked in _all_checked(photos, crops, threads):
            bar.update()
            contents = (contents + (checked.digest or 0)) % DIGESTS
            unread = unread or checked.digest is None
            room = MOST_PROBLEMS - len(problems)
            problems += checked.problems[:room]
            further += len(checked.problems[room:])
    computed = "" if unread else f"{contents:064x}"
    return Verification(split, len(photos), expected, computed, tuple(problems), further)


def _all_checked(photos: Photos, crops: Photos | None, threads: int) -> Iterator[_Checked]:
    """Every record, checked in parallel, some at a time."""
    clusters = photos.clusters
    owners = np.repeat(np.arange(len(clusters), dtype=np.int32), clusters.sizes)

    def check(position: int) -> _Checked:
        return _check(photos, crops, position, clusters.identities[owners[position]])

    positions = iter(range(len(photos)))
    with ThreadPoolExecutor(threads) as pool:
        while some := list(islice(positions, AT_ONCE)):
            yield from pool.map(check, some)


def _check(photos: Photos, crops: Photos | None, position: int, identity: str) -> _Checked:
    record = read_record(photos, position)
    crop = None if crops is None else read_record(crops, position)
    unread = [f"{photo}" for photo in (record, crop) if isinstance(photo, str)]
    if isinstance(record, str) or isinstance(crop, str):
        return _Checked(None, tuple(unread))
    problems = list(_misplaced(record, crop, position, identity))
    for kind, photo in {"photo": record, "face crop": crop}.items():
        if photo is not None and (why := _undecodable(photo)):
            problems.append(f"The {kind} of record {position} does not decode: {why}")
    try:
        return _Checked(digest(record, crop), tuple(problems))
    except ValueError as error:  # of an entry that no build writes
        return _Checked(None, (*problems, f"Record {position}: {sentence(error)}"))


def _misplaced(
    record: PhotoRecord, crop: PhotoRecord | None, position: int, identity: str
) -> Iterator[str]:
    """What is said of a record that is not where the metadata or its photo have it."""
    if record.identity != identity:
        yield f"Record {position} shows {record.identity!r} where the metadata have {identity!r}."
    if crop is not None and crop.source_id != record.source_id:
        yield f"The face crop at {position} is of {crop.source_id!r}, not {record.source_id!r}."


def _undecodable(photo: PhotoRecord) -> str:
    """Why a picture does not decode; empty if it does."""
    try:
        decode(photo)
    except UndecodableError as error:
        return sentence(error)
    return ""


def digest(record: PhotoRecord, crop: PhotoRecord | None) -> int:
    """The digest that the build gave a record.

    Raises:
        ValueError: the record is none that a build writes.
    """
    landmarks = None if record.landmarks is None else record.landmarks.tolist()
    entry = PhotoEntry(
        photo=record.source_id,  # where the file was is no part of the digest
        identity=record.identity,
        face_box=tuple(record.face_box.tolist()),
        landmarks=cast(Landmarks | None, landmarks and tuple(map(tuple, landmarks))),
        caption=record.caption,
        source_id=record.source_id,
        provenance=record.provenance,
    )
    picture = hashlib.sha256(record.jpeg).digest()
    return record_digest(entry, picture, None if crop is None else crop.jpeg)
