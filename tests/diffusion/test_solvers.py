"""Solvers on Gaussian data, whose ideal prediction is linear: what a run shall give is known.

For x_0 ~ N(m, s²) the states of a run are affine in the first one, so that each run below is
followed exactly, in float64, without a network and without drawing any noise.
"""

from itertools import pairwise

import numpy as np
import pytest

from flashface_jax.diffusion.schedule import ScheduleConfig, noise_levels, visited_levels
from flashface_jax.diffusion.solvers import SOLVERS, Update

LEVELS = noise_levels(ScheduleConfig())
MEAN, DEVIATION = 0.7, 0.3
DETERMINISTIC = ("ddim", "dpm++2m", "euler", "heun")
SECOND_ORDER = ("dpm++2m", "heun")
# Name, the η given, and the η that the solver takes.
STOCHASTIC = (("ddim", 0.5, 0.5), ("ddim", 1.0, 1.0), ("euler-ancestral", 0.0, 1.0))
EVERY = [(name, eta) for name in SOLVERS for eta in (0.0, 0.3, 1.0)]

# Half the log-SNR of the first and the last state.
NOISIEST, CLEANEST = -2.5, 3.5


def even_levels(steps, last=CLEANEST):
    """σ of the states of a run with even steps in log-SNR."""
    return 1 / np.sqrt(1 + np.exp(2 * np.linspace(NOISIEST, last, steps + 1)))


def each_step(update):
    return (Update(*row) for row in zip(*update, strict=True))


def ideal(sigma, deviation=DEVIATION, mean=MEAN):
    """The ideal x_0 = slope·x + offset at a noise level."""
    alpha = np.sqrt(1 - sigma**2)
    slope = alpha * deviation**2 / (alpha**2 * deviation**2 + sigma**2)
    return slope, mean - slope * alpha * mean


def solve(name, sigma, start, eta=0.0, deviation=DEVIATION):
    """Mean and variance of the last state of a run from `start`."""
    # (state, previous x_0) given the first: mean, and how much of every noise drawn is in them.
    mean, spread = np.array([start, 0.0]), np.zeros((2, 0))
    asked, update = SOLVERS[name](sigma, eta)
    for step, now in zip(each_step(update), asked, strict=True):
        slope, offset = ideal(now, deviation)
        linear = np.array([[step.state + step.sample * slope, step.previous_sample], [slope, 0]])
        mean = linear @ mean + [step.sample * offset, offset]
        spread = np.column_stack([linear @ spread, [step.noise, 0]])
    return mean[0], np.sum(spread[0] ** 2)


def variance(sigma):
    """Variance of the states at a noise level."""
    return (1 - sigma**2) * DEVIATION**2 + sigma**2


def exact(sigma, start, eta=0.0):
    """Mean and variance of the last state, given the first, in the limit of many steps.

    In x/α the distance to the mean shrinks as the variance to the power (1 + η²)/2; together with
    the noise drawn it keeps the marginal variance.
    """
    (first, last), (alpha, alpha_last) = sigma[[0, -1]], np.sqrt(1 - sigma[[0, -1]] ** 2)
    before, after = variance(first) / alpha**2, variance(last) / alpha_last**2
    kept = (after / before) ** ((1 + eta**2) / 2)
    mean = alpha_last * (MEAN + kept * (start / alpha - MEAN))
    return mean, alpha_last**2 * (after - kept**2 * before)


def orders(errors):
    """How fast errors fall from each number of steps to its double: 1 for halved, 2 for ..."""
    return -np.diff(np.log2(errors))


@pytest.mark.parametrize(
    ("name", "least", "most"),
    [("ddim", 0.9, 1.2), ("euler", 0.9, 1.2), ("dpm++2m", 1.8, 2.4), ("heun", 1.8, 2.4)],
)
def test_order_of_convergence(name, least, most):
    """Down to a small σ; the step to σ = 0 is first order for all."""
    errors = []
    for steps in (32, 64, 128, 256, 512):
        sigma = even_levels(steps)
        errors.append(abs(solve(name, sigma, 1.4)[0] - exact(sigma, 1.4)[0]))
    measured = orders(errors)
    assert (measured >= least).all() and (measured <= most).all(), f"{measured}, {errors}"


def of_mixture(x, sigma):
    """The ideal x_0 for N(±m, s²) in equal parts, which is not linear in x."""
    alpha = np.sqrt(1 - sigma**2)
    total = alpha**2 * DEVIATION**2 + sigma**2
    mean = MEAN * np.tanh(alpha * MEAN * x / total)
    return mean + alpha * DEVIATION**2 / total * (x - alpha * mean)


@pytest.mark.parametrize("name", DETERMINISTIC)
def test_order_of_convergence_where_x0_is_not_linear(name):
    """A solver may be better than its order on Gaussian data: the explicit midpoint method is."""
    ends = []
    for steps in (64, 128, 256, 4096):
        asked, update = SOLVERS[name](even_levels(steps), 0.0)
        x, previous = 1.4, 0.0
        for step, now in zip(each_step(update), asked, strict=True):
            x0 = of_mixture(x, now)
            next_x = step.state * x + step.sample * x0 + step.previous_sample * previous
            x, previous = next_x, x0
        ends.append(x)
    measured = orders(np.abs(np.array(ends[:-1]) - ends[-1]))
    least = 1.7 if name in SECOND_ORDER else 0.9
    assert (measured >= least).all(), f"{measured}, {ends}"


@pytest.mark.parametrize("name", DETERMINISTIC)
def test_a_run_without_any_noise_left_converges(name):
    """From σ to 0 even the exact state loses about σ²/2s² of its distance to the mean."""
    errors = []
    for steps in (32, 64, 128, 256):
        sigma = np.append(even_levels(steps, last=np.log(1e4)), 0.0)
        errors.append(abs(solve(name, sigma, 1.4)[0] - exact(sigma, 1.4)[0]))
    least = 1.7 if name in SECOND_ORDER else 0.9
    assert (orders(errors) >= least).all(), f"{orders(errors)}, {errors}"
    assert errors[-1] < 0.02 * DEVIATION, errors


@pytest.mark.parametrize("name", DETERMINISTIC)
def test_the_schedules_own_steps_converge(name):
    """As a run takes them: trailing timesteps, the last step from the last of them to σ = 0."""
    errors = []
    for steps in (25, 50, 100, 250, 500, 1000):
        sigma = visited_levels(LEVELS, steps)
        errors.append(abs(solve(name, sigma, 1.4)[0] - exact(sigma, 1.4)[0]))
    assert all(a / b > 1.5 for a, b in pairwise(errors)), errors
    assert errors[-1] < 0.04 * DEVIATION, errors


def test_second_order_pays_at_usual_step_counts():
    for steps in (15, 25, 50):
        sigma = visited_levels(LEVELS, steps, "karras")
        first, second = (
            abs(solve(name, sigma, 1.4)[0] - exact(sigma, 1.4)[0]) for name in ("ddim", "dpm++2m")
        )
        assert second < first / 3, f"{steps} steps: {second:.1e} is not far below {first:.1e}"


@pytest.mark.parametrize(("name", "eta", "heeded"), STOCHASTIC)
def test_weak_order_of_solvers_that_draw_noise(name, eta, heeded):
    """Mean and variance given the first state, and so of the last state itself, are right."""
    errors = []
    for steps in (64, 128, 256, 512, 1024):
        sigma = even_levels(steps)
        found, wanted = solve(name, sigma, 1.4, eta), exact(sigma, 1.4, heeded)
        errors.append(np.abs(np.subtract(found, wanted)))
    means, variances = np.transpose(errors)
    assert (orders(variances) >= 0.9).all(), f"{orders(variances)}, {variances}"
    if heeded == 1:  # the ideal prediction makes each step's mean that of the true reverse step
        assert means.max() <= 1e-12, means
    else:
        assert (orders(means) >= 0.9).all(), f"{orders(means)}, {means}"
    assert errors[-1].max() < 0.01 * DEVIATION, errors[-1]


@pytest.mark.parametrize(("name", "eta"), EVERY)
@pytest.mark.parametrize("steps", [1, 2, 3, 10])
def test_a_single_image_is_found_in_any_number_of_steps(name, eta, steps):
    """With one possible image the predicted x_0 never changes, and all noise is gone at σ = 0."""
    sigma = visited_levels(LEVELS, steps)
    mean, left = solve(name, sigma, 1.4, eta, deviation=0.0)
    assert abs(mean - MEAN) <= 1e-12, f"{abs(mean - MEAN):.1e}"
    assert left <= 1e-24, f"{left:.1e}"


GRIDS = {
    "even": np.append(even_levels(20), 0.0),
    "trailing": visited_levels(LEVELS, 50),
    "karras": visited_levels(LEVELS, 30, "karras"),
    "leading": visited_levels(LEVELS, 1000, "leading"),
    "one step": np.array([0.9, 0.0]),
    "two steps": np.array([0.9, 0.4, 0.0]),
}


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize(("name", "eta"), EVERY)
def test_a_constant_image_is_kept(grid, name, eta):
    """state·α + sample + previous_sample = α': where all predictions are x_0, it stays x_0."""
    sigma = GRIDS[grid]
    asked, update = SOLVERS[name](sigma, eta)
    alpha = np.sqrt(1 - np.append(asked, sigma[-1]) ** 2)
    kept = update.state * alpha[:-1] + update.sample + update.previous_sample
    difference = np.abs(kept - alpha[1:]).max()
    assert difference <= 1e-12, f"{difference:.1e}"
    assert update.previous_sample[0] == 0, "There is no earlier prediction at the first step."


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize(("name", "eta"), EVERY)
def test_noise_has_the_variance_of_its_level(grid, name, eta):
    """What is left of the noise, and what is drawn, have σ'² together."""
    sigma = GRIDS[grid]
    asked, update = SOLVERS[name](sigma, eta)
    together = (update.state * asked) ** 2 + update.noise**2
    difference = np.abs(together - np.append(asked[1:], sigma[-1]) ** 2).max()
    assert difference <= 1e-12, f"{difference:.1e}"
    draws = name == "euler-ancestral" or (name == "ddim" and eta > 0)
    assert ((update.noise[:-1] > 0) == draws).all() and update.noise[-1] == 0


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize(("name", "eta"), [("euler", 0.0), ("euler-ancestral", 1.0)])
def test_euler_is_ddim_in_other_variables(grid, name, eta):
    ours, same = SOLVERS[name](GRIDS[grid], 0.4), SOLVERS["ddim"](GRIDS[grid], eta)
    for field, a, b in zip(Update._fields, ours.update, same.update, strict=True):
        difference = np.abs(a - b).max()
        assert difference <= 1e-12, f"{field} differs by {difference:.1e}"


def test_ddim_noise_is_the_papers():
    """Eq. 16, η·sqrt((1 - ᾱ')/(1 - ᾱ))·sqrt(1 - ᾱ/ᾱ'), with ᾱ of the schedule itself."""
    kept = 1 - LEVELS**2
    now, after = kept[999:0:-100], np.append(kept[899::-100], 1.0)
    expected = 0.7 * np.sqrt((1 - after) / (1 - now)) * np.sqrt(1 - now / after)
    sigma = np.sqrt(1 - np.append(now, 1.0))
    found = SOLVERS["ddim"](sigma, 0.7).update.noise
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=0)


def test_dpm_solver_takes_the_papers_step():
    """Algorithm 2, written out for one step: D = (1 + 1/2r)·x_0 - 1/2r·(x_0 before)."""
    sigma = np.array([0.95, 0.8, 0.5, 0.3])
    log_snr = np.log(np.sqrt(1 - sigma**2) / sigma)
    h, before = log_snr[2] - log_snr[1], log_snr[1] - log_snr[0]
    r = before / h
    x, x0, previous = 0.4, -0.3, 0.9
    combined = (1 + 1 / (2 * r)) * x0 - previous / (2 * r)
    expected = sigma[2] / sigma[1] * x - np.sqrt(1 - sigma[2] ** 2) * np.expm1(-h) * combined
    second = list(each_step(SOLVERS["dpm++2m"](sigma, 0.0).update))[1]
    found = second.state * x + second.sample * x0 + second.previous_sample * previous
    assert abs(found - expected) <= 1e-14, f"{abs(found - expected):.1e}"


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("name", ["ddim", "euler", "euler-ancestral", "heun"])
def test_a_step_between_equal_levels_changes_nothing(name, eta):
    for step in each_step(SOLVERS[name](np.array([0.6, 0.6]), eta).update):
        np.testing.assert_allclose(step, [1, 0, 0, 0], rtol=0, atol=1e-12)


@pytest.mark.parametrize("grid", GRIDS)
def test_heun_asks_twice_at_all_levels_but_the_first_and_the_last(grid):
    sigma = GRIDS[grid]
    asked, update = SOLVERS["heun"](sigma, 0.0)
    np.testing.assert_array_equal(asked, np.repeat(sigma, 2)[1:-2])
    assert len(asked) == 2 * (len(sigma) - 1) - 1
    assert {len(column) for column in update} == {len(asked)}


@pytest.mark.parametrize("grid", GRIDS)
def test_heun_is_the_papers_algorithm(grid):
    """Algorithm 1 of EDM with γ = 0, in its own variables, on the ideal prediction."""
    sigma = GRIDS[grid]
    exploding = sigma / np.sqrt(1 - sigma**2)

    def denoised(u, level):
        slope, offset = ideal(sigma[level])
        return slope * u * np.sqrt(1 - sigma[level] ** 2) + offset

    u = 1.4 / np.sqrt(1 - sigma[0] ** 2)
    for i in range(len(sigma) - 1):
        t, t_next = exploding[i], exploding[i + 1]
        d = (u - denoised(u, i)) / t
        u_next = u + (t_next - t) * d
        if t_next != 0:
            d_next = (u_next - denoised(u_next, i + 1)) / t_next
            u_next = u + (t_next - t) * (d + d_next) / 2
        u = u_next
    difference = abs(solve("heun", sigma, 1.4)[0] - u)
    assert difference <= 1e-12, f"{difference:.1e}"
