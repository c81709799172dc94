"""The smallest configuration that has every part of a training run."""

import dataclasses

from flashface_jax.data.config import DataConfig, WorldConfig
from flashface_jax.diffusion.settings import SamplingConfig
from flashface_jax.models.autoencoder.patch_cosines import PatchCosinesConfig
from flashface_jax.models.clip import TextTowerConfig
from flashface_jax.models.flashface import FlashFaceConfig
from flashface_jax.models.unet_topology import UNetConfig
from flashface_jax.training.config import TrainConfig
from flashface_jax.training.optimizer import OptimizerConfig
from flashface_jax.weights.system import SystemConfig

DENOISER = UNetConfig(
    in_channels=13,
    out_channels=12,
    base_channels=32,
    channel_multipliers=(1,),
    residual_blocks=(1,),
    transformer_depth=(1,),
    context_channels=16,
    num_heads=2,
    norm_groups=4,
)

CONFIG = TrainConfig(
    steps=6,
    batch_size=4,
    system=SystemConfig(
        flashface=FlashFaceConfig(DENOISER),
        autoencoder=PatchCosinesConfig(patch=8),
        text_tower=TextTowerConfig(
            vocabulary=600, length=40, channels=16, num_heads=2, layers=1, embedding=8
        ),
        image_tower=None,
        image_size=64,
        reference_size=32,
        sampling=SamplingConfig(steps=3, prompt_suffix="", negative_suffix=""),
    ),
    trainable=("flashface", "text_tower"),
    optimizer=OptimizerConfig(learning_rate=1e-3),
    data=DataConfig(
        world=WorldConfig(identities=6, held_out=2, photos_per_identity=5, vocabulary=600)
    ),
    log_every=1,
    checkpoint_every=3,
    grid_every=6,
    grid_people=2,
)


AVERAGING = dataclasses.replace(CONFIG, optimizer=OptimizerConfig("adam", 1e-3, ema_decay=0.9))
"""The same with a moving average, which takes a fifth longer to compile."""


def with_changes(**changes) -> TrainConfig:
    """The configuration with some fields changed."""
    return dataclasses.replace(CONFIG, **changes)
