"""Train FlashFace: `python train.py --help`."""

import argparse
import os
import sys
import traceback
from pathlib import Path
from typing import NoReturn

from absl import logging

from flashface_jax.common.errors import sentence, stopped

DESCRIPTION = """Train FlashFace.

    python train.py --config configs/synthetic.py --workdir runs/synthetic

Killed or stopped, the same command goes on from the newest checkpoint, on any number of devices;
told to stop by SIGTERM, it saves first. Any field of the configuration can be overridden:
--config.steps=4000 --config.optimizer.learning_rate=5e-4. The run's directory holds checkpoints/,
metrics.jsonl, tensorboard/ and samples/; sample.py opens it. `touch DIR/profile` traces the next
steps into profiles/.

Several hosts train together when the same command is started on each: on a TPU slice, and under
Slurm or Open MPI, they find each other; elsewhere say where the first is, and who is who:

    python train.py --config ... --workdir ... --coordinator 10.0.0.2:1234 --processes 2 --process 0

They must see the same workdir and dataset. docs/tpu.md and docs/gpu.md go through it.
"""


def parse_arguments(arguments: list[str] | None = None) -> tuple[argparse.Namespace, list[str]]:
    """Parse the command line; what is left are overrides of the configuration."""
    parser = argparse.ArgumentParser(
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,  # --config.steps is none of --config
    )
    add = parser.add_argument
    add("--config", type=Path, required=True, metavar="FILE", help="e.g. configs/flashface.py")
    add("--config.FIELD", metavar="VALUE", help="override a field of the configuration")
    add("--workdir", required=True, metavar="DIR", help="of the run; made if it does not exist")
    several = parser.add_argument_group("several processes that do not find each other")
    several.add_argument("--coordinator", default="", metavar="HOST:PORT", help="of process 0")
    several.add_argument("--processes", type=int, default=0, metavar="N", help="how many there are")
    several.add_argument("--process", type=int, default=-1, metavar="I", help="this one, from 0")
    options, rest = parser.parse_known_args(arguments)
    for word in rest:
        if not word.startswith("--config."):
            parser.error(f"unrecognized argument {word}")
    return options, rest


def main() -> None:
    """Run the command line; what goes wrong becomes one sentence on standard error."""
    options, overrides = parse_arguments()
    # Imported here because processes that make samples import this file too, and need neither.
    from flashface_jax.training.config import load_config  # noqa: PLC0415
    from flashface_jax.training.parallel.processes import join, say  # noqa: PLC0415
    from flashface_jax.training.run.loop import train  # noqa: PLC0415

    logging.set_verbosity(logging.WARNING)  # Orbax reports every file that it touches
    try:
        config = load_config(options.config, overrides)
        join(options.coordinator, options.processes, options.process)
        train(config, local_path(options.workdir))
    except KeyboardInterrupt:
        end(stopped("the same command goes on from the newest checkpoint."))
    except (ValueError, OSError) as error:
        print(f"error: {sentence(error)}", file=sys.stderr)
        end(1)
    except BaseException:
        traceback.print_exc()
        end(1)
    say(f"wrote {options.workdir}")


def end(status: int) -> NoReturn:
    """End this process; one of several at once, as others would wait for it and it for them."""
    from flashface_jax.training.parallel.processes import are_several  # noqa: PLC0415

    if are_several():
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)


def local_path(place: str) -> Path:
    """A directory as a path; a bucket's address is none."""
    if "://" in place:
        raise ValueError(f"workdir is {place}: mount the bucket, and name the mounted directory.")
    if Path(place).is_file():
        raise ValueError(f"workdir {place} is a file: name a directory.")
    return Path(place)


if __name__ == "__main__":
    main()
