"""The state that a run begins with: newly drawn, or from a directory of weights."""

import dataclasses
from pathlib import Path
from typing import Any

import jax

from flashface_jax.models.blocks import Compute
from flashface_jax.models.flashface import FlashFace
from flashface_jax.models.network import Params, flatten, network, unflatten
from flashface_jax.system import SystemConfig
from flashface_jax.training import parts
from flashface_jax.training.initial import describe, plan_start, require_same_arithmetic, start_from
from flashface_jax.training.processes import say
from flashface_jax.training.program import Program
from flashface_jax.training.state import TrainState
from flashface_jax.weights import WeightsDirectory, open_weights


def starting_state(program: Program) -> TrainState:
    """The state before the first step.

    Raises:
        ValueError: the weights to start from do not fit the run.
    """
    if not program.config.initial:
        return program.fresh_state()
    weights = open_weights(Path(program.config.initial))
    _check_fit(weights, program.config.system)
    drawn = {
        name: weights.params(name, part, program.layout.shardings)
        for name, part in program.system.parts().items()
        if name != parts.FLASHFACE
    }
    drawn[parts.FLASHFACE] = _flashface(weights, program)
    return program.state_of({**program.fresh_updates(), **drawn})


def _flashface(weights: WeightsDirectory, program: Program) -> Params:
    """FlashFace's parameters, made of those of a network that may differ from the run's."""
    config = weights.config.flashface
    source = network(lambda keys: FlashFace(config, Compute(), keys))
    target = program.system.flashface.shapes
    require_same_arithmetic(config.denoiser, program.config.system.flashface.denoiser)
    plan = plan_start(flatten(source.shapes), flatten(target))
    say(f"starting from {weights.path}: " + "; ".join(describe(plan).splitlines()))

    def adapted(read: Params) -> Params:
        return unflatten(start_from(flatten(read), flatten(target)), target)

    place = program.layout.shardings
    read = weights.params(parts.FLASHFACE, source, place)
    return jax.jit(adapted, out_shardings=place(target))(read)


def _check_fit(weights: WeightsDirectory, wanted: SystemConfig) -> None:
    """Refuse weights whose frozen networks, or noise schedule, are not the run's."""
    names = ("autoencoder", "text_tower", "schedule")
    differ = [
        f"system.{name}.{field}: {was} there, {now} here"
        for name in names
        for field, was, now in _differences(getattr(weights.config, name), getattr(wanted, name))
    ]
    if differ:
        raise ValueError(
            f"{weights.path} does not fit the configuration ({'; '.join(differ)}): set the "
            "configuration's fields to what the weights have."
        )


def _differences(there: Any, here: Any) -> list[tuple[str, Any, Any]]:
    was, now = dataclasses.asdict(there), dataclasses.asdict(here)
    return [
        (field, was.get(field), now.get(field))
        for field in sorted(was.keys() | now.keys())
        if was.get(field) != now.get(field)
    ]
