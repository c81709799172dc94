"""Which identity is in which split, and which photo in which shard."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from flashface_jax.data.building.removals import plain
from flashface_jax.data.building.staging import Staging
from flashface_jax.data.dataset import TRAIN, VALIDATION

DIGESTS = 2**256


@dataclass(frozen=True)
class Arrangement:
    """Where a split's photos are.

    Attributes:
        identities: their names, in order.
        offsets: identity i has the places offsets[i] .. offsets[i + 1] - 1.
        shards: places at which shards begin, and the number of photos.
        contents: sum of the records' digests modulo 2^256, in hexadecimal.
    """

    identities: list[str]
    offsets: list[int]
    shards: list[int]
    contents: str


def choose_splits(
    photos_per_identity: Mapping[str, int], held_out: int, names: tuple[str, ...], seed: int
) -> dict[str, list[str]]:
    """Identities of each split, in order; no identity is in two (paper, §4.1: 200 are held out).

    Nor is a person whose name is spelt in two ways that `plain` makes one: manifests are merged.

    Args:
        photos_per_identity: number of photos, by name.
        held_out: how many to hold out, of those with two photos or more, but a tenth at most. Which
            ones depends on the seed and their names: few change when others come or go.
        names: hold out these instead, if any are given, as far as they have photos.
        seed: of the choice.

    Raises:
        ValueError: none of the names has a photo, or nobody is left to train on.
    """
    if names and not any(name in photos_per_identity for name in names):
        raise ValueError(f"No photo is kept of anybody to be held out, such as {names[0]!r}.")
    able = [name for name, photos in photos_per_identity.items() if photos >= 2]
    count = min(held_out, len(able) // 10)
    drawn = sorted(able, key=lambda name: hashlib.sha256(f"{seed}/{plain(name)}".encode()).digest())
    chosen = set(map(plain, names or drawn[:count]))
    splits = {
        TRAIN: [name for name in photos_per_identity if plain(name) not in chosen],
        VALIDATION: [name for name in photos_per_identity if plain(name) in chosen],
    }
    if not splits[TRAIN]:
        raise ValueError("No photo is left to train on.")
    return {split: identities for split, identities in splits.items() if identities}


def arrange(staging: Staging, split: str, identities: list[str], shard_bytes: int) -> Arrangement:
    """Give a split's photos their places, and cut them into shards of about a size."""
    counts = dict.fromkeys(identities, 0)
    shards, filled, contents, place = [0], 0, 0, 0
    for identity, size, digest in staging.place(split, identities):
        if filled >= shard_bytes:
            shards.append(place)
            filled = 0
        counts[identity] += 1
        filled += size
        contents = (contents + digest) % DIGESTS
        place += 1
    offsets = [0]
    for count in counts.values():
        offsets.append(offsets[-1] + count)
    return Arrangement(identities, offsets, [*shards, place], f"{contents:064x}")
