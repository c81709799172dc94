"""Classifier-free guidance by text and by references, in the released sampler's two forms."""

from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from flax import struct
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

from flashface_jax.shapes import Latent, TextContext

BranchNoise = Float[Array, "branches batch h w c"]


@struct.dataclass
class Guidance:
    """Strengths of a run; all traced, so that changing one never recompiles.

    Defaults are the released code's; SPEC §3 lists what it recommends when.

    Attributes:
        text_guidance: λ_text (`guide_scale`), 1 for none; 7 to 9 is usual.
        reference_guidance: λ_ref (`face_guidance`); 2 to 3.2. At 0 the two-way form is used
            throughout, as in the released code.
        reference_strength: λ_feat (`lamda_feat`), 0.8 to 1.3.
        early_reference_strength: λ_feat before the launch
            (`lamda_feat_before_ref_guidence`).
        launch_timestep: reference guidance starts when t is no longer above it
            (`step_to_launch_face_guidence`).
        rescale: φ (`guide_rescale`) in [0, 1], how far the standard deviation is restored.
    """

    text_guidance: ArrayLike = 7.5
    reference_guidance: ArrayLike = 3.2
    reference_strength: ArrayLike = 1.2
    early_reference_strength: ArrayLike = 0.85
    launch_timestep: ArrayLike = 750
    rescale: ArrayLike = 0.5


@runtime_checkable
class PredictBranches(Protocol):
    """Noise predictions of several guidance branches at the current state."""

    def __call__(
        self,
        contexts: Float[Array, "branches batch words text"],
        strength: Float[Array, " referenced"],
    ) -> BranchNoise:
        """Predict; the first len(strength) / batch branches see the references."""
        ...


def guided_noise(
    predict: PredictBranches,
    prompt: TextContext,
    negative: TextContext,
    guidance: Guidance,
    timestep: Int[Array, ""],
) -> Latent:
    """Predict with the form that the timestep calls for; only that form's branches are run."""
    launched = (timestep <= guidance.launch_timestep) & (
        jnp.asarray(guidance.reference_guidance) > 0
    )
    strength = jnp.where(
        timestep <= guidance.launch_timestep,
        guidance.reference_strength,
        guidance.early_reference_strength,
    )
    return jax.lax.cond(
        launched,
        lambda: three_way(predict, prompt, negative, guidance, strength),
        lambda: two_way(predict, prompt, negative, guidance, strength),
    )


def two_way(
    predict: PredictBranches,
    prompt: TextContext,
    negative: TextContext,
    guidance: Guidance,
    strength: Float[Array, ""],
) -> Latent:
    """Guide by text alone: n + λ_text·(t - n), rescaled to t; both branches see the references."""
    rows = 2 * prompt.shape[0]
    text, none = predict(jnp.stack([prompt, negative]), jnp.full((rows,), strength))
    guided = none + guidance.text_guidance * (text - none)
    return rescaled(guided, text, guidance.rescale)


def three_way(
    predict: PredictBranches,
    prompt: TextContext,
    negative: TextContext,
    guidance: Guidance,
    strength: Float[Array, ""],
) -> Latent:
    """Guide by text and references: n + λ_text·(t - n) + λ_ref·(tr - t), rescaled to t.

    Only tr sees the references.
    """
    rows = prompt.shape[0]
    both, text, none = predict(jnp.stack([prompt, prompt, negative]), jnp.full((rows,), strength))
    guided = (
        none + guidance.text_guidance * (text - none) + guidance.reference_guidance * (both - text)
    )
    return rescaled(guided, text, guidance.rescale)


def rescaled(guided: Latent, like: Latent, amount: ArrayLike) -> Latent:
    """Move each sample's standard deviation towards `like`'s (arXiv 2305.08891).

    out·(φ·std(like)/std(out) + 1 - φ), the unbiased deviation over all elements of a sample.
    """
    axes = tuple(range(1, guided.ndim))
    ratio = jnp.std(like, axes, ddof=1, keepdims=True) / (
        jnp.std(guided, axes, ddof=1, keepdims=True) + 1e-12
    )
    return guided * (amount * ratio + (1 - jnp.asarray(amount)))
