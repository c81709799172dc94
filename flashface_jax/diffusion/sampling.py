"""The sampling loop: references, denoiser, guidance and solver joined in one loop."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Float, Float64, Int, Key

from flashface_jax.common.shape_checks import checked
from flashface_jax.common.shapes import (
    ImageCondition,
    Latent,
    Mask,
    PerEvaluation,
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
from flashface_jax.diffusion.schedule import Prediction, add_noise, as_noise, nearest_timestep
from flashface_jax.diffusion.settings import SolverName
from flashface_jax.diffusion.solvers import SOLVERS, Update
from flashface_jax.models.flashface import FlashFace, ReferenceFeatures
from flashface_jax.models.unet import References


class Evaluation(NamedTuple):
    """What it takes to ask the network once and to go on, or each time (arrays with an entry each).

    Attributes:
        timestep: the integer timestep that the networks are told.
        timestep_sigma: σ of that timestep, which turns ε into x_0. Where the state lies between two
            timesteps it differs slightly from the state's.
        next_sigma: σ of the state that follows; 0 at the end.
        update: the solver's coefficients.
        guidance: strengths and branches.
    """

    timestep: PerEvaluation
    timestep_sigma: PerEvaluation
    next_sigma: PerEvaluation
    update: Update
    guidance: GuidanceStep


@struct.dataclass
class Plan:
    """A whole run, as data: no value in it is compiled in, nor how long it is.

    How many evaluations make one step of the solver is the solver's affair: a run only knows these.

    Attributes:
        evaluations: room for as many as there are timesteps; only the first `count` are made.
        count: number of evaluations.
    """

    evaluations: Evaluation
    count: Int[Array, ""]


def plan_sampling(
    levels: Float64[np.ndarray, " timesteps"],
    visited: Float64[np.ndarray, " states"],
    guidance: Guidance,
    solver: SolverName = "ddim",
    eta: float = 0.0,
) -> Plan:
    """Work out every number that a run needs.

    Args:
        levels: the schedule, σ of every timestep.
        visited: σ before each step and, last, 0.
        guidance: strengths.
        solver: how to go from one to the next.
        eta: share of fresh noise in each step, 0 to 1, for solvers that draw any.

    Raises:
        ValueError: if the network would be asked more often than there are timesteps.
    """
    sigma, update = SOLVERS[solver](visited, eta)
    steps, count, room = len(visited) - 1, len(sigma), len(levels)
    if count > room:
        raise ValueError(
            f"{steps} steps of {solver} ask the network {count} times; choose fewer steps, for it "
            f"can be asked {room} times."
        )
    timestep = nearest_timestep(levels, sigma)
    # Guidance goes by the noise level, so that what a solver follows is a function of the state
    # and its σ alone. Without that no order of convergence would hold.
    progress = np.interp(-sigma, -visited[:-1], np.linspace(0, 1, steps))
    planned = Evaluation(
        timestep,
        levels[timestep],
        np.append(sigma[1:], visited[-1]),
        update,
        guidance.over(timestep, progress),
    )

    def with_room(values: np.ndarray) -> jax.Array:
        kind = jnp.int32 if values.dtype.kind == "i" else jnp.float32
        return jnp.asarray(np.pad(values, (0, room - len(values))), kind)

    return Plan(jax.tree.map(with_room, planned), jnp.asarray(count, jnp.int32))


@struct.dataclass
class ReferenceLatents:
    """References whose features are computed as the run goes, at each evaluation.

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
    """Features of references at every evaluation of a run, computed before.

    Attributes:
        by_evaluation: block name -> (evaluations, sets, refs, tokens, c).
    """

    by_evaluation: dict[str, Float[Array, "evaluations sets refs _ _"]]

    def features(
        self, model: FlashFace, index: Int[Array, ""], timestep: Int[Array, ""]
    ) -> ReferenceFeatures:
        """Look up the features of an evaluation; not a number behind the last.

        Inside a compiled run no error can be raised, and an index that is clamped would make an
        image of wrong features.
        """
        del model, timestep
        return {
            name: feature.at[index].get(mode="fill", fill_value=jnp.nan)
            for name, feature in self.by_evaluation.items()
        }

    def require_made_for(self, plan: Plan) -> None:
        """Raise a ValueError if there are not features for each of a plan's evaluations."""
        for name, feature in self.by_evaluation.items():
            if len(feature) != plan.count:
                raise ValueError(
                    f"The references' features at {name} are those of {len(feature)} evaluations, "
                    f"but the run asks the network {plan.count} times: compute them at the "
                    "timesteps of its plan."
                )


@checked()
def track_references(
    model: FlashFace, references: ReferenceLatents, timestep: Int[Array, " evaluations"]
) -> ReferenceTrack:
    """Compute features at the timestep of each of a run's evaluations.

    They depend on nothing else that it shows.
    """

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
    now: Evaluation,
    prediction: Prediction,
) -> Latent:
    """Predict the noise in x with the branches that the evaluation asks for; only those are run.

    The ReferenceNet runs once, at the denoiser's timestep, and serves all of them.
    """
    batch, share = x.shape[0], conditioning.person_share

    def predictor(features: ReferenceFeatures) -> PredictBranches:
        def predict(
            contexts: Float[Array, "contexts batch words text"],
            referenced: int = 0,
            paired: int = 0,
        ) -> BranchNoise:
            rows = len(contexts) * batch
            seeing = (referenced or paired) * batch
            strength = now.guidance.reference_strength * jnp.tile(
                share, (seeing // share.shape[0], 1)
            )
            seen = References(features, conditioning.reference_weight, strength)
            states = jnp.tile(x, (len(contexts), 1, 1, 1))
            output = model.denoise(
                states,
                jnp.tile(conditioning.condition, (len(contexts), 1, 1, 1)),
                jnp.full((rows,), now.timestep),
                contexts.reshape(rows, *contexts.shape[2:]),
                seen if seeing else None,
                paired * batch,
            )
            sigma = jnp.full((len(output),), now.timestep_sigma)
            states = jnp.tile(x, (paired + len(contexts), 1, 1, 1))
            return as_noise(output, states, sigma, prediction).reshape(-1, *x.shape)

        return predict

    texts = conditioning.prompt, conditioning.negative

    def with_references() -> Latent:
        features = conditioning.references.features(model, index, now.timestep)
        predict = predictor(features)
        return jax.lax.cond(
            now.guidance.form == TEXT_AND_REFERENCES,
            lambda: three_way(predict, *texts, now.guidance),
            lambda: two_way(predict, *texts, now.guidance),
        )

    return jax.lax.cond(
        now.guidance.form == TEXT_ONLY,
        lambda: text_only(predictor({}), *texts, now.guidance),
        with_references,
    )


@struct.dataclass
class SamplingState:
    """Where a run stands.

    Attributes:
        index: evaluations made.
        x: the images.
        previous_x0: what the last evaluation predicted of them without noise.
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
    """Make the evaluations of a plan up to `stop`; at `plan.count`, x is the scaled latents.

    Jit it with everything but the model as arguments: none of their values is compiled in.
    """

    def body(index: Int[Array, ""], states: tuple[Latent, Latent]) -> tuple[Latent, Latent]:
        x, previous_x0 = states
        now: Evaluation = jax.tree.map(lambda values: values[index], plan.evaluations)
        predicted = guided_noise(model, conditioning, x, index, now, prediction)
        sigma = now.timestep_sigma
        x0 = (x - sigma * predicted) / jnp.sqrt(1 - sigma**2)
        fresh = jax.vmap(lambda key: jax.random.normal(jax.random.fold_in(key, index), x.shape[1:]))
        x = now.update(x, x0, previous_x0, fresh(state.keys))
        if conditioning.known is not None:
            x = conditioning.known.blend(x, state.noise, now.next_sigma)
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
    """Make a whole run from pure noise; returns scaled latents."""
    state = start(noise, keys)
    return advance(model, conditioning, state, plan, plan.count, prediction).x
