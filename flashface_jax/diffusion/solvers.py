"""Solvers: from the state at one noise level to the state at the next, linear in what is known.

A run is a row of evaluations of the network. Each asks it about a state x, and every solver here
then computes, with x_0 predicted from x,

    x' = state·x + sample·x_0 + previous_sample·(x_0 of the evaluation before) + noise·z,

z ~ N(0, 1), which is the state that the next evaluation asks about. A solver is therefore no more
than a table with σ and those four numbers for every evaluation, worked out in float64 before the
run; the compiled sampler does not know which solver it runs, nor which evaluations make one step.

A step of two evaluations is two rows of the table. The state that it began from needs no column of
its own: it is linear in the state between the two and the x_0 that led there.

Noise levels are variance preserving: σ in (0, 1), α = sqrt(1 - σ²), from the first state to the
last, which is σ = 0.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64

from flashface_jax.common.shapes import Latent, PerEvaluation
from flashface_jax.diffusion.settings import SolverName

Levels = Float64[np.ndarray, " levels"]
EachStep = Float64[np.ndarray, " steps"]
"""One number a step: one fewer than there are levels."""
EachEvaluation = Float64[np.ndarray, " evaluations"]
"""One number for every time that the network is asked: one or more a step."""


class Update(NamedTuple):
    """What follows one evaluation, or each (arrays with an entry an evaluation)."""

    state: PerEvaluation
    sample: PerEvaluation
    previous_sample: PerEvaluation
    noise: PerEvaluation

    def __call__(self, x: Latent, x0: Latent, previous_x0: Latent, z: Latent) -> Latent:
        """Go on to the state that is asked about next."""
        return (
            self.state * x + self.sample * x0 + self.previous_sample * previous_x0 + self.noise * z
        )


class Solution(NamedTuple):
    """A whole run by one solver, evaluation by evaluation.

    Attributes:
        sigma: σ of the state that the network is asked about. An update leads to the σ of the next
            evaluation; the last one to the last level of the run.
        update: coefficients of what follows.
    """

    sigma: EachEvaluation
    update: Update


def ddim(sigma: Levels, eta: float) -> Solution:
    """DDIM (arXiv 2010.02502, Eqs. 12, 16): no noise for η = 0, ancestral sampling for η = 1."""
    now, after, alpha, alpha_after = _pairs(sigma)
    noise = eta * after / now * np.sqrt(1 - (alpha / alpha_after) ** 2)
    direction = np.sqrt(after**2 - noise**2)  # what points back to x, of unit noise
    state = direction / now
    return Solution(now, Update(state, alpha_after - state * alpha, np.zeros_like(now), noise))


def dpm_solver_plus_plus_2m(sigma: Levels, eta: float) -> Solution:
    """DPM-Solver++ 2M (arXiv 2211.01095, Algorithm 2): second order from the second step on.

    The last step, whose log-SNR is unbounded, is first order. η is not used.
    """
    del eta
    now, after, alpha, alpha_after = _pairs(sigma)
    log_snr = np.log(np.sqrt(1 - sigma[:-1] ** 2) / sigma[:-1])  # half of it, λ
    step = np.diff(log_snr)
    towards = alpha_after - after / now * alpha  # α'(1 - exp(-h)), also where h is infinite
    extrapolated = np.zeros_like(now)
    extrapolated[1:-1] = step[1:] / (2 * step[:-1])  # 1 / 2r
    update = Update(
        after / now, towards * (1 + extrapolated), -towards * extrapolated, np.zeros_like(now)
    )
    return Solution(now, update)


def euler(sigma: Levels, eta: float) -> Solution:
    """Euler on dx/dσ = (x - x_0) / σ of the variance-exploding form (arXiv 2206.00364).

    Equals DDIM without noise: the same step in other variables. η is not used.
    """
    del eta
    exploding = sigma / np.sqrt(1 - sigma**2)
    return _variance_preserving(sigma, exploding[1:] / exploding[:-1], np.zeros(len(sigma) - 1))


def euler_ancestral(sigma: Levels, eta: float) -> Solution:
    """Euler down to a lower level, then fresh noise up to the next (as k-diffusion does).

    Equals DDIM with η = 1, whatever η is given.
    """
    del eta
    exploding = sigma / np.sqrt(1 - sigma**2)
    now, after = exploding[:-1], exploding[1:]
    up = after * np.sqrt(1 - (after / now) ** 2)
    return _variance_preserving(sigma, np.sqrt(after**2 - up**2) / now, up)


def heun(sigma: Levels, eta: float) -> Solution:
    """Heun on the same equation (arXiv 2206.00364, Algorithm 1): second order, two evaluations.

    Euler leads to x', where the network is asked again; the step is then taken with the mean of
    both slopes. In u = x/α and s = σ/α, Euler goes straight towards x_0, so that its slope is
    (u' - x_0) / s' as well, and the mean of both corrects u' by (s/s' - 1)/2 · (x_0' - x_0). A step
    to σ = 0 is Euler's alone, one evaluation. η is not used.
    """
    del eta
    exploding = sigma / np.sqrt(1 - sigma**2)
    predicted = euler(sigma, 0.0)
    (corrected,) = np.nonzero(sigma[1:])
    now, after = exploding[corrected], exploding[corrected + 1]
    half = np.sqrt(1 - sigma[corrected + 1] ** 2) * (now / after - 1) / 2
    correction = Update(np.ones_like(half), half, -half, np.zeros_like(half))
    return Solution(
        np.insert(predicted.sigma, corrected + 1, sigma[corrected + 1]),
        Update(
            *(
                np.insert(column, corrected + 1, second)
                for column, second in zip(predicted.update, correction, strict=True)
            )
        ),
    )


Solver = Callable[[Levels, float], Solution]

SOLVERS: dict[SolverName, Solver] = {
    "ddim": ddim,
    "dpm++2m": dpm_solver_plus_plus_2m,
    "euler": euler,
    "euler-ancestral": euler_ancestral,
    "heun": heun,
}


def _pairs(sigma: Levels) -> tuple[EachStep, EachStep, EachStep, EachStep]:
    """σ and σ', α and α' of every step."""
    alpha = np.sqrt(1 - sigma**2)
    return sigma[:-1], sigma[1:], alpha[:-1], alpha[1:]


def _variance_preserving(sigma: Levels, state: EachStep, noise: EachStep) -> Solution:
    """Turn x'/α' = state·x/α + (1 - state)·x_0 + noise·z into coefficients of x and x'."""
    now, _, alpha, alpha_after = _pairs(sigma)
    update = Update(
        alpha_after / alpha * state,
        alpha_after * (1 - state),
        np.zeros_like(state),
        alpha_after * noise,
    )
    return Solution(now, update)
