"""Batches on their devices, a few ahead of the step that takes them."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from flashface_jax.data.loading.loader import BatchLoader
from flashface_jax.training.computation.batch import AnyBatch
from flashface_jax.training.parallel.sharding import Layout

AHEAD = 2


@dataclass(frozen=True)
class PrefetchedBatch:
    """A batch, and where the data iterator stands after it.

    Attributes:
        batch: this process's part is on its devices, or on its way to them.
        data_state: what a checkpoint of the state after this batch must hold.
    """

    batch: AnyBatch
    data_state: dict[str, Any]


def prefetch(
    batches: BatchLoader, made: type[AnyBatch], layout: Layout, ahead: int = AHEAD
) -> Iterator[PrefetchedBatch]:
    """Endless batches `made` of rows, `ahead` of which are sent before they are asked for."""
    sent: deque[PrefetchedBatch] = deque()
    while True:
        while len(sent) <= ahead:
            rows: dict[str, Any] = next(batches)
            sent.append(PrefetchedBatch(layout.place_rows(made(**rows)), batches.get_state()))
        yield sent.popleft()
