"""The sampling loop with a model simple enough to follow in NumPy."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flashface_jax.diffusion.guidance import Guidance
from flashface_jax.diffusion.sampling import Conditioning, sample
from flashface_jax.diffusion.schedule import ScheduleConfig, noise_levels, sampling_steps
from flashface_jax.models.flashface import FlashFace

LEVELS = noise_levels(ScheduleConfig())
STEPS = 8
GUIDANCE = Guidance(5.0, 2.0, 1.1, 0.6, launch_timestep=600, rescale=0.7)


class Linear(FlashFace):
    """Noise is affine in the state, the context, the mask, t, and what is seen of references."""

    def __init__(self):
        pass

    def encode_references(self, latents, timestep, context):
        tokens = latents.reshape(*latents.shape[:2], -1, latents.shape[-1])
        return {"middle/0": tokens + timestep[:, None, None, None] / 1e3 + context.mean()}

    def denoise(self, latents, face_mask, timestep, context, references):
        sets = references.valid.shape[0]
        seen = jnp.where(references.valid[..., None, None], references.features["middle/0"], 0.0)
        by_row = jnp.tile(seen.mean((1, 2)), (len(references.strength) // sets, 1))
        by_row = references.strength[:, None] * by_row
        by_row = jnp.pad(by_row, ((0, len(latents) - len(by_row)), (0, 0)))
        return (
            0.3 * latents * (1 + by_row[:, None, None])
            + context.mean((1, 2))[:, None, None, None]
            + 0.2 * face_mask
            + (timestep / 1e3)[:, None, None, None]
        )


def conditioning(sets=1, seed=0, batch=2):
    rng = np.random.default_rng(seed)

    def draw(*shape):
        return jnp.asarray(rng.standard_normal(shape), jnp.float32)

    return Conditioning(
        prompt=draw(batch, 3, 5),
        negative=draw(batch, 3, 5),
        reference_latents=draw(sets, 2, 3, 3, 4),
        reference_valid=jnp.array([[True, True], [True, False]])[:sets],
        reference_context=draw(sets, 3, 5),
        face_mask=(draw(batch, 4, 6, 1) > 0).astype(jnp.float32),
    )


def start(seed=9):
    return jax.random.normal(jax.random.key(seed), (2, 4, 6, 4))


def in_numpy(shown, guidance, x, steps):
    """The released sampler's loop, written out for `Linear`; in float64."""
    shown = SimpleNamespace(
        **{name: np.asarray(leaf, np.float64) for name, leaf in vars(shown).items()}
    )
    x = np.asarray(x, np.float64)
    for t, sigma_t, sigma, after in zip(*map(np.asarray, steps), strict=True):
        tokens = shown.reference_latents.reshape(*shown.reference_latents.shape[:2], -1, 4)
        features = tokens + t / 1e3 + shown.reference_context.mean()
        seen = (features * shown.reference_valid[..., None, None]).mean((1, 2))
        seen = np.broadcast_to(seen, (len(x), 4))[:, None, None]

        def eps(context, strength, x=x, seen=seen, t=t):
            offset = context.mean((1, 2))[:, None, None, None] + 0.2 * shown.face_mask + t / 1e3
            return 0.3 * x * (1 + strength * seen) + offset

        early = t > guidance.launch_timestep
        strength = guidance.early_reference_strength if early else guidance.reference_strength
        if early or guidance.reference_guidance == 0:
            like, none = eps(shown.prompt, strength), eps(shown.negative, strength)
            out = none + guidance.text_guidance * (like - none)
        else:
            both, like = eps(shown.prompt, strength), eps(shown.prompt, 0)
            none = eps(shown.negative, 0)
            out = none + guidance.text_guidance * (like - none)
            out = out + guidance.reference_guidance * (both - like)
        ratio = like.std((1, 2, 3), ddof=1, keepdims=True) / out.std(
            (1, 2, 3), ddof=1, keepdims=True
        )
        out = out * (guidance.rescale * ratio + 1 - guidance.rescale)
        x0 = (x - sigma_t * out) / np.sqrt(1 - np.float64(sigma_t) ** 2)
        direction = (x - np.sqrt(1 - np.float64(sigma) ** 2) * x0) / sigma
        x = np.sqrt(1 - np.float64(after) ** 2) * x0 + after * direction
    return x


@pytest.fixture(scope="module")
def jitted():
    model = Linear()
    return jax.jit(lambda *arguments: sample(model, *arguments))


@pytest.mark.parametrize("sets", [1, 2])
@pytest.mark.parametrize(
    "guidance",
    [
        GUIDANCE,  # switches form inside the scan
        GUIDANCE.replace(launch_timestep=-1),
        GUIDANCE.replace(launch_timestep=999),
        GUIDANCE.replace(reference_guidance=0.0),
        Guidance(),
    ],
    ids=["switch", "two-way", "three-way", "no reference guidance", "defaults"],
)
def test_a_run_follows_the_formulas(jitted, guidance, sets):
    shown, steps = conditioning(sets), sampling_steps(LEVELS, STEPS)
    ours = jitted(shown, guidance, start(), steps)
    expected = in_numpy(shown, guidance, start(), steps)
    np.testing.assert_allclose(ours, expected, rtol=0, atol=2e-5 * expected.std())


def test_the_switch_and_its_strengths_matter(jitted):
    shown, steps = conditioning(), sampling_steps(LEVELS, STEPS)
    base = jitted(shown, GUIDANCE, start(), steps)
    for name, value in {
        "text_guidance": 6.0,
        "reference_guidance": 0.0,
        "reference_strength": 1.0,
        "early_reference_strength": 0.7,
        "launch_timestep": 800,
        "rescale": 0.0,
    }.items():
        other = jitted(shown, GUIDANCE.replace(**{name: value}), start(), steps)
        assert float(jnp.abs(other - base).max() / base.std()) > 1e-3, name


def test_nothing_but_shapes_is_compiled_in():
    traced = []
    model = Linear()

    def run(*arguments):
        traced.append(None)
        return sample(model, *arguments)

    run = jax.jit(run)
    steps = sampling_steps(LEVELS, STEPS)
    for changed in (
        (conditioning(), GUIDANCE, start(), steps),
        (conditioning(seed=1), GUIDANCE, start(), steps),
        (conditioning(), GUIDANCE, start(10), steps),
        (conditioning(), Guidance(), start(), steps),
        (conditioning(), GUIDANCE.replace(launch_timestep=100), start(), steps),
        (conditioning(), GUIDANCE, start(), sampling_steps(LEVELS, STEPS, "leading")),
        (conditioning(), Guidance(7.0, 0.0, 1.0, 1.0, 750, 0.0), start(), steps),
    ):
        run(*changed).block_until_ready()
    assert len(traced) == 1


class LinearVelocity(Linear):
    """The same noise, told as velocity α·ε - σ·x_0 = (ε - σ·x) / α."""

    def denoise(self, latents, face_mask, timestep, context, references):
        noise = super().denoise(latents, face_mask, timestep, context, references)
        sigma = jnp.asarray(LEVELS, jnp.float32)[timestep][:, None, None, None]
        return (noise - sigma * latents) / jnp.sqrt(1 - sigma**2)


def test_velocity_gives_the_run_that_its_noise_gives(jitted):
    arguments = conditioning(), GUIDANCE, start(), sampling_steps(LEVELS, STEPS)
    model = LinearVelocity()
    ours = jax.jit(lambda *arguments: sample(model, *arguments, "velocity"))(*arguments)
    expected = jitted(*arguments)
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-4 * float(expected.std()))


def test_progress_is_reported_after_every_step():
    steps, reports = sampling_steps(LEVELS, STEPS), []
    model = Linear()
    run = jax.jit(
        lambda *arguments: sample(model, *arguments, on_step=lambda: reports.append(None))
    )
    run(conditioning(), GUIDANCE, start(), steps).block_until_ready()
    jax.effects_barrier()
    assert len(reports) == STEPS
