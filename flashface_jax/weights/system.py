"""The networks that make an image together, and the configuration that describes them all."""

import math
from dataclasses import dataclass, field
from typing import get_args

from flashface_jax.diffusion.guidance import Guidance, StrengthOverTime
from flashface_jax.diffusion.sampling import Plan, plan_sampling
from flashface_jax.diffusion.schedule import (
    ScheduleConfig,
    Spacing,
    noise_levels,
    sampling_steps,
)
from flashface_jax.diffusion.solvers import SolverName
from flashface_jax.models.autoencoder.vae import (
    Autoencoder,
    AutoencoderConfig,
    AutoencoderKLConfig,
    build_autoencoder,
)
from flashface_jax.models.blocks import Compute
from flashface_jax.models.clip import ImageTower, ImageTowerConfig, TextTower, TextTowerConfig
from flashface_jax.models.flashface import FlashFace, FlashFaceConfig
from flashface_jax.models.network import Network, network

PROMPT_SUFFIX = "best quality, masterpiece,ultra-detailed, UHD 4K, photographic"
NEGATIVE_SUFFIX = (
    "blurry, ugly, tiling, poorly drawn hands, poorly drawn feet, poorly drawn face, "
    "out of frame, extra limbs, disfigured, deformed, body out of frame, bad anatomy, watermark, "
    "signature, cut off, low contrast, underexposed, overexposed, bad art, beginner, amateur, "
    "distorted face"
)


@dataclass(frozen=True)
class SamplingConfig:
    """How a set of weights likes to be sampled; the defaults are the released code's.

    Attributes:
        steps: solver steps.
        solver: how to go from one noise level to the next.
        spacing: which timesteps they visit.
        eta: share of fresh noise in each step, 0 to 1; only "ddim" heeds it.
        text_guidance: λ_text (`guide_scale`).
        reference_guidance: λ_ref (`face_guidance`).
        reference_strength: λ_feat (`lamda_feat`), or points (progress from 0 to 1, λ_feat) that
            hold for the whole run.
        early_reference_strength: λ_feat before the launch (`lamda_feat_before_ref_guidence`).
        launch_timestep: reference guidance starts below it (`step_to_launch_face_guidence`).
        rescale: φ (`guide_rescale`).
        prompt_suffix: words joined to every prompt.
        negative_suffix: words joined to every negative prompt.
    """

    steps: int = 50
    solver: SolverName = "ddim"
    spacing: Spacing = "trailing"
    eta: float = 0.0
    text_guidance: float = 7.5
    reference_guidance: float = 3.2
    reference_strength: StrengthOverTime = 1.2
    early_reference_strength: float = 0.85
    launch_timestep: int = 750
    rescale: float = 0.5
    prompt_suffix: str = PROMPT_SUFFIX
    negative_suffix: str = NEGATIVE_SUFFIX

    def __post_init__(self) -> None:
        for name, choices in (("solver", SolverName), ("spacing", Spacing)):
            if getattr(self, name) not in get_args(choices):
                known = ", ".join(get_args(choices))
                raise ValueError(f"There is no {name} {getattr(self, name)!r}: choose {known}.")
        if self.steps < 1:
            raise ValueError(f"{self.steps} sampling steps: choose 1 or more.")
        for name, most in (
            ("eta", 1.0),
            ("rescale", 1.0),
            ("text_guidance", 100.0),
            ("reference_guidance", 100.0),
            ("early_reference_strength", 10.0),
            ("launch_timestep", math.inf),
        ):
            value = getattr(self, name)
            if not (0 <= value <= most or (name == "launch_timestep" and value == -1)):
                raise ValueError(f"{name} is {value}; choose between 0 and {most:g}.")
        _check_strength(self.reference_strength)

    def plan(self, schedule: ScheduleConfig) -> Plan:
        """Work out a run over a schedule."""
        steps = sampling_steps(noise_levels(schedule), self.steps, self.spacing)
        guidance = Guidance(
            text_guidance=self.text_guidance,
            reference_guidance=self.reference_guidance,
            reference_strength=self.reference_strength,
            early_reference_strength=self.early_reference_strength,
            launch_timestep=self.launch_timestep,
            rescale=self.rescale,
        )
        return plan_sampling(steps, guidance, self.solver, self.eta, room=schedule.timesteps)

    def full_prompt(self, prompt: str) -> str:
        """Join the suffix to a prompt, as the released code does."""
        return f"{prompt}, {self.prompt_suffix}" if self.prompt_suffix else prompt

    def full_negative(self, negative: str) -> str:
        """Join the suffix to a negative prompt, as the released code does."""
        return ", ".join(words for words in (negative, self.negative_suffix) if words)


def _check_strength(strength: StrengthOverTime) -> None:
    if isinstance(strength, (int, float)):
        if not 0 <= strength <= 10:
            raise ValueError(f"reference_strength is {strength}; choose between 0 and 10.")
        return
    progress = [point[0] for point in strength]
    if (
        not strength
        or progress != sorted(set(progress))
        or not all(0 <= at <= 1 and 0 <= value <= 10 for at, value in strength)
    ):
        raise ValueError(
            f"reference_strength {list(strength)} is no schedule: give points (progress, value), "
            "progress rising from 0 to 1 and values between 0 and 10."
        )


@dataclass(frozen=True)
class SystemConfig:
    """Everything that a set of weights needs said about it; the defaults are the released model.

    Attributes:
        flashface: denoiser and ReferenceNet.
        autoencoder: image <-> latent.
        text_tower: prompt -> context.
        image_tower: CLIP's image tower, which evaluation uses; None if there is none.
        schedule: the noise schedule that the networks were trained on.
        image_size: side of generated images in pixels.
        reference_size: side of reference face crops in pixels.
        sampling: how the weights like to be sampled.
    """

    flashface: FlashFaceConfig = field(default_factory=FlashFaceConfig)
    autoencoder: AutoencoderConfig = field(default_factory=AutoencoderKLConfig)
    text_tower: TextTowerConfig = field(default_factory=TextTowerConfig)
    image_tower: ImageTowerConfig | None = field(default_factory=ImageTowerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    image_size: int = 768
    reference_size: int = 224
    sampling: SamplingConfig = field(default_factory=SamplingConfig)

    def check_consistency(self) -> None:
        """Raise a ValueError that names the first two parts that do not fit each other."""
        latent = self.flashface.denoiser.out_channels
        context = self.flashface.denoiser.context_channels
        stride = self.autoencoder.stride
        if self.autoencoder.latent_channels != latent:
            raise ValueError(
                f"The autoencoder's latents have {self.autoencoder.latent_channels} channels, "
                f"the denoiser predicts {latent}."
            )
        if self.text_tower.channels != context:
            raise ValueError(
                f"The text tower's context is {self.text_tower.channels} wide, "
                f"the denoiser expects {context}."
            )
        for name, size in (("image", self.image_size), ("reference", self.reference_size)):
            if size % stride:
                raise ValueError(
                    f"The {name} size {size} is no multiple of the autoencoder's stride {stride}."
                )


@dataclass(frozen=True)
class System:
    """The structure of every network; parameters travel separately, one tree a part."""

    flashface: Network[FlashFace]
    autoencoder: Network[Autoencoder]
    text_tower: Network[TextTower]
    image_tower: Network[ImageTower] | None

    def parts(self) -> dict[str, Network]:
        """Every network that there is, by name."""
        return {name: part for name, part in vars(self).items() if part is not None}


def build_system(config: SystemConfig, compute: Compute | None = None) -> System:
    """Describe all networks without allocating parameters."""
    compute = compute or Compute()
    image_tower = config.image_tower
    return System(
        flashface=network(FlashFace, config.flashface, compute),
        autoencoder=network(build_autoencoder, config.autoencoder, compute),
        text_tower=network(TextTower, config.text_tower, compute),
        image_tower=None if image_tower is None else network(ImageTower, image_tower, compute),
    )
