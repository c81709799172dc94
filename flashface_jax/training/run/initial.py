"""Starting parameters from weights whose networks may differ from the run's.

From one set of weights a run can put reference attention elsewhere, give the ReferenceNet a middle
of its own, or learn to inpaint; whatever else differs is refused. All of it goes by the names of
FlashFace's parameters ("denoiser/encoder/0/kernel"), and `start_from` may be jitted, so that a
large network is born sharded.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from flashface_jax.convert.table import summary
from flashface_jax.models.unet_topology import UNetConfig

INPUT = "denoiser/encoder/0/kernel"
PREDICTION = "denoiser/head/conv/kernel"
REFERENCE_ATTENTION = "/reference_attention/"
OWN = ("reference_net/middle/", "reference_net/time_embedding/")
"""What the ReferenceNet has only if it is not tied to the denoiser's."""

Shaped = Mapping[str, Array] | Mapping[str, jax.ShapeDtypeStruct]


@dataclass(frozen=True)
class Decision:
    """Where one parameter comes from.

    Attributes:
        how: "same" as its namesake, "copied" from another, "widened" by channels of zeros, or
            "dropped": only the source has it.
        name: the run's parameter; of a dropped one the source's.
        source: the source's parameter.
        before: its shape there.
        after: its shape in the run.
    """

    how: Literal["same", "copied", "widened", "dropped"]
    name: str
    source: str
    before: tuple[int, ...]
    after: tuple[int, ...]


def start_from(
    source: Mapping[str, Array], target: Mapping[str, jax.ShapeDtypeStruct]
) -> dict[str, Array]:
    """Make a run's starting parameters of FlashFace, by name.

    A parameter is its namesake. Where there is none, reference attention is a copy of its block's
    self-attention, and the ReferenceNet's own middle and time embedding are copies of the
    denoiser's (paper, §3). New channels of the denoiser's input are zero: it predicts as before.

    Args:
        source: parameters to start from.
        target: the run's parameters as shapes.

    Raises:
        ValueError: as `plan_start` does.
    """
    latent = target[PREDICTION].shape[-1]
    made = {}
    for decision in plan_start(source, target):
        if decision.how == "dropped":
            continue
        value = source[decision.source]
        if decision.how == "widened":
            value = widen_input(value, decision.after[2], latent)
        elif decision.how == "copied":
            value = jnp.copy(value)  # a train step donates its state: no array may stand for two
        made[decision.name] = value.astype(target[decision.name].dtype)
    return made


def plan_start(source: Shaped, target: Shaped) -> list[Decision]:
    """Decide where each of the run's parameters comes from, and which of the source's are left.

    Args:
        source: arrays or shapes by name, to start from.
        target: the run's.

    Raises:
        ValueError: naming all parameters that the run has otherwise, first 20 with both shapes.
    """
    if PREDICTION not in target:
        raise ValueError(f"The run's network has no {PREDICTION}: only a FlashFace starts so.")
    latent = target[PREDICTION].shape[-1]
    outcomes = [_outcome(name, leaf, source, latent) for name, leaf in target.items()]
    outcomes += [_left(name, leaf) for name, leaf in source.items() if name not in target]
    problems = [outcome for outcome in outcomes if isinstance(outcome, str)]
    if problems:
        raise ValueError(
            "The run cannot start from these weights, which are of other networks: give the run "
            f"their widths and depths. {summary(problems)}"
        )
    return [outcome for outcome in outcomes if isinstance(outcome, Decision)]


def widen_input(
    kernel: Float[Array, "_ _ before c"], channels: int, latent: int
) -> Float[Array, "_ _ after c"]:
    """Give the input convolution more channels, zero ones.

    It sees the noisy latent (`latent` channels), for inpainting the latent of the image without
    its face (as many), and last the face mask. The mask's channel stays last.
    """
    noisy, mask = kernel[:, :, :latent], kernel[:, :, latent:]
    new = channels - kernel.shape[2]
    zeros = jnp.zeros((*kernel.shape[:2], new, kernel.shape[3]), kernel.dtype)
    return jnp.concatenate([noisy, zeros, mask], axis=2)


def require_same_arithmetic(source: UNetConfig, target: UNetConfig) -> None:
    """Raise a ValueError if parameters of equal shapes would mean something else in the run.

    No shape tells how channels are split into heads and groups.
    """
    heads = [
        [config.heads(width) for width in source.level_channels] for config in (source, target)
    ]
    groups = [config.norm_groups for config in (source, target)]
    for name, (theirs, ours) in (("attention heads", heads), ("norm_groups", groups)):
        if theirs != ours:
            raise ValueError(
                f"The weights have {theirs} {name}, the run {ours}: give the run the weights'."
            )


def describe(plan: Iterable[Decision]) -> str:
    """Say in a few lines what a run starts from; what is as it was in one."""
    plan = list(plan)
    lines = [f"{sum(decision.how == 'same' for decision in plan)} parameters: as they are"]
    for decision in plan:
        if decision.how == "widened":
            lines.append(
                f"the denoiser's input: widened from {decision.before[2]} to "
                f"{decision.after[2]} channels, the new ones zero"
            )
    for how, of_attention, of_own in (
        ("copied", "copied from self-attention in", "copied from the denoiser's"),
        ("dropped", "left out of", "left out, the denoiser's serve"),
    ):
        names = [decision.name for decision in plan if decision.how == how]
        blocks = {n.partition(REFERENCE_ATTENTION)[0]: n for n in names if REFERENCE_ATTENTION in n}
        if blocks:
            count = f"{len(blocks)} block{'s' * (len(blocks) != 1)}"
            lines.append(f"reference attention: {of_attention} {count} ({', '.join(blocks)})")
        if any(name.startswith(OWN) for name in names):
            lines.append(f"the ReferenceNet's middle and time embedding: {of_own}")
    return "\n".join(lines)


def _outcome(
    name: str, leaf: Array | jax.ShapeDtypeStruct, source: Shaped, latent: int
) -> Decision | str:
    """Where one of the run's parameters comes from, or what keeps it from coming."""
    origin = name if name in source else _origin(name)
    if origin not in source:
        return f"{name}: absent from the weights, {list(leaf.shape)} in the run"
    before, after = tuple(source[origin].shape), tuple(leaf.shape)
    if before == after:
        return Decision("same" if origin == name else "copied", name, origin, before, after)
    if name == INPUT and _widens(before, after, latent):
        return Decision("widened", name, origin, before, after)
    place = "in the weights" if origin == name else f"as {origin} in the weights"
    return f"{name}: {list(before)} {place}, {list(after)} in the run"


def _left(name: str, leaf: Array | jax.ShapeDtypeStruct) -> Decision | str:
    """Whether a parameter that only the source has can be done without."""
    if _origin(name) == name:
        return f"{name}: {list(leaf.shape)} in the weights, absent from the run"
    return Decision("dropped", name, name, tuple(leaf.shape), ())


def _origin(name: str) -> str:
    """Name of what a parameter starts as a copy of; its own where it is no such second one."""
    if name.startswith(OWN):
        return name.replace("reference_net/", "denoiser/", 1)
    return name.replace(REFERENCE_ATTENTION, "/self_attention/")


def _widens(before: tuple[int, ...], after: tuple[int, ...], latent: int) -> bool:
    """Whether one input's channels are another's and more: latent, with mask, for inpainting."""
    if len(before) != 4 or (before[:2], before[3]) != (after[:2], after[3]):
        return False
    sizes = (latent, latent + 1, 2 * latent + 1)
    return before[2] in sizes and after[2] in sizes[1:] and before[2] < after[2]
