"""A small Stable Diffusion made of diffusers' and transformers' PyTorch modules, in both layouts.

The original layout's names are written here a second time, by renaming the modules' own keys;
test_stable_diffusion.py holds them against diffusers' own reading of that layout.
"""

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel

from flashface_jax.weights.tokenizer import train_tokenizer

HEADS, TEXT_HEADS, LAYERS = 4, 2, 1
WIDTHS, VAE_WIDTHS, TEXT_WIDTH, PROMPT = (32, 64, 64), (32, 64), 24, 12
CAPTIONS = ["a young man reads", "an old woman in a red hat", "a child at night"]


@dataclass(frozen=True)
class StableDiffusion:
    """The modules and their tokenizer's folder."""

    unet: UNet2DConditionModel
    vae: AutoencoderKL
    text_encoder: CLIPTextModel
    tokenizer: Path


def randomised(model: torch.nn.Module, seed: int) -> torch.nn.Module:
    """Every parameter drawn, so that none can be left out unnoticed."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim > 1:
                parameter.copy_(noise / parameter[0].numel() ** 0.5)
            else:
                parameter.add_(0.2 * noise)
    return model.eval().requires_grad_(False)


def unet(norm_eps: float = 1e-5, **changes: object) -> UNet2DConditionModel:
    """Attention on two of three levels, as SD-1.5 has it on three of four."""
    options = {
        "sample_size": 8,
        "block_out_channels": WIDTHS,
        "layers_per_block": LAYERS,
        "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        "cross_attention_dim": TEXT_WIDTH,
        "attention_head_dim": HEADS,
        "norm_eps": norm_eps,
    }
    return randomised(UNet2DConditionModel(**{**options, **changes}), seed=0)


def make(folder: Path) -> StableDiffusion:
    """Draw a model; its tokenizer is written into the folder."""
    tokenizer = train_tokenizer(CAPTIONS, folder / "tokenizer", PROMPT, vocab_size=540)
    levels = len(VAE_WIDTHS)
    vae = AutoencoderKL(
        block_out_channels=VAE_WIDTHS,
        layers_per_block=LAYERS,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
    )
    text = CLIPTextConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=TEXT_WIDTH,
        intermediate_size=4 * TEXT_WIDTH,
        num_hidden_layers=2,
        num_attention_heads=TEXT_HEADS,
        max_position_embeddings=PROMPT,
        bos_token_id=tokenizer.vocab_size - 2,
        eos_token_id=tokenizer.vocab_size - 1,
    )
    return StableDiffusion(
        unet(), randomised(vae, 1), randomised(CLIPTextModel(text), 2), folder / "tokenizer"
    )


def full_size() -> tuple[dict[str, torch.Tensor], ...]:
    """Stable Diffusion 1.5's U-Net, autoencoder and text tower, as shapes without numbers."""
    with torch.device("meta"):
        unet = UNet2DConditionModel(cross_attention_dim=768, attention_head_dim=8)
        vae = AutoencoderKL(
            block_out_channels=(128, 256, 512, 512),
            layers_per_block=2,
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
        )
        widths = {"hidden_size": 768, "intermediate_size": 3072}
        text = CLIPTextModel(CLIPTextConfig(**widths, num_hidden_layers=12, num_attention_heads=12))
    return unet.state_dict(), vae.state_dict(), text.state_dict()


def write_folder(model: StableDiffusion, folder: Path, **options: object) -> Path:
    """Save as diffusers' pipelines do; `options` are those of `save_pretrained`."""
    model.unet.save_pretrained(folder / "unet", **options)
    model.vae.save_pretrained(folder / "vae", **options)
    text_options = {key: value for key, value in options.items() if key != "safe_serialization"}
    model.text_encoder.save_pretrained(folder / "text_encoder", **text_options)
    shutil.copytree(model.tokenizer, folder / "tokenizer")
    (folder / "scheduler").mkdir()
    schedule = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(schedule))
    return folder


# ------------------------------------------------------------------------------- original layout

RESIDUAL = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
OUTSIDE = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
    "mid_block.resnets.0": "middle_block.0",
    "mid_block.attentions.0": "middle_block.1",
    "mid_block.resnets.1": "middle_block.2",
}


def original_unet_key(key: str, layers: int = LAYERS) -> str:
    """diffusers' name of a U-Net's tensor -> the original one."""
    inner = key
    for theirs, original in OUTSIDE.items():
        inner = re.sub(rf"^{re.escape(theirs)}\.", f"{original}.", inner)
    blocks = re.fullmatch(r"(down|up)_blocks\.(\d)\.(\w+)\.(\d)\.(.+)", key)
    if blocks:
        half, level, kind, index, inner = blocks.groups()
        resamples = kind.endswith("samplers")
        if half == "down":
            position = 1 + int(level) * (layers + 1) + (layers if resamples else int(index))
            slot, inner = (
                kind == "attentions",
                inner.replace("conv.", "op.") if resamples else inner,
            )
            inner = f"input_blocks.{position}.{int(slot)}.{inner}"
        else:
            position = int(level) * (layers + 1) + (layers if resamples else int(index))
            behind = 2 if int(level) > 0 else 1  # the lowest level has no attention
            slot = {"resnets": 0, "attentions": 1, "upsamplers": behind}[kind]
            inner = f"output_blocks.{position}.{slot}.{inner}"
    if "resnets" in key:
        for theirs, original in RESIDUAL.items():
            inner = inner.replace(f".{theirs}.", f".{original}.")
    return f"model.diffusion_model.{inner}"


VAE_PARTS = [
    (r"mid_block\.resnets\.0", "mid.block_1"),
    (r"mid_block\.resnets\.1", "mid.block_2"),
    (r"mid_block\.attentions\.0\.group_norm", "mid.attn_1.norm"),
    (r"mid_block\.attentions\.0\.to_out\.0", "mid.attn_1.proj_out"),
    (r"mid_block\.attentions\.0\.to_(q|k|v)", r"mid.attn_1.\1"),
    (r"down_blocks\.(\d)\.resnets", r"down.\1.block"),
    (r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample"),
    (r"up_blocks\.(\d)\.resnets", r"up.\1.block"),
    (r"up_blocks\.(\d)\.upsamplers\.0", r"up.\1.upsample"),
    (r"conv_shortcut", "nin_shortcut"),
    (r"conv_norm_out", "norm_out"),
]


def original_vae(
    state: dict[str, torch.Tensor], levels: int = len(VAE_WIDTHS)
) -> dict[str, torch.Tensor]:
    """diffusers' autoencoder in the original layout, whose attention is of 1x1 convolutions."""
    original = {}
    for key, value in state.items():
        name = key
        for pattern, replacement in VAE_PARTS:
            name = re.sub(pattern, replacement, name)
        name = re.sub(r"up\.(\d)", lambda m: f"up.{levels - 1 - int(m[1])}", name)
        pointwise = "attn_1" in name and value.ndim == 2
        original[f"first_stage_model.{name}"] = value[:, :, None, None] if pointwise else value
    return original


def original_full_size() -> tuple[dict[str, torch.Tensor], ...]:
    """The same as `full_size` in the original layout."""
    unet, vae, text = full_size()
    return (
        {original_unet_key(key, layers=2): value for key, value in unet.items()},
        original_vae(vae, levels=4),
        {f"cond_stage_model.transformer.text_model.{key}": value for key, value in text.items()},
    )


def original_layout(model: StableDiffusion, text_model: str = "text_model.") -> dict:
    """All tensors in the original layout, with the dead ones of the first releases."""
    state = {original_unet_key(key): value for key, value in model.unet.state_dict().items()}
    state |= original_vae(model.vae.state_dict())
    text = "cond_stage_model.transformer." + text_model
    state |= {f"{text}{key}": value for key, value in model.text_encoder.state_dict().items()}
    state[f"{text}embeddings.position_ids"] = torch.arange(PROMPT)[None]
    averaged = "model.diffusion_model.out.2.weight"
    state["model_ema." + averaged.removeprefix("model.").replace(".", "")] = state[averaged] + 1
    state["model_ema.decay"] = torch.tensor(0.9999)
    state["alphas_cumprod"] = state["sqrt_recip_alphas_cumprod"] = torch.ones(1000)
    state["first_stage_model.loss.discriminator.main.0.weight"] = torch.ones(2, 2)
    return {key: value.contiguous() for key, value in state.items()}


def save(state: dict[str, torch.Tensor], path: Path) -> Path:
    """Write a single file, of the kind that its name ends in."""
    if path.suffix == ".safetensors":
        save_file({key: value.clone() for key, value in state.items()}, path)
    else:
        callbacks = {ModelCheckpoint: {"best": ModelCheckpoint()}}
        torch.save({"state_dict": state, "callbacks": callbacks, "global_step": 3}, path)
    return path


class ModelCheckpoint:
    """Stands for a class of the trainer's, which the first releases' files name."""

    def __init__(self):
        self.best_score = 3.0
