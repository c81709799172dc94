"""A Stable Diffusion checkpoint, wherever it lies: its networks, and what is known of them."""

from dataclasses import dataclass
from pathlib import Path

from flashface_jax.convert.files.tensors import Section, Tensors, open_tensors
from flashface_jax.convert.stable_diffusion.described import Described
from flashface_jax.convert.stable_diffusion.folder import open_networks, read_description
from flashface_jax.convert.stable_diffusion.names import DIFFUSERS, LDM, Layout
from flashface_jax.convert.stable_diffusion.unet import require_stable_diffusion_1
from flashface_jax.convert.table import ConversionError


@dataclass(frozen=True)
class Checkpoint:
    """An opened checkpoint; tensors are read when asked for.

    Attributes:
        path: where it lies.
        layout: its names.
        unet: tensors of the U-Net, and all that belongs to no other network.
        autoencoder: tensors of the autoencoder.
        text_tower: tensors of the text tower.
        described: what no shape says.
        tokenizer: a folder with the tokenizer, or None if the checkpoint has none.
    """

    path: Path
    layout: Layout
    unet: Tensors
    autoencoder: Tensors
    text_tower: Tensors
    described: Described
    tokenizer: Path | None


def open_checkpoint(path: Path) -> Checkpoint:
    """Open a diffusers folder, or a file in the original layout.

    Raises:
        ConversionError: if it is neither, a part is missing or damaged, or its configuration asks
            for what FlashFace's networks do not compute.
    """
    if path.is_dir():
        unet, autoencoder, text_tower = open_networks(path)
        require_stable_diffusion_1(DIFFUSERS.unet, unet)
        tokenizer = path / "tokenizer" if (path / "tokenizer").is_dir() else None
        described = read_description(path)
        return Checkpoint(path, DIFFUSERS, unet, autoencoder, text_tower, described, tokenizer)
    whole = open_tensors(path)
    _require_all_networks(whole)
    others = LDM.autoencoder.root, LDM.conditioner
    autoencoder, text_tower = (Section(whole, prefix) for prefix in others)
    unet = Section(whole, "", but=others)
    require_stable_diffusion_1(LDM.unet, unet)
    return Checkpoint(path, LDM, unet, autoencoder, text_tower, Described(), None)


FOREIGN = {
    "conditioner.embedders.": "Stable Diffusion XL",
    "cond_stage_model.model.": "Stable Diffusion 2, whose text tower is OpenCLIP's",
    "model.diffusion_model.joint_blocks.": "Stable Diffusion 3",
}


def _require_all_networks(whole: Tensors) -> None:
    """Raise a ConversionError unless a file holds the three networks of Stable Diffusion 1.x."""
    for prefix, model in FOREIGN.items():
        if any(key.startswith(prefix) for key in whole.shapes):
            raise ConversionError(
                f"{whole.path} is {model}; give Stable Diffusion 1.5 or a fine-tune of it."
            )
    for prefix, network in (
        (LDM.unet.root, "U-Net"),
        (LDM.autoencoder.root, "autoencoder"),
        (LDM.conditioner, "text tower"),
    ):
        if not any(key.startswith(prefix) for key in whole.shapes):
            raise ConversionError(
                f"{whole.path} holds no {network}: it has no key {prefix}*; give a full checkpoint "
                "in Stable Diffusion's original layout, or a diffusers folder."
            )
