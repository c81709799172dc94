"""The paper's training run: both networks whole, 768x768, Stable Diffusion 1.5's widths.

    python -m flashface_jax.convert stable-diffusion --from SD15 --out weights/sd15
    python train.py --config configs/flashface.py --workdir runs/flashface \
        --config.initial=weights/sd15 --config.data.dataset=DATASET

Adam at 2e-5, 50,000 steps of 32 samples with 1 to 4 references each, every condition dropped one
time in ten (paper, §4.1). Activations are made again in the backward pass, but for those of
attention. docs/tpu.md says what fits on which machine; it has not been run to the end.
"""

import dataclasses

from ml_collections import ConfigDict

from flashface_jax.system import SystemConfig
from flashface_jax.training.config import TrainConfig


def get_config() -> ConfigDict:
    """Return the experiment; every field can be overridden, e.g. --config.batch_size=256."""
    config = TrainConfig(
        steps=50_000,
        batch_size=32,
        system=SystemConfig(image_tower=None),  # evaluation's alone
        compute_dtype="bfloat16",
        recompute="all but attention",
        log_every=50,
        checkpoint_every=1000,
        grid_every=1000,
    )
    return ConfigDict(dataclasses.asdict(config))
