"""Reading a diffusers folder: which files hold its networks, and what its configurations say."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flashface_jax.convert.files.tensors import Tensors, open_tensors
from flashface_jax.convert.stable_diffusion.described import Described
from flashface_jax.convert.table import ConversionError
from flashface_jax.diffusion.schedule import Prediction, ScheduleConfig

STEMS = {
    "unet": ("diffusion_pytorch_model", "diffusion_pytorch_model"),
    "vae": ("diffusion_pytorch_model", "diffusion_pytorch_model"),
    "text_encoder": ("model", "pytorch_model"),
}
"""Network -> what its .safetensors and its .bin are called."""

VARIANTS = ("", ".fp16", ".bf16")  # those of full precision first

FIXED: dict[str, dict[str, Any]] = {
    "unet/config.json": {
        "act_fn": "silu",
        "center_input_sample": False,
        "class_embed_type": None,
        "downsample_padding": 1,
        "dual_cross_attention": False,
        "flip_sin_to_cos": True,
        "freq_shift": 0,
        "mid_block_scale_factor": 1,
        "norm_num_groups": 32,
        "only_cross_attention": False,
        "resnet_time_scale_shift": "default",
    },
    "vae/config.json": {
        "act_fn": "silu",
        "latents_mean": None,
        "latents_std": None,
        "norm_num_groups": 32,
        "shift_factor": None,
    },
    "text_encoder/config.json": {"hidden_act": "quick_gelu", "layer_norm_eps": 1e-5},
    "scheduler/scheduler_config.json": {
        "beta_schedule": "scaled_linear",
        "rescale_betas_zero_snr": False,
        "trained_betas": None,
    },
}
"""What configurations can say otherwise, but FlashFace's networks and schedule cannot."""

PREDICTIONS: dict[str, Prediction] = {
    "epsilon": "noise",
    "v_prediction": "velocity",
    "sample": "sample",
}


def open_networks(folder: Path) -> tuple[Tensors, Tensors, Tensors]:
    """Open U-Net, autoencoder and text tower.

    Raises:
        ConversionError: naming every network that is missing or damaged.
    """
    opened, errors = [], []
    for name in STEMS:
        try:
            opened.append(open_tensors(_weights(folder / name)))
        except ConversionError as error:
            errors.append(str(error))
    if errors:
        raise ConversionError("\n".join(errors))
    unet, autoencoder, text_tower = opened
    return unet, autoencoder, text_tower


def _weights(network: Path) -> Path:
    """The file, or index of files, that holds a network."""
    safe, pickled = STEMS[network.name]
    names = [
        name
        for variant in VARIANTS
        for stem, ending in ((safe, "safetensors"), (pickled, "bin"))
        for name in (f"{stem}{variant}.{ending}", f"{stem}.{ending}.index{variant}.json")
    ]
    found = [network / name for name in names if (network / name).is_file()]
    if not found:
        raise ConversionError(
            f"{network} holds no weights: a diffusers folder has a {names[0]} there."
        )
    return found[0]


def read_description(folder: Path) -> Described:
    """Read what the folder's configurations say; a file that is not there says what SD-1.5's does.

    Raises:
        ConversionError: with everything that they say and FlashFace cannot do.
    """
    said = {name: _read(folder / name) for name in FIXED}
    problems = [
        f"{folder / name} says that {key} is {said[name][key]!r}; here it can only be {value!r}."
        for name, fixed in FIXED.items()
        for key, value in fixed.items()
        if key in said[name] and said[name][key] != value
    ]
    if problems:
        raise ConversionError("\n".join(problems))
    unet, autoencoder, text_tower, schedule = said.values()
    try:
        num_heads, head_channels = _heads(unet)
        return Described(
            num_heads,
            head_channels,
            scale=float(autoencoder.get("scaling_factor", Described.scale)),
            text_heads=text_tower.get("num_attention_heads"),
            schedule=_schedule(schedule),
        )
    except (TypeError, ValueError, KeyError) as error:
        raise ConversionError(
            f"{folder} has a configuration that cannot be read: {error!r}; download it again."
        ) from error


def _read(path: Path) -> Mapping[str, Any]:
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise ConversionError(f"{path} is no JSON ({error}); download it again.") from error
    if not isinstance(said, dict):
        raise ConversionError(f"{path} is no configuration; download it again.")
    return said


def _heads(unet: Mapping[str, Any]) -> tuple[int | None, int | None]:
    """Heads of the U-Net's attention, or channels of a head where levels have several numbers.

    In configurations `attention_head_dim` is the number of heads, in spite of its name.
    """
    heads = unet.get("num_attention_heads") or unet.get("attention_head_dim", Described.num_heads)
    if not isinstance(heads, list):
        return heads, None
    widths = {width // n for width, n in zip(unet["block_out_channels"], heads, strict=True)}
    if len(set(heads)) == 1:
        return heads[0], None
    if len(widths) == 1:
        return None, widths.pop()
    raise ValueError(f"heads {heads} are neither one number nor of one width")


def _schedule(said: Mapping[str, Any]) -> ScheduleConfig:
    plain = ScheduleConfig()
    return ScheduleConfig(
        timesteps=int(said.get("num_train_timesteps", plain.timesteps)),
        beta_start=float(said.get("beta_start", plain.beta_start)),
        beta_end=float(said.get("beta_end", plain.beta_end)),
        prediction=PREDICTIONS[said.get("prediction_type", "epsilon")],
    )
