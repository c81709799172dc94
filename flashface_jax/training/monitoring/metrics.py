"""Metrics of a run: TensorBoard events, and one JSON object a line in `metrics.jsonl`."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image
from tensorboardX import SummaryWriter

from flashface_jax.common.files import whole_file
from flashface_jax.training.parallel.processes import is_first


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
        with whole_file(self._path) as draft:
            draft.write_text("".join(f"{line}\n" for line in kept))
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
