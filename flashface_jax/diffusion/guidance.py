"""Classifier-free guidance by text and by references, in the released sampler's two forms."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Float64, Int32

from flashface_jax.common.shapes import Latent, PerEvaluation, TextContext
from flashface_jax.diffusion.settings import StrengthOverTime

BranchNoise = Float[Array, "branches batch h w c"]

# Which branches an evaluation runs.
TEXT_ONLY, REFERENCED_TEXT, TEXT_AND_REFERENCES = range(3)


class GuidanceStep(NamedTuple):
    """What guides one evaluation, or each (arrays with an entry an evaluation); traced.

    Attributes:
        form: TEXT_ONLY, REFERENCED_TEXT or TEXT_AND_REFERENCES.
        text_guidance: λ_text.
        reference_guidance: λ_ref.
        reference_strength: λ_feat.
        rescale: φ.
    """

    form: PerEvaluation
    text_guidance: PerEvaluation
    reference_guidance: PerEvaluation
    reference_strength: PerEvaluation
    rescale: PerEvaluation


@dataclass(frozen=True)
class Guidance:
    """Strengths of a run. Defaults are the released code's; `sampling/presets.py` has others.

    Attributes:
        text_guidance: λ_text (`guide_scale`), 1 for none; 7 to 9 is usual.
        reference_guidance: λ_ref (`face_guidance`); 2 to 3.2. At 0 the two-way form is used
            throughout, as in the released code.
        reference_strength: λ_feat (`lamda_feat`), 0.8 to 1.3. Points over time hold for the whole
            run, before the launch as well. Where it is 0 no reference work is done.
        early_reference_strength: λ_feat before the launch
            (`lamda_feat_before_ref_guidence`).
        launch_timestep: reference guidance starts when t is no longer above it
            (`step_to_launch_face_guidence`).
        rescale: φ (`guide_rescale`) in [0, 1], how far the standard deviation is restored.
    """

    text_guidance: float = 7.5
    reference_guidance: float = 3.2
    reference_strength: StrengthOverTime = 1.2
    early_reference_strength: float = 0.85
    launch_timestep: int = 750
    rescale: float = 0.5

    def over(
        self,
        timestep: Int32[np.ndarray, " evaluations"],
        progress: Float64[np.ndarray, " evaluations"],
    ) -> GuidanceStep:
        """Work out the strengths and the form of every evaluation.

        Args:
            timestep: that the networks are told.
            progress: how far the run is, from 0 at the first step to 1 at the last.
        """
        launched = timestep <= self.launch_timestep
        if isinstance(self.reference_strength, Sequence):
            strength = np.interp(progress, *np.transpose(self.reference_strength))
        else:
            strength = np.where(launched, self.reference_strength, self.early_reference_strength)
        form = np.where(
            launched & (self.reference_guidance > 0), TEXT_AND_REFERENCES, REFERENCED_TEXT
        )

        def throughout(value: float) -> Float32[np.ndarray, " evaluations"]:
            return np.full(len(timestep), value, np.float32)

        return GuidanceStep(
            np.where(strength == 0, TEXT_ONLY, form).astype(np.int32),
            throughout(self.text_guidance),
            throughout(self.reference_guidance),
            strength.astype(np.float32),
            throughout(self.rescale),
        )


@runtime_checkable
class PredictBranches(Protocol):
    """Noise predictions of several guidance branches at the current state."""

    def __call__(
        self,
        contexts: Float[Array, "contexts batch words text"],
        referenced: int = 0,
        paired: int = 0,
    ) -> BranchNoise:
        """Predict a branch for each context; the first `referenced` see the references.

        The first `paired` contexts are predicted with references, and then all without.
        """
        ...


def text_only(
    predict: PredictBranches, prompt: TextContext, negative: TextContext, step: GuidanceStep
) -> Latent:
    """Guide by text without references: n + λ_text·(t - n), rescaled to t."""
    return _by_text(predict, prompt, negative, step, referenced=0)


def two_way(
    predict: PredictBranches, prompt: TextContext, negative: TextContext, step: GuidanceStep
) -> Latent:
    """Guide by text alone: n + λ_text·(t - n), rescaled to t; both branches see the references."""
    return _by_text(predict, prompt, negative, step, referenced=2)


def _by_text(
    predict: PredictBranches,
    prompt: TextContext,
    negative: TextContext,
    step: GuidanceStep,
    referenced: int,
) -> Latent:
    text, none = predict(jnp.stack([prompt, negative]), referenced)
    return rescaled(none + step.text_guidance * (text - none), text, step.rescale)


def three_way(
    predict: PredictBranches, prompt: TextContext, negative: TextContext, step: GuidanceStep
) -> Latent:
    """Guide by text and references: n + λ_text·(t - n) + λ_ref·(tr - t), rescaled to t.

    Only tr sees the references.
    """
    both, text, none = predict(jnp.stack([prompt, negative]), paired=1)
    guided = none + step.text_guidance * (text - none) + step.reference_guidance * (both - text)
    return rescaled(guided, text, step.rescale)


def rescaled(guided: Latent, like: Latent, amount: Float[Array, ""]) -> Latent:
    """Move each sample's standard deviation towards `like`'s (arXiv 2305.08891).

    out·(φ·std(like)/std(out) + 1 - φ), the unbiased deviation over all elements of a sample.
    """
    axes = tuple(range(1, guided.ndim))
    ratio = jnp.std(like, axes, ddof=1, keepdims=True) / (
        jnp.std(guided, axes, ddof=1, keepdims=True) + 1e-12
    )
    return guided * (amount * ratio + (1 - amount))
