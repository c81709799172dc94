"""The TFDS builder of `id_clusters`: from a manifest to ArrayRecord shards, without TensorFlow."""

import contextlib
import functools
import hashlib
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from tqdm import tqdm

from flashface_jax.common.files import atomic_file
from flashface_jax.data.building.arrangement import Arrangement, arrange, choose_splits
from flashface_jax.data.building.examination import face_arrays
from flashface_jax.data.building.jpeg import DamagedJpegError, read_jpeg
from flashface_jax.data.building.options import BuildOptions
from flashface_jax.data.building.preparation import prepare
from flashface_jax.data.building.shards import write_shard
from flashface_jax.data.building.staging import Staging
from flashface_jax.data.building.staging_file import (
    Staged,
    read_facts,
    read_places,
    read_remarkable,
    remove_staging,
)
from flashface_jax.data.dataset import REFERENCES
from flashface_jax.data.manifest import find_manifest

Example = tuple[int, dict[str, Any]]
OUTCOMES = "outcomes.jsonl"
STAGING = ".id_clusters-build.sqlite"
PHOTO_PER_CROP = 8  # about how many times a crop's bytes a photo has
NO_LANDMARKS = np.full((5, 2), -1, np.float32)
FEATURES = {
    "image": tfds.features.Image(shape=(None, None, 3), encoding_format="jpeg"),
    "identity": tfds.features.Text(),
    "face_box": tfds.features.Tensor(shape=(4,), dtype=np.float32),
    "landmarks": tfds.features.Tensor(shape=(5, 2), dtype=np.float32),
    "has_landmarks": tfds.features.Scalar(dtype=np.bool_),
    "caption": tfds.features.Text(),
    "source_id": tfds.features.Text(),
    "provenance": tfds.features.Text(),
}


class Builder(tfds.core.ShardBasedBuilder):
    """Builds the dataset from a manifest; killed and started again, it goes on.

    Args:
        source: a manifest or its folder; TFDS' manual directory if it is None.
        options: how the dataset is built.
        **kwargs: of TFDS' builders, `data_dir` above all.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "Initial release."}  # noqa: RUF012  (as TFDS declares it)
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "Put manifest.jsonl and the photos that it names into the manual directory; "
        "flashface curate writes it."
    )

    def __init__(
        self, *, source: Path | None = None, options: BuildOptions | None = None, **kwargs: Any
    ):
        self._source = source
        self._options = options or BuildOptions()
        kwargs.setdefault("file_format", "array_record")
        super().__init__(**kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(FEATURES),
            supervised_keys=None,
            homepage="https://arxiv.org/abs/2403.17008",
            metadata=tfds.core.MetadataDict(),
            disable_shuffling=True,
        )

    @property
    def staging_path(self) -> Path:
        """Where the build keeps what it knows so far."""
        return Path(self.data_dir_root) / STAGING

    @property
    def outcomes_path(self) -> Path:
        """Where the build names every photo that was dropped, or kept with a note."""
        return Path(self.data_dir_root) / OUTCOMES

    def is_unfinished(self, manifest: Path) -> bool:
        """Whether the dataset is whole, but its build, from this manifest, was killed then."""
        facts = read_facts(self.staging_path) if self.staging_path.exists() else {}
        mine = _fingerprint(manifest, self._options)
        return facts.get("fingerprint") == mine and facts.get("arranged") == self._arranging()

    def finish(self) -> None:
        """Write what became of the photos and remove what the build kept, unless that was done."""
        if self.staging_path.exists():
            with atomic_file(self.outcomes_path) as draft, draft.open("w") as file:
                for remarkable in read_remarkable(self.staging_path):
                    file.write(json.dumps(remarkable) + "\n")
            remove_staging(self.staging_path)

    def _post_download_and_prepare_hook(self) -> None:
        self.finish()

    def _arranging(self) -> str:
        """What decides where the photos are, once they are examined."""
        options = self._options
        return json.dumps(
            [options.held_out, options.held_out_names, options.seed, options.shard_bytes]
        )

    def _shard_iterators_per_split(
        self, dl_manager: tfds.download.DownloadManager
    ) -> Mapping[str, Sequence[Callable[[], Iterator[Example]]]]:
        manifest = find_manifest(Path(self._source or dl_manager.manual_dir))
        options = self._options
        with contextlib.closing(Staging(self.staging_path, _fingerprint(manifest, options))) as db:
            prepare(manifest, db, options)
            people = db.photos_per_identity()
            if not people:
                raise ValueError(_nothing_kept(manifest, db))
            splits = choose_splits(people, options.held_out, options.held_out_names, options.seed)
            arranged = {
                split: arrange(db, split, identities, options.shard_bytes)
                for split, identities in splits.items()
            }
            self.info.metadata.update(_metadata(arranged, db, options))
            db.note("arranged", self._arranging())
        return self._generators(arranged, manifest.parent)

    def _generators(
        self, arranged: Mapping[str, Arrangement], folder: Path
    ) -> dict[str, list[Callable[[], Iterator[Example]]]]:
        """One generator a shard; one of face crops holds those of several shards of photos."""
        kinds: dict[str, tuple[Callable[[Staged], dict[str, Any]], int]]
        kinds = {"": (functools.partial(_photo, folder), 1)}
        if self._options.form.reference_size:
            kinds[REFERENCES] = (_reference, PHOTO_PER_CROP)
        return {
            split + suffix: [
                functools.partial(_examples, self.staging_path, split, start, stop, describe)
                for start, stop in pairwise([*where.shards[:-1:every], where.shards[-1]])
            ]
            for split, where in arranged.items()
            for suffix, (describe, every) in kinds.items()
        }

    def _example_writer(self) -> tfds.core.ExampleWriter:
        if self.info.file_format != tfds.core.FileFormat.ARRAY_RECORD:
            return super()._example_writer()  # as `tfds build --file_format` asks
        return UncompressedWriter(file_format=self.info.file_format)


class UncompressedWriter(tfds.core.ExampleWriter):
    """Writes ArrayRecord shards without compressing JPEGs again, which costs more than all else."""

    def write(self, path: Any, examples: Any) -> None:
        """Write one shard."""
        write_shard(Path(path), (serialized for _, serialized in examples))


def _fingerprint(manifest: Path, options: BuildOptions) -> str:
    """Stands for all that decides what an examination finds."""
    with manifest.open("rb") as file:
        contents = hashlib.file_digest(file, "sha256").hexdigest()
    removals = {name: sorted(value) for name, value in vars(options.removals).items()}
    return json.dumps(
        [str(manifest.absolute()), contents, asdict(options.form), removals, Builder.VERSION.major]
    )


def _nothing_kept(manifest: Path, staging: Staging) -> str:
    """Why there is no dataset."""
    outcomes = [f"{number} {name}" for name, number in staging.outcomes().items()]
    first = staging.first_dropped()
    if first is None:
        return f"{manifest} is empty: write a line a photo."
    line, detail = first
    return f"No photo of {manifest} can be kept ({', '.join(outcomes)}); line {line}: {detail}"


def _metadata(
    arranged: Mapping[str, Arrangement], staging: Staging, options: BuildOptions
) -> dict[str, Any]:
    """What a reader needs to know beside the records."""
    return {
        "clusters": {
            split: {"identity": where.identities, "offset": where.offsets}
            for split, where in arranged.items()
        },
        "contents": {split: where.contents for split, where in arranged.items()},
        "form": asdict(options.form),
        "seed": options.seed,
        "outcomes": staging.outcomes(),
        "notes": staging.notes(),
    }


def _examples(
    staging: Path, split: str, start: int, stop: int, describe: Callable[[Staged], dict[str, Any]]
) -> Iterator[Example]:
    """The records of one shard."""
    with tqdm(total=stop - start, desc=f"writing {split}", unit="photo", leave=False) as bar:
        for place, staged in enumerate(read_places(staging, split, start, stop), start):
            yield place, describe(staged)
            bar.update()


def _photo(folder: Path, staged: Staged) -> dict[str, Any]:
    """The record of a photo."""
    box, landmarks = face_arrays(staged.entry)
    return {
        "image": _Once(_picture(folder, staged)),
        "face_box": box,
        "landmarks": NO_LANDMARKS if landmarks is None else landmarks,
        "has_landmarks": landmarks is not None,
        **_words(staged),
    }


def _reference(staged: Staged) -> dict[str, Any]:
    """The record of a face crop: the face fills it, and its landmarks are not known."""
    jpeg = staged.reference or b""
    parts = read_jpeg(jpeg)
    side = parts.width if parts else 0
    return {
        "image": _Once(jpeg),
        "face_box": np.array([0, 0, side, side], np.float32),
        "landmarks": NO_LANDMARKS,
        "has_landmarks": False,
        **_words(staged),
    }


def _words(staged: Staged) -> dict[str, str]:
    names = ("identity", "caption", "source_id", "provenance")
    return {name: getattr(staged.entry, name) for name in names}


def _picture(folder: Path, staged: Staged) -> bytes:
    """The JPEG of a photo, read again if it is the photo's own.

    Raises:
        ValueError: the photo has changed since it was examined.
    """
    if staged.image is not None:
        return staged.image
    path = folder / staged.entry.photo
    try:
        parts = read_jpeg(path.read_bytes())
    except (OSError, DamagedJpegError):
        parts = None
    if parts is None or hashlib.sha256(parts.plain).digest() != staged.picture:
        raise ValueError(
            f"{path} changed while the dataset was built: remove the build's file {STAGING} and "
            "build again."
        )
    return parts.plain


class _Once(io.BytesIO):
    """A picture that is read once: TFDS keeps the records of a whole shard until it is written."""

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(size)
        self.truncate(0)
        return data
