"""Strengths by intent, for the released weights. Every one can still be set on its own."""

from typing import Any

# What the released suffix says, without asking for a photograph.
ART_SUFFIX = "best quality, masterpiece,ultra-detailed"

PAPER: dict[str, Any] = {
    "text_guidance": 7.5,
    "reference_guidance": 2.0,
    "reference_strength": 0.85,
    "launch_timestep": 750,
}

PRESETS: dict[str, dict[str, Any]] = {
    # The release's recommendation for a stable identity.
    "identity": {
        "text_guidance": 7.5,
        "reference_guidance": 3.2,
        "reference_strength": 1.2,
        "launch_timestep": 750,
    },
    # Another age or gender than the references': more of the prompt, less of the face.
    "age_change": {
        "text_guidance": 8.5,
        "reference_guidance": 2.5,
        "reference_strength": 0.9,
        "launch_timestep": 750,
    },
    # A real person as an artwork whose material the prompt names.
    "artwork": {**PAPER, "prompt_suffix": ART_SUFFIX},
    # A virtual character as a real person.
    "real_from_art": PAPER,
}
