"""The noise schedule and the timesteps that a sampler visits.

Variance preserving: x_t = α_t x_0 + σ_t ε with α_t² = 1 - σ_t². A schedule is the array of σ_t.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Float64, Int32

from flashface_jax.common.shape_checks import checked
from flashface_jax.common.shapes import Latent

Spacing = Literal["trailing", "linspace", "leading", "karras"]
Prediction = Literal["noise", "velocity", "sample"]

KARRAS_RHO = 7.0


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


class SamplingSteps(NamedTuple):
    """What each of `steps` solver steps needs, first step first.

    Attributes:
        timestep: the integer timestep that the networks are told.
        timestep_sigma: σ of that integer timestep, which turns ε into x_0.
        sigma: σ of the state before the step. Where the spacing puts a step between two
            timesteps it is interpolated, so it can differ slightly from `timestep_sigma`.
        next_sigma: σ of the state after the step; 0 at the end.
    """

    timestep: Int32[np.ndarray, " steps"]
    timestep_sigma: Float64[np.ndarray, " steps"]
    sigma: Float64[np.ndarray, " steps"]
    next_sigma: Float64[np.ndarray, " steps"]


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


def sampling_steps(
    levels: Float64[np.ndarray, " timesteps"], steps: int, spacing: Spacing = "trailing"
) -> SamplingSteps:
    """Space `steps` solver steps over a schedule, as the released sampler does.

    σ between two timesteps is interpolated in log(σ/α), and the networks are told the nearest
    integer timestep; midway between two, the larger (there the released code's choice hangs on
    the last bit of its machine's square root).
    """
    exact = spaced_timesteps(levels, steps, spacing)
    log_ratio = np.log(levels / np.sqrt(1 - levels**2))
    ratio = np.exp(np.interp(exact, np.arange(len(levels)), log_ratio))
    sigma = ratio / np.sqrt(1 + ratio**2)
    timestep = np.floor(exact + 0.5).astype(np.int32)
    return SamplingSteps(
        timestep,
        levels[timestep],
        sigma,
        np.append(sigma[1:], 0.0),
    )
