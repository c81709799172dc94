"""The optimizer that a run is configured with."""

from dataclasses import dataclass

import optax


@dataclass(frozen=True)
class OptimizerConfig:
    """Adam; the defaults are the paper's, everything else is off.

    Attributes:
        learning_rate: peak learning rate.
        warmup_steps: steps of linear warm-up from 0.
        cosine_decay: whether the rate falls to 0 along a cosine at the last step.
        max_gradient_norm: clip the global gradient norm to this; 0 for no clipping.
        ema_decay: decay of the moving average of parameters that samples are drawn with;
            0 for none. The average starts as a plain mean.
    """

    learning_rate: float = 2e-5
    warmup_steps: int = 0
    cosine_decay: bool = False
    max_gradient_norm: float = 0.0
    ema_decay: float = 0.0

    def __post_init__(self) -> None:
        if self.learning_rate <= 0:
            raise ValueError(f"learning_rate is {self.learning_rate}; it must be positive.")
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"ema_decay is {self.ema_decay}; it must lie in [0, 1).")


def learning_rate_schedule(config: OptimizerConfig, total_steps: int) -> optax.Schedule:
    """Learning rate at each step."""
    warmup = optax.linear_schedule(0.0, config.learning_rate, config.warmup_steps)
    after = (
        optax.cosine_decay_schedule(config.learning_rate, max(1, total_steps - config.warmup_steps))
        if config.cosine_decay
        else optax.constant_schedule(config.learning_rate)
    )
    return optax.join_schedules([warmup, after], [config.warmup_steps])


def build_optimizer(config: OptimizerConfig, total_steps: int) -> optax.GradientTransformation:
    """Clip, then Adam."""
    clip = (
        optax.clip_by_global_norm(config.max_gradient_norm)
        if config.max_gradient_norm
        else optax.identity()
    )
    return optax.chain(clip, optax.adam(learning_rate_schedule(config, total_steps)))
