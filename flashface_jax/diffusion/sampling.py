"""The sampling loop: references, denoiser, guidance and solver joined in one scan."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float

from flashface_jax.diffusion.guidance import BranchNoise, Guidance, guided_noise
from flashface_jax.diffusion.schedule import Prediction, SamplingSteps, as_noise
from flashface_jax.diffusion.solvers import ddim
from flashface_jax.models.flashface import FlashFace
from flashface_jax.models.unet import References
from flashface_jax.shapes import Latent, Mask, ReferenceLatent, ReferenceValid, TextContext


@struct.dataclass
class Conditioning:
    """What a batch of images is to show.

    Attributes:
        prompt: text context of each image.
        negative: negative prompt's context of each image.
        reference_latents: clean latents of the face crops. `sets` is 1 (one person for the
            whole batch) or the batch size.
        reference_valid: which references exist.
        reference_context: the ReferenceNet's text context, one for all sets or one a set; the
            released sampler gives it the negative prompt's.
        face_mask: 1 inside the face box of each image; zeros for no constraint.
    """

    prompt: TextContext
    negative: TextContext
    reference_latents: ReferenceLatent
    reference_valid: ReferenceValid
    reference_context: Float[Array, "_ words text"]
    face_mask: Mask


def sampling_step(
    model: FlashFace,
    conditioning: Conditioning,
    guidance: Guidance,
    x: Latent,
    step: SamplingSteps,
    prediction: Prediction = "noise",
) -> Latent:
    """Take one solver step from x; `step` holds the scalars of that step.

    The ReferenceNet runs once, at the denoiser's timestep, and serves all guidance branches.
    """
    sets = conditioning.reference_latents.shape[0]
    features = model.encode_references(
        conditioning.reference_latents,
        jnp.full((sets,), step.timestep),
        conditioning.reference_context,
    )

    def predict(
        contexts: Float[Array, "branches batch words text"], strength: Float[Array, " referenced"]
    ) -> BranchNoise:
        branches, batch = contexts.shape[:2]
        rows = jnp.tile(x, (branches, 1, 1, 1))
        output = model.denoise(
            rows,
            jnp.tile(conditioning.face_mask, (branches, 1, 1, 1)),
            jnp.full((branches * batch,), step.timestep),
            contexts.reshape(branches * batch, *contexts.shape[2:]),
            References(features, conditioning.reference_valid, strength),
        )
        sigma = jnp.full((branches * batch,), step.timestep_sigma)
        return as_noise(output, rows, sigma, prediction).reshape(branches, *x.shape)

    noise = guided_noise(
        predict, conditioning.prompt, conditioning.negative, guidance, step.timestep
    )
    return ddim(x, noise, step)


def sample(
    model: FlashFace,
    conditioning: Conditioning,
    guidance: Guidance,
    noise: Latent,
    steps: SamplingSteps,
    prediction: Prediction = "noise",
    on_step: Callable[[], None] | None = None,
) -> Latent:
    """Run all steps from pure noise; returns scaled latents.

    Jit it with the conditioning, guidance, noise and steps as arguments: none of their values is
    compiled in. `on_step` is called on the host after every step (for a progress bar).
    """

    def body(x: Latent, step: SamplingSteps) -> tuple[Latent, None]:
        x = sampling_step(model, conditioning, guidance, x, step, prediction)
        if on_step is not None:
            # The unused argument makes the report wait for the step's result.
            jax.debug.callback(lambda _: on_step(), x[0, 0, 0, 0])
        return x, None

    return jax.lax.scan(body, noise, steps)[0]
