"""The sampling loop: references, denoiser, guidance and solver joined in one loop."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Float, Int, Key

from flashface_jax.common.shape_checks import checked
from flashface_jax.common.shapes import (
    ImageCondition,
    Latent,
    Mask,
    PerStep,
    ReferenceLatent,
    ReferenceWeight,
    Strength,
)
from flashface_jax.diffusion.guidance import (
    TEXT_AND_REFERENCES,
    TEXT_ONLY,
    BranchNoise,
    Guidance,
    GuidanceStep,
    PredictBranches,
    text_only,
    three_way,
    two_way,
)
from flashface_jax.diffusion.schedule import Prediction, SamplingSteps, add_noise, as_noise
from flashface_jax.diffusion.solvers import SOLVERS, SolverName, Update
from flashface_jax.models.flashface import FlashFace, ReferenceFeatures
from flashface_jax.models.unet import References


class Step(NamedTuple):
    """All that one step needs, or all steps do (arrays with an entry a step).

    Attributes:
        timestep: the integer timestep that the networks are told.
        timestep_sigma: σ of that timestep, which turns ε into x_0.
        next_sigma: σ of the state after the step; 0 at the end.
        update: the solver's coefficients.
        guidance: strengths and branches.
    """

    timestep: PerStep
    timestep_sigma: PerStep
    next_sigma: PerStep
    update: Update
    guidance: GuidanceStep


@struct.dataclass
class Plan:
    """A whole run, as data: no value in it, nor the number of steps, is compiled in.

    Attributes:
        steps: room for as many steps as there are timesteps; only the first `count` are taken.
        count: number of steps.
    """

    steps: Step
    count: Int[Array, ""]


def plan_sampling(
    steps: SamplingSteps,
    guidance: Guidance,
    solver: SolverName = "ddim",
    eta: float = 0.0,
    room: int = 1000,
) -> Plan:
    """Work out every number that a run needs.

    Args:
        steps: the noise levels to visit.
        guidance: strengths.
        solver: how to go from one to the next.
        eta: share of fresh noise in each step, 0 to 1, for solvers that draw any.
        room: most steps that a run compiled for this plan can take.
    """
    sigma = np.append(steps.sigma, steps.next_sigma[-1])
    planned = Step(
        steps.timestep,
        steps.timestep_sigma,
        steps.next_sigma,
        SOLVERS[solver](sigma, eta),
        guidance.over(steps.timestep),
    )

    def with_room(values: np.ndarray) -> jax.Array:
        kind = jnp.int32 if values.dtype.kind == "i" else jnp.float32
        return jnp.asarray(np.pad(values, (0, room - len(values))), kind)

    return Plan(jax.tree.map(with_room, planned), jnp.asarray(len(steps.timestep), jnp.int32))


@struct.dataclass
class ReferenceLatents:
    """References whose features are computed as the run goes, at each step.

    Attributes:
        latents: clean latents of the face crops. There are sets for one image, which all images
            share, or for each image of the batch.
        context: the ReferenceNet's text context, one for all sets or one a set; the released
            sampler gives it the negative prompt's.
    """

    latents: ReferenceLatent
    context: Float[Array, "_ words text"]

    def features(
        self, model: FlashFace, index: Int[Array, ""], timestep: Int[Array, ""]
    ) -> ReferenceFeatures:
        """Run the ReferenceNet at a timestep."""
        del index
        sets = self.latents.shape[0]
        return model.encode_references(self.latents, jnp.full((sets,), timestep), self.context)


@struct.dataclass
class ReferenceTrack:
    """Features of references at every step of a run, computed before.

    Attributes:
        by_step: block name -> (steps, sets, refs, tokens, c).
    """

    by_step: dict[str, Float[Array, "steps sets refs _ _"]]

    def features(
        self, model: FlashFace, index: Int[Array, ""], timestep: Int[Array, ""]
    ) -> ReferenceFeatures:
        """Look up the features of a step."""
        del model, timestep
        return jax.tree.map(lambda feature: feature[index], self.by_step)


@checked()
def track_references(
    model: FlashFace, references: ReferenceLatents, timestep: Int[Array, " steps"]
) -> ReferenceTrack:
    """Compute features at every timestep of a run; they depend on nothing else that it shows."""

    def at(timestep: Int[Array, ""]) -> ReferenceFeatures:
        return references.features(model, jnp.zeros((), jnp.int32), timestep)

    return ReferenceTrack(jax.lax.map(at, timestep))


@struct.dataclass
class KnownImage:
    """An image of which a part is kept (latent blending).

    Attributes:
        latent: the image's scaled latent.
        repaint: 1 where it is painted anew, 0 where it is kept.
    """

    latent: Latent
    repaint: Mask

    def blend(self, x: Latent, noise: Latent, sigma: Float[Array, ""]) -> Latent:
        """Put the image, noised to σ, in place of the state where it is kept."""
        kept = add_noise(self.latent, noise, jnp.full(x.shape[:1], sigma))
        return self.repaint * x + (1 - self.repaint) * kept


@struct.dataclass
class Conditioning:
    """What a batch of images is to show.

    Attributes:
        prompt: text context of each image.
        negative: negative prompt's context of each image.
        references: reference sets, `people` consecutive ones for an image.
        reference_weight: how often each reference counts; 0 where there is none.
        person_share: how much each person of an image counts; ones for a single person. One row
            for all images, or one an image.
        condition: what the denoiser sees of each image besides its latent; the face mask, 1 inside
            the face box and zeros for no constraint, and for an inpainting model the latent of
            the image without its face before it.
        known: an image to keep outside a mask, for models that do not inpaint.
    """

    prompt: Float[Array, "batch words text"]
    negative: Float[Array, "batch words text"]
    references: ReferenceLatents | ReferenceTrack
    reference_weight: ReferenceWeight
    person_share: Strength
    condition: ImageCondition
    known: KnownImage | None = None


def guided_noise(
    model: FlashFace,
    conditioning: Conditioning,
    x: Latent,
    index: Int[Array, ""],
    step: Step,
    prediction: Prediction,
) -> Latent:
    """Predict the noise in x with the branches that the step asks for; only those are run.

    The ReferenceNet runs once, at the denoiser's timestep, and serves all of them.
    """
    batch, share = x.shape[0], conditioning.person_share

    def predictor(features: ReferenceFeatures) -> PredictBranches:
        def predict(
            contexts: Float[Array, "contexts batch words text"],
            referenced: int = 0,
            beside: int = 0,
        ) -> BranchNoise:
            rows = len(contexts) * batch
            seeing = (referenced or beside) * batch
            strength = step.guidance.reference_strength * jnp.tile(
                share, (seeing // share.shape[0], 1)
            )
            seen = References(features, conditioning.reference_weight, strength)
            states = jnp.tile(x, (len(contexts), 1, 1, 1))
            output = model.denoise(
                states,
                jnp.tile(conditioning.condition, (len(contexts), 1, 1, 1)),
                jnp.full((rows,), step.timestep),
                contexts.reshape(rows, *contexts.shape[2:]),
                seen if seeing else None,
                beside * batch,
            )
            sigma = jnp.full((len(output),), step.timestep_sigma)
            states = jnp.tile(x, (beside + len(contexts), 1, 1, 1))
            return as_noise(output, states, sigma, prediction).reshape(-1, *x.shape)

        return predict

    texts = conditioning.prompt, conditioning.negative

    def with_references() -> Latent:
        features = conditioning.references.features(model, index, step.timestep)
        predict = predictor(features)
        return jax.lax.cond(
            step.guidance.form == TEXT_AND_REFERENCES,
            lambda: three_way(predict, *texts, step.guidance),
            lambda: two_way(predict, *texts, step.guidance),
        )

    return jax.lax.cond(
        step.guidance.form == TEXT_ONLY,
        lambda: text_only(predictor({}), *texts, step.guidance),
        with_references,
    )


@struct.dataclass
class SamplingState:
    """Where a run stands.

    Attributes:
        index: steps taken.
        x: the images.
        previous_x0: what the last step predicted of them without noise.
        noise: the first state.
        keys: where each image's further noise comes from, for solvers that draw any.
    """

    index: Int[Array, ""]
    x: Latent
    previous_x0: Latent
    noise: Latent
    keys: Key[Array, " batch"]


@checked()
def start(noise: Latent, keys: Key[Array, " batch"]) -> SamplingState:
    """Stand at the beginning of a run: pure noise, one key an image."""
    return SamplingState(jnp.zeros((), jnp.int32), noise, jnp.zeros_like(noise), noise, keys)


@checked()
def advance(
    model: FlashFace,
    conditioning: Conditioning,
    state: SamplingState,
    plan: Plan,
    stop: Int[Array, ""],
    prediction: Prediction = "noise",
) -> SamplingState:
    """Take the steps of a plan up to `stop`; at `plan.count`, x is the scaled latents.

    Jit it with everything but the model as arguments: none of their values is compiled in.
    """

    def body(index: Int[Array, ""], states: tuple[Latent, Latent]) -> tuple[Latent, Latent]:
        x, previous_x0 = states
        step: Step = jax.tree.map(lambda values: values[index], plan.steps)
        predicted = guided_noise(model, conditioning, x, index, step, prediction)
        sigma = step.timestep_sigma
        x0 = (x - sigma * predicted) / jnp.sqrt(1 - sigma**2)
        fresh = jax.vmap(lambda key: jax.random.normal(jax.random.fold_in(key, index), x.shape[1:]))
        x = step.update(x, x0, previous_x0, fresh(state.keys))
        if conditioning.known is not None:
            x = conditioning.known.blend(x, state.noise, step.next_sigma)
        return x, x0

    x, previous_x0 = jax.lax.fori_loop(state.index, stop, body, (state.x, state.previous_x0))
    return SamplingState(stop, x, previous_x0, state.noise, state.keys)


@checked()
def sample(
    model: FlashFace,
    conditioning: Conditioning,
    noise: Latent,
    keys: Key[Array, " batch"],
    plan: Plan,
    prediction: Prediction = "noise",
) -> Latent:
    """Take all steps of a plan from pure noise; returns scaled latents."""
    state = start(noise, keys)
    return advance(model, conditioning, state, plan, plan.count, prediction).x
