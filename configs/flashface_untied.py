"""A ReferenceNet with a middle block and a time embedding of its own.

    flashface train --config configs/flashface_untied.py --workdir runs/untied \
        --config.initial=weights/sd15 --config.data.dataset=DATASET

The released model's ReferenceNet runs the denoiser's, though the paper trains two whole networks.
The released files cannot hold this one: flashface sample opens it, flashface convert export refuses
it. Not run at this size.
"""

from dataclasses import replace

from ml_collections import ConfigDict

from flashface_jax.training.paper import PAPER, as_config_dict, flashface_changed


def get_config() -> ConfigDict:
    """Return the experiment; every field can be overridden, e.g. --config.batch_size=256."""
    untied = replace(PAPER.system.flashface, tie_reference_middle=False)
    return as_config_dict(flashface_changed(PAPER, untied))
