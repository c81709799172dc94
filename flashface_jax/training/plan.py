"""What training would take on TPUs: the `plan` command."""

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from flashface_jax.common.command_line import Parser, run_command
from flashface_jax.common.files import require_exists
from flashface_jax.planning.topology import KNOWN, parse_topology

DESCRIPTION = """Foretell memory and speed of a training run on TPUs, without a TPU.

    flashface plan --config configs/flashface.py \\
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
  any field of the configuration, as in flashface train: --config.optimizer.ema_decay=0

exit status:
  0 if the step fits everywhere with a tenth of the memory to spare, 1 if not, 2 for wrong usage
"""
)


def make_parser(prog: str) -> Parser:
    """Describe the command line."""
    parser = Parser(prog=prog, description=DESCRIPTION, epilog=EPILOG)
    add = parser.add_argument
    add(
        "--config",
        type=Path,
        required=True,
        metavar="FILE",
        help="experiment, as for flashface train",
    )
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
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return number


def main(arguments: Sequence[str] | None = None, prog: str = "flashface plan") -> int:
    """Run the command line; what goes wrong becomes one sentence on standard error."""
    return run_command(partial(_run, arguments, prog), on_stop="nothing was written.")


def _run(arguments: Sequence[str] | None, prog: str) -> int:
    parser = make_parser(prog)
    options, overrides = parser.parse_known_args(arguments)
    for word in overrides:
        if not word.startswith("--config."):
            parser.error(f"unrecognized argument {word}")
    for name in options.topology:
        parse_topology(name)
    require_exists(options.config, "a configuration such as configs/flashface.py")
    import jax  # noqa: PLC0415

    # What is planned is compiled for TPUs; no device of this machine is needed.
    jax.config.update("jax_platforms", "cpu")
    from flashface_jax.training.computation.topologies import plan  # noqa: PLC0415  (slow)

    return plan(options, overrides)


if __name__ == "__main__":
    sys.exit(main(prog="python -m flashface_jax.training.plan"))
