"""Weights converted from small checkpoints in the released format, by the real command."""

from dataclasses import dataclass
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
import torch

from flashface_jax.convert.command import main
from flashface_jax.models.blocks import Compute
from flashface_jax.models.flashface import FlashFace
from flashface_jax.models.network import Params, network
from flashface_jax.weights.directory import WeightsDirectory
from flashface_jax.weights.system import System, build_system
from tests.recorded import drawn_state_dict

HEADS = ["--num-heads", "4", "--clip-text-heads", "4", "--clip-image-heads", "2"]


@dataclass(frozen=True)
class Checkpoints:
    """The recordings' checkpoints on disk, as `torch.save` writes them."""

    unet: Path
    vae: Path
    clip: Path


@dataclass(frozen=True)
class Converted:
    """An opened weights directory with all its networks."""

    directory: WeightsDirectory
    system: System
    params: dict[str, Params]

    def bind(self, part, params=None):
        """One network with its converted parameters."""
        return vars(self.system)[part].bind(self.params[part] if params is None else params)


class MasksInRecordedOrder(FlashFace):
    """FlashFace whose rows get each other's face masks, as the released sampler hands them out.

    It repeats each sample's mask once a branch, [a, a, b, b], but lays rows out branch by branch,
    [a, b, a, b]; the recordings have two different masks in one batch. Branches that differ by
    their references only then have different masks, too, and cannot share an encoder.
    """

    def denoise(self, latents, condition, timestep, context, references, paired=0):
        latents, condition, timestep, context = (
            jnp.concatenate([rows[:paired], rows])
            for rows in (latents, condition, timestep, context)
        )
        branches = latents.shape[0] // RECORDED_SAMPLES
        mask = np.repeat(np.arange(RECORDED_SAMPLES), branches)
        return super().denoise(latents, condition[mask], timestep, context, references)


RECORDED_SAMPLES = 2


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoints")
    files = Checkpoints(folder / "flashface.ckpt", folder / "vae.pth", folder / "clip.pth")
    for name, path in vars(files).items():
        torch.save(drawn_state_dict(f"tiny_{name}"), path)
    return files


@pytest.fixture(scope="session")
def converted(checkpoints, tmp_path_factory):
    out = tmp_path_factory.mktemp("converted") / "weights"
    files = [f"--{name}={path}" for name, path in vars(checkpoints).items()]
    assert main(["official", *files, *HEADS, f"--out={out}"]) == 0
    directory = WeightsDirectory.open(out)
    system = build_system(directory.config)
    params = {name: directory.params(name, part) for name, part in system.parts().items()}
    return Converted(directory, system, params)


@pytest.fixture(scope="session")
def recorded_order(converted):
    """The converted FlashFace with the released sampler's order of masks."""
    config = converted.directory.config.flashface
    return network(lambda keys: MasksInRecordedOrder(config, Compute(), keys))
