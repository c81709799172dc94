"""Working directories of runs, with checkpoints as training writes them."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from flashface_jax.models.lora import LoraConfig
from flashface_jax.models.network import Params
from flashface_jax.training.computation.state import TrainState
from flashface_jax.training.run.checkpoint import Checkpoints
from flashface_jax.weights.directory import write_config
from flashface_jax.weights.run_files import TRAIN_FILE
from flashface_jax.weights.system import SystemConfig
from flashface_jax.weights.tokenizer import train_tokenizer
from flashface_jax.weights.trainable import FLASHFACE, split_trainable

Parts = dict[str, Params]


def write_run(
    workdir: Path, system: SystemConfig, drawn: Parts, lora: LoraConfig | None = None
) -> tuple[Parts, Parts]:
    """Write a run with two checkpoints; returns the newest one's average, and what is frozen.

    Args:
        workdir: the run's.
        system: its networks, which need not fit each other.
        drawn: parameters of all parts. The average after step n has n / 64 added.
        lora: what its low-rank updates are like, if it trains such.
    """
    write_config(workdir, system)
    described = None if lora is None else asdict(lora)
    (workdir / TRAIN_FILE).write_text(json.dumps({"lora": described}))
    train_tokenizer(["a man", "a hat"], workdir / "tokenizer", system.text_tower.length, 520)
    params, frozen = split_trainable(drawn, (FLASHFACE,), lora)
    state = TrainState(
        step=jnp.int32(0),
        healthy=jnp.bool_(True),
        params=params,
        average=None,
        optimizer={"count": np.int32(0)},
        frozen=frozen,
        key=jax.random.key(0),
    )
    checkpoints = Checkpoints(workdir)
    for step in (1, 2):
        average = jax.tree.map(lambda x, step=step: x + np.float32(step / 64), params)
        state = replace(state, step=jnp.int32(step), average=average)
        checkpoints.save(state, step, {"next": 0})
        checkpoints.wait()
    checkpoints.close()
    return average, frozen
