"""The released PyTorch code, imported from a user's clone and run as it is.

Only two things stand between it and this machine: `.cuda()` does nothing where there is no GPU,
and the `__init__` files of its packages, which import torchvision for parts not needed here, are
passed over.
"""

import sys
import types
from pathlib import Path
from typing import Any

import jax
import numpy as np
import torch

from flashface_jax.convert.official import flashface_table
from flashface_jax.diffusion.guidance import Guidance
from flashface_jax.diffusion.schedule import ScheduleConfig, noise_levels
from flashface_jax.models.blocks import Compute
from flashface_jax.models.flashface import FlashFace, FlashFaceConfig
from flashface_jax.models.network import Params, network

PACKAGES = ("ldm", "ldm.models", "ldm.ops", "flashface", "flashface.all_finetune")


class ReleasedCode:
    """The released denoiser and ReferenceNet at full width, with random weights, and its sampler.

    On a GPU it runs under autocast, with the best attention that it finds (flash_attn, or PyTorch's
    own).
    """

    def __init__(self, clone: Path, precision: str, threads: int | None):
        reference_unet, context_diffusion = _import(clone)
        if threads is not None:
            torch.set_num_threads(threads)
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.dtype = torch.float32 if precision == "float32" else torch.bfloat16
        self.unet = _build(reference_unet).to(self.device)
        levels = torch.from_numpy(noise_levels(ScheduleConfig()))
        self.diffusion = context_diffusion.ContextGaussianDiffusion(levels, "eps")

    def convert(self) -> Params:
        """The same weights as our parameters."""
        config = FlashFaceConfig()
        shapes = network(lambda keys: FlashFace(config, Compute(), keys)).shapes
        state = self.unet.state_dict()
        read = lambda key: state[key].cpu().numpy()  # noqa: E731
        return jax.device_put(flashface_table(config).convert(read, shapes, lambda: None))

    def guided_step(self, inputs: Any, timestep: int) -> np.ndarray:
        """x_0 of one step with default settings; channels last."""
        self._set(inputs)
        contexts = [{"context": self._tensor(text)} for text in (inputs.prompt, inputs.negative)]
        x = self._image(inputs.x)
        t = torch.full((len(x),), timestep, device=self.device)
        guidance = Guidance()
        autocast = torch.autocast(self.device, self.dtype, enabled=self.dtype != torch.float32)
        with torch.no_grad(), autocast:
            _, _, _, x0, _ = self.diffusion.denoise(
                x, t, None, self.unet, contexts, guidance.text_guidance, guidance.rescale
            )
        return np.moveaxis(x0.float().cpu().numpy(), 1, -1)

    def _set(self, inputs: Any) -> None:
        guidance, references = Guidance(), self._image(inputs.references)
        self.diffusion.classifier = guidance.reference_guidance
        strength = torch.tensor(guidance.reference_strength, device=self.device)
        self.unet.share_cache.update(
            num_pairs=len(references),
            ref=references,
            ref_context=self._tensor(inputs.negative[:1]).repeat(len(references), 1, 1),
            masks=self._tensor(inputs.mask[..., 0]),
            similarity=strength,
            ori_similarity=strength,
            step_to_launch_face_guidence=guidance.launch_timestep,
        )

    def _tensor(self, values: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(values)).to(self.device)

    def _image(self, values: np.ndarray) -> torch.Tensor:
        return self._tensor(np.moveaxis(values, -1, 1))


def _import(clone: Path) -> tuple[Any, Any]:
    """The released modules of the network and of the sampler."""
    if not (clone / "flashface/all_finetune/models/reference_unet.py").exists():
        raise SystemExit(f"error: {clone} is no clone of the released code.")
    for name in PACKAGES:
        package = types.ModuleType(name)
        package.__path__ = [str(clone / name.replace(".", "/"))]
        sys.modules[name] = package
    if not torch.cuda.is_available():
        torch.Tensor.cuda = torch.nn.Module.cuda = lambda self, *_, **__: self  # type: ignore
    from flashface.all_finetune.models import reference_unet  # noqa: PLC0415
    from flashface.all_finetune.ops import context_diffusion  # noqa: PLC0415

    return reference_unet, context_diffusion


def _build(reference_unet: Any) -> torch.nn.Module:
    """The released module, with random weights everywhere.

    Fresh, it has zeros at the end of every residual branch, and nothing would be compared.
    """
    unet = reference_unet.sd_v1_ref_unet(version="sd-v1-5_nonema", device="cpu")
    unet.replace_input_conv()
    unet.encoder, unet.decoder, unet.middle = unet.ori_encoder, unet.ori_decoder, unet.ori_middle
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in unet.parameters():
            if parameter.ndim >= 2:
                parameter.normal_(0, parameter[0].numel() ** -0.5, generator=generator)
    return unet.eval().requires_grad_(False)
