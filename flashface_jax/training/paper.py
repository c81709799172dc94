"""The paper's training run, of which `configs/flashface*.py` are variants."""

import dataclasses
from dataclasses import replace
from typing import Any

from ml_collections import ConfigDict

from flashface_jax.models.clip import TextTowerConfig
from flashface_jax.models.flashface import FlashFaceConfig
from flashface_jax.training.config import TrainConfig
from flashface_jax.weights.system import SystemConfig

PAPER = TrainConfig(
    steps=50_000,
    batch_size=32,
    # CLIP's image tower and text projection serve evaluation alone.
    system=SystemConfig(text_tower=TextTowerConfig(embedding=None), image_tower=None),
    compute_dtype="bfloat16",
    recompute="all but attention",
    log_every=50,
    checkpoint_every=1000,
    grid_every=1000,
)
"""Adam at 2e-5, 768x768, 1 to 4 references, every condition dropped one time in ten (§4.1).

Activations are made again in the backward pass, which the paper does not tell of.
"""


def denoiser_changed(config: TrainConfig, **changes: Any) -> TrainConfig:
    """The run with another denoiser."""
    flashface = config.system.flashface
    denoiser = replace(flashface.denoiser, **changes)
    return flashface_changed(config, replace(flashface, denoiser=denoiser))


def flashface_changed(config: TrainConfig, flashface: FlashFaceConfig) -> TrainConfig:
    """The run with other networks to train."""
    return replace(config, system=replace(config.system, flashface=flashface))


def as_config_dict(config: TrainConfig) -> ConfigDict:
    """What a configuration file returns; every field can be overridden by a flag."""
    return ConfigDict(dataclasses.asdict(config))
