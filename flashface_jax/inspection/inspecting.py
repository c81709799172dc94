"""From a dataset to a report: what is read, in which order, and how much of it."""

import copy
from collections.abc import Iterable, Sequence

import numpy as np

from flashface_jax.common.errors import sentence
from flashface_jax.data.dataset import NAME, IdClusters, Photos
from flashface_jax.data.loading.pipeline import photo_pool
from flashface_jax.data.loading.samples import PhotoPool, SampleShape
from flashface_jax.inspection.measuring.clusters import (
    CaptionCut,
    Cluster,
    Measuring,
    measure_clusters,
    odd_sizes,
    suspicious,
)
from flashface_jax.inspection.measuring.reading import (
    DAMAGED,
    MOST_OF_A_CLUSTER,
    bytes_on_disk,
    choose_identities,
    some_of,
)
from flashface_jax.inspection.measuring.samples import SampleView, draw_samples, seen
from flashface_jax.inspection.measuring.statistics import SplitStatistics, split_statistics
from flashface_jax.inspection.measuring.suspicion import Limits
from flashface_jax.inspection.measuring.throughput import Throughput, throughput
from flashface_jax.inspection.measuring.verification import verify
from flashface_jax.inspection.options import STRIDE, InspectOptions
from flashface_jax.inspection.report import Build, Report
from flashface_jax.inspection.sheets import DrawnCluster, draw_cluster
from flashface_jax.weights.tokenizer import Tokenizer

ENLARGED = 4  # a face that a reference enlarges more is tiny
ORDINARY = 6


def inspect_dataset(
    dataset: IdClusters, splits: Sequence[str], options: InspectOptions, tokenizer: Tokenizer | None
) -> Report:
    """Look at some splits of a dataset, with progress bars.

    Raises:
        ValueError: there is no such split.
    """
    opened = {split: dataset.photos(split) for split in splits}
    verifications = [verify(dataset, split, options.threads) for split in splits if options.verify]
    how = Measuring(_limits(options), _caption_cut(tokenizer), options.threads)
    numbers, clusters = [], []
    for split, photos in opened.items():
        statistics, read = _measured(dataset, split, photos, options, how)
        numbers.append(statistics)
        clusters += read
    odd = suspicious(clusters)
    samples, problem = _samples(dataset, splits[0], options, tokenizer)
    rates, no_rates = _rates(dataset, splits[0], options, tokenizer)
    return Report(
        build=describe_build(dataset),
        seed=options.seed,
        limits=_limits(options),
        splits=tuple(numbers),
        verifications=tuple(verifications),
        suspicious=_drawn(opened, odd[: options.clusters]),
        suspicious_total=len(odd),
        ordinary=_drawn(opened, _ordinary(clusters, options.seed)),
        sampled_split=splits[0],
        samples=samples,
        samples_problem=problem,
        throughput=rates,
        throughput_problem=no_rates,
    )


def describe_build(dataset: IdClusters) -> Build:
    """What a dataset's metadata say."""
    metadata = dataset.metadata
    return Build(
        name=f"{NAME} {dataset.version}",
        place=str(dataset.path),
        contents=dict(metadata["contents"]),
        form=dict(metadata.get("form", {})),
        outcomes=dict(metadata.get("outcomes", {})),
        notes=dict(metadata.get("notes", {})),
    )


def _caption_cut(tokenizer: Tokenizer | None) -> CaptionCut | None:
    """Whether a caption has more tokens than a prompt holds."""
    if tokenizer is None:
        return None
    longer = copy.copy(tokenizer)
    longer.length += 1  # one more place tells whether there was more
    return lambda caption: bool(longer([caption])[0, -2] != longer.end_token)


def _measured(
    dataset: IdClusters, split: str, photos: Photos, options: InspectOptions, how: Measuring
) -> tuple[SplitStatistics, list[Cluster]]:
    """A split's numbers, and the clusters that were read for them or for their odd size."""
    sizes = photos.clusters.sizes
    chosen = choose_identities(sizes, options.sample, options.seed)
    measured = measure_clusters(photos, split, chosen, how)
    disk = bytes_on_disk(dataset.path, split)
    statistics = split_statistics(split, sizes, disk, measured, how)
    known, rng = {number for number, _ in chosen}, np.random.default_rng(options.seed)
    odd = [i for i in odd_sizes(photos, how.limits, options.clusters) if i not in known]
    further = [(i, some_of(int(sizes[i]), MOST_OF_A_CLUSTER, rng)) for i in odd]
    if not further:
        return statistics, measured.clusters
    return statistics, [*measured.clusters, *measure_clusters(photos, split, further, how).clusters]


def _ordinary(clusters: Sequence[Cluster], seed: int) -> list[Cluster]:
    """Some clusters about which nothing is odd, at random."""
    ordinary = [cluster for cluster in clusters if not cluster.found]
    rng = np.random.default_rng(seed)
    return [ordinary[i] for i in some_of(len(ordinary), ORDINARY, rng)]


def _drawn(opened: dict[str, Photos], clusters: Iterable[Cluster]) -> tuple[DrawnCluster, ...]:
    return tuple(draw_cluster(opened[cluster.split], cluster) for cluster in clusters)


def _pool(
    dataset: IdClusters, split: str, options: InspectOptions
) -> tuple[PhotoPool, SampleShape]:
    shape = SampleShape(options.image_size, options.reference_size, STRIDE)
    return photo_pool(dataset, split, options.reference_size), shape


def _samples(
    dataset: IdClusters, split: str, options: InspectOptions, tokenizer: Tokenizer | None
) -> tuple[tuple[SampleView, ...], str]:
    """Training samples to look at, or why there are none."""
    if not options.samples:
        return (), ""
    try:
        pool, shape = _pool(dataset, split, options)
        drawn = draw_samples(pool, shape, options.seed, options.samples)
    except DAMAGED as error:  # a page on a damaged dataset is wanted all the more
        return (), sentence(error)
    identities = pool.photos.clusters.identities
    return tuple(seen(sample, identities, STRIDE, tokenizer) for sample in drawn), ""


def _rates(
    dataset: IdClusters, split: str, options: InspectOptions, tokenizer: Tokenizer | None
) -> tuple[Throughput | None, str]:
    """Rates, or why there are none."""
    if not options.seconds:
        return None, ""
    try:
        pool, shape = _pool(dataset, split, options)
        return throughput(pool, shape, options.seed, tokenizer, options.seconds), ""
    except DAMAGED as error:
        return None, sentence(error)


def _limits(options: InspectOptions) -> Limits:
    """From where on something is odd."""
    return Limits(tiny_face=options.reference_size / ENLARGED)
