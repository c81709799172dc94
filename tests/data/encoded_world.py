"""The built-in world, small networks with an autoencoder of Stable Diffusion's kind, and both
kinds of batches of them."""

import dataclasses
from pathlib import Path

from flashface_jax.data import precompute
from flashface_jax.data.config import DataConfig
from flashface_jax.data.loading.draws import DrawOptions, DropRates
from flashface_jax.data.loading.loader import LoaderOptions
from flashface_jax.models.autoencoder.autoencoder import AutoencoderConfig
from flashface_jax.models.autoencoder.patch_cosines import PatchCosinesConfig
from flashface_jax.models.autoencoder.vae import AutoencoderKLConfig
from flashface_jax.models.flashface import FlashFaceConfig
from flashface_jax.training.config import TrainConfig
from flashface_jax.weights.system import SystemConfig
from tests.small import CONFIG, DENOISER

VAE = AutoencoderKLConfig(32, channel_multipliers=(1, 1, 1), residual_blocks=1, scale=0.5)
HALF = DropRates(0.4, 0.4, 0.3)


def system(autoencoder: AutoencoderConfig = VAE, *, inpaints: bool = False) -> SystemConfig:
    """The small system with another autoencoder, by default one that has a posterior."""
    latent = autoencoder.latent_channels
    channels = 2 * latent + 1 if inpaints else latent + 1
    denoiser = dataclasses.replace(DENOISER, in_channels=channels, out_channels=latent)
    return dataclasses.replace(
        CONFIG.system,
        flashface=FlashFaceConfig(denoiser),
        autoencoder=autoencoder,
    )


def no_posterior() -> SystemConfig:
    """The small system with the autoencoder of one latent an image."""
    return system(PatchCosinesConfig(patch=8))


def config(of: SystemConfig, weights: Path, dataset: Path, precomputed: Path | str) -> TrainConfig:
    """A run from these weights; batches of 6, half of whose conditions are dropped."""
    drop = dataclasses.replace(HALF, face_mask=0.0) if of.flashface.inpaints else HALF
    data = DataConfig(
        dataset=str(dataset),
        precomputed=str(precomputed),
        draws=DrawOptions(drop=drop),
        loader=LoaderOptions(threads=1),
    )
    return dataclasses.replace(
        CONFIG,
        system=of,
        initial=str(weights),
        trainable=("flashface",),
        batch_size=6,
        grid_people=0,
        data=data,
    )


def run(weights: Path, dataset: Path, out: Path, *more: object) -> int:
    """The command's exit status."""
    words = ["--weights", weights, "--dataset", dataset, "--out", out, *more]
    return precompute.main(list(map(str, words)))
