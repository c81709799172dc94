r"""Compute once what a training run's frozen networks would compute of every photo, at every step.

    flashface data precompute --weights weights/sd15 --dataset data --out latents
    flashface train --config configs/flashface.py --config.initial=weights/sd15 \
        --config.data.dataset=data --config.data.precomputed=latents --workdir runs/mine

Stored of each photo: the posterior's mean and log-variance of its latent as a target, from which
each step samples anew; its face mask; the latent of its face crop as a reference; the text context
of its caption; and for inpainting models the latent of the image without its face. At 768x768 that
is 0.28 MB a photo in float16. Samples, and their order, are those of a run that encodes photos
itself; the dataset stays in use, for who is in it and for previews.

Sizes are those of the weights, or of --config, a file as for flashface train, whose fields can be
overridden: --config.system.image_size=512. Pictures that are varied (data.draws.augmentation)
cannot be precomputed. Stopped at any moment, the same command goes on; OUT appears when it is
whole. It holds what can be decoded to the photos: keep it as private, and when people are taken out
of the dataset remove it; training refuses it then.
"""

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from flashface_jax.common.command_line import Parser, run_command
from flashface_jax.common.files import require_exists, require_new


def make_parser(prog: str) -> Parser:
    """Describe the command line."""
    parser = Parser(prog=prog, description=__doc__)
    add = parser.add_argument
    add("--weights", type=Path, required=True, metavar="DIR", help="what the run starts from")
    add("--dataset", type=Path, required=True, metavar="DIR", help="what it is trained on")
    add("--out", type=Path, required=True, metavar="DIR", help="directory to write, a new one")
    add("--config", type=Path, metavar="FILE", help="experiment, as for flashface train")
    _add_options(parser)
    return parser


def _add_options(parser: Parser) -> None:
    """Options of how it is computed and stored."""
    add = parser.add_argument
    add(
        "--batch",
        type=_positive,
        default=4,
        metavar="N",
        help="photos that a device encodes at a time (default: %(default)s)",
    )
    add(
        "--workers",
        type=int,
        default=0,
        metavar="N",
        help="processes that decode photos; 0 decodes in this one (default: %(default)s)",
    )
    add(
        "--dtype",
        choices=("float16", "bfloat16", "float32"),
        default="float16",
        help="of what is stored (default: %(default)s, the more exact of the small ones)",
    )
    add(
        "--precision",
        choices=("auto", "float32", "bfloat16"),
        default="auto",
        help="of the networks' arithmetic; auto: the configuration's compute_dtype, without one "
        "float32 on a CPU and bfloat16 on accelerators",
    )
    add(
        "--photos-per-file",
        type=_positive,
        default=512,
        metavar="N",
        help="what a stop in the middle of a file makes anew (default: %(default)s)",
    )


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return int(text)


def main(arguments: Sequence[str] | None = None, prog: str = "flashface data precompute") -> int:
    """Run the command; 0 when OUT is there, 1 on an error, 130 after Ctrl-C."""
    on_stop = "the same command goes on from here."
    return run_command(partial(_run, arguments, prog), on_stop=on_stop)


def _run(arguments: Sequence[str] | None, prog: str) -> None:
    parser = make_parser(prog)
    asked, overrides = parser.parse_known_args(arguments)
    for word in overrides:
        if asked.config is None or not word.startswith("--config."):
            parser.error(f"unrecognized argument {word}")
    require_exists(asked.weights, "a weights directory, or a training run's")
    require_exists(asked.dataset, "a dataset's directory, or the one above it")
    require_new(asked.out)
    # The model's code, which takes seconds to import: --help and wrong usage need none of it.
    from flashface_jax.data.precomputing.run import precompute  # noqa: PLC0415

    precompute(asked, overrides)
    print(f"wrote {asked.out}")
    print(f"train with it: --config.data.precomputed={asked.out}")


if __name__ == "__main__":
    sys.exit(main(prog="python -m flashface_jax.data.precompute"))
