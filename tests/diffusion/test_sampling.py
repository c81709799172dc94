"""The sampling loop with a model simple enough to follow in NumPy."""

from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flashface_jax.diffusion import sampling
from flashface_jax.diffusion.guidance import Guidance
from flashface_jax.diffusion.sampling import (
    Conditioning,
    KnownImage,
    ReferenceLatents,
    advance,
    plan_sampling,
    sample,
    track_references,
)
from flashface_jax.diffusion.schedule import (
    ScheduleConfig,
    nearest_timestep,
    noise_levels,
    visited_levels,
)
from flashface_jax.diffusion.solvers import SOLVERS
from flashface_jax.models.flashface import FlashFace

LEVELS = noise_levels(ScheduleConfig())
STEPS = 8
GUIDANCE = Guidance(5.0, 2.0, 1.1, 0.6, launch_timestep=600, rescale=0.7)
OVER_TIME = replace(GUIDANCE, reference_strength=((0.2, 0.0), (0.4, 1.2), (0.9, 0.3), (1.0, 0.0)))


class Linear(FlashFace):
    """Noise is affine in the state, the context, the mask, t, and what is seen of references."""

    def __init__(self):
        pass

    def encode_references(self, latents, timestep, context):
        tokens = latents.reshape(*latents.shape[:2], -1, latents.shape[-1])
        return {"middle/0": tokens + timestep[:, None, None, None] / 1e3 + context.mean()}

    def denoise(self, latents, condition, timestep, context, references, paired=0):
        latents, condition, timestep, context = (
            jnp.concatenate([rows[:paired], rows])
            for rows in (latents, condition, timestep, context)
        )
        by_row = jnp.zeros((0, latents.shape[-1]))
        if references is not None:
            rows, people = references.strength.shape
            mixes = len(references.weight) // people
            counted = references.weight[..., None, None] * references.features["middle/0"]
            seen = counted.mean((1, 2)).reshape(mixes, people, -1)
            by_row = jnp.tile(seen, (rows // mixes, 1, 1))
            by_row = jnp.sum(references.strength[..., None] * by_row, axis=1)
        by_row = jnp.pad(by_row, ((0, len(latents) - len(by_row)), (0, 0)))
        return (
            0.3 * latents * (1 + by_row[:, None, None])
            + context.mean((1, 2))[:, None, None, None]
            + 0.2 * condition
            + (timestep / 1e3)[:, None, None, None]
        )


SHARES = {1: np.float32([[1.0]]), 2: np.float32([[0.3, 0.7], [0.6, 0.4]])}


def conditioning(mixes=1, people=1, seed=0, batch=2):
    rng = np.random.default_rng(seed)

    def draw(*shape):
        return jnp.asarray(rng.standard_normal(shape), jnp.float32)

    return Conditioning(
        prompt=draw(batch, 3, 5),
        negative=draw(batch, 3, 5),
        references=ReferenceLatents(draw(mixes * people, 2, 3, 3, 4), draw(1, 3, 5)),
        reference_weight=jnp.array([[1.0, 1.0], [1.5, 0.0], [0.3, 2.0], [0.0, 1.0]])[
            : mixes * people
        ],
        person_share=jnp.asarray(np.resize(SHARES[people], (mixes, people))),
        condition=(draw(batch, 4, 6, 1) > 0).astype(jnp.float32),
    )


def start(seed=9):
    return jax.random.normal(jax.random.key(seed), (2, 4, 6, 4))


KEYS = jax.random.split(jax.random.key(3), 2)


@dataclass(frozen=True)
class Run:
    """What a run is told, as a user says it."""

    guidance: Guidance = GUIDANCE
    steps: int = STEPS
    spacing: str = "trailing"
    solver: str = "ddim"
    eta: float = 0.0

    @property
    def visited(self):
        return visited_levels(LEVELS, self.steps, self.spacing)

    @property
    def timesteps(self):
        return nearest_timestep(LEVELS, self.visited[:-1])

    @property
    def states(self):
        """Before which step's noise level each evaluation asks, counted from 0."""
        once = list(range(self.steps))
        return sorted(once + once[1:]) if self.solver == "heun" else once

    @property
    def plan(self):
        return plan_sampling(LEVELS, self.visited, self.guidance, self.solver, self.eta)


def fresh_noise(evaluations):
    """The noise that each image draws after each evaluation: of its own key and that alone."""
    draw = jax.vmap(lambda key: jax.random.normal(key, (4, 6, 4)))
    return [
        np.asarray(draw(jax.vmap(lambda key: jax.random.fold_in(key, i))(KEYS)))  # noqa: B023
        for i in range(evaluations)
    ]


def strengths(run, i):
    """λ_feat of a step, and whether it is guided by references."""
    guidance, launched = run.guidance, run.timesteps[i] <= run.guidance.launch_timestep
    if isinstance(guidance.reference_strength, tuple):
        strength = np.interp(i / (run.steps - 1), *np.transpose(guidance.reference_strength))
    else:
        strength = guidance.reference_strength if launched else guidance.early_reference_strength
    return strength, launched and guidance.reference_guidance > 0


def predicted_x0(shown, run, x, i):
    """x_0 of a state before step i, guided as the released sampler does, for `Linear`; float64."""
    prompt, negative, mask, share, weight, latents, reference_context = (
        np.asarray(leaf, np.float64)
        for leaf in (
            shown.prompt,
            shown.negative,
            shown.condition,
            shown.person_share,
            shown.reference_weight,
            shown.references.latents,
            shown.references.context,
        )
    )
    guidance, t = run.guidance, run.timesteps[i]
    features = latents.reshape(*latents.shape[:2], -1, 4) + t / 1e3 + reference_context.mean()
    by_set = (features * weight[..., None, None]).mean((1, 2))
    by_mix = np.einsum("mp,mpc->mc", share, by_set.reshape(*share.shape, 4))
    seen = np.broadcast_to(by_mix, (len(x), 4))[:, None, None]

    def eps(context, strength):
        offset = context.mean((1, 2))[:, None, None, None] + 0.2 * mask + t / 1e3
        return 0.3 * x * (1 + strength * seen) + offset

    strength, by_references = strengths(run, i)
    if not by_references:
        like, none = eps(prompt, strength), eps(negative, strength)
        out = none + guidance.text_guidance * (like - none)
    else:
        both, like = eps(prompt, strength), eps(prompt, 0)
        none = eps(negative, 0)
        out = none + guidance.text_guidance * (like - none)
        out = out + guidance.reference_guidance * (both - like)
    ratio = like.std((1, 2, 3), ddof=1, keepdims=True) / out.std((1, 2, 3), ddof=1, keepdims=True)
    out = out * (guidance.rescale * ratio + 1 - guidance.rescale)
    return (x - LEVELS[t] * out) / np.sqrt(1 - LEVELS[t] ** 2)


def blended(x, known, first, after):
    if known is None:
        return x
    kept = np.sqrt(1 - after**2) * np.asarray(known.latent) + after * first
    return np.where(np.asarray(known.repaint) == 1, x, kept)


def in_numpy(shown, run, x, known=None):
    """The loop over a solver's table, written out for `Linear`; DDIM's without a table."""
    first = np.asarray(x, np.float64)
    x, previous = first, np.zeros_like(first)
    drawn = fresh_noise(len(run.states))
    asked, table = SOLVERS[run.solver](run.visited, run.eta)
    for j, (i, sigma, after) in enumerate(
        zip(run.states, asked, [*asked[1:], 0.0], strict=True),
    ):
        x0 = predicted_x0(shown, run, x, i)
        if run.solver == "ddim" and run.eta == 0:
            direction = (x - np.sqrt(1 - sigma**2) * x0) / sigma
            x = np.sqrt(1 - after**2) * x0 + after * direction
        else:
            state, sample_, previous_sample, noise = (column[j] for column in table)
            x = state * x + sample_ * x0 + previous_sample * previous + noise * drawn[j]
        previous = x0
        x = blended(x, known, first, after)
    return x


def heun_in_numpy(shown, run, x, known=None):
    """EDM's Algorithm 1 with γ = 0, in its own variables x/α and σ/α, written out for `Linear`."""
    first, sigma = np.asarray(x, np.float64), run.visited
    x, alpha = first, np.sqrt(1 - sigma**2)
    level = sigma / alpha
    for i in range(run.steps):
        d = (x / alpha[i] - predicted_x0(shown, run, x, i)) / level[i]
        to = alpha[i + 1] * (x / alpha[i] + (level[i + 1] - level[i]) * d)
        to = blended(to, known, first, sigma[i + 1])
        if sigma[i + 1] != 0:
            d_to = (to / alpha[i + 1] - predicted_x0(shown, run, to, i + 1)) / level[i + 1]
            to = alpha[i + 1] * (x / alpha[i] + (level[i + 1] - level[i]) * (d + d_to) / 2)
            to = blended(to, known, first, sigma[i + 1])
        x = to
    return x


@pytest.fixture(scope="module")
def jitted():
    model = Linear()
    return jax.jit(lambda *arguments: sample(model, *arguments))


def assert_follows(ours, expected):
    difference = float(np.abs(np.asarray(ours) - expected).max() / expected.std())
    assert difference <= 2e-5, f"{difference:.1e} of the standard deviation"


@pytest.mark.parametrize(("mixes", "people"), [(1, 1), (2, 1), (1, 2), (2, 2)])
@pytest.mark.parametrize(
    "guidance",
    [
        GUIDANCE,  # switches form inside the loop
        replace(GUIDANCE, launch_timestep=-1),
        replace(GUIDANCE, launch_timestep=999),
        replace(GUIDANCE, reference_guidance=0.0),
        replace(GUIDANCE, early_reference_strength=0.0),
        OVER_TIME,
        Guidance(),
    ],
    ids=[
        "switch",
        "two-way",
        "three-way",
        "no reference guidance",
        "no early strength",
        "strength over time",
        "defaults",
    ],
)
def test_a_run_follows_the_formulas(jitted, guidance, mixes, people):
    shown, run = conditioning(mixes, people), Run(guidance)
    ours = jitted(shown, start(), KEYS, run.plan)
    assert_follows(ours, in_numpy(shown, run, start()))


@pytest.mark.parametrize(
    "run",
    [
        Run(solver="dpm++2m"),
        Run(solver="dpm++2m", spacing="karras", steps=12),
        Run(solver="euler", spacing="linspace"),
        Run(solver="euler-ancestral"),
        Run(eta=0.6),
        Run(eta=1.0, spacing="leading", guidance=OVER_TIME),
        Run(solver="dpm++2m", steps=1),
        Run(solver="dpm++2m", steps=2),
        Run(solver="euler-ancestral", steps=1),
        Run(solver="heun"),
        Run(solver="heun", steps=1),
    ],
    ids=lambda run: f"{run.solver}-{run.spacing}-{run.steps}-{run.eta}",
)
def test_every_solver_follows_its_table(jitted, run):
    shown = conditioning()
    ours = jitted(shown, start(), KEYS, run.plan)
    assert_follows(ours, in_numpy(shown, run, start()))


@pytest.mark.parametrize("painted", [False, True], ids=["whole", "painted into"])
@pytest.mark.parametrize(
    "run",
    [
        Run(solver="heun"),
        Run(solver="heun", spacing="karras", steps=12, guidance=OVER_TIME),
        Run(solver="heun", spacing="leading", steps=10, guidance=Guidance()),
    ],
    ids=lambda run: f"{run.spacing}-{run.steps}",
)
def test_heun_is_the_papers_algorithm(jitted, run, painted):
    """Form and strength of the second evaluation are those of the level that it asks at."""
    known = painted_into() if painted else None
    shown = replace(conditioning(), known=known)
    ours = jitted(shown, start(), KEYS, run.plan)
    assert int(run.plan.count) == 2 * run.steps - 1
    assert_follows(ours, heun_in_numpy(shown, run, start(), known))
    euler = jitted(shown, start(), KEYS, replace(run, solver="euler").plan)
    assert float(jnp.abs(ours - euler).max() / euler.std()) > 1e-3, "the correction matters"


def test_more_evaluations_than_timesteps_are_refused():
    assert int(Run(solver="heun", steps=500).plan.count) == 999
    with pytest.raises(ValueError, match=r"^501 steps of heun ask the network 1001 times; choose"):
        _ = Run(solver="heun", steps=501).plan


def test_the_switch_and_its_strengths_matter(jitted):
    shown = conditioning()
    base = jitted(shown, start(), KEYS, Run().plan)
    for name, value in {
        "text_guidance": 6.0,
        "reference_guidance": 0.0,
        "reference_strength": 1.0,
        "early_reference_strength": 0.7,
        "launch_timestep": 800,
        "rescale": 0.0,
    }.items():
        other = jitted(shown, start(), KEYS, Run(replace(GUIDANCE, **{name: value})).plan)
        assert float(jnp.abs(other - base).max() / base.std()) > 1e-3, name


def test_strength_zero_runs_no_reference_net(jitted):
    """References that would spoil the run are not looked at while their strength is 0."""
    shown = conditioning()
    spoilt = replace(
        shown, references=replace(shown.references, latents=jnp.full((1, 2, 3, 3, 4), jnp.nan))
    )
    without = Run(replace(GUIDANCE, reference_strength=0.0, early_reference_strength=0.0))
    ours = jitted(spoilt, start(), KEYS, without.plan)
    assert_follows(ours, in_numpy(shown, without, start()))
    assert np.isnan(jitted(spoilt, start(), KEYS, Run().plan)).any()


@pytest.mark.parametrize("run", [Run(), Run(solver="euler-ancestral")], ids=lambda run: run.solver)
def test_an_image_does_not_depend_on_its_batch(jitted, run):
    shown = conditioning(mixes=2)
    both = jitted(shown, start(), KEYS, run.plan)
    turned = jax.tree.map(lambda x: x[::-1] if len(x) == 2 else x, shown)
    other = jitted(turned, start()[::-1], KEYS[::-1], run.plan)
    np.testing.assert_array_equal(other[::-1], both)
    again = jitted(shown, start(), KEYS[::-1], run.plan)
    assert np.array_equal(again, both) == (run.solver == "ddim"), "only drawn noise uses the keys"


def test_nothing_but_shapes_is_compiled_in():
    traced = []
    model = Linear()

    def run(*arguments):
        traced.append(None)
        return sample(model, *arguments)

    run = jax.jit(run)
    plan, keys = Run().plan, KEYS
    for changed in (
        (conditioning(), start(), keys, plan),
        (conditioning(seed=1), start(), keys, plan),
        (conditioning(), start(10), keys, plan),
        (conditioning(), start(), keys[::-1], plan),
        (conditioning(), start(), keys, Run(Guidance()).plan),
        (conditioning(), start(), keys, Run(OVER_TIME).plan),
        (conditioning(), start(), keys, Run(spacing="karras").plan),
        (conditioning(), start(), keys, Run(steps=3).plan),
        (conditioning(), start(), keys, Run(solver="dpm++2m").plan),
        (conditioning(), start(), keys, Run(solver="heun").plan),
        (conditioning(), start(), keys, Run(eta=0.5).plan),
        (conditioning(), start(), keys, Run(Guidance(7.0, 0.0, 1.0, 1.0, 750, 0.0)).plan),
    ):
        run(*changed).block_until_ready()
    assert len(traced) == 1


@pytest.mark.parametrize("run", [Run(), Run(solver="heun")], ids=lambda run: run.solver)
def test_room_for_more_evaluations_is_not_looked_at(jitted, run):
    plan, count = run.plan, len(run.states)
    spoilt = jax.tree.map(
        lambda values: values if values.dtype == jnp.int32 else values.at[count:].set(jnp.nan),
        plan.evaluations,
    )
    ours = jitted(conditioning(), start(), KEYS, replace(plan, evaluations=spoilt))
    np.testing.assert_array_equal(ours, jitted(conditioning(), start(), KEYS, plan))
    assert len(plan.evaluations.timestep) == 1000


TRACKED = [Run(eta=0.3), Run(solver="heun")]


def track_of(shown, run):
    """Features at every evaluation of a run."""
    told = run.plan.evaluations.timestep[: int(run.plan.count)]
    return track_references(Linear(), shown.references, told)


@pytest.mark.parametrize("run", TRACKED, ids=lambda run: run.solver)
@pytest.mark.parametrize("mixes", [1, 2])
def test_features_computed_before_give_the_run_that_latents_give(jitted, mixes, run):
    shown = conditioning(mixes)
    track = track_of(shown, run)
    assert {name: leaf.shape[:2] for name, leaf in track.by_evaluation.items()} == {
        "middle/0": (len(run.states), mixes)
    }
    track.require_made_for(run.plan)
    ours = jitted(replace(shown, references=track), start(), KEYS, run.plan)
    assert_follows(ours, in_numpy(shown, run, start()))


@pytest.mark.parametrize("run", TRACKED, ids=lambda run: run.solver)
def test_features_of_a_shorter_or_longer_run_are_refused(jitted, run):
    """And where nothing can be raised, in a compiled run, no image comes of too few."""
    shown, evaluations = conditioning(), len(run.states)
    for other in (replace(run, steps=STEPS - 1), replace(run, steps=STEPS + 1)):
        track = track_of(shown, other)
        said = f"of {len(other.states)} evaluations, but the run asks the network {evaluations} "
        with pytest.raises(
            ValueError, match=f"^The references' features at middle/0 .*{said}times"
        ):
            track.require_made_for(run.plan)
        image = jitted(replace(shown, references=track), start(), KEYS, run.plan)
        assert np.isnan(image).all() == (other.steps < STEPS)


def painted_into():
    """An image of which about a half is kept."""
    rng = np.random.default_rng(5)
    return KnownImage(
        jnp.asarray(rng.standard_normal((2, 4, 6, 4)), jnp.float32),
        jnp.asarray(rng.random((2, 4, 6, 1)) > 0.5, jnp.float32),
    )


@pytest.mark.parametrize(
    "run",
    [Run(), Run(eta=1.0), Run(solver="heun")],
    ids=["ddim", "ancestral", "heun"],
)
def test_a_known_image_is_kept_where_it_is_not_repainted(jitted, run):
    known = painted_into()
    shown = replace(conditioning(), known=known)
    ours = jitted(shown, start(), KEYS, run.plan)
    kept = np.broadcast_to(known.repaint == 0, ours.shape)
    np.testing.assert_array_equal(ours[kept], known.latent[kept])
    assert_follows(ours, in_numpy(shown, run, start(), known))


class LinearVelocity(Linear):
    """The same noise, told as velocity α·ε - σ·x_0 = (ε - σ·x) / α."""

    def denoise(self, latents, condition, timestep, context, references, paired=0):
        noise = super().denoise(latents, condition, timestep, context, references, paired)
        latents = jnp.concatenate([latents[:paired], latents])
        timestep = jnp.concatenate([timestep[:paired], timestep])
        sigma = jnp.asarray(LEVELS, jnp.float32)[timestep][:, None, None, None]
        return (noise - sigma * latents) / jnp.sqrt(1 - sigma**2)


def test_velocity_gives_the_run_that_its_noise_gives(jitted):
    arguments = conditioning(), start(), KEYS, Run().plan
    model = LinearVelocity()
    ours = jax.jit(lambda *arguments: sample(model, *arguments, "velocity"))(*arguments)
    expected = jitted(*arguments)
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-4 * float(expected.std()))


@pytest.mark.parametrize("solver", ["dpm++2m", "heun"])
def test_a_run_in_parts_is_the_run(solver):
    """Evaluations made in two calls, also of one step, and none at all."""
    shown, wanted, model = conditioning(), Run(solver=solver), Linear()
    plan = wanted.plan
    run = jax.jit(lambda *arguments: advance(model, *arguments))
    begun = sampling.start(start(), KEYS)
    whole = run(shown, begun, plan, plan.count)
    half = run(shown, begun, plan, jnp.asarray(3, jnp.int32))
    joined = run(shown, half, plan, plan.count)
    assert (int(half.index), int(joined.index)) == (3, len(wanted.states))
    np.testing.assert_array_equal(joined.x, whole.x)
    np.testing.assert_array_equal(run(shown, whole, plan, plan.count).x, whole.x)
    assert float(jnp.abs(half.x - whole.x).max()) > 0.1
