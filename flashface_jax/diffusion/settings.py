"""How images are sampled, as settings, which are light to import.

A command line, a jobs file, a record and a weights directory all hold the same.
"""

import argparse
import math
from dataclasses import dataclass
from typing import Literal, get_args

from flashface_jax.common.errors import shortened
from flashface_jax.common.options import option

SolverName = Literal["ddim", "dpm++2m", "euler", "euler-ancestral", "heun"]
Spacing = Literal["trailing", "linspace", "leading", "karras"]
StrengthOverTime = float | tuple[tuple[float, float], ...]
"""A constant, or points (progress, value) joined by straight lines; progress runs from 0 at the
first step to 1 at the last."""

PROMPT_SUFFIX = "best quality, masterpiece,ultra-detailed, UHD 4K, photographic"
NEGATIVE_SUFFIX = (
    "blurry, ugly, tiling, poorly drawn hands, poorly drawn feet, poorly drawn face, "
    "out of frame, extra limbs, disfigured, deformed, body out of frame, bad anatomy, watermark, "
    "signature, cut off, low contrast, underexposed, overexposed, bad art, beginner, amateur, "
    "distorted face"
)


def strength(text: str) -> StrengthOverTime:
    """A number, or points over the run: "0:0.6,0.5:1.2" rises from 0.6 to 1.2 by half of it."""
    try:
        if ":" not in text:
            return float(text)
        points = [point.split(":") for point in text.split(",")]
        return tuple((float(progress), float(value)) for progress, value in points)
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"{shortened(text)} is neither a number nor points as 0:0.6,0.5:1.2"
        ) from error


@dataclass(frozen=True)
class SamplingConfig:
    """How a set of weights likes to be sampled; the defaults are the released code's.

    Attributes:
        steps: solver steps; some solvers ask the network more than once in each.
        solver: how to go from one noise level to the next.
        spacing: which timesteps they visit.
        eta: share of fresh noise in each step, 0 to 1; only "ddim" heeds it.
        text_guidance: λ_text (`guide_scale`).
        reference_guidance: λ_ref (`face_guidance`).
        reference_strength: λ_feat (`lamda_feat`), or points (progress from 0 to 1, λ_feat) that
            hold for the whole run.
        early_reference_strength: λ_feat before the launch (`lamda_feat_before_ref_guidence`).
        launch_timestep: reference guidance starts below it (`step_to_launch_face_guidence`).
        rescale: φ (`guide_rescale`).
        prompt_suffix: words joined to every prompt.
        negative_suffix: words joined to every negative prompt.
    """

    steps: int = option(
        "steps from noise to image; 25 to 50 for the released weights", "N", default=50
    )
    solver: SolverName = option(
        "how to go from one noise level to the next; dpm++2m needs the fewest steps, heun takes "
        "twice as long for each, euler-ancestral adds fresh noise",
        default="ddim",
    )
    spacing: Spacing = option(
        "which noise levels to visit; the released code uses trailing", default="trailing"
    )
    eta: float = option(
        "share of fresh noise in each step of the solver ddim; 0 to 1", "X", default=0.0
    )
    text_guidance: float = option("how closely to follow the prompt; 7 to 9", "X", default=7.5)
    reference_guidance: float = option(
        "how hard to push towards the references; 2 to 3.2", "X", default=3.2
    )
    reference_strength: StrengthOverTime = option(
        "how much of the references to take over: 0.8 to 1.3, 0.9 for another age; or points over "
        "the run, see below",
        "X",
        default=1.2,
        parse=strength,
    )
    early_reference_strength: float = option(
        "--reference-strength before the launch timestep, where it is no schedule; 0.85",
        "X",
        default=0.85,
    )
    launch_timestep: int = option(
        "reference guidance starts when the noise is down to this timestep: 1000 from the start, "
        "0 at the very end; 750",
        "T",
        default=750,
    )
    rescale: float = option(
        "how far to take back the contrast that guidance adds; 0 to 1", "X", default=0.5
    )
    prompt_suffix: str = option(
        "words joined to the prompt; '' for none", "TEXT", default=PROMPT_SUFFIX
    )
    negative_suffix: str = option(
        "words joined to the negative prompt; '' for none", "TEXT", default=NEGATIVE_SUFFIX
    )

    def __post_init__(self) -> None:
        for name, choices in (("solver", SolverName), ("spacing", Spacing)):
            if getattr(self, name) not in get_args(choices):
                known = ", ".join(get_args(choices))
                raise ValueError(f"There is no {name} {getattr(self, name)!r}: choose {known}.")
        if self.steps < 1:
            raise ValueError(f"{self.steps} sampling steps: choose 1 or more.")
        for name, most in (
            ("eta", 1.0),
            ("rescale", 1.0),
            ("text_guidance", 100.0),
            ("reference_guidance", 100.0),
            ("early_reference_strength", 10.0),
            ("launch_timestep", math.inf),
        ):
            value = getattr(self, name)
            if not (0 <= value <= most or (name == "launch_timestep" and value == -1)):
                raise ValueError(f"{name} is {value}; choose between 0 and {most:g}.")
        _check_strength(self.reference_strength)

    def full_prompt(self, prompt: str) -> str:
        """Join the suffix to a prompt, as the released code does."""
        return f"{prompt}, {self.prompt_suffix}" if self.prompt_suffix else prompt

    def full_negative(self, negative: str) -> str:
        """Join the suffix to a negative prompt, as the released code does."""
        return ", ".join(words for words in (negative, self.negative_suffix) if words)


def _check_strength(strength: StrengthOverTime) -> None:
    if isinstance(strength, (int, float)):
        if not 0 <= strength <= 10:
            raise ValueError(f"reference_strength is {strength}; choose between 0 and 10.")
        return
    progress = [point[0] for point in strength]
    if (
        not strength
        or progress != sorted(set(progress))
        or not all(0 <= at <= 1 and 0 <= value <= 10 for at, value in strength)
    ):
        raise ValueError(
            f"reference_strength {list(strength)} is no schedule: give points (progress, value), "
            "progress rising from 0 to 1 and values between 0 and 10."
        )
