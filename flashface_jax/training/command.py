"""The train command: checks what is asked for before anything slow is imported."""

import argparse
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from flashface_jax.common.command_line import FAILED, WRONG_USAGE, Parser, UsageError
from flashface_jax.common.errors import sentence, stopped
from flashface_jax.common.files import require_exists

DESCRIPTION = """Train FlashFace.

    {prog} --config configs/synthetic.py --workdir runs/synthetic

Killed or stopped, the same command goes on from the newest checkpoint, on any number of devices;
told to stop by SIGTERM, it saves first. Any field of the configuration can be overridden:
--config.steps=4000 --config.optimizer.learning_rate=5e-4. The run's directory holds checkpoints/,
metrics.jsonl, tensorboard/ and samples/; flashface sample opens it. `touch DIR/profile` traces the
next steps into profiles/.

Several hosts train together when the same command is started on each: on a TPU slice, and under
Slurm or Open MPI, they find each other; elsewhere say where the first is, and who is who:

    {prog} --config ... --workdir ... --coordinator 10.0.0.2:1234 --processes 2 --process 0

They must see the same workdir and dataset. docs/tpu.md and docs/gpu.md go through it.
"""


def make_parser(prog: str) -> Parser:
    """Describe the command line; what is left over are overrides of the configuration."""
    parser = Parser(prog=prog, description=DESCRIPTION.replace("{prog}", prog))
    add = parser.add_argument
    add("--config", type=Path, required=True, metavar="FILE", help="e.g. configs/flashface.py")
    add("--config.FIELD", metavar="VALUE", help="override a field of the configuration")
    add("--workdir", required=True, metavar="DIR", help="of the run; made if it does not exist")
    several = parser.add_argument_group("several processes that do not find each other")
    several.add_argument("--coordinator", default="", metavar="HOST:PORT", help="of process 0")
    several.add_argument("--processes", type=int, default=0, metavar="N", help="how many there are")
    several.add_argument("--process", type=int, default=-1, metavar="I", help="this one, from 0")
    return parser


def main(arguments: Sequence[str] | None = None, prog: str = "flashface train") -> int:
    """Run the command line; what goes wrong becomes one sentence on standard error.

    Returns:
        The exit status: 0, 1 for an error, 2 for wrong usage, 130 after Ctrl-C. Of several
        processes one that fails ends at once, as others would wait for it and it for them.
    """
    try:
        options, overrides = parse_arguments(arguments, prog)
    except UsageError as error:
        print(f"error: {sentence(error)}", file=sys.stderr)
        return WRONG_USAGE
    try:
        _train(options, overrides)
    except KeyboardInterrupt:
        return _ended(stopped("the same command goes on from the newest checkpoint."))
    except (ValueError, OSError) as error:
        print(f"error: {sentence(error)}", file=sys.stderr)
        return _ended(FAILED)
    except BaseException:
        traceback.print_exc()
        return _ended(FAILED)
    return 0


def parse_arguments(
    arguments: Sequence[str] | None, prog: str
) -> tuple[argparse.Namespace, list[str]]:
    """Parse the command line; what is left over are overrides of the configuration.

    Raises:
        UsageError: naming the option that is unknown, or has no value that will do.
    """
    parser = make_parser(prog)
    options, overrides = parser.parse_known_args(arguments)
    for word in overrides:
        if not word.startswith("--config."):
            parser.error(f"unrecognized argument {word}")
    return options, overrides


def _train(options: argparse.Namespace, overrides: Sequence[str]) -> None:
    workdir = local_path(options.workdir)
    require_exists(options.config, "a configuration such as configs/flashface.py")
    # Slow to import; and processes that make samples import what started them, and need neither.
    from absl import logging  # noqa: PLC0415

    from flashface_jax.training.config import load_config  # noqa: PLC0415
    from flashface_jax.training.parallel.processes import join, say  # noqa: PLC0415
    from flashface_jax.training.run.loop import train  # noqa: PLC0415

    logging.set_verbosity(logging.WARNING)  # Orbax reports every file that it touches
    config = load_config(options.config, overrides)
    join(options.coordinator, options.processes, options.process)
    train(config, workdir)
    say(f"wrote {options.workdir}")


def _ended(status: int) -> int:
    """The exit status; one of several processes ends here and now."""
    processes = sys.modules.get("flashface_jax.training.parallel.processes")
    if processes is not None and processes.are_several():
        sys.stderr.flush()
        os._exit(status)
    return status


def local_path(place: str) -> Path:
    """A directory as a path; a bucket's address is none."""
    if "://" in place:
        raise ValueError(f"workdir is {place}: mount the bucket, and name the mounted directory.")
    if Path(place).is_file():
        raise ValueError(f"workdir {place} is a file: name a directory.")
    return Path(place)
