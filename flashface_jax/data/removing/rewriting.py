"""A dataset without some of its photos: only files that hold one of them are written anew."""

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Set
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds
from array_record.python.array_record_data_source import ArrayRecordDataSource

from flashface_jax.data.building.arrangement import DIGESTS
from flashface_jax.data.building.shards import write_shard
from flashface_jax.data.dataset import REFERENCES

INFO, METADATA = "dataset_info.json", "metadata.json"
BEAM_LEFTOVER = ".shard_infos.json"

Gone = Mapping[str, Mapping[int, int]]
"""By split of photos: the places of those that go, and the digests of their records."""


def write_without(
    place: Path, draft: Path, gone: Gone, advance: Callable[[int], object] = lambda photos: None
) -> None:
    """Write a dataset without some of its photos, and their face crops, into a new directory.

    Files that hold none of them are linked, or copied where that cannot be.

    Args:
        place: the dataset.
        draft: an empty directory on the same file system.
        gone: the photos that go.
        advance: called with the records of every file that is done.

    Raises:
        OSError: something cannot be written, as on a full disk.
    """
    splits = tfds.builder_from_directory(place).info.splits
    info = json.loads((place / INFO).read_text())
    left = []
    for said in info["splits"]:
        out = gone.get(said["name"].removesuffix(REFERENCES), {}).keys()
        lengths = _write_split(splits[said["name"]], draft, out, advance)
        if lengths:
            size = sum(path.stat().st_size for path in draft.glob(f"*-{said['name']}.*"))
            left.append({**said, "numBytes": str(size), "shardLengths": list(map(str, lengths))})
    shards = {str(path) for split in splits.values() for path in split.filepaths}
    for path in place.iterdir():
        if str(path) not in shards and not path.name.endswith(BEAM_LEFTOVER):
            shutil.copy2(path, draft)
    metadata = json.loads((place / METADATA).read_text())
    (draft / METADATA).write_text(json.dumps(metadata_without(metadata, gone)))
    (draft / INFO).write_text(json.dumps({**info, "splits": left}, indent=2))


def metadata_without(metadata: Mapping[str, Any], gone: Gone) -> dict[str, Any]:
    """The metadata of a dataset without some of its photos; its notes stay those of the build."""
    clusters, contents = {}, {}
    for split, where in metadata["clusters"].items():
        out = gone.get(split, {})
        identities = [
            (identity, sum(i not in out for i in range(start, stop)))
            for identity, (start, stop) in zip(
                where["identity"], pairwise(where["offset"]), strict=True
            )
        ]
        left = {identity: photos for identity, photos in identities if photos}
        if left:
            offsets = [0, *accumulate(left.values())]
            clusters[split] = {"identity": list(left), "offset": offsets}
            digest = (int(metadata["contents"][split], 16) - sum(out.values())) % DIGESTS
            contents[split] = f"{digest:064x}"
    photos = sum(map(len, gone.values()))
    outcomes = dict(metadata["outcomes"])
    outcomes["kept"] -= photos
    outcomes["removed"] = outcomes.get("removed", 0) + photos
    return {
        **metadata,
        "clusters": clusters,
        "contents": contents,
        "outcomes": dict(sorted(outcomes.items())),
    }


def _write_split(
    split: tfds.core.SplitInfo, draft: Path, out: Set[int], advance: Callable[[int], object]
) -> list[int]:
    """Write a split's files without the records at some places; how many each of them holds."""
    bounds = pairwise([0, *accumulate(split.shard_lengths)])
    kept = [[i - start for i in range(start, stop) if i not in out] for start, stop in bounds]
    files = list(zip(split.filepaths, split.shard_lengths, kept, strict=True))
    left = [one for one in files if one[2]]  # a file without records would be good for nothing
    template = split.filename_template.replace(data_dir=draft)
    for number, (path, length, positions) in enumerate(left):
        target = Path(template.sharded_filepath(shard_index=number, num_shards=len(left)))
        if len(positions) == length:
            _link(Path(path), target)
        else:
            write_shard(target, _records(Path(path), positions))
        advance(length)
    return [len(positions) for _, _, positions in left]


def _records(path: Path, positions: list[int]) -> Iterator[bytes]:
    """Some records of a file as they are."""
    with ArrayRecordDataSource([str(path)]) as source:
        for position in positions:
            yield source[position]


def _link(path: Path, target: Path) -> None:
    try:
        os.link(path, target)
    except OSError:  # not every file system can
        shutil.copy2(path, target)
