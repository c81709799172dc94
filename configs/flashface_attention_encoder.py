"""The ablation of the paper's Table 4: reference attention in encoder and middle.

    flashface train --config configs/flashface_attention_encoder.py --workdir runs/encoder \
        --config.initial=weights/sd15 --config.data.dataset=DATASET

The paper measured SimTarget 6.8 where the decoder's gave 56.1. Not run at this size.
"""

from ml_collections import ConfigDict

from flashface_jax.training.paper import PAPER, as_config_dict, denoiser_changed


def get_config() -> ConfigDict:
    """Return the experiment; every field can be overridden, e.g. --config.batch_size=256."""
    return as_config_dict(denoiser_changed(PAPER, reference_attention="encoder"))
