"""The state that a run begins with: newly drawn, or from a directory of weights."""

import dataclasses
from pathlib import Path
from typing import Any

import jax

from flashface_jax.models.network import Params, flatten, unflatten
from flashface_jax.training.computation.program import Program
from flashface_jax.training.computation.state import TrainState
from flashface_jax.training.config import TrainConfig
from flashface_jax.training.parallel.processes import say
from flashface_jax.training.run.initial import (
    describe,
    plan_start,
    require_same_arithmetic,
    start_from,
)
from flashface_jax.weights.directory import WeightsDirectory
from flashface_jax.weights.run_directory import open_weights
from flashface_jax.weights.system import SystemConfig, build_system
from flashface_jax.weights.trainable import FLASHFACE


def initial_weights(config: TrainConfig) -> WeightsDirectory | None:
    """The weights to start from, opened; None if the run draws new ones.

    Raises:
        ValueError: they are not there, or do not fit the run.
    """
    if not config.initial:
        return None
    weights = open_weights(Path(config.initial))
    _check_fit(weights.config, config.system, weights.path)
    return weights


def starting_state(program: Program, weights: WeightsDirectory | None) -> TrainState:
    """The state before the first step.

    Args:
        program: the run.
        weights: to start from, as `initial_weights` opens them; None draws new ones.

    Raises:
        ValueError: the weights do not fit the run.
    """
    if weights is None:
        return program.fresh_state()
    there, here = build_system(weights.config), program.system
    place = program.layout.shardings
    drawn = {
        name: _frozen(weights.params(name, there.parts()[name], place), part.shapes, name)
        for name, part in here.parts().items()
        if name != FLASHFACE
    }
    read = weights.params(FLASHFACE, there.flashface, place)
    drawn[FLASHFACE] = _flashface(read, program, weights)
    return program.state_of({**program.fresh_updates(), **drawn})


def _frozen(read: Params, wanted: Params, part: str) -> Params:
    """The parameters that the run's network has; weights may hold more, such as a projection."""
    named = flatten(read)
    missing = [f"{part}/{name}" for name in flatten(wanted) if name not in named]
    if missing:
        raise ValueError(
            f"The weights to start from have no {', '.join(missing)}: configure the run without "
            "(system.text_tower.embedding is None for a text tower without projection)."
        )
    return unflatten(named, wanted)


def _flashface(read: Params, program: Program, weights: WeightsDirectory) -> Params:
    """FlashFace's parameters, made of those of a network that may differ from the run's."""
    target, denoiser = program.system.flashface.shapes, program.config.system.flashface.denoiser
    require_same_arithmetic(weights.config.flashface.denoiser, denoiser)
    plan = plan_start(flatten(read), flatten(target))
    say(f"starting from {weights.path}: " + "; ".join(describe(plan).splitlines()))

    def adapted(read: Params) -> Params:
        return unflatten(start_from(flatten(read), flatten(target)), target)

    return jax.jit(adapted, out_shardings=program.layout.shardings(target))(read)


def _check_fit(there: SystemConfig, here: SystemConfig, path: Path) -> None:
    """Refuse weights whose frozen networks, or noise schedule, are not the run's."""
    differ = [
        f"system.{name}.{field}: {was} there, {now} here"
        for name in ("autoencoder", "text_tower", "schedule")
        for field, was, now in _differences(getattr(there, name), getattr(here, name))
        if (name, field) != ("text_tower", "embedding")  # its projection serves evaluation alone
    ]
    if differ:
        raise ValueError(
            f"{path} does not fit the configuration ({'; '.join(differ)}): set the configuration's "
            "fields to what the weights have."
        )


def _differences(there: Any, here: Any) -> list[tuple[str, Any, Any]]:
    was, now = dataclasses.asdict(there), dataclasses.asdict(here)
    return [
        (field, was.get(field), now.get(field))
        for field in sorted(was.keys() | now.keys())
        if was.get(field) != now.get(field)
    ]
