"""Batches for this process, from a dataset addressed by global index.

The sequence of samples depends on the dataset alone, not on hosts, workers, threads or the batch
size, and all that has to be kept to go on is one integer.
"""

import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import grain
import numpy as np
from absl import flags

from flashface_jax.data.loading.samples import REPLACED, Sample

NEXT_INDEX, FINGERPRINT = "next_index", "fingerprint"


@dataclass(frozen=True)
class LoaderOptions:
    """How samples are made ready.

    Attributes:
        workers: processes that make samples; 0 makes them in this one, which is the fastest on
            few cores.
        threads: samples that each of them makes at the same time; the decoder lets them.
        prefetch: batches that each of them keeps ready. A batch of 32 takes 60 MB at 768x768.
    """

    workers: int = 0
    threads: int = 2
    prefetch: int = 2

    def __post_init__(self) -> None:
        for name, least in {"workers": 0, "threads": 1, "prefetch": 1}.items():
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be {least} or more.")


class SomeRows(grain.MapDataset[Any]):
    """Some rows of every global batch.

    Put together, the rows of all processes are the global batch, whatever their number and order.
    """

    def __init__(
        self, parent: grain.MapDataset[Any], start: int, global_batch: int, rows: Sequence[int]
    ):
        super().__init__(parent)
        self._start, self._global_batch, self._rows = start, global_batch, rows

    def __len__(self) -> int:
        return (len(self._parent) - self._start) // self._global_batch * len(self._rows)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return self.slice(index)
        batch, place = divmod(index, len(self._rows))
        return self._parent[self._start + batch * self._global_batch + self._rows[place]]


class BatchLoader(grain.DatasetIterator[Sample]):
    """Endless batches of this host's samples.

    Args:
        samples: an endless dataset whose samples depend on their global index alone.
        global_batch: samples of a batch over all hosts.
        fingerprint: what the sequence depends on; a state with another one is refused.
        options: how samples are made ready.
        rows: rows of the global batch that this process makes; all of them if None.

    Attributes:
        replaced: photos that did not decode so far, and were replaced.

    Raises:
        ValueError: a row is none of the global batch.
    """

    def __init__(
        self,
        samples: grain.MapDataset[Sample],
        global_batch: int,
        fingerprint: Mapping[str, Any],
        options: LoaderOptions,
        rows: Sequence[int] | None = None,
    ):
        super().__init__()
        self._open: grain.DatasetIterator[Sample] | None = None
        self._rows = range(global_batch) if rows is None else rows
        if not self._rows or min(self._rows) < 0 or max(self._rows) >= global_batch:
            raise ValueError(f"rows {list(self._rows)} are none of a batch of {global_batch}.")
        self._samples, self._global_batch = samples, global_batch
        self._fingerprint, self._options = dict(fingerprint), options
        self._next_index = 0
        self.replaced = 0

    def __next__(self) -> Sample:
        if self._open is None:
            self._open = self._start()
        batch = dict(next(self._open))
        self._next_index += self._global_batch
        self.replaced += int(np.sum(batch.pop(REPLACED)))
        return batch

    def get_state(self) -> dict[str, Any]:
        """Where the next batch begins, and what the sequence depends on; JSON can hold it."""
        return {NEXT_INDEX: self._next_index, FINGERPRINT: self._fingerprint}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Go on where a state was taken, with any number of hosts and workers.

        Raises:
            ValueError: naming what is different now, if the sequence would be another one, or the
                state does not say of which sequence it is.
        """
        if NEXT_INDEX not in state or FINGERPRINT not in state:
            raise ValueError(
                "The checkpoint does not say which data it was trained on, as those of an earlier "
                "version do not: begin another run."
            )
        was = state[FINGERPRINT]
        changed = [
            f"{name}: {was.get(name)} -> {self._fingerprint.get(name)}"
            for name in sorted(was.keys() | self._fingerprint.keys())
            if was.get(name) != self._fingerprint.get(name)
        ]
        if changed:
            raise ValueError(
                "The data are not those that the run was interrupted with "
                f"({'; '.join(changed)}): restore them, or begin another run."
            )
        self.close()
        self._next_index = int(state[NEXT_INDEX])

    def close(self) -> None:
        """Stop the workers."""
        if self._open is not None:
            self._open.close()
            self._open = None

    def _start(self) -> grain.DatasetIterator[Sample]:
        mine = SomeRows(self._samples, self._next_index, self._global_batch, self._rows)
        return whole_batches(mine, len(self._rows), self._options)


def whole_batches(
    samples: grain.MapDataset[Any], rows: int, options: LoaderOptions
) -> grain.DatasetIterator[Any]:
    """Batches of samples in their order, made by threads and workers; the last may be smaller."""
    # Whole batches are what workers share out; Grain's own default keeps 500 of them ready.
    ahead = options.threads if options.workers else max(options.threads, options.prefetch)
    threads = grain.ReadOptions(num_threads=options.threads, prefetch_buffer_size=ahead)
    batches = samples.batch(rows).to_iter_dataset(threads)
    if options.workers:
        if not flags.FLAGS.is_parsed():  # Grain asks for one; a program need not have any
            flags.FLAGS.mark_as_parsed()
        batches = batches.mp_prefetch(
            grain.MultiprocessingOptions(options.workers, options.prefetch), _leave_signals
        )
    return iter(batches)


def _leave_signals(worker: int, workers: int) -> None:
    """Let signals to all processes of a terminal or job end the one that ends the others."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
