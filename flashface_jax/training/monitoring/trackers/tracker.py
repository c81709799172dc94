"""What a tracker is."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from PIL import Image


class Tracker(Protocol):
    """Takes what is logged of a run; only the run's first process has any."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Take numbers that belong to a step; a step may have several such calls."""

    def picture(self, step: int, name: str, image: Image.Image) -> None:
        """Take a picture; the run itself has saved it as a PNG below samples/."""

    def close(self) -> None:
        """Write what is not written yet."""


OpenTracker = Callable[[Path, int], Tracker]
"""Opens a tracker of the run in a directory, which goes on after a step.

The run may have been killed later than its newest checkpoint: what was logged of later steps is
logged again, and a tracker drops what it holds of them.
"""
