"""Solver steps: from the state at one noise level to the state at the next."""

import jax.numpy as jnp

from flashface_jax.diffusion.schedule import SamplingSteps
from flashface_jax.shapes import Latent


def ddim(x: Latent, noise: Latent, step: SamplingSteps) -> Latent:
    """DDIM with η = 0 (arXiv 2010.02502, Eq. 12); x_0 is not clipped.

    Args:
        x: the state at `step.sigma`.
        noise: predicted ε, for the integer `step.timestep`.
        step: one step's (scalar) entries.
    """
    x0 = (x - step.timestep_sigma * noise) / jnp.sqrt(1 - step.timestep_sigma**2)
    direction = (x - jnp.sqrt(1 - step.sigma**2) * x0) / step.sigma
    return jnp.sqrt(1 - step.next_sigma**2) * x0 + step.next_sigma * direction
