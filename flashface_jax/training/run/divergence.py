"""Whether losses and gradients are finite, and what to say of the first that is not."""

from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np

from flashface_jax.training.computation.step import Metrics

UNREAD = 2
"""Newest steps whose outcome is not looked at yet: devices would wait for whoever looks."""


@dataclass(frozen=True)
class StepTaken:
    """A step that was taken.

    Attributes:
        step: its number, from 1.
        metrics: what it returned; still on the device.
        before: where the data iterator stood before its batch; None for the first one here.
    """

    step: int
    metrics: Metrics
    before: dict[str, Any] | None

    @property
    def bad_rows(self) -> list[int]:
        """Rows of the global batch whose losses are not finite."""
        losses = np.asarray(self.metrics["sample_loss"])
        return [int(row) for row in np.flatnonzero(~np.isfinite(losses))]

    def in_words(self, samples: list[str]) -> str:
        """Say what was not finite, of which samples, and what to do.

        Args:
            samples: names of the first `bad_rows`.
        """
        loss, norm = (float(self.metrics[name]) for name in ("loss", "gradient_norm"))
        of = (
            f" over {len(self.bad_rows)} samples ({'; '.join(samples)})"
            if samples
            else ", though the loss of every sample is finite"
        )
        return (
            f"Step {self.step} has a loss of {loss:g} and a gradient of norm {norm:g}{of}. The "
            f"state after step {self.step - 1} is kept. Begin another run from it "
            "(--config.initial) with a lower learning rate, gradient clipping or another seed."
        )


class DivergenceCheck:
    """Looks at the steps of a run a little late."""

    def __init__(self) -> None:
        self._unread: deque[StepTaken] = deque()
        self._data_state: dict[str, Any] | None = None

    def add(self, step: int, metrics: Metrics, data_state: dict[str, Any]) -> None:
        """Take note of a step, and of where the data iterator stands after its batch."""
        self._unread.append(StepTaken(step, metrics, self._data_state))
        self._data_state = data_state

    def first_bad(self, unread: int) -> StepTaken | None:
        """The first step that was not finite, if any, leaving the `unread` newest ones."""
        while len(self._unread) > unread:
            taken = self._unread.popleft()
            if not taken.metrics["healthy"]:
                return taken
        return None
