"""What no shape says of a checkpoint."""

from dataclasses import dataclass, field

from flashface_jax.diffusion.schedule import ScheduleConfig


@dataclass(frozen=True)
class Described:
    """What no shape says of a checkpoint; the defaults are Stable Diffusion 1.5's.

    Attributes:
        num_heads: heads of the U-Net's attention, or None if `head_channels` is given.
        head_channels: channels of a head, or None if `num_heads` is given.
        scale: factor on latents.
        text_heads: heads of the text tower; None for width / 64, as in every CLIP.
        schedule: the noise schedule.
    """

    num_heads: int | None = 8
    head_channels: int | None = None
    scale: float = 0.18215
    text_heads: int | None = None
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
