"""The networks that make an image together, and the configuration that describes them all."""

from dataclasses import dataclass, field

from flashface_jax.diffusion.guidance import Guidance
from flashface_jax.diffusion.schedule import ScheduleConfig, Spacing
from flashface_jax.models.blocks import Compute
from flashface_jax.models.clip import ImageTower, ImageTowerConfig, TextTower, TextTowerConfig
from flashface_jax.models.flashface import FlashFace, FlashFaceConfig
from flashface_jax.models.network import Network, network
from flashface_jax.models.vae import (
    Autoencoder,
    AutoencoderConfig,
    AutoencoderKLConfig,
    build_autoencoder,
)

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
        spacing: which timesteps they visit.
        text_guidance: λ_text (`guide_scale`).
        reference_guidance: λ_ref (`face_guidance`).
        reference_strength: λ_feat (`lamda_feat`).
        early_reference_strength: λ_feat before the launch (`lamda_feat_before_ref_guidence`).
        launch_timestep: reference guidance starts below it (`step_to_launch_face_guidence`).
        rescale: φ (`guide_rescale`).
        prompt_suffix: words joined to every prompt.
        negative_suffix: words joined to every negative prompt.
    """

    steps: int = 50
    spacing: Spacing = "trailing"
    text_guidance: float = 7.5
    reference_guidance: float = 3.2
    reference_strength: float = 1.2
    early_reference_strength: float = 0.85
    launch_timestep: int = 750
    rescale: float = 0.5
    prompt_suffix: str = PROMPT_SUFFIX
    negative_suffix: str = NEGATIVE_SUFFIX

    @property
    def guidance(self) -> Guidance:
        """The strengths as the sampler takes them."""
        # One type each, or 7 instead of 7.0 would compile the sampler again.
        return Guidance(
            text_guidance=float(self.text_guidance),
            reference_guidance=float(self.reference_guidance),
            reference_strength=float(self.reference_strength),
            early_reference_strength=float(self.early_reference_strength),
            launch_timestep=int(self.launch_timestep),
            rescale=float(self.rescale),
        )

    def full_prompt(self, prompt: str) -> str:
        """Join the suffix to a prompt, as the released code does."""
        return f"{prompt}, {self.prompt_suffix}" if self.prompt_suffix else prompt

    def full_negative(self, negative: str) -> str:
        """Join the suffix to a negative prompt, as the released code does."""
        return ", ".join(words for words in (negative, self.negative_suffix) if words)


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
        flashface=network(lambda keys: FlashFace(config.flashface, compute, keys)),
        autoencoder=network(lambda keys: build_autoencoder(config.autoencoder, compute, keys)),
        text_tower=network(lambda keys: TextTower(config.text_tower, compute, keys)),
        image_tower=(
            None
            if image_tower is None
            else network(lambda keys: ImageTower(image_tower, compute, keys))
        ),
    )
