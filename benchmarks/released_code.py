"""The released PyTorch code, imported from a user's clone and run as it is.

Only two things stand between it and this machine: calls of `.cuda()` do nothing where there is no
GPU, and the packages' `__init__` files, which import torchvision for parts not needed here, are
passed over.
"""

import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

PACKAGES = ("ldm", "ldm.models", "ldm.ops", "flashface", "flashface.all_finetune")


def import_released(clone: Path) -> tuple[Any, Any]:
    """Import the released network and diffusion modules; returns (reference_unet, diffusion)."""
    if not (clone / "flashface/all_finetune/models/reference_unet.py").exists():
        raise ValueError(f"{clone} is no clone of the released code: it has no flashface/ folder.")
    for name in PACKAGES:
        package = types.ModuleType(name)
        package.__path__ = [str(clone / name.replace(".", "/"))]
        sys.modules[name] = package
    if not torch.cuda.is_available():
        torch.Tensor.cuda = torch.nn.Module.cuda = lambda self, *_, **__: self  # type: ignore
    sys.path.insert(0, str(clone))
    from flashface.all_finetune.models import reference_unet  # noqa: PLC0415
    from flashface.all_finetune.ops import context_diffusion  # noqa: PLC0415

    return reference_unet, context_diffusion


def build_released_unet(reference_unet: Any, device: str, seed: int) -> torch.nn.Module:
    """The released denoiser and ReferenceNet at full width, with random weights that matter.

    Fresh modules have zeros at the end of every residual branch, so that nothing would be compared.
    """
    unet = reference_unet.sd_v1_ref_unet(version="sd-v1-5_nonema", device="cpu")
    unet.replace_input_conv()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in unet.parameters():
            if parameter.ndim >= 2:
                deviation = parameter[0].numel() ** -0.5
                parameter.normal_(0, deviation, generator=generator)
    unet.encoder, unet.decoder, unet.middle = unet.ori_encoder, unet.ori_decoder, unet.ori_middle
    return unet.eval().requires_grad_(False).to(device)


def reader(unet: torch.nn.Module) -> Callable[[str], np.ndarray]:
    """Read a tensor of the module by its key, as the converter reads a file."""
    state = unet.state_dict()
    return lambda key: state[key].float().cpu().numpy()
