"""Plans of a run for topologies: the train step, compiled for devices that are not at hand."""

import argparse
import dataclasses
import functools
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from flashface_jax.common.errors import sentence
from flashface_jax.common.files import atomic_file, require_writable
from flashface_jax.planning.compiling import DoesNotFitError, elapsing
from flashface_jax.planning.flops import count_flops
from flashface_jax.planning.plan import Plan, Run, make_plan
from flashface_jax.planning.report import markdown, table
from flashface_jax.planning.topology import Topology, parse_topology
from flashface_jax.planning.topology_devices import devices_of
from flashface_jax.training.computation.program import lower_train_step, model_jaxpr
from flashface_jax.training.config import TrainConfig, load_config


def plan(options: argparse.Namespace, overrides: Sequence[str]) -> int:
    """Plan for all topologies and print the table; 1 if one does not fit."""
    topologies = [parse_topology(name) for name in options.topology]
    if options.json and options.json.is_dir():
        raise ValueError(f"{options.json} is a directory: name a file for --json.")
    if options.json:
        require_writable(options.json.parent)
    if options.fsdp:
        overrides = [*overrides, f"--config.sharding.fsdp={options.fsdp}"]
    config = load_config(options.config, overrides)
    plans, refused = [], 0
    for topology in topologies:
        try:
            plans.append(plan_for(topology, config, options))
        except DoesNotFitError as error:
            refused += 1
            print(f"{topology.name} does not fit: {sentence(error)}", file=sys.stderr)
    if plans:
        print((markdown if options.markdown else table)(plans))
    if options.json:
        write_json(options.json, plans)
        print(f"wrote {options.json}")
    return int(bool(refused) or not all(plan.memory.fits for plan in plans))


def plan_for(topology: Topology, config: TrainConfig, options: argparse.Namespace) -> Plan:
    """Compile the train step for one topology and foretell how it runs."""
    if options.batch_per_chip:
        config = dataclasses.replace(config, batch_size=options.batch_per_chip * topology.chips)
    devices = devices_of(topology)
    run = Run(config.steps, config.batch_size, model_flops(config))
    lowered = elapsing(
        f"{topology.name}: tracing the train step", lambda: lower_train_step(config, devices)
    )
    return elapsing(
        f"{topology.name}: compiling it, {options.effort} effort; this takes minutes",
        lambda: make_plan(lowered, topology, run, fast=options.effort == "fast"),
    )


@functools.cache
def model_flops(config: TrainConfig) -> float:
    """Operations of loss and gradient of a whole batch, without recomputation."""
    return elapsing(
        "counting the operations of the model",
        lambda: float(count_flops(model_jaxpr(config)).total),
    )


def write_json(path: Path, plans: Sequence[Plan]) -> None:
    """Write plans as a list of objects."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as draft:
        draft.write_text(json.dumps(list(_described(plans)), indent=2) + "\n")


def _described(plans: Sequence[Plan]) -> Iterator[dict[str, Any]]:
    for one in plans:
        described = dataclasses.asdict(one)
        memory = one.memory
        described["memory"] |= {"needed": memory.needed, "spare": memory.spare, "fits": memory.fits}
        yield described
