"""The networks that make an image together, and the configuration that describes them all."""

import functools
from dataclasses import dataclass, field

from flashface_jax.diffusion.guidance import Guidance
from flashface_jax.diffusion.sampling import Plan, plan_sampling
from flashface_jax.diffusion.schedule import (
    ScheduleConfig,
    noise_levels,
    visited_levels,
)
from flashface_jax.diffusion.settings import SamplingConfig, SolverName, Spacing
from flashface_jax.models.autoencoder.autoencoder import (
    Autoencoder,
    AutoencoderConfig,
    build_autoencoder,
)
from flashface_jax.models.autoencoder.vae import AutoencoderKLConfig
from flashface_jax.models.blocks import Compute
from flashface_jax.models.clip import ImageTower, ImageTowerConfig, TextTower, TextTowerConfig
from flashface_jax.models.flashface import FlashFace, FlashFaceConfig
from flashface_jax.models.network import Network, network


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


@functools.cache
def count_evaluations(
    steps: int, solver: SolverName, spacing: Spacing, schedule: ScheduleConfig
) -> int:
    """How often a run asks the network.

    Raises:
        ValueError: if these are more steps than the schedule has room for.
    """
    sampling = SamplingConfig(steps=steps, solver=solver, spacing=spacing)
    return int(sampling_plan(sampling, schedule).count)


def sampling_plan(sampling: SamplingConfig, schedule: ScheduleConfig) -> Plan:
    """Work out a run over a schedule, with every setting.

    Raises:
        ValueError: if these are more steps than the schedule has room for.
    """
    levels = noise_levels(schedule)
    guidance = Guidance(
        text_guidance=sampling.text_guidance,
        reference_guidance=sampling.reference_guidance,
        reference_strength=sampling.reference_strength,
        early_reference_strength=sampling.early_reference_strength,
        launch_timestep=sampling.launch_timestep,
        rescale=sampling.rescale,
    )
    visited = visited_levels(levels, sampling.steps, sampling.spacing)
    return plan_sampling(levels, visited, guidance, sampling.solver, sampling.eta)
