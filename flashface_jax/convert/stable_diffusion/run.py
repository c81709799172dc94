"""The command: Stable Diffusion 1.x in, a weights directory out from which training starts."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from flashface_jax.convert.files.tensors import Tensors
from flashface_jax.convert.run import Part, write_weights
from flashface_jax.convert.sizes import Shapes
from flashface_jax.convert.stable_diffusion.autoencoder import (
    autoencoder_table,
    infer_autoencoder_config,
)
from flashface_jax.convert.stable_diffusion.checkpoint import Checkpoint, open_checkpoint
from flashface_jax.convert.stable_diffusion.described import Described
from flashface_jax.convert.stable_diffusion.text_tower import (
    infer_text_tower_config,
    text_tower_table,
)
from flashface_jax.convert.stable_diffusion.unet import flashface_table, infer_flashface_config
from flashface_jax.convert.table import ConversionError
from flashface_jax.models.autoencoder.vae import AutoencoderKLConfig
from flashface_jax.models.clip import TextTowerConfig
from flashface_jax.models.network import flatten
from flashface_jax.weights.system import SystemConfig, build_system
from flashface_jax.weights.tokenizer import Tokenizer, convert_clip_vocabulary


def convert_stable_diffusion(
    source: Path,
    out: Path,
    tokenizer: Path | None = None,
    num_heads: int | None = None,
    clip_text_heads: int | None = None,
) -> None:
    """Write the weights directory `out`; everything is checked before anything is written.

    Args:
        source: a diffusers folder, or a file in the original layout.
        out: directory to create.
        tokenizer: CLIP's vocabulary, or a tokenizer's folder; None for the diffusers folder's own.
        num_heads: heads of the U-Net's attention; None for what the folder says, otherwise 8.
        clip_text_heads: None for what the folder says, otherwise width / 64.

    Raises:
        ConversionError: with everything that is wrong with the checkpoint.
        FileExistsError: if `out` exists.
    """
    checkpoint = open_checkpoint(source)
    vocabulary = tokenizer or checkpoint.tokenizer
    if vocabulary is None:
        raise ConversionError(f"{source} holds no tokenizer: name one with --tokenizer.")
    config = _infer(checkpoint, _with_options(checkpoint.described, num_heads, clip_text_heads))
    networks = build_system(config).parts()

    def write_tokenizer(target: Path) -> None:
        _write_tokenizer(vocabulary, target, config.text_tower)

    parts = _parts(checkpoint, config, flatten(networks["flashface"].shapes))
    write_weights(parts, config, networks, write_tokenizer, out)
    if config.text_tower.embedding is None:
        print("text_tower: the checkpoint holds no projection to CLIP's joint embedding")
    print("image_tower: a Stable Diffusion checkpoint holds none")


def _with_options(
    described: Described, num_heads: int | None, clip_text_heads: int | None
) -> Described:
    """What is known of a checkpoint, with what the user knows better."""
    if num_heads is not None:
        described = replace(described, num_heads=num_heads, head_channels=None)
    return replace(described, text_heads=clip_text_heads or described.text_heads)


def _infer(checkpoint: Checkpoint, described: Described) -> SystemConfig:
    """Read the system's configuration off the checkpoint; all bad networks are named together."""
    layout, found, errors = checkpoint.layout, {}, []
    recipes: list[tuple[str, Tensors, Callable[[Shapes], Any]]] = [
        (
            "flashface",
            checkpoint.unet,
            lambda shapes: infer_flashface_config(layout.unet, shapes, described),
        ),
        (
            "autoencoder",
            checkpoint.autoencoder,
            lambda shapes: infer_autoencoder_config(layout.autoencoder, shapes, described),
        ),
        (
            "text_tower",
            checkpoint.text_tower,
            lambda shapes: infer_text_tower_config(layout.text_root, shapes, described),
        ),
    ]
    for name, tensors, infer in recipes:
        try:
            found[name] = infer(tensors.shapes)
        except ValueError as error:  # also what a configuration says of impossible sizes
            errors.append(f"{tensors.path} cannot be converted: {error}")
    if errors:
        raise ConversionError("\n".join(dict.fromkeys(errors)))
    config = SystemConfig(image_tower=None, schedule=described.schedule, **found)
    try:
        config.check_consistency()
    except ValueError as error:
        raise ConversionError(f"{checkpoint.path} cannot be converted: {error}") from error
    return config


def _parts(checkpoint: Checkpoint, config: SystemConfig, parameters: Iterable[str]) -> list[Part]:
    """The networks with their tables; `parameters` names FlashFace's."""
    layout, autoencoder = checkpoint.layout, config.autoencoder
    unet, vae, text = checkpoint.unet, checkpoint.autoencoder, checkpoint.text_tower
    assert isinstance(autoencoder, AutoencoderKLConfig)  # as it was inferred
    denoiser = flashface_table(layout.unet, config.flashface, unet.shapes, parameters)
    latents = autoencoder_table(layout.autoencoder, autoencoder, vae.shapes)
    tower = text_tower_table(layout.text_root, config.text_tower, text.shapes)
    return [
        Part("flashface", unet, config.flashface, denoiser),
        Part("autoencoder", vae, autoencoder, latents),
        Part("text_tower", text, config.text_tower, tower),
    ]


def _write_tokenizer(source: Path, target: Path, tower: TextTowerConfig) -> None:
    """Write the vocabulary of a text tower.

    Raises:
        ConversionError: if it is none, has added tokens, or is of another text tower.
    """
    try:
        if source.is_dir():
            given = Tokenizer.from_directory(source)
            given.save(target)
            written = Tokenizer.from_directory(target)
        else:
            given = written = convert_clip_vocabulary(source, target, tower.length)
    except ValueError as error:
        raise ConversionError(str(error)) from error
    if given.vocab_size != written.vocab_size:
        raise ConversionError(
            f"{source} has {given.vocab_size - written.vocab_size} added tokens, of textual "
            "inversion, say, which cannot be kept: name one without them with --tokenizer."
        )
    if written.length != tower.length or written.vocab_size > tower.vocabulary:
        raise ConversionError(
            f"{source} has {written.vocab_size} tokens and prompts of {written.length}, the text "
            f"tower {tower.vocabulary} and {tower.length}: name its own tokenizer with --tokenizer."
        )
