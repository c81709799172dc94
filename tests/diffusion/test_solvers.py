"""DDIM on data whose noise is known exactly: the solution of its ODE is known, too."""

from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flashface_jax.diffusion.schedule import ScheduleConfig, noise_levels, sampling_steps
from flashface_jax.diffusion.solvers import ddim

LEVELS = noise_levels(ScheduleConfig())
MEAN, DEVIATION = 0.7, 0.3


def solve(steps, start, mean, deviation):
    """Run DDIM on x_0 ~ N(mean, deviation²), for which the expected noise is linear in x."""

    def body(x, step):
        sigma = step.timestep_sigma
        alpha = jnp.sqrt(1 - sigma**2)
        noise = sigma * (x - alpha * mean) / (alpha**2 * deviation**2 + sigma**2)
        return ddim(x, noise, step), None

    return jax.lax.scan(body, start, sampling_steps(LEVELS, steps))[0]


def exact(start, mean, deviation):
    """The probability flow keeps (x - α·mean) / sqrt(α²·deviation² + σ²)."""
    sigma = LEVELS[-1]
    alpha = np.sqrt(1 - sigma**2)
    scaled = (start - alpha * mean) / np.sqrt(alpha**2 * deviation**2 + sigma**2)
    return mean + deviation * scaled


@pytest.fixture
def start():
    return jax.random.normal(jax.random.key(0), (2, 5, 5, 4))


def error(steps, start):
    solved = solve(steps, start, MEAN, DEVIATION)
    return float(jnp.abs(solved - exact(np.asarray(start), MEAN, DEVIATION)).max())


def test_ddim_converges_to_the_solution(start):
    errors = [error(steps, start) for steps in (25, 50, 100, 250, 500)]
    ratios = [a / b for a, b in pairwise(errors)]
    assert all(ratio > 1.5 for ratio in ratios), errors
    assert error(1000, start) < 0.04 * DEVIATION


@pytest.mark.parametrize("steps", [1, 2, 10])
def test_a_single_image_is_found_in_any_number_of_steps(start, steps):
    """With one possible image the predicted x_0 never changes."""
    solved = solve(steps, start, MEAN, 0.0)
    np.testing.assert_allclose(solved, MEAN, rtol=0, atol=2e-5)


def test_a_step_between_equal_levels_changes_nothing(start):
    step = jax.tree.map(lambda leaf: leaf[3], sampling_steps(LEVELS, 10))
    noise = jnp.ones_like(start)
    stayed = ddim(start, noise, step._replace(next_sigma=step.sigma))
    np.testing.assert_allclose(stayed, start, rtol=0, atol=2e-6)
