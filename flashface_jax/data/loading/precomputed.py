"""Reading what flashface data precompute wrote: latents and contexts of photos.

    DIR/
      metadata.json                      what it was made with, and how long each file is
      empty_context.record               the empty prompt's context
      SPLIT-targets-00000.array_record   what each photo gives as a target, in the dataset's order
      SPLIT-references-00000...          what it gives as a reference

A directory that exists is whole.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from array_record.python.array_record_data_source import ArrayRecordDataSource

from flashface_jax.common.errors import sentence
from flashface_jax.common.from_json import from_json
from flashface_jax.data.dataset import allow_open_files
from flashface_jax.data.loading.encoded_record import (
    Arrays,
    Layout,
    Sizes,
    Storage,
    context_layout,
    reference_layout,
    target_layout,
)

FORMAT = 1
METADATA, EMPTY_CONTEXT = "metadata.json", "empty_context.record"
TARGETS, REFERENCES = "targets", "references"
REMEDY = "make it with flashface data precompute"


@dataclass(frozen=True)
class Origin:
    """What latents and contexts were made with.

    Attributes:
        weights: hash of the autoencoder's and the text tower's parameters.
        tokenizer: hash of the vocabulary.
        contents: of the dataset, by split: the checksum of its records.
        sizes: shapes.
        without_face: whether there are the latents that inpainting models see.
        storage: dtype of what is stored.
        precision: that the networks computed in.
        photos_per_file: how many photos' records a file holds.
    """

    weights: str
    tokenizer: str
    contents: dict[str, str]
    sizes: Sizes
    without_face: bool
    storage: Storage
    precision: str
    photos_per_file: int

    @property
    def targets(self) -> Layout:
        """Of the records of targets."""
        return target_layout(self.sizes, self.storage, without_face=self.without_face)

    @property
    def references(self) -> Layout:
        """Of the records of references."""
        return reference_layout(self.sizes, self.storage)

    @property
    def prompt(self) -> Layout:
        """Of the record of the empty prompt."""
        return context_layout(self.sizes, self.storage)

    def file_bounds(self, photos: int) -> list[range]:
        """Places of the photos of each file of a split of so many."""
        starts = [*range(0, photos, self.photos_per_file), photos]
        return [range(start, stop) for start, stop in pairwise(starts)]


def differences(there: Mapping[str, Any], here: Mapping[str, Any], parent: str = "") -> list[str]:
    """What two nested mappings do not have alike: "sizes.words: 77 -> 40"; hashes shortened."""
    found = []
    for name in sorted(there.keys() | here.keys()):
        was, now = there.get(name), here.get(name)
        if isinstance(was, Mapping) and isinstance(now, Mapping):
            found += differences(was, now, f"{parent}{name}.")
        elif was != now:
            found.append(f"{parent}{name}: {str(was)[:16]} -> {str(now)[:16]}")
    return found


def file_name(split: str, kind: str, number: int) -> str:
    """Name of one of the files of a split."""
    return f"{split}-{kind}-{number:05d}.array_record"


class EncodedPhotos:
    """Records of one kind of a split, at its photos' positions. Can be sent to other processes."""

    def __init__(self, source: ArrayRecordDataSource, layout: Layout):
        self._source, self._layout = source, layout

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, position: int) -> Arrays:
        """The arrays of a photo; raises UndecodableError if it did not decode."""
        return self._layout.unpack(self._source[position])


@dataclass(frozen=True)
class Description:
    """What metadata.json holds.

    Attributes:
        format: of the directory.
        origin: what it was made with.
        photos: of each split.
        files: bytes of each file.
    """

    format: int
    origin: Origin
    photos: dict[str, int] = field(default_factory=dict)
    files: dict[str, int] = field(default_factory=dict)


class Precomputed:
    """A directory of latents and contexts.

    Args:
        path: the directory.

    Attributes:
        path: the directory.
        origin: what it was made with.

    Raises:
        ValueError: there is no such directory, or it is damaged.
    """

    def __init__(self, path: Path):
        self.path = path
        try:
            described = json.loads((path / METADATA).read_text())
            if described["format"] != FORMAT:
                raise ValueError(f"it has format {described['format']}, not {FORMAT}")
            self._description: Description = from_json(Description, described, "its metadata")
        except FileNotFoundError as error:
            raise ValueError(f"{path} holds no precomputed latents: {REMEDY}.") from error
        except (ValueError, KeyError, TypeError, OSError, RecursionError) as error:
            raise ValueError(
                f"{path} holds no precomputed latents that can be read ({sentence(error)}): "
                f"remove it, and {REMEDY}."
            ) from error
        self.origin = self._description.origin
        self._check_files()

    def targets(self, split: str) -> EncodedPhotos:
        """What the photos of a split give as targets."""
        return self._open(split, TARGETS, self.origin.targets)

    def references(self, split: str) -> EncodedPhotos:
        """What the photos of a split give as references."""
        return self._open(split, REFERENCES, self.origin.references)

    @cached_property
    def empty_context(self) -> np.ndarray:
        """Context of the empty prompt, (words, channels)."""
        record = (self.path / EMPTY_CONTEXT).read_bytes()
        return self.origin.prompt.unpack(record)["context"]

    def _open(self, split: str, kind: str, layout: Layout) -> EncodedPhotos:
        allow_open_files()
        bounds = self.origin.file_bounds(self._description.photos[split])
        paths = [
            f"{self.path / file_name(split, kind, number)}[0:{len(photos)}]"
            for number, photos in enumerate(bounds)
        ]
        return EncodedPhotos(ArrayRecordDataSource(paths), layout)

    def _check_files(self) -> None:
        """Raise a ValueError if a file is missing or not as long as it was."""
        for name, size in self._description.files.items():
            file = self.path / name
            if not file.is_file() or file.stat().st_size != size:
                raise ValueError(
                    f"{file} is missing or damaged: copy {self.path} again, or remove it and "
                    f"{REMEDY}."
                )
