"""The ablation of the paper's Table 4: reference attention in encoder, middle and decoder.

    flashface train --config configs/flashface_attention_both.py --workdir runs/attention_both \
        --config.initial=weights/sd15 --config.data.dataset=DATASET

The paper measured SimTarget 52.2 where the decoder's gave 56.1. Not run at this size.
"""

from ml_collections import ConfigDict

from flashface_jax.training.paper import PAPER, as_config_dict, denoiser_changed


def get_config() -> ConfigDict:
    """Return the experiment; every field can be overridden, e.g. --config.batch_size=256."""
    return as_config_dict(denoiser_changed(PAPER, reference_attention="both"))
