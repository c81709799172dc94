"""A run at Weights & Biases; with WANDB_MODE=offline it stays below the run's own directory.

The project is that of the environment's WANDB_PROJECT, or "flashface-jax".
"""

import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path

from PIL import Image

from flashface_jax.common.files import atomic_file
from flashface_jax.weights.run_files import TRAIN_FILE

STEP = "step"
PROJECT = "flashface-jax"
ID_FILE = "wandb_id.txt"


class WandbRun:
    """Sends what is logged, under one id however often the run is resumed."""

    def __init__(self, workdir: Path, step: int):
        """Continue under the id that the directory keeps, or a new one.

        W&B's own count of steps only grows, and would refuse those that a run that was cut off
        takes again. Values carry the run's step with them, over which charts are drawn.

        Raises:
            ValueError: W&B opens no run, as for somebody who is not logged in.
        """
        import wandb  # noqa: PLC0415  (optional)

        described = workdir / TRAIN_FILE
        self._image = wandb.Image
        try:
            self._run = wandb.init(
                project=os.environ.get("WANDB_PROJECT", PROJECT),
                name=workdir.name,
                id=_kept_id(workdir),
                resume="allow",
                dir=str(workdir),
                config=json.loads(described.read_text()) if described.exists() else None,
            )
        except wandb.Error as error:
            raise ValueError(
                f"Weights & Biases opens no run ({error}): log in with wandb login, or set "
                "WANDB_MODE=offline."
            ) from error
        self._run.define_metric("*", step_metric=STEP)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Send numbers."""
        self._run.log({STEP: step, **values})

    def picture(self, step: int, name: str, image: Image.Image) -> None:
        """Send a picture."""
        self._run.log({STEP: step, name: self._image(image)})

    def close(self) -> None:
        """Send what is left."""
        self._run.finish()


def _kept_id(workdir: Path) -> str:
    """The id under which the run in a directory is known; drawn once."""
    path = workdir / ID_FILE
    if not path.exists():
        with atomic_file(path) as draft:
            draft.write_text(secrets.token_hex(8) + "\n")
    return path.read_text().strip()
