"""Reading the dataset id_clusters: any photo of any identity, at random, without TensorFlow."""

import contextlib
import resource
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, overload

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import Float32, Int64
from tensorflow_datasets.core.file_adapters import FileFormat

from flashface_jax.common.errors import sentence

NAME = "id_clusters"
TRAIN, VALIDATION = "train", "validation"
REFERENCES = "_references"
"""What the name of a split of face crops adds to that of the photos' split."""


@dataclass(frozen=True)
class PhotoRecord:
    """One photo of the dataset.

    Attributes:
        jpeg: the picture, baseline JPEG.
        identity: who it shows.
        face_box: x1, y1, x2, y2 in pixels; may reach out of the picture.
        landmarks: x, y in pixels of the eye at the left and the eye at the right of the image, the
            nose, and the mouth's left and right corner; None if they are not known.
        caption: the photo in words.
        source_id: names the photo where it came from.
        provenance: where it is from and under which terms.
    """

    jpeg: bytes
    identity: str
    face_box: Float32[np.ndarray, "4"]
    landmarks: Float32[np.ndarray, "5 2"] | None
    caption: str
    source_id: str
    provenance: str


@dataclass(frozen=True)
class Clusters:
    """Where each identity's photos are.

    Attributes:
        identities: their names.
        offsets: identity i has the photos offsets[i] .. offsets[i + 1] - 1.
    """

    identities: Sequence[str]
    offsets: Int64[np.ndarray, " boundaries"]

    def __len__(self) -> int:
        return len(self.identities)

    def photos_of(self, identity: int) -> range:
        """Positions of an identity's photos."""
        return range(int(self.offsets[identity]), int(self.offsets[identity + 1]))

    @cached_property
    def sizes(self) -> Int64[np.ndarray, " identities"]:
        """Photos of each identity."""
        return np.diff(self.offsets)


class Photos(Sequence[PhotoRecord]):
    """The photos of one split, sorted by identity. Can be sent to other processes."""

    def __init__(self, source: Sequence[dict[str, Any]], clusters: Clusters):
        self._source = source
        self.clusters = clusters

    def __len__(self) -> int:
        return len(self._source)

    @overload
    def __getitem__(self, index: int) -> PhotoRecord: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[PhotoRecord]: ...
    def __getitem__(self, index: int | slice) -> PhotoRecord | Sequence[PhotoRecord]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(f"There is no photo {index}: the split has {len(self)}.")
        record = self._source[index % len(self)]
        words = ("identity", "caption", "source_id", "provenance")
        return PhotoRecord(
            jpeg=record["image"],
            face_box=record["face_box"],
            landmarks=record["landmarks"] if record["has_landmarks"] else None,
            **{name: record[name].decode() for name in words},
        )


class IdClusters:
    """A built dataset.

    Args:
        path: the dataset's directory, or TFDS' data_dir above it.

    Attributes:
        path: the dataset's directory.
        metadata: what the build wrote: clusters, contents, form, outcomes, notes.

    Raises:
        ValueError: there is no such dataset, or it was built by something else.
    """

    def __init__(self, path: Path):
        self.path = find_dataset(path)
        try:
            self._builder = tfds.builder_from_directory(self.path)
            self.metadata = dict(self._builder.info.metadata or {})
            self.metadata["clusters"], self.metadata["contents"]
            if self._builder.info.file_format is not FileFormat.ARRAY_RECORD:
                raise ValueError("its files are not in the ArrayRecord format")
        except Exception as error:  # TFDS and its parsers raise nothing narrower
            raise ValueError(
                f"{self.path} is no dataset id_clusters that can be read ({sentence(error)}): "
                "build it with flashface data build."
            ) from error

    @property
    def version(self) -> str:
        """The version of the dataset's layout."""
        return str(self._builder.info.version)

    @property
    def splits(self) -> list[str]:
        """Names of the splits of photos."""
        return list(self.metadata["clusters"])

    @property
    def reference_size(self) -> int:
        """Side in pixels of the face crops stored beside the photos; 0 if there are none."""
        return int(self.metadata["form"]["reference_size"])

    def photos(self, split: str) -> Photos:
        """The photos of a split.

        Raises:
            ValueError: there is no such split.
        """
        return self._open(split, split)

    def references(self, split: str) -> Photos | None:
        """The face crops of a split's photos, at the same positions; None if none are stored."""
        return self._open(split + REFERENCES, split) if self.reference_size else None

    def _open(self, records: str, split: str) -> Photos:
        if split not in self.metadata["clusters"]:
            raise ValueError(
                f"{self.path} has no split {split!r}: choose among {', '.join(self.splits)}."
            )
        where = self.metadata["clusters"][split]
        clusters = Clusters(where["identity"], np.array(where["offset"], np.int64))
        allow_open_files()
        self._check_files(records)
        source = self._builder.as_data_source(
            records, decoders={"image": tfds.decode.SkipDecoding()}
        )
        if len(source) != clusters.offsets[-1]:
            raise ValueError(
                f"{self.path} holds {len(source)} records of {records}, but its metadata count "
                f"{clusters.offsets[-1]}: it is damaged, build it again."
            )
        return Photos(source, clusters)

    def _check_files(self, split: str) -> None:
        """Raise a ValueError if a file of a split is missing or not as long as it was."""
        info, size = self._builder.info.splits[split], 0
        for file in info.filepaths:
            if not file.exists():
                raise ValueError(f"{file} is missing: copy the dataset again, or build it again.")
            size += file.stat().length
        if size != info.num_bytes:
            raise ValueError(
                f"The files of {self.path}, {split}, have {size} bytes in place of "
                f"{int(info.num_bytes)}: copy the dataset again, or build it again."
            )


def allow_open_files() -> None:
    """Let this process and its workers open as many files as the system allows.

    A file stays open for each shard that was read, which the usual limit of 1024 does not last for.
    """
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):  # some systems allow less than they say
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def find_dataset(path: Path) -> Path:
    """The directory of the dataset that a path names or leads to.

    Raises:
        ValueError: there is none, or more than one.
    """
    if (path / "dataset_info.json").is_file():
        return path
    found = sorted(path.glob(f"{NAME}/*/dataset_info.json")) + sorted(
        path.glob("*/dataset_info.json")
    )
    if not found:
        raise ValueError(f"{path} holds no dataset {NAME}: build one with flashface data build.")
    if len(found) > 1:
        names = ", ".join(str(file.parent) for file in found)
        raise ValueError(f"{path} holds several datasets: name one of {names}.")
    return found[0].parent
