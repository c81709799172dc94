"""A small FlashFace on the built-in world of drawn identities, from nothing, on a CPU.

    flashface train --config configs/synthetic.py --workdir runs/synthetic

Expected: a loss of about 0.23 after 2,300 steps (5 to 8 minutes on 2 CPU cores): people are soft,
but their skin, hair, clothes and surroundings are what references and prompt say. The loss is
still falling then; a longer run, such as `--config.steps=20000`, was not tried. Unlike the paper's,
the loss is weighted and the network predicts x_0; docs/performance.md says why.
"""

import dataclasses

from ml_collections import ConfigDict

from flashface_jax.data.config import DataConfig, WorldConfig
from flashface_jax.data.loading.loader import LoaderOptions
from flashface_jax.diffusion.loss import LossConfig
from flashface_jax.diffusion.schedule import ScheduleConfig
from flashface_jax.diffusion.settings import SamplingConfig
from flashface_jax.models.autoencoder.patch_cosines import PatchCosinesConfig
from flashface_jax.models.clip import TextTowerConfig
from flashface_jax.models.flashface import FlashFaceConfig
from flashface_jax.models.unet_topology import UNetConfig
from flashface_jax.training.config import TrainConfig
from flashface_jax.training.optimizer import OptimizerConfig
from flashface_jax.weights.system import SystemConfig
from flashface_jax.world import Framing


def get_config() -> ConfigDict:
    """Return the experiment; every field can be overridden, e.g. --config.batch_size=8."""
    autoencoder = PatchCosinesConfig(patch=8, deviations=((2.0,) * 4, (2.0,) * 2, (2.0,) * 2))
    denoiser = UNetConfig(
        in_channels=autoencoder.latent_channels + 1,
        out_channels=autoencoder.latent_channels,
        base_channels=64,
        channel_multipliers=(1,),
        residual_blocks=(0,),
        transformer_depth=(1,),
        context_channels=64,
        num_heads=2,
        norm_groups=4,
    )
    config = TrainConfig(
        steps=2300,
        batch_size=32,
        trainable=("flashface", "text_tower"),  # no pretrained text tower is assumed
        system=SystemConfig(
            flashface=FlashFaceConfig(denoiser),
            autoencoder=autoencoder,
            text_tower=TextTowerConfig(
                vocabulary=1024, length=40, channels=64, num_heads=4, layers=2, embedding=64
            ),
            image_tower=None,
            schedule=ScheduleConfig(prediction="sample"),
            image_size=64,
            reference_size=32,
            sampling=SamplingConfig(
                steps=25,
                # Chosen on drawn people beyond those that the demo judges.
                text_guidance=2.0,
                reference_guidance=3.0,
                reference_strength=1.0,
                early_reference_strength=1.0,
                launch_timestep=999,
                prompt_suffix="",
                negative_suffix="",
            ),
        ),
        loss=LossConfig("velocity", max_snr=3.0),
        optimizer=OptimizerConfig(
            method="muon",
            learning_rate=2e-3,
            second_moment_decay=0.99,
            warmup_steps=60,
            cosine_decay=True,
            max_gradient_norm=1.0,
            ema_decay=0.99,
        ),
        data=DataConfig(
            world=WorldConfig(
                identities=1200,
                held_out=64,
                photos_per_identity=6,
                framing=Framing(face_sizes=(0.56, 0.72), turn=0.35),
            ),
            loader=LoaderOptions(threads=1),  # the step wants both cores
        ),
        checkpoint_every=1000,
        grid_every=1000,
    )
    return ConfigDict(dataclasses.asdict(config))
