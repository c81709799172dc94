"""The demo command: trains a small FlashFace on drawn people, and draws others.

    {prog} --out demo

It draws a world of people, trains on some of them, draws people that it has never seen, and asks a
recognition network, trained on a third world, whether they are who they should be: with their
references, with another person's, and with none. What an interrupted demo left is used again. The
exit status is 0 if identity was carried, and 3 if that is not clear.
"""

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from flashface_jax.common.command_line import Parser, run_command
from flashface_jax.common.files import require_exists, require_writable

NOT_CARRIED = 3


def make_parser(prog: str) -> Parser:
    """Describe the command line."""
    parser = Parser(prog=prog, description=(__doc__ or "").replace("{prog}", prog))
    add = parser.add_argument
    add("--out", type=Path, default=Path("demo"), metavar="DIR", help="to write (default: demo)")
    config = Path("configs/synthetic.py")
    add("--config", type=Path, default=config, metavar="FILE", help=f"run (default: {config})")
    add("--steps", type=_count, metavar="N", help="of training (default: the configuration's)")
    add("--people", type=_count, default=64, metavar="N", help="held out, to judge (default: 64)")
    return parser


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return int(text)


def main(arguments: Sequence[str] | None = None, prog: str = "flashface demo") -> int:
    """Run the demo; 0 if identity was carried, 3 if not, 1 on an error, 2 for wrong usage."""
    on_stop = "the same command goes on from here."
    return run_command(partial(_run, arguments, prog), on_stop=on_stop)


def _run(arguments: Sequence[str] | None, prog: str) -> int:
    options = make_parser(prog).parse_args(arguments)
    require_exists(options.config, "a configuration; those of the project's clone are in configs/")
    require_writable(options.out)
    from absl import logging  # noqa: PLC0415

    from flashface_jax.demo.demonstration import RECOGNITION_WORLD, demonstrate  # noqa: PLC0415
    from flashface_jax.training.config import load_config  # noqa: PLC0415

    logging.set_verbosity(logging.WARNING)
    began = time.perf_counter()
    config = load_config(options.config)
    config = replace(config, steps=options.steps or config.steps)
    carried = demonstrate(config, RECOGNITION_WORLD, options.out, options.people)
    print(f"{(time.perf_counter() - began) / 60:.1f} minutes")
    return 0 if carried else NOT_CARRIED
