"""The options of the sampling command; those of images are `Job`'s and `SamplingConfig`'s."""

import argparse
from collections.abc import Collection
from pathlib import Path
from typing import get_args

from flashface_jax.common.choices import AttentionName, Precision
from flashface_jax.common.command_line import Parser
from flashface_jax.common.errors import shortened
from flashface_jax.common.options import add_options, options_of
from flashface_jax.diffusion.settings import SamplingConfig
from flashface_jax.sampling.jobs import Job, Repaint

DESCRIPTION = r"""Make images of a person from photos and a prompt.

    {prog} --weights weights/flashface --references me1.jpg me2.jpg me3.jpg \
        --prompt "a young man with long brown hair is sitting in the desert" --out desert

writes desert/000.png and a contact sheet, desert/sheet.png. --weights takes a converted directory
(flashface convert official --help) or the working directory of a training run. Any number of
photos serves; several that differ in pose and light work best. Name an age word in the prompt ("a
young woman"), and say with --face-position where the face goes.

A command that was stopped goes on when it is given again: images that are there are kept, and one
that was made otherwise is never overwritten. Every PNG says how it was made, and can be made again:

    {prog} --repeat desert/000.png --out again
"""

EPILOG = r"""strengths over the run:
  --reference-strength 0:0.6,0.5:1.2 begins at 0.6, rises in a straight line to 1.2 by half of the
  steps, and stays there.

jobs files:
  --jobs takes a text file with one image on each line, as JSON; files are sought from where the
  command is given. For example:

    {"prompt": "a young man, smiling", "people": ["me1.jpg", "me2.jpg"], "seed": 1, "name": "me"}
    {"prompt": "a child", "people": [["me.jpg"], ["you.jpg"]], "shares": [0.7, 0.3], "steps": 30}
    {"prompt": "a man", "people": ["me.jpg"], "repaint": {"photo": "us.jpg", "face": "largest"}}

  prompt and people are needed. Further: negative_prompt, seed, name (of the PNG; the line's number
  if left out), reference_weights, shares, fill_references, face, faces_cropped, face_position,
  width, height, preset, repaint (photo, mask, box, face, context), and the strengths above, written
  with _ for -. What cannot be made is said, and the rest goes on. Only --weights, --out,
  --detector, --face-models and the options for the machine go with --jobs and --repeat.
"""

PEOPLE = ("people", "reference_weights", "shares", "fill_references", "face")
MOST_IMAGES = 100_000
FOR_ANY_JOB = {
    *("weights", "out", "prompt", "jobs", "repeat", "detector", "face_models"),
    *("batch", "precision", "attention", "tile", "keep_features", "distributed"),
}
"""Options that say where and how to make images; the others say what they show."""


def make_parser(prog: str = "flashface sample") -> Parser:
    """Describe the command line."""
    parser = Parser(
        prog=prog,
        usage=f"{prog} --weights DIR --references PHOTO ... --prompt TEXT [--out DIR] ...\n"
        f"       {prog} --weights DIR --jobs FILE [--out DIR] ...\n"
        f"       {prog} --repeat PNG --out DIR",
        description=DESCRIPTION.replace("{prog}", prog),
        epilog=EPILOG,
    )
    add = parser.add_argument
    add("--weights", type=Path, metavar="DIR", help="converted weights, or a training run")
    out = "directory to write images to (default: samples)"
    add("--out", type=Path, default=Path("samples"), metavar="DIR", help=out)
    _add_images(parser.add_argument_group("what to make (give --prompt, --jobs or --repeat)"))
    _add_people(parser.add_argument_group("people"))
    _add_picture(parser.add_argument_group("picture"))
    strengths = parser.add_argument_group("strengths (default: what the weights say)")
    add_options(strengths, Job, ["preset"])
    add_options(strengths, SamplingConfig)
    _add_machine(parser.add_argument_group("machine"))
    return parser


def _add_images(group: argparse._ArgumentGroup) -> None:
    add, several = group.add_argument, "what the image shows; give it again for further images"
    add("--prompt", action="append", default=[], metavar="TEXT", help=several)
    add_options(group, Job, ["negative_prompt"])
    add("--images", type=int, default=1, metavar="N", help="images of each prompt (default: 1)")
    add_options(group, Job, ["seed"])
    add("--jobs", type=Path, metavar="FILE", help="images to make, one on each line; see below")
    add("--repeat", type=Path, metavar="PNG", help="make an image again that this program wrote")


def _add_people(group: argparse._ArgumentGroup) -> None:
    add_options(group, Job, PEOPLE)
    group.add_argument(
        "--detector",
        choices=["insightface", "cascade", "none"],
        help="what finds faces; cascade needs no download but is less accurate; with none, photos "
        "are upright face crops already (default: insightface)",
    )
    group.add_argument(
        "--face-models",
        type=Path,
        metavar="DIR",
        help="insightface's model pack (default: its own download)",
    )


def _add_picture(group: argparse._ArgumentGroup) -> None:
    add_options(group, Job, ["face_position"])
    group.add_argument(
        "--size",
        metavar="WxH",
        help="width and height in pixels, multiples of 8, as 768x1024 (default: what the weights "
        "were trained at)",
    )
    add_options(group, Repaint)


def _add_machine(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add(
        "--batch",
        type=int,
        metavar="N",
        help="images at a time (default: 1 for each device of a CPU, 4 of others)",
    )
    add(
        "--precision",
        choices=get_args(Precision),
        default="auto",
        help="float32, or bfloat16 for half the memory (default: auto, which is float32 on a CPU "
        "and bfloat16 elsewhere)",
    )
    add(
        "--attention",
        choices=get_args(AttentionName),
        default="auto",
        help="how attention is computed: by XLA (blocked), or by a TPU's or GPU's own kernel "
        "(default: auto, what suits the device)",
    )
    add(
        "--tile",
        type=int,
        default=0,
        metavar="N",
        help="decode images in tiles of 8N x 8N pixels, for less memory; 32 is a good size "
        "(default: 0, whole images)",
    )
    add(
        "--keep-features",
        type=float,
        default=0,
        metavar="GB",
        help="memory for keeping what is computed of people's photos between batches (default: 0)",
    )
    add(
        "--distributed",
        nargs="*",
        metavar="H",
        help="share the images among several hosts, each given this command; a TPU pod, Slurm, MPI "
        "or Kubernetes says which, or three values: ADDRESS:PORT of the first, INDEX from 0, COUNT",
    )


def check_options(options: argparse.Namespace, parser: Parser) -> None:
    """Raise a ValueError for options that do not go together, or that no image could have."""
    ways = [options.prompt, options.jobs, options.repeat]
    if sum(bool(way) for way in ways) != 1:
        parser.error("Give either --prompt, --jobs or --repeat")
    if not options.prompt:
        _check_alone(options, parser)
    if options.prompt and not options.references:
        raise ValueError("Give --references: one or more photos of the person.")
    if options.weights is None and options.repeat is None:
        raise ValueError("Give --weights: the directory of converted weights, or of a run.")
    _check_numbers(options)
    if options.repaint is None:
        of_painting = {one.named(name) for name, one in options_of(Repaint).items()}
        for flag in _given(options, parser):
            if flag in of_painting:
                raise ValueError(f"{flag} says how to paint into a photo: give --repaint PHOTO.")
    if options.mask and options.repaint_box:
        raise ValueError("Give either --mask or --repaint-box.")
    if options.repeat is not None and options.distributed is not None:
        raise ValueError("--distributed does not go with --repeat, which makes one image.")
    if options.face_models is not None and options.detector not in (None, "insightface"):
        raise ValueError(f"--face-models does not go with --detector {options.detector}.")


def _check_numbers(options: argparse.Namespace) -> None:
    """Raise a ValueError for a number that is out of its range."""
    if not 1 <= options.images * len(options.prompt or "1") <= MOST_IMAGES:
        raise ValueError(
            f"--images is {shortened(options.images)}; choose 1 or more, and at most {MOST_IMAGES} "
            "of all prompts."
        )
    if options.batch is not None and not 1 <= options.batch <= 1024:
        raise ValueError(f"--batch is {shortened(options.batch)}; choose from 1 to 1024.")
    if options.tile and not 8 <= options.tile <= 4096:
        raise ValueError(
            f"--tile is {shortened(options.tile)}; choose from 8 to 4096, or 0 for whole images."
        )
    if not 0 <= options.keep_features < 1e4:
        raise ValueError(
            f"--keep-features is {options.keep_features}; choose 0 or more gigabytes, and fewer "
            "than 10000."
        )


def _check_alone(options: argparse.Namespace, parser: Parser) -> None:
    """Raise a ValueError if an option says what images show, where a file does."""
    way = "--jobs" if options.jobs is not None else "--repeat"
    for flag in _given(options, parser, but=FOR_ANY_JOB):
        raise ValueError(
            f"{flag} does not go with {way}, whose file says what the images show: leave it out."
        )


def _given(options: argparse.Namespace, parser: Parser, but: Collection[str] = ()) -> list[str]:
    """The flags that are not at their defaults, as a user writes them."""
    return [
        f"--{name.replace('_', '-')}"
        for name, value in vars(options).items()
        if name not in but and value != parser.get_default(name)
    ]
