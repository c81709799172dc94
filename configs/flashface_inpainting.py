"""The paper's inpainting model: the denoiser also sees the image without its face (supplement).

    flashface train --config configs/flashface_inpainting.py --workdir runs/inpainting \
        --config.initial=weights/sd15 --config.data.dataset=DATASET

Nine input channels: the noisy latent, the latent of the image without its face, and the face mask,
which is never dropped. It can start from weights of any FlashFace, whose input is widened with
zeros; from the released ones with --config.system.autoencoder.misread_attention=True, as theirs
was. Not run at this size.
"""

from dataclasses import replace

from ml_collections import ConfigDict

from flashface_jax.training.paper import PAPER, as_config_dict, denoiser_changed


def get_config() -> ConfigDict:
    """Return the experiment; every field can be overridden, e.g. --config.batch_size=256."""
    draws = replace(PAPER.data.draws, drop=replace(PAPER.data.draws.drop, face_mask=0.0))
    config = replace(PAPER, data=replace(PAPER.data, draws=draws))
    return as_config_dict(denoiser_changed(config, in_channels=9))
