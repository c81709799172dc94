"""Everything that an inspection found, before it is written down."""

from collections.abc import Mapping
from dataclasses import dataclass

from flashface_jax.inspection.measuring.samples import SampleView
from flashface_jax.inspection.measuring.statistics import SplitStatistics
from flashface_jax.inspection.measuring.suspicion import Limits
from flashface_jax.inspection.measuring.throughput import Throughput
from flashface_jax.inspection.measuring.verification import Verification
from flashface_jax.inspection.sheets import DrawnCluster


@dataclass(frozen=True)
class Build:
    """What a dataset says of itself.

    Attributes:
        name: of the dataset, with its version.
        place: its directory.
        contents: checksum of each split.
        form: how photos are stored: longest_side and reference_size in pixels, quality of JPEGs.
        outcomes: photos of the manifest that were kept, and dropped by reason.
        notes: photos kept with a note, by note.
    """

    name: str
    place: str
    contents: Mapping[str, str]
    form: Mapping[str, int]
    outcomes: Mapping[str, int]
    notes: Mapping[str, int]


@dataclass(frozen=True)
class Report:
    """What was found.

    Attributes:
        build: what the dataset says of itself.
        seed: of what was read and drawn.
        limits: from where on something was called odd.
        splits: numbers.
        verifications: of each split; none if it was not asked for.
        suspicious: the oddest clusters.
        suspicious_total: how many clusters are odd, shown or not.
        ordinary: some clusters about which nothing is odd.
        sampled_split: from which samples were drawn.
        samples: what the model sees.
        samples_problem: why there are none, in a sentence.
        throughput: rates, or None.
        throughput_problem: why there are none, in a sentence.
    """

    build: Build
    seed: int
    limits: Limits
    splits: tuple[SplitStatistics, ...]
    verifications: tuple[Verification, ...]
    suspicious: tuple[DrawnCluster, ...]
    suspicious_total: int
    ordinary: tuple[DrawnCluster, ...]
    sampled_split: str
    samples: tuple[SampleView, ...]
    samples_problem: str
    throughput: Throughput | None
    throughput_problem: str

    @property
    def whole(self) -> bool:
        """Whether every record that was read could be, and no verification found a fault."""
        return not self.unreadable and all(check.whole for check in self.verifications)

    @property
    def unreadable(self) -> dict[str, int]:
        """Splits with records that could not be read, and how many."""
        found = {split.split: split.counts["unreadable record"] for split in self.splits}
        return {split: count for split, count in found.items() if count}
