"""The input pipeline (paper, §4): identities -> one target and 1..N references each -> batches.

What a sample shows depends on the seed and the sample's global index alone.
"""

import dataclasses
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import grain
import numpy as np

from flashface_jax.data.dataset import TRAIN, IdClusters
from flashface_jax.data.loading.draws import DrawOptions, draw_sample
from flashface_jax.data.loading.encoded_samples import MakeEncodedSample
from flashface_jax.data.loading.loader import BatchLoader, LoaderOptions
from flashface_jax.data.loading.precomputed import Precomputed
from flashface_jax.data.loading.samples import MakeSample, PhotoPool, SampleShape
from flashface_jax.weights.tokenizer import Tokenizer

PROBED = 8


def photo_pool(dataset: IdClusters, split: str, reference_size: int) -> PhotoPool:
    """A split's photos, with its stored face crops if they are large enough for a model."""
    enough = dataset.reference_size >= reference_size
    return PhotoPool(dataset.photos(split), dataset.references(split) if enough else None)


@dataclass(frozen=True)
class Order:
    """What decides which photos follow each other.

    Attributes:
        seed: of the order of identities and of everything drawn for a sample.
        draws: what samples are drawn with.
    """

    seed: int
    draws: DrawOptions


class DrawOnly(grain.transforms.RandomMap):
    """What is random of a sample, without its pictures."""

    def __init__(self, pool: PhotoPool, options: DrawOptions):
        self._usable, self._sizes = pool.usable, pool.photos.clusters.sizes
        self._options = options

    def random_map(self, element: int, rng: np.random.Generator) -> str:
        """The identity's number and all that was drawn, as text."""
        identity = int(self._usable[element])
        draw = draw_sample(rng, int(self._sizes[identity]), self._options)
        return repr([identity, *(np.asarray(value).tolist() for value in vars(draw).values())])


class NameOnly(grain.transforms.RandomMap):
    """Which person and photos a sample is of, in words."""

    def __init__(self, pool: PhotoPool, options: DrawOptions):
        self._pool, self._options = pool, options

    def random_map(self, element: int, rng: np.random.Generator) -> str:
        """Name them."""
        clusters = self._pool.photos.clusters
        identity = int(self._pool.usable[element])
        photos = clusters.photos_of(identity)
        draw = draw_sample(rng, len(photos), self._options)
        target, *references = [
            self._pool.photos[photos[i]].source_id for i in draw.order[: 1 + draw.references]
        ]
        return f"{target} with references {', '.join(references)}"


def ordered(pool: PhotoPool, seed: int, make: grain.transforms.RandomMap) -> grain.MapDataset[Any]:
    """Endless samples that `make` makes of usable identities; every epoch shuffles them anew."""
    identities = grain.MapDataset.range(len(pool.usable)).seed(seed).shuffle()
    return identities.random_map(make).repeat()


def fingerprint(
    dataset: IdClusters, split: str, pool: PhotoPool, shape: SampleShape, order: Order
) -> dict[str, Any]:
    """What the sequence of samples depends on; two that are equal give the same one.

    The first draws themselves are in it, and change with Grain or NumPy if these change them.
    """
    drawn = ordered(pool, order.seed, DrawOnly(pool, order.draws))
    first = hashlib.sha256("".join(drawn[i] for i in range(PROBED)).encode()).hexdigest()
    return {
        "dataset": f"{dataset.version} {dataset.metadata['contents'][split][:16]}",
        "split": split,
        "stored_references": pool.crops is not None,
        "shape": dataclasses.asdict(shape),
        "draws": dataclasses.asdict(order.draws),
        "seed": order.seed,
        "first_draws": first[:16],
    }


def training_batches(
    dataset: IdClusters,
    tokenizer: Tokenizer,
    shape: SampleShape,
    order: Order,
    batch_size: int,
    options: LoaderOptions | None = None,
    rows: Sequence[int] | None = None,
) -> BatchLoader:
    """Endless batches of this process, from the training split.

    Args:
        dataset: to draw from.
        tokenizer: of the captions.
        shape: sizes that the model wants.
        order: what decides the sequence.
        batch_size: samples of a batch over all processes.
        options: how samples are made ready.
        rows: rows of a batch that this process makes; all if None.

    Raises:
        ValueError: if there are fewer identities with two photos than a batch has samples.
    """
    pool = photo_pool(dataset, TRAIN, shape.reference_size)
    make = MakeSample(pool, tokenizer, shape, order.draws)
    known = fingerprint(dataset, TRAIN, pool, shape, order)
    return _batches(pool, order, make, known, batch_size, options, rows)


def encoded_batches(
    dataset: IdClusters,
    precomputed: Precomputed,
    order: Order,
    batch_size: int,
    options: LoaderOptions | None = None,
    rows: Sequence[int] | None = None,
    *,
    without_face: bool = False,
) -> BatchLoader:
    """The same batches, of latents and contexts in place of photos and tokens.

    Args:
        dataset: to draw from.
        precomputed: made of it.
        order: what decides the sequence.
        batch_size: samples of a batch over all processes.
        options: how samples are made ready.
        rows: rows of a batch that this process makes; all if None.
        without_face: whether the model sees the latent of the image without its face.

    Raises:
        ValueError: if there are fewer identities with two photos than a batch has samples.
    """
    origin = precomputed.origin
    sizes = origin.sizes
    shape = SampleShape(sizes.image_size, sizes.reference_size, sizes.stride)
    pool = photo_pool(dataset, TRAIN, shape.reference_size)
    make = MakeEncodedSample(pool, precomputed, order.draws, without_face=without_face)
    known = fingerprint(dataset, TRAIN, pool, shape, order)
    known["precomputed"] = f"{origin.weights[:16]} {origin.storage} {origin.precision}"
    return _batches(pool, order, make, known, batch_size, options, rows)


def _batches(
    pool: PhotoPool,
    order: Order,
    make: grain.transforms.RandomMap,
    known: dict[str, Any],
    batch_size: int,
    options: LoaderOptions | None,
    rows: Sequence[int] | None,
) -> BatchLoader:
    usable = len(pool.usable)
    if usable < batch_size:
        raise ValueError(
            f"{usable} identities with two photos or more cannot fill a batch of {batch_size} "
            "different ones: lower batch_size or add identities."
        )
    return BatchLoader(
        ordered(pool, order.seed, make), batch_size, known, options or LoaderOptions(), rows
    )


def describe_samples(pool: PhotoPool, order: Order, indices: Sequence[int]) -> list[str]:
    """Name the person and photos of samples by their global indices, as far as all decode."""
    drawn = ordered(pool, order.seed, NameOnly(pool, order.draws))
    return [drawn[index] for index in indices]


def describe_pool(pool: PhotoPool) -> str:
    """What is drawn from, and what is left out, in a line."""
    clusters, usable = pool.photos.clusters, pool.usable
    photos, left_out = int(clusters.sizes[usable].sum()), len(clusters) - len(usable)
    said = f"{photos} photos of {len(usable)} people"
    if left_out:
        said += f"; {left_out} people with fewer than 2 photos are left out"
    return f"{said}; references are {'cut from photos' if pool.crops is None else 'stored crops'}"
