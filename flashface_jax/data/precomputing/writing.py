"""The files of a split: photos prepared, encoded and written while the next ones are encoded."""

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from itertools import groupby, islice
from typing import Any, TypeVar

import numpy as np
from absl import logging

from flashface_jax.common.files import atomic_file
from flashface_jax.data.building.shards import write_shard
from flashface_jax.data.loading.encoded_record import Arrays, damaged_record
from flashface_jax.data.loading.loader import LoaderOptions
from flashface_jax.data.loading.precomputed import (
    REFERENCES,
    TARGETS,
    Origin,
    file_name,
)
from flashface_jax.data.precomputing.drafting import Draft
from flashface_jax.data.precomputing.preparation import (
    CROP_DECODES,
    TARGET_DECODES,
    Preparation,
    Prepared,
    prepared,
)

T = TypeVar("T")
FINITE = ("target_mean", "context", "reference", "without_face")
"""What must be finite; a log-variance may be -inf."""


@dataclass(frozen=True)
class Records:
    """What is stored of one photo.

    Attributes:
        position: of the photo.
        target: record of it as a target.
        reference: record of it as a reference.
    """

    position: int
    target: bytes
    reference: bytes


@dataclass(frozen=True)
class Work:
    """How the photos of a split become records.

    Attributes:
        preparation: of the photos.
        encode: begins to encode a batch, filled up to a number of rows.
        batch: photos that are encoded together.
        options: how photos are made ready.
    """

    preparation: Preparation
    encode: Callable[[Prepared, int], Mapping[str, Any]]
    batch: int
    options: LoaderOptions


def write_split(draft: Draft, split: str, work: Work, advance: Callable[[], object]) -> None:
    """Write the files of a split that are missing.

    Args:
        draft: where to.
        split: its name.
        work: how.
        advance: called after each photo.

    Raises:
        ValueError: the networks give numbers that are not finite.
        OSError: something cannot be written, as on a full disk.
    """
    files = draft.missing(split)
    positions = [position for photos in files.values() for position in photos]
    if not positions:
        return
    with closing(_records(work, positions, draft.origin)) as records:
        each = draft.origin.photos_per_file
        for number, some in groupby(records, lambda one: one.position // each):
            write_files(draft, split, number, some, advance)


def write_files(
    draft: Draft, split: str, number: int, records: Iterator[Records], advance: Callable[[], object]
) -> None:
    """Write what some photos give; where the references are, the targets are too."""
    references = []

    def targets() -> Iterator[bytes]:
        for one in records:
            references.append(one.reference)
            yield one.target
            advance()

    kinds: dict[str, Iterable[bytes]] = {TARGETS: targets(), REFERENCES: references}
    for kind, some in kinds.items():
        with atomic_file(draft.place / file_name(split, kind, number)) as file:
            write_shard(file, some)


def _records(work: Work, positions: list[int], origin: Origin) -> Generator[Records, None, None]:
    """The records of photos in order; devices encode a batch while the one before is written."""
    with closing(prepared(work.preparation, positions, work.batch, work.options)) as photos:
        begun = ((batch, work.encode(batch, work.batch)) for batch in photos)
        for batch, encoded in _one_ahead(begun):
            yield from _rows(work.preparation, batch, encoded, origin)


def _one_ahead(items: Iterator[T]) -> Iterator[T]:
    """The same items; the next one has been asked for before one is given."""
    given = list(islice(items, 1))
    for item in items:
        given.append(item)
        yield given.pop(0)
    yield from given


def _rows(
    preparation: Preparation, batch: Prepared, encoded: Mapping[str, Any], origin: Origin
) -> Iterator[Records]:
    """The records of a batch."""
    arrays = {name: np.asarray(values) for name, values in encoded.items()}
    for row, position in enumerate(batch["position"].tolist()):
        mine = {name: values[row] for name, values in arrays.items()}
        _require_finite(preparation, position, mine)
        target, reference = origin.targets.pack(mine), origin.references.pack(mine)
        if not batch[TARGET_DECODES][row]:
            target = _damaged(preparation, position, crop=False)
        if not batch[CROP_DECODES][row]:
            reference = _damaged(preparation, position, crop=True)
        yield Records(position, target, reference)


def _damaged(preparation: Preparation, position: int, *, crop: bool) -> bytes:
    """The record of a photo that does not decode, which is said."""
    why = preparation.why_damaged(position, crop=crop)
    logging.warning("%s; another photo of this person will take its place", why)
    return damaged_record(why)


def _require_finite(preparation: Preparation, position: int, arrays: Arrays) -> None:
    for name in FINITE:
        if name in arrays and not np.isfinite(arrays[name]).all():
            source_id = preparation.pool.photos[position].source_id
            raise ValueError(
                f"The networks give numbers that are not finite for {source_id} ({name}): look "
                "whether the weights are whole, or give --precision float32."
            )
