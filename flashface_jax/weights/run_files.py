"""The files of a training run's directory, for the run itself and for whoever opens its weights.

RUN/
config.json      the system, as any weights directory has it
train.json       the configuration of training
tokenizer/
checkpoints/     a numbered one for each step that was saved, of one item for each part
"""

from pathlib import Path

import orbax.checkpoint as ocp

TRAIN_FILE = "train.json"
CHECKPOINTS = "checkpoints"
UNREADABLE = (ValueError, KeyError, OSError, TypeError, RuntimeError)
"""What Orbax raises over a checkpoint of which something is missing or damaged."""


def has_checkpoints(workdir: Path) -> bool:
    """Whether a run has saved a step there, whole or damaged."""
    place = workdir / CHECKPOINTS
    return place.is_dir() and any(path.name.isdigit() for path in place.iterdir())


def newest_checkpoint(workdir: Path) -> Path | None:
    """The newest checkpoint that was written whole, or None; nothing is changed."""
    place = (workdir / CHECKPOINTS).absolute()
    steps: list[int] = ocp.utils.checkpoint_steps(place) if place.is_dir() else []
    return place / str(max(steps)) if steps else None


def items_of(checkpoint: Path) -> set[str]:
    """Names of the items of a checkpoint."""
    return {path.name for path in checkpoint.iterdir() if path.is_dir()}
