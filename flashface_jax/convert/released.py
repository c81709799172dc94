"""What the released code can hold of a system, and what its files do not tell it.

Its constructors take other widths and depths than the released model's, but a state dict says
nothing of heads, group norms, the autoencoder's attention or what the denoiser predicts.
"""

from dataclasses import replace
from typing import Any

from flashface_jax.models.autoencoder.vae import AutoencoderKLConfig
from flashface_jax.models.clip import ImageTowerConfig
from flashface_jax.models.flashface import FlashFaceConfig
from flashface_jax.models.unet_topology import UNetConfig, reference_stages
from flashface_jax.weights.system import SystemConfig

PREDICTIONS = {"noise": "eps", "velocity": "v", "sample": "x0"}
"""Released name of each prediction."""

Settings = dict[str, dict[str, Any]]
"""Released function or object -> its arguments."""


def inexpressible(config: FlashFaceConfig) -> list[str]:
    """Say everything that keeps the released code from being this model; empty if nothing does."""
    denoiser = config.denoiser
    reasons = []
    if not config.tie_reference_middle:
        reasons.append(
            "its ReferenceNet has a middle block and time embedding of its own, where the "
            "released code runs the denoiser's (train with tie_reference_middle=True)"
        )
    if config.inpaints:
        reasons.append(
            f"its denoiser takes {denoiser.in_channels} channels for inpainting, where the "
            "released code hands over the latent and the face mask"
        )
    released = replace(denoiser, reference_attention="decoder")
    if reference_stages(denoiser) != reference_stages(released):
        reasons.append(
            f'its reference attention is "{denoiser.reference_attention}", where the released '
            'code has "decoder"'
        )
    if denoiser.norm_groups != 32:
        reasons.append(
            f"its group norms have {denoiser.norm_groups} groups, where the released code has 32"
        )
    return reasons


def settings_to_tell(config: SystemConfig) -> list[str]:
    """Say which arguments the released code must be given, as its files do not tell them."""
    usual = _settings(SystemConfig())
    told = []
    for place, settings in _settings(config).items():
        changed = [f"{k}={v!r}" for k, v in settings.items() if usual[place][k] != v]
        if changed:
            told.append(f"give the released {place} {', '.join(changed)}")
    denoiser = config.flashface.denoiser
    if (denoiser.in_channels, denoiser.base_channels) != (5, 320):
        told.append(
            "change the released replace_input_conv, which is written for 5 and 320 channels, to "
            f"{denoiser.in_channels} and {denoiser.base_channels}"
        )
    autoencoder = config.autoencoder
    if isinstance(autoencoder, AutoencoderKLConfig) and not autoencoder.misread_attention:
        told.append(
            "expect other pixels: the released autoencoder misreads its attention, this model's "
            "does not (misread_attention in config.json)"
        )
    return told


def _settings(config: SystemConfig) -> Settings:
    """Arguments of the released functions that would build a system."""
    text, schedule = config.text_tower, config.schedule
    clip = {
        "vocab_size": text.vocabulary,
        "text_len": text.length,
        "text_dim": text.channels,
        "text_heads": text.num_heads,
        "text_layers": text.layers,
    }
    cfg = {
        "prediction_type": PREDICTIONS[schedule.prediction],
        "num_timesteps": schedule.timesteps,
        "scale_min": schedule.beta_start,
        "scale_max": schedule.beta_end,
    }
    settings: Settings = {"sd_v1_ref_unet": _unet(config.flashface.denoiser)}
    if isinstance(config.autoencoder, AutoencoderKLConfig):
        settings["sd_v1_vae"] = _autoencoder(config.autoencoder)
        cfg["ae_scale"] = config.autoencoder.scale
    if text.embedding is not None:
        clip["embed_dim"] = text.embedding
    if config.image_tower is not None:
        clip |= _image_tower(config.image_tower)
    settings["clip_vit_l_14"] = clip
    return settings | {"CLIPTokenizer": {"length": text.length}, "cfg": cfg}


def _unet(config: UNetConfig) -> dict[str, Any]:
    """Levels without transformers are those whose scale is not named.

    The released middle is as deep as `num_attn_blocks` of the last level unless told otherwise.
    """
    depths = [max(depth, 1) for depth in config.transformer_depth]
    return {
        "dim": config.base_channels,
        "context_dim": config.context_channels,
        "out_dim": config.out_channels,
        "dim_mult": list(config.channel_multipliers),
        "num_heads": config.num_heads,
        "head_dim": config.head_channels,
        "num_res_blocks": list(config.residual_blocks),
        "num_attn_blocks": depths,
        "middle_attn_blocks": None if config.middle_depth == depths[-1] else config.middle_depth,
        "attn_scales": [0.5**i for i, depth in enumerate(config.transformer_depth) if depth],
    }


def _autoencoder(config: AutoencoderKLConfig) -> dict[str, Any]:
    return {
        "dim": config.base_channels,
        "z_dim": config.latent_channels,
        "dim_mult": list(config.channel_multipliers),
        "num_res_blocks": config.residual_blocks,
    }


def _image_tower(config: ImageTowerConfig) -> dict[str, Any]:
    return {
        "image_size": config.image_size,
        "patch_size": config.patch,
        "vision_dim": config.channels,
        "vision_heads": config.num_heads,
        "vision_layers": config.layers,
    }
