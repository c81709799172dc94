"""A weights directory of the small configuration, drawn so that every path matters."""

import math
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np

from flashface_jax.diffusion.schedule import ScheduleConfig
from flashface_jax.models.network import path_name
from flashface_jax.models.unet_topology import UNetConfig
from flashface_jax.weights.directory import write_config, write_params
from flashface_jax.weights.system import SystemConfig, build_system
from flashface_jax.weights.tokenizer import train_tokenizer
from tests.small import CONFIG

CAPTIONS = ["a child, smiling", "sad, at night", "an old man with a red hat"]


def small_system(**denoiser: object) -> SystemConfig:
    """The small configuration predicting x_0, so that images of random weights stay in range."""
    system = CONFIG.system
    widened = UNetConfig(**{**vars(system.flashface.denoiser), **denoiser})
    return replace(
        system,
        flashface=replace(system.flashface, denoiser=widened),
        schedule=ScheduleConfig(prediction="sample"),
        sampling=replace(system.sampling, text_guidance=2.0, reference_guidance=1.5),
    )


def write_random_weights(directory: Path, config: SystemConfig, seed: int = 0) -> Path:
    """Write a weights directory; fresh parameters would hide all that starts at zero."""
    rng = np.random.default_rng(seed)

    def draw(path: tuple, leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        name = path_name(path)
        values = rng.standard_normal(leaf.shape).astype(np.float32)
        if len(leaf.shape) == 1:
            return name.endswith("scale") + np.float32(0.1) * values
        # References would be one of many things that an image depends on.
        gain = 4 if "reference_attention/o" in name else 1
        return values * np.float32(gain / math.sqrt(math.prod(leaf.shape[:-1])))

    directory.mkdir(parents=True)
    write_config(directory, config)
    for name, part in build_system(config).parts().items():
        if jax.tree.leaves(part.shapes):
            write_params(directory, name, jax.tree_util.tree_map_with_path(draw, part.shapes))
    length = config.text_tower.length
    train_tokenizer(CAPTIONS, directory / "tokenizer", length, config.text_tower.vocabulary)
    return directory
