r"""Compute once what a training run's frozen networks would compute of every photo, at every step.

    python -m flashface_jax.data.precompute --weights weights/sd15 --dataset data --out latents
    python train.py --config configs/flashface.py --config.initial=weights/sd15 \
        --config.data.dataset=data --config.data.precomputed=latents --workdir runs/mine

Stored of each photo: the posterior's mean and log-variance of its latent as a target, from which
each step samples anew; its face mask; the latent of its face crop as a reference; the text context
of its caption; and for inpainting models the latent of the image without its face. At 768x768 that
is 0.28 MB a photo in float16. Samples, and their order, are those of a run that encodes photos
itself; the dataset stays in use, for who is in it and for previews.

Sizes are those of the weights, or of --config, a file as for train.py, whose fields can be
overridden: --config.system.image_size=512. Pictures that are varied (data.draws.augmentation)
cannot be precomputed. Stopped at any moment, the same command goes on; OUT appears when it is
whole. It holds what can be decoded to the photos: keep it as private, and when people are taken out
of the dataset remove it; training refuses it then.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from absl import logging
from tqdm import tqdm

from flashface_jax.common.errors import sentence, stopped
from flashface_jax.data.dataset import IdClusters


def parse(arguments: Sequence[str] | None) -> tuple[argparse.Namespace, list[str]]:
    """Read the command line; what is left are overrides of the configuration."""
    parser = argparse.ArgumentParser(
        prog="python -m flashface_jax.data.precompute",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,  # --config.steps is none of --config
    )
    add = parser.add_argument
    add("--weights", type=Path, required=True, metavar="DIR", help="what the run starts from")
    add("--dataset", type=Path, required=True, metavar="DIR", help="what it is trained on")
    add("--out", type=Path, required=True, metavar="DIR", help="directory to write, a new one")
    add("--config", type=Path, metavar="FILE", help="experiment, as for train.py")
    _add_options(parser)
    asked, rest = parser.parse_known_args(arguments)
    for word in rest:
        if asked.config is None or not word.startswith("--config."):
            parser.error(f"unrecognized argument {word}")
    return asked, rest


def _add_options(parser: argparse.ArgumentParser) -> None:
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


def precompute(asked: argparse.Namespace, overrides: Sequence[str]) -> None:
    """Do what was asked.

    Raises:
        ValueError: weights, dataset or configuration do not fit each other, or the disk is full.
        OSError: something cannot be written.
    """
    # The model's code, which takes seconds to import: --help and wrong usage need none of it.
    from flashface_jax.data.precomputing.drafting import drafting  # noqa: PLC0415
    from flashface_jax.data.precomputing.planning import make_plan  # noqa: PLC0415
    from flashface_jax.data.precomputing.writing import write_split  # noqa: PLC0415

    plan = make_plan(asked, overrides)
    with drafting(asked.out, plan.origin, plan.photos) as draft:
        print(draft.require_room(), flush=True)
        total, left = sum(plan.photos.values()), sum(draft.missing_photos)
        with tqdm(total=total, initial=total - left, desc="encoding", unit="photo") as bar:
            for split in plan.photos:
                write_split(draft, split, plan.work(split), bar.update)
        plan.write_prompt(draft.place)
        if IdClusters(asked.dataset).metadata["contents"] != plan.origin.contents:
            raise ValueError(f"{asked.dataset} changed meanwhile: remove {draft.place}.")
        draft.finish(asked.out)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 0 when OUT is there, 1 on an error, 130 after Ctrl-C."""
    asked, overrides = parse(arguments)
    logging.set_verbosity(logging.WARNING)  # Orbax reports every file that it touches
    try:
        precompute(asked, overrides)
    except KeyboardInterrupt:
        return stopped("the same command goes on from here.")
    except (ValueError, OSError) as error:
        print(f"error: {sentence(error)}", file=sys.stderr)
        return 1
    print(f"wrote {asked.out}")
    print(f"train with it: --config.data.precomputed={asked.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
