"""Events below `tensorboard/`, for TensorBoard."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image
from tensorboardX import SummaryWriter


class TensorBoard:
    """Writes an event a value."""

    def __init__(self, workdir: Path, step: int):
        """Continue after `step`: TensorBoard shows no event of a later one that came before."""
        self._events = SummaryWriter(str(workdir / "tensorboard"), purge_step=step + 1)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Write one event a value."""
        for name, value in values.items():
            self._events.add_scalar(name, value, step)

    def picture(self, step: int, name: str, image: Image.Image) -> None:
        """Write a picture."""
        self._events.add_image(name, np.asarray(image), step, dataformats="HWC")

    def close(self) -> None:
        """Write what is left."""
        self._events.close()
