"""What training would take on TPUs: `python -m flashface_jax.training.plan --help`."""

import argparse
import dataclasses
import functools
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax

from flashface_jax.common.errors import sentence, stopped
from flashface_jax.common.files import require_writable, whole_file
from flashface_jax.planning.compiling import DoesNotFitError, elapsing
from flashface_jax.planning.flops import count_flops
from flashface_jax.planning.plan import Plan, Run, make_plan
from flashface_jax.planning.report import markdown, table
from flashface_jax.planning.topology import KNOWN, Topology, devices_of, parse_topology
from flashface_jax.training.config import TrainConfig, load_config

DESCRIPTION = """Foretell memory and speed of a training run on TPUs, without a TPU.

    python -m flashface_jax.training.plan --config configs/flashface.py \\
        --topology v5e:16x16 v5p:4x4x4 --batch-per-chip 4

The train step is compiled as it would run there, by the TPU's own compiler (libtpu, which
pip install 'flashface-jax[plan]' brings; best in an environment of its own, as JAX looks for a TPU
wherever it is installed). That takes minutes for each topology, and some GB of memory.

Printed for each topology: what a chip must hold, against its HBM; what it computes, moves and
sends in a step; the time that takes at least, what limits it (the roofline), and which parts of the
model take it; and so images a second, days of the run and utilisation. A real run is slower: it
also waits for data, for what does not overlap, and for work that is neither matmul nor memory. Take
the days as a lower bound, and the memory as what the compiler will ask for.
"""

EPILOG = (
    "topologies:\n"
    + "".join(f"  {tpu}:{{{shapes.replace(' ', '')}}}\n" for tpu, shapes in KNOWN.items())
    + """
overrides:
  any field of the configuration, as in train.py: --config.optimizer.ema_decay=0

exit status:
  0 if the step fits everywhere with a tenth of the memory to spare, 1 if not, 2 for wrong usage
"""
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; what goes wrong becomes one sentence on standard error."""
    options, overrides = parse_arguments(arguments)
    # What is planned is compiled for TPUs; no device of this machine is needed.
    jax.config.update("jax_platforms", "cpu")
    try:
        return plan(options, overrides)
    except KeyboardInterrupt:
        return stopped("nothing was written.")
    except (ValueError, OSError) as error:
        print(f"error: {sentence(error)}", file=sys.stderr)
        return 1


def parse_arguments(arguments: Sequence[str] | None) -> tuple[argparse.Namespace, list[str]]:
    """Parse the command line; what is left are overrides of the configuration."""
    parser = argparse.ArgumentParser(
        prog="python -m flashface_jax.training.plan",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,  # --config.steps is none of --config
    )
    add = parser.add_argument
    add("--config", type=Path, required=True, metavar="FILE", help="experiment, as for train.py")
    add(
        "--topology",
        nargs="+",
        required=True,
        metavar="NAME",
        help="TPU and shape of the slice; several are put side by side",
    )
    add(
        "--batch-per-chip",
        type=_positive,
        metavar="N",
        help="images a step on each chip; without it, the configuration's batch_size on all",
    )
    add(
        "--fsdp",
        type=_positive,
        metavar="N",
        help="chips that share one copy of the state: --config.sharding.fsdp=N",
    )
    add(
        "--effort",
        choices=("fast", "full"),
        default="fast",
        help="fast: the compiler optimises less, needs a fraction of the time, and asks for a "
        "little more memory than in a run; full: as in a run; default: fast",
    )
    add("--json", type=Path, metavar="FILE", help="write all numbers, unrounded")
    add("--markdown", action="store_true", help="print the table in Markdown")
    options, rest = parser.parse_known_args(arguments)
    for word in rest:
        if not word.startswith("--config."):
            parser.error(f"unrecognized argument {word}")
    return options, rest


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
    # The whole model's code, which takes seconds to import: --help and wrong usage need none of it.
    from flashface_jax.training.computation.program import lower_train_step  # noqa: PLC0415

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
    from flashface_jax.training.computation.program import model_jaxpr  # noqa: PLC0415

    return elapsing(
        "counting the operations of the model",
        lambda: float(count_flops(model_jaxpr(config)).total),
    )


def write_json(path: Path, plans: Sequence[Plan]) -> None:
    """Write plans as a list of objects."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as draft:
        draft.write_text(json.dumps(list(_described(plans)), indent=2) + "\n")


def _described(plans: Sequence[Plan]) -> Iterator[dict[str, Any]]:
    for one in plans:
        described = dataclasses.asdict(one)
        memory = one.memory
        described["memory"] |= {"needed": memory.needed, "spare": memory.spare, "fits": memory.fits}
        yield described


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return number


if __name__ == "__main__":
    sys.exit(main())
