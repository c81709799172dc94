"""Noise levels and timesteps against the released code's, and their own rules."""

import jax.numpy as jnp
import numpy as np
import pytest

from flashface_jax.diffusion.schedule import (
    ScheduleConfig,
    add_noise,
    nearest_timestep,
    noise_levels,
    spaced_timesteps,
    visited_levels,
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
    ours = visited_levels(LEVELS, steps, spacing)
    told = nearest_timestep(LEVELS, ours[:-1])
    np.testing.assert_array_equal(told, recorded[f"{place}/timesteps"])
    assert_near("sigma", ours, recorded[f"{place}/sigmas"])


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
    sigma = visited_levels(LEVELS, steps, "karras")[:-1]
    told = nearest_timestep(LEVELS, sigma)
    assert told[0] == 999 and told[-1] == 0
    assert (np.diff(told) <= 0).all() and (np.diff(sigma) < 0).all()
    even = (sigma / np.sqrt(1 - sigma**2)) ** (1 / 7)
    ends = (LEVELS[[999, 0]] / np.sqrt(1 - LEVELS[[999, 0]] ** 2)) ** (1 / 7)
    assert_near("(σ/α)^(1/7)", even, np.linspace(*ends, steps))


def test_karras_in_one_step_starts_at_the_noisiest_level():
    first, last = visited_levels(LEVELS, 1, "karras")
    assert nearest_timestep(LEVELS, first[None]).tolist() == [999] and last == 0


@pytest.mark.parametrize("spacing", [*SPACINGS, "karras"])
def test_the_told_timestep_is_the_nearest(spacing):
    """Of two that are equally near the larger; σ leads back to all that any run visits."""
    for steps in range(1, 1001):
        spaced = spaced_timesteps(LEVELS, steps, spacing).astype(np.float64)
        told = nearest_timestep(LEVELS, visited_levels(LEVELS, steps, spacing)[:-1])
        np.testing.assert_array_equal(told, np.floor(spaced + 0.5), err_msg=f"{steps} steps")


def test_the_schedules_own_levels_are_told_by_their_timesteps():
    np.testing.assert_array_equal(nearest_timestep(LEVELS, LEVELS), np.arange(1000))


def test_a_level_between_two_is_told_by_the_nearer_in_log_snr():
    ratio = LEVELS / np.sqrt(1 - LEVELS**2)
    for part, expected in ((0.4, 500), (0.6, 501)):
        between = ratio[500] ** (1 - part) * ratio[501] ** part
        sigma = between / np.sqrt(1 + between**2)
        assert nearest_timestep(LEVELS, np.array([sigma])).tolist() == [expected]


@pytest.mark.parametrize(("spacing", "timestep"), [("trailing", 937), ("leading", 813)])
def test_midway_between_two_timesteps_the_larger_is_told(spacing, timestep):
    """16 steps are 62.5 apart, so that some fall on halves: 936.5 and 812.5."""
    spaced = spaced_timesteps(LEVELS, 16, spacing)
    told = nearest_timestep(LEVELS, visited_levels(LEVELS, 16, spacing)[:-1])
    (midway,) = np.flatnonzero(spaced == timestep - 0.5)
    assert told[midway] == timestep


def test_a_run_ends_without_noise():
    sigma = visited_levels(LEVELS, 10)
    assert sigma.shape == (11,) and sigma[-1] == 0 and (np.diff(sigma) < 0).all()


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
