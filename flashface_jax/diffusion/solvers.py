"""Solvers: from the state at one noise level to the state at the next, linear in what is known.

Every solver here computes, with x_0 predicted from x,

    x' = state·x + sample·x_0 + previous_sample·(x_0 predicted a step earlier) + noise·z,

z ~ N(0, 1). A solver is therefore no more than the table of those four numbers for every step,
worked out in float64 before the run; the compiled sampler does not know which solver it runs.

Noise levels are variance preserving: σ in (0, 1), α = sqrt(1 - σ²), from the first state to the
last, which is σ = 0.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64

from flashface_jax.common.shapes import Latent, PerStep
from flashface_jax.diffusion.settings import SolverName

Levels = Float64[np.ndarray, " levels"]
EachStep = Float64[np.ndarray, " steps"]
"""One number a step: one fewer than there are levels."""


class Update(NamedTuple):
    """Coefficients of one step, or of all (arrays with an entry a step)."""

    state: PerStep
    sample: PerStep
    previous_sample: PerStep
    noise: PerStep

    def __call__(self, x: Latent, x0: Latent, previous_x0: Latent, z: Latent) -> Latent:
        """Take one step."""
        return (
            self.state * x + self.sample * x0 + self.previous_sample * previous_x0 + self.noise * z
        )


def ddim(sigma: Levels, eta: float) -> Update:
    """DDIM (arXiv 2010.02502, Eqs. 12, 16): no noise for η = 0, ancestral sampling for η = 1."""
    now, after, alpha, alpha_after = _pairs(sigma)
    noise = eta * after / now * np.sqrt(1 - (alpha / alpha_after) ** 2)
    direction = np.sqrt(after**2 - noise**2)  # what points back to x, of unit noise
    state = direction / now
    return Update(state, alpha_after - state * alpha, np.zeros_like(now), noise)


def dpm_solver_plus_plus_2m(sigma: Levels, eta: float) -> Update:
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
    return Update(
        after / now, towards * (1 + extrapolated), -towards * extrapolated, np.zeros_like(now)
    )


def euler(sigma: Levels, eta: float) -> Update:
    """Euler on dx/dσ = (x - x_0) / σ of the variance-exploding form (arXiv 2206.00364).

    Equals DDIM without noise: the same step in other variables. η is not used.
    """
    del eta
    exploding = sigma / np.sqrt(1 - sigma**2)
    return _variance_preserving(sigma, exploding[1:] / exploding[:-1], np.zeros(len(sigma) - 1))


def euler_ancestral(sigma: Levels, eta: float) -> Update:
    """Euler down to a lower level, then fresh noise up to the next (as k-diffusion does).

    Equals DDIM with η = 1, whatever η is given.
    """
    del eta
    exploding = sigma / np.sqrt(1 - sigma**2)
    now, after = exploding[:-1], exploding[1:]
    up = after * np.sqrt(1 - (after / now) ** 2)
    return _variance_preserving(sigma, np.sqrt(after**2 - up**2) / now, up)


Solver = Callable[[Levels, float], Update]

SOLVERS: dict[SolverName, Solver] = {
    "ddim": ddim,
    "dpm++2m": dpm_solver_plus_plus_2m,
    "euler": euler,
    "euler-ancestral": euler_ancestral,
}


def _pairs(sigma: Levels) -> tuple[EachStep, EachStep, EachStep, EachStep]:
    """σ and σ', α and α' of every step."""
    alpha = np.sqrt(1 - sigma**2)
    return sigma[:-1], sigma[1:], alpha[:-1], alpha[1:]


def _variance_preserving(sigma: Levels, state: EachStep, noise: EachStep) -> Update:
    """Turn x'/α' = state·x/α + (1 - state)·x_0 + noise·z into coefficients of x and x'."""
    _, _, alpha, alpha_after = _pairs(sigma)
    return Update(
        alpha_after / alpha * state,
        alpha_after * (1 - state),
        np.zeros_like(state),
        alpha_after * noise,
    )
