"""The paper's LoRA model: 512x512, the U-Net trains by low-rank updates alone (supplement).

    flashface train --config configs/flashface_lora.py --workdir runs/lora \
        --config.initial=weights/flashface --config.data.dataset=DATASET \
        --config.system.autoencoder.misread_attention=True     # as the released weights' was
    flashface convert export runs/lora --to lora --out lora.safetensors

Every attention layer of the U-Net has updates; beside them reference attention and the ReferenceNet
train. The input convolution does not: from Stable Diffusion, whose mask channel starts at zero, the
face position stays without effect; start from FlashFace's weights to have it. The paper does not
say the rank. Not run at this size.
"""

from dataclasses import replace

from ml_collections import ConfigDict

from flashface_jax.models.lora import LoraConfig
from flashface_jax.training.paper import PAPER, as_config_dict


def get_config() -> ConfigDict:
    """Return the experiment; every field can be overridden, e.g. --config.lora.rank=16."""
    system = replace(PAPER.system, image_size=512)
    return as_config_dict(replace(PAPER, system=system, lora=LoraConfig(rank=64, alpha=64.0)))
