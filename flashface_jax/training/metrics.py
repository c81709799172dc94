"""Metrics of a run: TensorBoard events, and one JSON object a line in `metrics.jsonl`."""

import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TypeVar

import jax
import numpy as np
from PIL import Image
from tensorboardX import SummaryWriter

from flashface_jax.training.processes import is_first
from flashface_jax.training.step import Metrics

T = TypeVar("T")


class MetricsWriter:
    """Writes scalars and pictures below a run's directory; only the first process does."""

    def __init__(self, workdir: Path, step: int):
        """Continue after `step`: lines of later steps, of a run that was cut off, are dropped."""
        self._writes, self._pictures = is_first(), workdir / "samples"
        if not self._writes:
            return
        self._path = workdir / "metrics.jsonl"
        kept = [
            line
            for line in (self._path.read_text().splitlines() if self._path.exists() else [])
            if line.endswith("}") and json.loads(line)["step"] <= step
        ]
        self._path.write_text("".join(f"{line}\n" for line in kept))
        self._events = SummaryWriter(str(workdir / "tensorboard"), purge_step=step + 1)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Write one line, and one event a value."""
        if not self._writes:
            return
        with self._path.open("a") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")
        for name, value in values.items():
            self._events.add_scalar(name, value, step)

    def picture(self, step: int, name: str, image: Image.Image) -> Path:
        """Save a picture as PNG and for TensorBoard; returns its path."""
        path = self._pictures / f"{name}_{step:07d}.png"
        if not self._writes:
            return path
        self._pictures.mkdir(exist_ok=True)
        image.save(path)
        self._events.add_image(name, np.asarray(image), step, dataformats="HWC")
        return path

    def close(self) -> None:
        """Flush everything."""
        if not self._writes:
            return
        self._events.close()


class Meter:
    """Means of metrics, samples per second and time spent waiting, since the last reading."""

    def __init__(self, batch_size: int):
        self._batch_size = batch_size
        self._values: list[Metrics] = []
        self.restart()

    def restart(self) -> None:
        """Start the clock, after something that was not training."""
        self._timed, self._waited, self._began = 0, 0.0, time.perf_counter()

    def timed(self, items: Iterator[T]) -> Iterator[T]:
        """The items, with the time that each took to come counted as waiting."""
        while True:
            asked = time.perf_counter()
            item = next(items)
            self._waited += time.perf_counter() - asked
            yield item

    def add(self, values: Metrics) -> None:
        """Take one step's metrics; they stay on the device until read."""
        self._values.append({name: values[name] for name in ("loss", "gradient_norm")})
        self._timed += 1

    def read(self) -> dict[str, float]:
        """Return the means and the rate, and start anew."""
        values = jax.device_get(self._values)
        means = {name: float(np.mean([v[name] for v in values])) for name in values[0]}
        seconds = time.perf_counter() - self._began
        means["samples_per_second"] = self._timed * self._batch_size / seconds
        means["data_wait"] = self._waited / seconds
        self._values = []
        self.restart()
        return means
