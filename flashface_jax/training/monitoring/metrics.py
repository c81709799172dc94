"""Metrics and pictures of a run, handed to its trackers."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path

from PIL import Image

from flashface_jax.training.monitoring.trackers.registry import TRACKERS
from flashface_jax.training.parallel.processes import is_first


class MetricsWriter:
    """Hands everything to each tracker; only the first process of a run has any.

    Args:
        workdir: the run's directory.
        step: the last step that was taken before; what is logged goes on after it.
        trackers: names of them, of `trackers/registry.py`.
    """

    def __init__(self, workdir: Path, step: int, trackers: Sequence[str]):
        self._pictures = workdir / "samples"
        with ExitStack() as opened:  # which closes the others if one cannot be opened
            self._trackers = [
                opened.enter_context(closing(TRACKERS[name](workdir, step)))
                for name in (trackers if is_first() else ())
            ]
            self._cleanup = opened.pop_all()

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Log numbers of a step."""
        for tracker in self._trackers:
            tracker.scalars(step, values)

    def picture(self, step: int, name: str, image: Image.Image) -> Path:
        """Save a picture as PNG, and show it to the trackers; returns its path."""
        path = self._pictures / f"{name}_{step:07d}.png"
        if is_first():
            self._pictures.mkdir(exist_ok=True)
            image.save(path)
        for tracker in self._trackers:
            tracker.picture(step, name, image)
        return path

    def close(self) -> None:
        """Let every tracker write what it has left."""
        self._cleanup.close()
