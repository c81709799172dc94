"""Noise levels and timesteps against the released code's, and their own rules."""

import jax.numpy as jnp
import numpy as np
import pytest

from flashface_jax.diffusion.schedule import (
    ScheduleConfig,
    add_noise,
    noise_levels,
    sampling_steps,
    spaced_timesteps,
)
from tests.recorded import arrays

SPACINGS = ("trailing", "linspace", "leading")  # the released code's
LEVELS = noise_levels(ScheduleConfig())


def assert_near(name, ours, recorded, tolerance=1e-6):
    difference = float(np.abs(np.asarray(ours) - recorded).max())
    assert difference <= tolerance, f"{name} differs by {difference:.1e}"


def test_noise_levels_equal_the_released_ones():
    ours = noise_levels(ScheduleConfig())
    assert_near("sigma", ours, arrays("tiny_unet")["schedule_sigmas"], tolerance=1e-12)


@pytest.mark.parametrize("steps", [7, 25, 35, 50])
@pytest.mark.parametrize("spacing", SPACINGS)
def test_steps_equal_the_released_ones(spacing, steps):
    recorded = arrays("preprocess")
    place = f"schedule/{spacing}_{steps}"
    ours = sampling_steps(LEVELS, steps, spacing)
    np.testing.assert_array_equal(ours.timestep, recorded[f"{place}/timesteps"])
    sigmas = recorded[f"{place}/sigmas"]
    assert_near("sigma", ours.sigma, sigmas[:-1])
    assert_near("next sigma", ours.next_sigma, sigmas[1:])


@pytest.mark.parametrize("spacing", [*SPACINGS, "karras"])
def test_every_step_count_is_kept(spacing):
    """Also where float32 counting would make one step more: 61, 103, 121, 122."""
    for steps in range(1, 1001):
        spaced = spaced_timesteps(LEVELS, steps, spacing)
        assert spaced.shape == (steps,)
        assert (np.diff(spaced) < 0).all(), f"{steps} steps"
        assert 0 <= spaced[-1] <= spaced[0] <= 999


@pytest.mark.parametrize("steps", [2, 3, 10, 50, 1000])
def test_karras_spaces_its_levels_evenly(steps):
    """(σ/α)^(1/7) falls by equal amounts from the first level of the schedule to its last."""
    planned = sampling_steps(LEVELS, steps, "karras")
    assert planned.timestep[0] == 999 and planned.timestep[-1] == 0
    assert (np.diff(planned.timestep) <= 0).all() and (np.diff(planned.sigma) < 0).all()
    even = (planned.sigma / np.sqrt(1 - planned.sigma**2)) ** (1 / 7)
    ends = (LEVELS[[999, 0]] / np.sqrt(1 - LEVELS[[999, 0]] ** 2)) ** (1 / 7)
    assert_near("(σ/α)^(1/7)", even, np.linspace(*ends, steps))


def test_karras_in_one_step_starts_at_the_noisiest_level():
    planned = sampling_steps(LEVELS, 1, "karras")
    assert planned.timestep.tolist() == [999] and planned.next_sigma.tolist() == [0]


@pytest.mark.parametrize("spacing", [*SPACINGS, "karras"])
def test_the_told_timestep_is_the_nearest(spacing):
    for steps in (1, 16, 61, 1000):
        spaced = spaced_timesteps(LEVELS, steps, spacing)
        planned = sampling_steps(LEVELS, steps, spacing)
        assert np.abs(planned.timestep - spaced).max() <= 0.5
        np.testing.assert_array_equal(planned.timestep_sigma, LEVELS[planned.timestep])


@pytest.mark.parametrize(("spacing", "timestep"), [("trailing", 937), ("leading", 813)])
def test_midway_between_two_timesteps_the_larger_is_told(spacing, timestep):
    """16 steps are 62.5 apart, so that some fall on halves: 936.5 and 812.5."""
    spaced = spaced_timesteps(LEVELS, 16, spacing)
    steps = sampling_steps(LEVELS, 16, spacing)
    (midway,) = np.flatnonzero(spaced == timestep - 0.5)
    assert steps.timestep[midway] == timestep


def test_a_run_ends_without_noise():
    steps = sampling_steps(LEVELS, 10)
    assert steps.next_sigma[-1] == 0
    np.testing.assert_array_equal(steps.next_sigma[:-1], steps.sigma[1:])


@pytest.mark.parametrize("steps", [0, 1001])
def test_impossible_step_counts_are_refused(steps):
    with pytest.raises(ValueError, match=f"{steps} sampling steps: choose between 1 and 1000"):
        spaced_timesteps(LEVELS, steps, "trailing")


def test_noised_latents_keep_unit_variance():
    rng = np.random.default_rng(0)
    x0, noise = (rng.standard_normal((3, 50, 50, 4)).astype(np.float32) for _ in range(2))
    sigma = jnp.array([0.0, 0.6, 1.0])
    noisy = add_noise(jnp.asarray(x0), jnp.asarray(noise), sigma)
    np.testing.assert_array_equal(noisy[0], x0[0])
    np.testing.assert_allclose(noisy[1], 0.8 * x0[1] + 0.6 * noise[1], rtol=0, atol=1e-6)
    np.testing.assert_array_equal(noisy[2], noise[2])
