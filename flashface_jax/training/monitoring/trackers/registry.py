"""The trackers that a configuration can name."""

import importlib.util
from collections.abc import Sequence

from flashface_jax.training.monitoring.trackers.csv_file import CsvFile
from flashface_jax.training.monitoring.trackers.jsonl_file import JsonlFile
from flashface_jax.training.monitoring.trackers.tensorboard import TensorBoard
from flashface_jax.training.monitoring.trackers.tracker import OpenTracker
from flashface_jax.training.monitoring.trackers.wandb_run import WandbRun

TRACKERS: dict[str, OpenTracker] = {
    "jsonl": JsonlFile,
    "csv": CsvFile,
    "tensorboard": TensorBoard,
    "wandb": WandbRun,
}
EXTRAS = ("wandb",)
"""Those that need a package of their name, which the extra of their name installs."""


def check_trackers(names: Sequence[str]) -> None:
    """Refuse trackers that cannot be opened: before a run begins, rather than after.

    Raises:
        ValueError: one is unknown, is named twice, or its package is not installed.
    """
    for name in names:
        if name not in TRACKERS:
            raise ValueError(f"trackers has {name!r}: choose among {', '.join(TRACKERS)}.")
        if names.count(name) > 1:
            raise ValueError(f"trackers has {name!r} more than once: name it once.")
        if name in EXTRAS and importlib.util.find_spec(name) is None:
            raise ValueError(
                f"The tracker {name} is not installed: pip install 'flashface-jax[{name}]', or "
                "leave it out of trackers."
            )
