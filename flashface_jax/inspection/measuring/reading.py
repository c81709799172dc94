"""Reading photos of a dataset that may be damaged anywhere."""

from pathlib import Path

import numpy as np
from google.protobuf.message import DecodeError
from jaxtyping import Int64

from flashface_jax.common.errors import sentence
from flashface_jax.data.dataset import NAME, REFERENCES, PhotoRecord, Photos

# What ArrayRecord (RuntimeError), TFDS and UTF-8 raise on a damaged file.
DAMAGED = (RuntimeError, DecodeError, ValueError, KeyError, OSError)
MOST_OF_A_CLUSTER = 200


def read_record(photos: Photos, position: int) -> PhotoRecord | str:
    """The record at a position, or what is wrong with it, in a sentence."""
    try:
        return photos[position]
    except DAMAGED as error:
        return f"Record {position} cannot be read: {sentence(error)}"


def choose_identities(
    sizes: Int64[np.ndarray, " identities"], photos: int, seed: int
) -> list[tuple[int, list[int]]]:
    """Whole clusters, drawn at random until they hold enough photos.

    Clusters are drawn and not photos, because much of what can be wrong shows only among the photos
    of one person. Of a very large one, photos are drawn too.

    Args:
        sizes: photos of each identity.
        photos: how many to read at least; 0 for all.
        seed: of the choice.

    Returns:
        Identities in order, each with the photos to read, from 0.
    """
    if photos == 0 or photos >= sizes.sum():
        return [(i, list(range(size))) for i, size in enumerate(sizes.tolist())]
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(sizes))
    enough = np.cumsum(np.minimum(sizes[order], MOST_OF_A_CLUSTER))
    chosen = np.sort(order[: int(np.searchsorted(enough, photos)) + 1])
    return [(i, some_of(int(sizes[i]), MOST_OF_A_CLUSTER, rng)) for i in chosen.tolist()]


def some_of(count: int, most: int, rng: np.random.Generator) -> list[int]:
    """Numbers below a count, in order: all of them, or as many as asked for, drawn at random."""
    if count <= most:
        return list(range(count))
    return sorted(rng.choice(count, most, replace=False).tolist())


def bytes_on_disk(directory: Path, split: str) -> tuple[int, int]:
    """Bytes of the files of a split's photos, and of its face crops."""
    sizes = [
        sum(file.stat().st_size for file in directory.glob(f"{NAME}-{name}.array_record-*"))
        for name in (split, split + REFERENCES)
    ]
    return sizes[0], sizes[1]
