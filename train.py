"""Train FlashFace.

    python train.py --config configs/synthetic.py --workdir runs/synthetic

Killed or stopped, the same command goes on from the newest checkpoint, on any number of devices;
told to stop by SIGTERM, it saves first. Any field of the configuration can be overridden:
--config.steps=4000 --config.optimizer.learning_rate=5e-4. The run's directory holds checkpoints/,
metrics.jsonl, tensorboard/ and samples/; sample.py opens it. `touch DIR/profile` traces the next
steps into profiles/.

Several hosts train together when the same command is started on each: on a TPU slice, and under
Slurm or Open MPI, they find each other; elsewhere say where the first is, and who is who:

    python train.py --config ... --workdir ... --coordinator=10.0.0.2:1234 --processes=2 --process=0

They must see the same workdir and dataset. docs/tpu.md and docs/gpu.md go through it.
"""

import sys
from pathlib import Path

from absl import app, flags, logging
from ml_collections import config_flags

from flashface_jax.errors import sentence, stopped

CONFIG = config_flags.DEFINE_config_file("config", None, "Experiment, e.g. configs/synthetic.py.")
WORKDIR = flags.DEFINE_string("workdir", None, "Directory of the run; made if it does not exist.")
COORDINATOR = flags.DEFINE_string("coordinator", "", "Address and port of process 0.")
PROCESSES = flags.DEFINE_integer("processes", 0, "How many processes train together.")
PROCESS = flags.DEFINE_integer("process", -1, "Number of this one, from 0.")
flags.mark_flags_as_required(["config", "workdir"])


def main(arguments: list[str]) -> None:
    """Check the command line, then train."""
    if len(arguments) > 1:
        app.usage(shorthelp=True, detailed_error=f"unknown argument {arguments[1]}", exitcode=1)
    # Imported here because processes that make samples import this file too, and need neither.
    from flashface_jax.training.config import from_mapping  # noqa: PLC0415
    from flashface_jax.training.loop import train  # noqa: PLC0415
    from flashface_jax.training.processes import join, say  # noqa: PLC0415

    logging.set_verbosity(logging.WARNING)  # Orbax reports every file that it touches
    workdir = Path(WORKDIR.value)
    try:
        config = from_mapping(CONFIG.value.to_dict())
        join(COORDINATOR.value, PROCESSES.value, PROCESS.value)
        train(config, workdir)
    except KeyboardInterrupt:
        sys.exit(stopped("the same command goes on from the newest checkpoint."))
    except (ValueError, OSError) as error:
        sys.exit(f"error: {sentence(error)}")
    say(f"wrote {workdir}")


def parse(arguments: list[str]) -> list[str]:
    """Read the command line; what is left of it."""
    try:
        left: list[str] = app.parse_flags_with_usage(arguments)
    except AttributeError as error:
        if not isinstance(error.__context__, KeyError):
            raise
        # So ml_collections says that there is no such field, and what else may have been meant.
        named = ": ".join(str(error.__context__.args[0]).splitlines())
        sys.exit(f"error: the configuration has no field {named}")
    return left


if __name__ == "__main__":
    app.run(main, flags_parser=parse)
