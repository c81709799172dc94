"""What a training run is configured with; `configs/*.py` fill it in."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flashface_jax.common.choices import ComputeDtype
from flashface_jax.common.config_file import read_config_file
from flashface_jax.common.from_json import from_json
from flashface_jax.data.config import DataConfig
from flashface_jax.data.loading.samples import SampleShape
from flashface_jax.diffusion.loss import LossConfig
from flashface_jax.models.lora import LoraConfig
from flashface_jax.training.optimizer import OptimizerConfig
from flashface_jax.training.parallel.blocks import Recompute
from flashface_jax.training.parallel.sharding import ShardingConfig
from flashface_jax.weights.system import SystemConfig


@dataclass(frozen=True)
class TrainConfig:
    """One training run.

    Attributes:
        seed: seed of parameters, data order, noise and drops.
        steps: optimizer steps.
        batch_size: samples, and identities, a step.
        system: the networks.
        initial: directory of weights to start from, converted ones or another run's; "" draws new
            ones.
        trainable: parts that train; the paper trains only "flashface". "text_tower" must train
            where there is no pretrained one.
        lora: low-rank updates of the denoiser's attention layers; with them FlashFace trains only
            these, its reference attention and its ReferenceNet. None trains all of FlashFace.
        compute_dtype: dtype of matmuls and activations; parameters are float32.
        accumulate: smaller batches that a step works through one after the other, for less memory.
        recompute: what the backward pass makes again, for less memory: "nothing"; "blocks", all
            but what enters each block of the networks; "all but attention", which keeps also what
            fused attention returned.
        sharding: how parameters are spread over devices.
        loss: what is minimised, and how much it counts at each noise level.
        optimizer: Adam and its options.
        data: what is trained on.
        log_every: steps between metrics.
        checkpoint_every: steps between checkpoints; the last step always makes one.
        trackers: where metrics and pictures go, by name: "jsonl" (metrics.jsonl), "csv"
            (metrics.csv), "tensorboard", "wandb"; see `training/monitoring/trackers/`.
        grid_every: steps between sample grids.
        grid_people: held-out people in a grid; 0 for no grids.
        identity_judge: what judges how much the people in a grid look like themselves: an .npz file
            of an identity encoder, or the folder of an insightface model pack; "" for nothing.
        keep_checkpoints: newest checkpoints that are kept.
        profile_steps: first step to trace and how many; see `training/monitoring/profiling.py`.
    """

    seed: int = 0
    steps: int = 50_000
    batch_size: int = 32
    system: SystemConfig = field(default_factory=SystemConfig)
    initial: str = ""
    trainable: tuple[str, ...] = ("flashface",)
    lora: LoraConfig | None = None
    compute_dtype: ComputeDtype = "float32"
    accumulate: int = 1
    recompute: Recompute = "nothing"
    sharding: ShardingConfig = field(default_factory=ShardingConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    data: DataConfig = field(default_factory=DataConfig)
    log_every: int = 50
    checkpoint_every: int = 1000
    trackers: tuple[str, ...] = ("jsonl", "tensorboard")
    grid_every: int = 1000
    grid_people: int = 6
    identity_judge: str = ""
    keep_checkpoints: int = 2
    profile_steps: tuple[int, int] = (1, 0)

    def __post_init__(self) -> None:
        self.system.check_consistency()
        check_profile_steps(self.profile_steps)
        for name in (
            "steps",
            "batch_size",
            "accumulate",
            "log_every",
            "grid_every",
            "keep_checkpoints",
        ):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be 1 or more.")
        if self.grid_people < 0:
            raise ValueError(f"grid_people is {self.grid_people}; it must be 0 or more.")
        if self.checkpoint_every < 1 or self.checkpoint_every % self.log_every:
            # Metrics are means over log_every steps, which a resumed run must cover whole.
            raise ValueError(
                f"checkpoint_every is {self.checkpoint_every}; it must be a multiple of log_every, "
                f"which is {self.log_every}."
            )
        if self.lora is not None and "flashface" not in self.trainable:
            raise ValueError('lora is given, but "flashface" is not among the trainable parts.')
        if self.system.flashface.inpaints and self.data.draws.drop.face_mask:
            raise ValueError(
                f"data.draws.drop.face_mask is {self.data.draws.drop.face_mask}; an inpainting "
                "model that is shown no mask sees the whole image: it must be 0."
            )
        parts = {"flashface", "autoencoder", "text_tower"}
        if not self.trainable or set(self.trainable) - parts:
            raise ValueError(f"trainable is {self.trainable}; choose among {sorted(parts)}.")
        if self.data.precomputed and set(self.trainable) != {"flashface"}:
            raise ValueError(
                f"trainable is {self.trainable}, and data.precomputed holds what autoencoder and "
                'text tower give as they are: train "flashface" alone, or leave data.precomputed '
                "empty."
            )

    @property
    def latent_shape(self) -> tuple[int, int, int, int]:
        """Shape of a batch of latents, (batch, h, w, c)."""
        system = self.system
        side = system.image_size // system.autoencoder.stride
        return self.batch_size, side, side, system.autoencoder.latent_channels

    @property
    def sample_shape(self) -> SampleShape:
        """The sizes that the networks want of a sample."""
        system = self.system
        return SampleShape(system.image_size, system.reference_size, system.autoencoder.stride)


def check_profile_steps(steps: tuple[int, int]) -> None:
    """Raise a ValueError unless these are a first step, 1 or later, and a number of steps.

    A number of 0 plans no trace.
    """
    first, count = steps
    if first < 1 or count < 0:
        raise ValueError(
            f"profile_steps is {steps}; it must be the first step to trace, 1 or more, and how "
            "many, 0 for none."
        )


def from_mapping(values: Mapping[str, Any]) -> TrainConfig:
    """Build the configuration from nested dicts, as `configs/*.py` and flags give it.

    Raises:
        ValueError: naming the field that is unknown, has a wrong type, or is out of range.
    """
    return from_json(TrainConfig, values, "The configuration")


def load_config(path: Path, overrides: Sequence[str] = ()) -> TrainConfig:
    """Read a configuration file, and override fields of it.

    Args:
        path: of a file such as configs/synthetic.py.
        overrides: e.g. `--config.batch_size=8`.

    Raises:
        ValueError: if the file is not there, or naming the field that is unknown or wrong.
    """
    return from_mapping(read_config_file(path, overrides))
