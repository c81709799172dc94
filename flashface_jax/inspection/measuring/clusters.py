"""Every photo that is read, measured; cluster by cluster, in parallel."""

import functools
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
from tqdm import tqdm

from flashface_jax.data.dataset import Photos
from flashface_jax.inspection.measuring.facts import Facts, PhotoFacts, measure, table
from flashface_jax.inspection.measuring.reading import read_record
from flashface_jax.inspection.measuring.suspicion import Limits, Suspicion, rank, suspicions

CaptionCut = Callable[[str], bool]
"""Whether a caption has more tokens than the text tower takes."""

OTHER_PROVENANCES = "(others)"
MOST_PROVENANCES = 10_000  # different ones that are counted each on its own
LONGEST_PROVENANCE = 1000


@dataclass(frozen=True)
class Cluster:
    """One person's photos, measured.

    Attributes:
        split: where they are.
        number: of the person in the split.
        name: of the person.
        photos: how many there are.
        facts: of those that were read.
        found: what is odd about them.
    """

    split: str
    number: int
    name: str
    photos: int
    facts: Facts
    found: tuple[Suspicion, ...]

    @property
    def rank(self) -> float:
        """How suspicious the cluster is."""
        return rank(self.found)


@dataclass(frozen=True)
class Measured:
    """What was read of a split.

    Attributes:
        clusters: in the order of their numbers.
        provenances: how often each provenance is named; OTHER_PROVENANCES counts those that came
            when there were very many different ones already.
    """

    clusters: list[Cluster]
    provenances: Counter[str]


@dataclass(frozen=True)
class Measuring:
    """How photos are measured.

    Attributes:
        limits: from where on something is odd.
        caption_cut: asked of every caption; None to ask nothing.
        threads: photos measured at the same time.
    """

    limits: Limits
    caption_cut: CaptionCut | None
    threads: int


def measure_clusters(
    photos: Photos, split: str, chosen: Sequence[tuple[int, list[int]]], how: Measuring
) -> Measured:
    """Measure the chosen photos of the chosen identities, with a progress bar.

    Only numbers are kept of a photo, 80 bytes.
    """
    cv2.setNumThreads(1)  # photos are measured side by side already
    median = float(np.median(photos.clusters.sizes))
    total = sum(len(which) for _, which in chosen)
    found = Measured([], Counter())
    read = functools.partial(_read, photos, how.caption_cut)
    with (
        ThreadPoolExecutor(how.threads) as pool,
        tqdm(total=total, desc=f"measuring {split}", unit="photo") as bar,
    ):
        for number, which in chosen:
            places = photos.clusters.photos_of(number)
            facts, words = [], []
            for fact, said in pool.map(read, [places[i] for i in which]):
                facts.append(fact)
                words += [] if said is None else [said]
                bar.update()
            _count(found.provenances, (said.provenance for said in words))
            measured, captions = table(facts), {said.caption for said in words}
            odd = tuple(suspicions(measured, captions, len(places), median, how.limits))
            name = photos.clusters.identities[number]
            found.clusters.append(Cluster(split, number, name, len(places), measured, odd))
    return found


class _Words(NamedTuple):
    caption: str
    provenance: str


def _read(
    photos: Photos, caption_cut: CaptionCut | None, position: int
) -> tuple[PhotoFacts, _Words | None]:
    """Facts and words of the photo at a position, as far as it can be read."""
    record = read_record(photos, position)
    if isinstance(record, str):
        return PhotoFacts(position, readable=False, decodes=False), None
    cut = caption_cut is not None and caption_cut(record.caption)
    return measure(position, record, cut), _Words(record.caption, record.provenance)


def _count(counts: Counter[str], provenances: Iterable[str]) -> None:
    """Count provenances without keeping ever more different ones."""
    for provenance in (whole[:LONGEST_PROVENANCE] for whole in provenances):
        known = provenance in counts or len(counts) < MOST_PROVENANCES
        counts[provenance if known else OTHER_PROVENANCES] += 1


def odd_sizes(photos: Photos, limits: Limits, most: int) -> list[int]:
    """Identities with very few or very many photos, the oddest ones, told without reading any."""
    sizes = photos.clusters.sizes
    median = float(np.median(sizes))
    odd = np.flatnonzero(
        (sizes < 2) | (sizes < limits.few * median) | (sizes > limits.many * median)
    )
    distance = np.abs(np.log(np.maximum(sizes[odd], 0.5) / median))
    return np.sort(odd[np.argsort(-distance, kind="stable")[:most]]).tolist()


def suspicious(clusters: Iterable[Cluster]) -> list[Cluster]:
    """The clusters about which something is odd, the oddest first."""
    odd = [cluster for cluster in clusters if cluster.found]
    return sorted(odd, key=lambda cluster: (-cluster.rank, cluster.split, cluster.number))
