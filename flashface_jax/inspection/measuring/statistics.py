"""A split in numbers: pure functions of what was measured, and of the clusters' sizes."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64, Real

from flashface_jax.inspection.measuring.clusters import Cluster, Measured, Measuring
from flashface_jax.inspection.measuring.facts import COLUMNS, Facts
from flashface_jax.inspection.measuring.suspicion import Limits, blurred, steep, tiny

BINS = 20
STEPS = (1, 2, 5)
MOST_PROVENANCES = 30  # that are listed


@dataclass(frozen=True)
class Histogram:
    """How many values lie where.

    Attributes:
        edges: bin i holds the values from edges[i] to below edges[i + 1].
        counts: of values in each bin.
        open_ended: whether the last bin holds larger values too.
    """

    edges: tuple[float, ...]
    counts: tuple[int, ...]
    open_ended: bool


@dataclass(frozen=True)
class Measure:
    """One quantity of many photos or clusters.

    Attributes:
        name: what it is, with its unit.
        count: of values.
        smallest: value.
        low: 5 % of values are below it.
        median: half of the values are below it.
        mean: value.
        high: 95 % of values are below it.
        largest: value.
        histogram: of the values.
    """

    name: str
    count: int
    smallest: float
    low: float
    median: float
    mean: float
    high: float
    largest: float
    histogram: Histogram


@dataclass(frozen=True)
class SplitStatistics:
    """One split in numbers.

    Attributes:
        split: its name.
        identities: people.
        photos: of all of them.
        alone: people with fewer than two photos, whom training leaves out.
        bytes_on_disk: of the files with the photos.
        reference_bytes: of the files with face crops.
        identities_read: people of whom photos were read.
        photos_read: photos that were read; what follows is about these.
        counts: photos read with some property, by its name.
        measures: quantities, by their names in code.
        provenances: the most frequent ones, each with its photos.
        other_provenances: photos with another one.
        suspicious_clusters: clusters read about which something is odd.
    """

    split: str
    identities: int
    photos: int
    alone: int
    bytes_on_disk: int
    reference_bytes: int
    identities_read: int
    photos_read: int
    counts: Mapping[str, int]
    measures: Mapping[str, Measure]
    provenances: tuple[tuple[str, int], ...]
    other_provenances: int
    suspicious_clusters: int


def split_statistics(
    split: str,
    sizes: Int64[np.ndarray, " identities"],
    disk: tuple[int, int],
    measured: Measured,
    how: Measuring,
) -> SplitStatistics:
    """Sum up a split.

    Args:
        split: its name.
        sizes: photos of each identity, read or not.
        disk: bytes of the photos' files and of the crops'.
        measured: what was read.
        how: it was measured.
    """
    facts = all_facts(measured.clusters)
    listed, others = most_common(measured.provenances)
    found = {**counts(facts, how.limits), "near-identical to another": _same(measured.clusters)}
    if how.caption_cut is not None:
        found["caption cut by the text tower"] = int(facts["caption_cut"].sum())
    return SplitStatistics(
        split=split,
        identities=len(sizes),
        photos=int(sizes.sum()),
        alone=int((sizes < 2).sum()),
        bytes_on_disk=disk[0],
        reference_bytes=disk[1],
        identities_read=len(measured.clusters),
        photos_read=len(facts),
        counts=found,
        measures={"cluster_sizes": measure("photos of a person", sizes), **measures(facts)},
        provenances=listed,
        other_provenances=others,
        suspicious_clusters=sum(bool(cluster.found) for cluster in measured.clusters),
    )


def all_facts(clusters: Sequence[Cluster]) -> Facts:
    """The facts of all clusters' photos."""
    return np.concatenate([np.zeros(0, COLUMNS), *(cluster.facts for cluster in clusters)])


def most_common(provenances: Counter[str]) -> tuple[tuple[tuple[str, int], ...], int]:
    """The most frequent provenances, and the photos with another one."""
    listed = tuple(sorted(provenances.items(), key=lambda item: (-item[1], item[0])))
    listed, rest = listed[:MOST_PROVENANCES], listed[MOST_PROVENANCES:]
    return listed, sum(count for _, count in rest)


def _same(clusters: Sequence[Cluster]) -> int:
    odd = (odd for cluster in clusters for odd in cluster.found if odd.kind == "same_pictures")
    return sum(len(suspicion.positions) for suspicion in odd)


def counts(facts: Facts, limits: Limits) -> dict[str, int]:
    """How many photos have some property."""
    readable = facts["readable"]
    which = {
        "unreadable record": ~readable,
        "does not decode": readable & ~facts["decodes"],
        "no landmarks": readable & ~facts["landmarks"],
        "no caption": readable & (facts["words"] == 0),
        "face cut by the border": facts["face_cut"],
        f"face under {limits.tiny_face:.0f} pixels": tiny(facts, limits),
        "face blurred": blurred(facts),
        f"eye line over {limits.tilt:.0f} degrees": steep(facts, limits),
    }
    return {name: int(rows.sum()) for name, rows in which.items()}


def measures(facts: Facts) -> dict[str, Measure]:
    """Quantities of photos, as far as they are known."""
    known, whole = facts[facts["readable"]], facts[facts["decodes"]]
    longer = np.maximum(known["face_width"], known["face_height"])
    fraction = np.maximum(whole["face_width"], whole["face_height"]) / np.maximum(
        1, np.minimum(whole["width"], whole["height"])
    )
    shorter_side = np.minimum(whole["width"], whole["height"])
    values = {
        "picture_sides": ("shorter side of the picture in pixels", shorter_side),
        "face_sides": ("longer side of the face box in pixels", longer),
        "face_fractions": ("longer side of the face over the picture's shorter side", fraction),
        "face_sharpness": ("sharpness of the face", whole["sharpness"]),
        "caption_words": ("words of a caption", known["words"]),
        "kilobytes": ("kilobytes of a JPEG", known["size"] / 1000),
    }
    return {key: measure(name, numbers) for key, (name, numbers) in values.items() if len(numbers)}


def measure(name: str, values: Real[np.ndarray, " values"]) -> Measure:
    """Sum up one quantity of one value or more."""
    low, median, high = np.percentile(values, [5, 50, 95]).tolist()
    return Measure(
        name=name,
        count=len(values),
        smallest=float(values.min()),
        low=low,
        median=median,
        mean=float(values.mean(dtype=np.float64)),
        high=high,
        largest=float(values.max()),
        histogram=histogram(values),
    )


def histogram(values: Real[np.ndarray, " values"], bins: int = BINS) -> Histogram:
    """Count values in bins of a round width; a long tail shares the last one.

    Whole numbers get bins of whole widths.

    Args:
        values: one or more, none below 0.
        bins: how many at most.
    """
    end, largest = float(np.percentile(values, 99)), float(values.max())
    end = largest if largest <= 1.5 * end else end
    whole = np.issubdtype(values.dtype, np.integer)
    width = round_width(max(end, 1e-6) / (bins - 1), whole)
    start = float(values.min() // width)
    last = max(int(end // width), int(start))
    edges = [round(width * i, 9) for i in range(int(start), last + 2)]
    open_ended = largest >= edges[-1]
    places = np.minimum((values // width).astype(np.int64), last) - int(start)
    found = np.bincount(places, minlength=len(edges) - 1)
    return Histogram(tuple(edges), tuple(found.tolist()), open_ended)


def round_width(least: float, whole: bool) -> float:
    """The smallest of 1, 2, 5, 10, 20, ... or their tenths, hundredths that is not less."""
    power = 10.0 ** np.floor(np.log10(least))
    width = next(step * power for step in (*STEPS, 10) if step * power >= least * (1 - 1e-9))
    return max(1.0, float(width)) if whole else float(width)
