"""Which configuration a run's directory belongs to."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from flashface_jax.common.files import atomic_file
from flashface_jax.training.config import TrainConfig, from_mapping
from flashface_jax.weights.directory import CONFIG_FILE, write_config
from flashface_jax.weights.run_files import TRAIN_FILE, has_checkpoints

# What may change between the beginning of a run and its resumption.
RESUMABLE_CHANGES = {
    "system.sampling",
    "data.loader",
    "data.dataset",  # the batches' fingerprint holds what matters of it
    "data.precomputed",  # likewise
    "initial",  # only the first step is taken from it
    "steps",  # unless the learning rate falls towards the last one
    "accumulate",
    "recompute",
    "sharding",
    "log_every",
    "checkpoint_every",
    "trackers",
    "grid_every",
    "grid_people",
    "identity_judge",
    "keep_checkpoints",
    "profile_steps",
}

FORMER_NAMES = {"likeness": "identity_judge"}


def require_same_run(workdir: Path, config: TrainConfig) -> None:
    """Refuse a directory that holds a run of another configuration, or other weights.

    Raises:
        ValueError: naming what differs.
    """
    path = workdir / TRAIN_FILE
    if not path.exists():
        if has_checkpoints(workdir):
            raise ValueError(f"{path} is missing beside checkpoints: restore it from a copy.")
        if (workdir / CONFIG_FILE).exists():
            raise ValueError(
                f"{workdir} holds weights, and no run: choose another workdir, and start from them "
                f"with --config.initial={workdir}."
            )
        return
    try:
        written = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}): restore it from a copy.") from error
    free = RESUMABLE_CHANGES - ({"steps"} if config.optimizer.cosine_decay else set())
    began, now = (_by_path(values, free) for values in (_completed(written), _described(config)))
    changed = [
        f"{name}: {began.get(name)} -> {now.get(name)}"
        for name in sorted(began.keys() | now.keys())
        if began.get(name) != now.get(name)
    ]
    if changed:
        raise ValueError(
            f"{workdir} holds a run with another configuration ({'; '.join(changed)}): choose "
            "another workdir, remove this one, or take the configuration that it began with."
        )


def write_run_config(workdir: Path, config: TrainConfig) -> None:
    """Write the configuration down, for those that resume the run or open its weights."""
    with atomic_file(workdir / TRAIN_FILE) as draft:
        draft.write_text(json.dumps(_described(config), indent=2) + "\n")
    write_config(workdir, config.system)


def _completed(written: dict[str, Any]) -> dict[str, Any]:
    """A configuration as this version has it: its names, and fields added since at defaults."""
    named = {FORMER_NAMES.get(name, name): value for name, value in written.items()}
    try:
        return _described(from_mapping(named))
    except ValueError:  # of another kind: what differs is told field by field
        return written


def _described(config: TrainConfig) -> dict[str, Any]:
    described: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(config)))
    return described


def _by_path(values: dict[str, Any], free: set[str], parent: str = "") -> dict[str, Any]:
    """Values of a nested configuration by dotted path, but for those that may change."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        path = f"{parent}{key}"
        if path in free:
            continue
        found.update(
            _by_path(value, free, f"{path}.") if isinstance(value, dict) else {path: value}
        )
    return found
