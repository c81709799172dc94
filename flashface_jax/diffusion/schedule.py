"""The noise schedule and the timesteps that a sampler visits.

Variance preserving: x_t = α_t x_0 + σ_t ε with α_t² = 1 - σ_t². A schedule is the array of σ_t.
"""

from dataclasses import dataclass
from typing import Literal

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Float64, Int32

from flashface_jax.common.shape_checks import checked
from flashface_jax.common.shapes import Latent
from flashface_jax.diffusion.settings import Spacing

Prediction = Literal["noise", "velocity", "sample"]

KARRAS_RHO = 7.0

MIDWAY = 1e-9
"""Timesteps so near to midway between two count as there: from t to σ and back, in float64, they
move by up to 6e-12."""


@dataclass(frozen=True)
class ScheduleConfig:
    """Scaled-linear betas: the square root of β runs linearly from first to last.

    Attributes:
        timesteps: number of diffusion timesteps.
        beta_start: β of the first timestep.
        beta_end: β of the last timestep.
        prediction: what the denoiser's output means: "noise" is ε, as in the released weights;
            "velocity" is α·ε - σ·x_0 (arXiv 2202.00512); "sample" is x_0, which suits a network
            little wider than its latents, since it need not carry the noise to its output
            (arXiv 2511.13720). Loss and guidance are on ε in every case.
    """

    timesteps: int = 1000
    beta_start: float = 0.00085
    beta_end: float = 0.012
    prediction: Prediction = "noise"


def noise_levels(config: ScheduleConfig) -> Float64[np.ndarray, " timesteps"]:
    """Return σ_t of every timestep, computed in float64."""
    betas = np.linspace(config.beta_start**0.5, config.beta_end**0.5, config.timesteps) ** 2
    return np.sqrt(1 - np.cumprod(1 - betas))


@checked()
def add_noise(x0: Latent, noise: Latent, sigma: Float[Array, " batch"]) -> Latent:
    """Return α·x_0 + σ·ε for one σ a row."""
    sigma = sigma[:, None, None, None]
    return jnp.sqrt(1 - sigma**2) * x0 + sigma * noise


@checked()
def as_noise(
    output: Latent, x: Latent, sigma: Float[Array, " batch"], prediction: Prediction
) -> Latent:
    """Turn the denoiser's output at x into ε: as it is, α·v + σ·x, or (x - α·x_0) / σ."""
    sigma = sigma[:, None, None, None]
    alpha = jnp.sqrt(1 - sigma**2)
    match prediction:
        case "noise":
            return output
        case "velocity":
            return alpha * output + sigma * x
        case "sample":
            return (x - alpha * output) / sigma


def spaced_timesteps(
    levels: Float64[np.ndarray, " timesteps"], steps: int, spacing: Spacing
) -> Float32[np.ndarray, " steps"]:
    """Return the (fractional) timesteps of a run over a schedule, largest first.

    "trailing" starts at the last timestep and is what the released sampler uses; "leading" ends
    at the first; "linspace" does both. "karras" does both and spaces (σ/α)^(1/7) evenly (arXiv
    2206.00364, Eq. 5), so that steps are smallest where little noise is left.

    Raises:
        ValueError: if `steps` is not in 1..timesteps.
    """
    timesteps = len(levels)
    if not 1 <= steps <= timesteps:
        raise ValueError(f"{steps} sampling steps: choose between 1 and {timesteps}.")
    index = np.arange(steps, dtype=np.float64)
    match spacing:
        case "trailing":
            spaced = timesteps - 1 - index * (timesteps / steps)
        case "leading":
            spaced = (index * (timesteps / steps))[::-1]
        case "linspace":
            # PyTorch's linspace: a float32 stride, counted from the nearer end.
            stride = np.float64(np.float32((timesteps - 1) / max(steps - 1, 1)))
            from_start = index < steps // 2 if steps > 1 else index == 0
            spaced = np.where(from_start, timesteps - 1 - stride * index, stride * index[::-1])
        case "karras":
            ratio = (levels / np.sqrt(1 - levels**2)) ** (1 / KARRAS_RHO)
            even = np.linspace(ratio[-1], ratio[0], steps)
            spaced = np.interp(
                KARRAS_RHO * np.log(even), KARRAS_RHO * np.log(ratio), np.arange(timesteps)
            )
    return np.clip(spaced, 0, timesteps - 1).astype(np.float32)


def visited_levels(
    levels: Float64[np.ndarray, " timesteps"], steps: int, spacing: Spacing = "trailing"
) -> Float64[np.ndarray, " states"]:
    """Return σ before each of `steps` solver steps, and 0, which the last one leads to.

    Between two timesteps of the schedule it is interpolated in log(σ/α), as the released sampler
    does.

    Raises:
        ValueError: if `steps` is not in 1..timesteps.
    """
    exact = spaced_timesteps(levels, steps, spacing)
    ratio = np.exp(np.interp(exact, np.arange(len(levels)), _log_ratio(levels)))
    return np.append(ratio / np.sqrt(1 + ratio**2), 0.0)


def nearest_timestep(
    levels: Float64[np.ndarray, " timesteps"], sigma: Float64[np.ndarray, " evaluations"]
) -> Int32[np.ndarray, " evaluations"]:
    """Return the timesteps that the networks are told at σ: the nearest in log(σ/α).

    Midway between two it is the larger (there the released code's choice hangs on the last bit of
    its machine's square root).
    """
    exact = np.interp(_log_ratio(sigma), _log_ratio(levels), np.arange(len(levels)))
    return np.floor(exact + 0.5 + MIDWAY).astype(np.int32)


def _log_ratio(sigma: Float64[np.ndarray, " _"]) -> Float64[np.ndarray, " _"]:
    return np.log(sigma / np.sqrt(1 - sigma**2))
