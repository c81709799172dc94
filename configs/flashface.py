"""The paper's training run: both networks whole, 768x768, Stable Diffusion 1.5's widths.

    flashface convert stable-diffusion --from stable-diffusion-v1-5 --out weights/sd15
    flashface train --config configs/flashface.py --workdir runs/flashface \
        --config.initial=weights/sd15 --config.data.dataset=DATASET

50,000 steps of 32 samples (paper, §4.1). docs/tpu.md says where that fits and how long it takes at
least; it has not been run to the end.
"""

from ml_collections import ConfigDict

from flashface_jax.training.paper import PAPER, as_config_dict


def get_config() -> ConfigDict:
    """Return the experiment; every field can be overridden, e.g. --config.batch_size=256."""
    return as_config_dict(PAPER)
