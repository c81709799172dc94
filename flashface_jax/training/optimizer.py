"""The optimizer that a run is configured with."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import jax
import optax
import optax.contrib

Method = Literal["adam", "muon"]


@dataclass(frozen=True)
class OptimizerConfig:
    """Adam; the defaults are the paper's, everything else is off.

    Attributes:
        method: "adam", or "muon" (Jordan et al., 2024), which orthogonalises the updates of
            matrices and leaves the rest to Adam with Nesterov momentum: a short run from nothing
            learns sooner.
        learning_rate: peak learning rate of Adam.
        matrix_learning_rate: peak learning rate of matrices under "muon".
        second_moment_decay: Adam's β₂; a short run wants less than the usual.
        epsilon: Adam's ε, against which a gradient that is smaller counts for little; "muon" adds
            it to the norm that it divides a matrix by, too.
        weight_decay: share of every weight, over the learning rate, that a step takes away
            (AdamW, arXiv 1711.05101); biases and the scales of norms are left. 0 for none.
        warmup_steps: steps of linear warm-up from 0.
        cosine_decay: whether the rate falls to 0 along a cosine at the last step.
        max_gradient_norm: clip the global gradient norm to this; 0 for no clipping.
        ema_decay: decay of the moving average of parameters that samples are drawn with;
            0 for none. The average starts as a plain mean.
    """

    method: Method = "adam"
    learning_rate: float = 2e-5
    matrix_learning_rate: float = 0.02
    second_moment_decay: float = 0.999
    epsilon: float = 1e-8
    weight_decay: float = 0.0
    warmup_steps: int = 0
    cosine_decay: bool = False
    max_gradient_norm: float = 0.0
    ema_decay: float = 0.0

    def __post_init__(self) -> None:
        for name in ("learning_rate", "matrix_learning_rate", "epsilon"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be positive.")
        for name in ("weight_decay", "warmup_steps", "max_gradient_norm"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be 0 or more.")
        for name in ("second_moment_decay", "ema_decay"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must lie in [0, 1).")


def learning_rate_schedule(
    config: OptimizerConfig, total_steps: int, peak: float
) -> optax.Schedule:
    """Learning rate at each step."""
    warmup = optax.linear_schedule(0.0, peak, config.warmup_steps)
    after = (
        optax.cosine_decay_schedule(peak, max(1, total_steps - config.warmup_steps))
        if config.cosine_decay
        else optax.constant_schedule(peak)
    )
    return optax.join_schedules([warmup, after], [config.warmup_steps])


def build_optimizer(config: OptimizerConfig, total_steps: int) -> optax.GradientTransformation:
    """Clip, then Adam or Muon, then decay."""
    rate = learning_rate_schedule(config, total_steps, config.learning_rate)
    matrix_rate = learning_rate_schedule(config, total_steps, config.matrix_learning_rate)
    clip = (
        optax.clip_by_global_norm(config.max_gradient_norm)
        if config.max_gradient_norm
        else optax.identity()
    )
    match config.method:
        case "adam":
            update = optax.adam(rate, b2=config.second_moment_decay, eps=config.epsilon)
            decay = decay_of(config.weight_decay, rate, lambda weight: weight.ndim > 1)
        case "muon":
            update = optax.contrib.muon(
                matrix_rate,
                eps=config.epsilon,
                adam_learning_rate=rate,
                adam_b2=config.second_moment_decay,
            )
            decay = optax.chain(
                decay_of(config.weight_decay, matrix_rate, lambda weight: weight.ndim == 2),
                decay_of(config.weight_decay, rate, lambda weight: weight.ndim > 2),
            )
    return optax.chain(clip, update, decay) if config.weight_decay else optax.chain(clip, update)


def decay_of(
    share: float, rate: optax.Schedule, decays: Callable[[jax.Array], bool]
) -> optax.GradientTransformation:
    """Take share·rate of each weight that decays off it, after the update: no moment sees it.

    Biases and the scales of norms have one axis, by which the callers know them.
    """
    return optax.add_decayed_weights(
        lambda step: -share * rate(step), lambda params: jax.tree.map(decays, params)
    )
