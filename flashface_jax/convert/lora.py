"""Low-rank updates as a file that Stable Diffusion's tools load.

The names are those of kohya's training scripts, which spell out diffusers' paths with underscores.
Such a file holds the updates of the U-Net alone: a tool that has no FlashFace draws nobody's face
with it, only in the manner of the training photos.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from flashface_jax.common.files import atomic_file, require_new
from flashface_jax.convert.files.state_files import Precision, in_precision, write_safetensors
from flashface_jax.convert.table import ConversionError
from flashface_jax.models.lora import Lora, LoraConfig
from flashface_jax.models.unet_topology import StageSpec, UNetConfig, decoder_specs, encoder_specs
from flashface_jax.weights.directory import WeightsDirectory
from flashface_jax.weights.run_directory import RunDirectory, open_weights
from flashface_jax.weights.system import build_system

LAYERS = {"q": "to_q", "k": "to_k", "v": "to_v", "o": "to_out_0"}
ATTENTIONS = {"self_attention": "attn1", "cross_attention": "attn2"}


def export_run(directory: Path, out: Path, precision: Precision) -> None:
    """Write the low-rank updates of a run's newest checkpoint, averaged if the run averages.

    Args:
        directory: the working directory of a run that trains such.
        out: the `.safetensors` file.
        precision: of every tensor.

    Raises:
        ConversionError: if there are no updates, or as `export_lora` does.
        WeightsError: if `directory` cannot be read.
        FileExistsError: if `out` exists.
    """
    _check_name(out)
    weights = open_weights(directory)
    run, config = _with_updates(weights)
    updates = run.updates(build_system(run.config).flashface, config)
    export_lora(updates, config, run.config.flashface.denoiser, out, precision)
    print(
        "note: these are the updates of the denoiser's attention; the ReferenceNet and reference "
        "attention, which train beside them, are in what --to official writes"
    )
    print(f"wrote {out}")


def _with_updates(weights: WeightsDirectory) -> tuple[RunDirectory, LoraConfig]:
    """A run that trains low-rank updates, and what they are like."""
    config = weights.lora() if isinstance(weights, RunDirectory) else None
    if not isinstance(weights, RunDirectory) or config is None:
        what = "trains no LoRA" if isinstance(weights, RunDirectory) else "is no run's directory"
        raise ConversionError(
            f"{weights.path} {what}, so it has no updates: export its weights with --to official."
        )
    return weights, config


def export_lora(
    lora: Lora, config: LoraConfig, denoiser: UNetConfig, out: Path, precision: Precision
) -> None:
    """Write the updates to a new `.safetensors` file.

    Args:
        lora: the updates.
        config: their rank and scale.
        denoiser: the U-Net that they are for.
        out: the file; folders on its way are made.
        precision: of every tensor.

    Raises:
        ConversionError: if the updates are not that U-Net's, a number is too large for the
            precision, or `out` is called otherwise or cannot be written.
        FileExistsError: if `out` exists.
    """
    _check_name(out)
    tensors = {
        key: in_precision(key, x, precision)
        for key, x in lora_state_dict(lora, config, denoiser).items()
    }
    # What tools show of a file, and tell its kind by.
    about = {
        "ss_network_module": "networks.lora",
        "ss_network_dim": str(config.rank),
        "ss_network_alpha": str(config.alpha),
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(out) as draft:
        write_safetensors(tensors, draft, about)


def _check_name(out: Path) -> None:
    if out.suffix != ".safetensors":
        raise ConversionError(f"{out} must end in .safetensors, which is what it will be.")
    require_new(out)


def lora_state_dict(lora: Lora, config: LoraConfig, denoiser: UNetConfig) -> dict[str, np.ndarray]:
    """Views in PyTorch's layout: lora_down (rank, in), lora_up (out, rank), alpha ().

    Raises:
        ConversionError: if an update is of no attention layer of that U-Net.
    """
    names = kernel_names(denoiser)
    strange = [name for name in lora if name not in names]
    if strange:
        raise ConversionError(f"LoRA has an update for {strange[0]}, which the U-Net lacks.")
    tensors = {}
    for name, update in lora.items():
        for ours, theirs in (("down", "lora_down"), ("up", "lora_up")):
            tensors[f"{names[name]}.{theirs}.weight"] = np.asarray(update[ours], np.float32).T
        tensors[f"{names[name]}.alpha"] = np.asarray(config.alpha, np.float32)
    return tensors


def kernel_names(denoiser: UNetConfig) -> dict[str, str]:
    """Our name of each kernel that can have an update -> kohya's name of its layer."""
    return {
        f"denoiser/{ours}/transformer/blocks/{i}/{attention}/{layer}/kernel": (
            f"lora_unet_{theirs}_transformer_blocks_{i}_{ATTENTIONS[attention]}_{LAYERS[layer]}"
        )
        for ours, theirs, depth in _transformers(denoiser)
        for i in range(depth)
        for attention in ATTENTIONS
        for layer in LAYERS
    }


def _transformers(denoiser: UNetConfig) -> Iterator[tuple[str, str, int]]:
    """Our stage, diffusers' name of its transformer, and its transformer blocks.

    diffusers counts a stage within its level; the encoder's begin after the input convolution and
    have a downsampling convolution between levels.
    """
    level = place = 0
    for i, spec in enumerate(encoder_specs(denoiser), start=1):
        if not isinstance(spec, StageSpec):
            level, place = level + 1, 0
            continue
        yield f"encoder/{i}", f"down_blocks_{level}_attentions_{place}", spec.depth
        place += 1
    yield "middle", "mid_block_attentions_0", denoiser.middle_depth
    level = place = 0
    for i, stage in enumerate(decoder_specs(denoiser)):
        yield f"decoder/{i}", f"up_blocks_{level}_attentions_{place}", stage.depth
        level, place = (level + 1, 0) if stage.upsample else (level, place + 1)
