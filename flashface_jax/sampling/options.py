"""The options of sample.py."""

import argparse
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NoReturn, get_args

from flashface_jax.common.errors import shortened
from flashface_jax.diffusion.guidance import StrengthOverTime
from flashface_jax.diffusion.schedule import Spacing
from flashface_jax.diffusion.solvers import SolverName
from flashface_jax.models.attention.backends import NAMES as ATTENTIONS
from flashface_jax.sampling.pipeline import Precision
from flashface_jax.sampling.presets import PRESETS

DESCRIPTION = r"""Make images of a person from photos and a prompt.

    python sample.py --weights weights/flashface --references me1.jpg me2.jpg me3.jpg \
        --prompt "a young man with long brown hair is sitting in the desert" --out desert

writes desert/000.png and a contact sheet, desert/sheet.png. --weights takes a converted directory
(python -m flashface_jax.convert official --help) or the working directory of a training run. Any
number of photos serves; several that differ in pose and light work best. Name an age word in the
prompt ("a young woman"), and say with --face-position where the face goes.

A command that was stopped goes on when it is given again: images that are there are kept, and one
that was made otherwise is never overwritten. Every PNG says how it was made, and can be made again:

    python sample.py --repeat desert/000.png --out again
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

SETTINGS = {
    "steps": (int, "N", "steps from noise to image; 25 to 50 for the released weights"),
    "text_guidance": (float, "X", "how closely to follow the prompt; 7 to 9"),
    "reference_guidance": (float, "X", "how hard to push towards the references; 2 to 3.2"),
    "early_reference_strength": (
        float,
        "X",
        "--reference-strength before the launch timestep, where it is no schedule; 0.85",
    ),
    "launch_timestep": (
        int,
        "T",
        "reference guidance starts when the noise is down to this timestep: 1000 from the start, "
        "0 at the very end; 750",
    ),
    "rescale": (float, "X", "how far to take back the contrast that guidance adds; 0 to 1"),
    "eta": (float, "X", "share of fresh noise in each step of the solver ddim; 0 to 1"),
    "prompt_suffix": (str, "TEXT", "words joined to the prompt; '' for none"),
    "negative_suffix": (str, "TEXT", "words joined to the negative prompt; '' for none"),
}

MOST_IMAGES = 100_000
FOR_ANY_JOB = {
    *("weights", "out", "prompt", "jobs", "repeat", "detector", "face_models"),
    *("batch", "precision", "attention", "tile", "keep_features", "distributed"),
}
"""Options that say where and how to make images; the others say what they show."""


class Parser(argparse.ArgumentParser):
    """Reports a mistake as an error of one sentence."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong."""
        raise ValueError(f"{message}; sample.py --help explains.")


def strength(text: str) -> StrengthOverTime:
    """A number, or points over the run: "0:0.6,0.5:1.2" rises from 0.6 to 1.2 by half of it."""
    try:
        if ":" not in text:
            return float(text)
        points = [point.split(":") for point in text.split(",")]
        return tuple((float(progress), float(value)) for progress, value in points)
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"{shortened(text)} is neither a number nor points as 0:0.6,0.5:1.2"
        ) from error


def make_parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    parser = Parser(
        prog="sample.py",
        usage="sample.py --weights DIR --references PHOTO ... --prompt TEXT [--out DIR] ...\n"
        "       sample.py --weights DIR --jobs FILE [--out DIR] ...\n"
        "       sample.py --repeat PNG --out DIR",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--weights", type=Path, metavar="DIR", help="converted weights, or a training run")
    add(
        "--out",
        type=Path,
        default=Path("samples"),
        metavar="DIR",
        help="directory to write images to (default: samples)",
    )
    what = parser.add_argument_group("what to make (give --prompt, --jobs or --repeat)")
    add = what.add_argument
    add(
        "--prompt",
        action="append",
        default=[],
        metavar="TEXT",
        help="what the image shows; give it again for images of other prompts",
    )
    add("--negative-prompt", default="", metavar="TEXT", help="what to avoid")
    add("--images", type=int, default=1, metavar="N", help="images of each prompt (default: 1)")
    add(
        "--seed",
        type=int,
        default=0,
        metavar="N",
        help="seed of the first image, each further one has the next; the same seed and settings "
        "give the same image (default: 0)",
    )
    add("--jobs", type=Path, metavar="FILE", help="images to make, one on each line; see below")
    add("--repeat", type=Path, metavar="PNG", help="make an image again that this program wrote")
    people = parser.add_argument_group("people")
    add = people.add_argument
    add(
        "--references",
        action="append",
        nargs="+",
        metavar="PHOTO",
        help="photos of one person; give it again for another person, and both are mixed into one",
    )
    add(
        "--reference-weights",
        type=float,
        action="append",
        nargs="+",
        metavar="W",
        help="how often each photo counts, in the order of --references, which is given as often "
        "(default: 1 each); 0 leaves a photo out",
    )
    add(
        "--shares",
        type=float,
        nargs="+",
        metavar="S",
        help="how much each person counts beside the others, as 0.7 0.3 (default: equally)",
    )
    add(
        "--fill-references",
        type=int,
        default=0,
        metavar="N",
        help="let fewer than N photos count as often as N; the released code does so with 4 "
        "(default: 0, each photo once)",
    )
    add(
        "--face",
        default="only",
        metavar="WHICH",
        help="which face of a photo that shows several: largest, or a number counted from the "
        "left, 0 first (default: only, which refuses such photos)",
    )
    add(
        "--detector",
        choices=["insightface", "cascade", "none"],
        help="what finds faces; cascade needs no download but is less accurate; with none, photos "
        "are upright face crops already (default: insightface)",
    )
    add(
        "--face-models",
        type=Path,
        metavar="DIR",
        help="insightface's model pack (default: its own download)",
    )
    place = parser.add_argument_group("picture")
    add = place.add_argument
    add(
        "--face-position",
        "--face-box",
        nargs="+",
        default=["centre"],
        metavar="P",
        help="where the face goes: anywhere, left, centre, right, close-up, 'left close-up', "
        "'right close-up', or x1 y1 x2 y2 from the top left corner, as fractions or pixels "
        "(default: centre)",
    )
    add(
        "--size",
        metavar="WxH",
        help="width and height in pixels, multiples of 8, as 768x1024 (default: what the weights "
        "were trained at)",
    )
    add(
        "--repaint",
        metavar="PHOTO",
        help="paint the face of this photo anew, in its surroundings; the result has its size, and "
        "is the photo where nothing was painted",
    )
    add(
        "--mask",
        metavar="PICTURE",
        help="what to paint anew: white in a picture of the photo's size",
    )
    add(
        "--repaint-box",
        nargs="+",
        metavar="P",
        help="or a box to paint anew, as for --face-position (default: the face that is found in "
        "the photo)",
    )
    add(
        "--repaint-face",
        default="only",
        metavar="WHICH",
        help="which face to paint anew where several are found, as for --face (default: only)",
    )
    add(
        "--context",
        type=float,
        default=3.0,
        metavar="X",
        help="how much of the photo the model sees: the side of that part over the side of the "
        "mask, 1 to 100 (default: 3)",
    )
    knobs = parser.add_argument_group("strengths (default: what the weights say)")
    add = knobs.add_argument
    add(
        "--preset",
        choices=list(PRESETS),
        help="strengths by intent, for the released weights: identity for a close likeness, "
        "age_change for another age or gender than in the photos, artwork for a painting or a "
        "statue of the person, real_from_art for a drawn character as a real person; each strength "
        "can still be set",
    )
    add(
        "--reference-strength",
        type=strength,
        metavar="X",
        help="how much of the references to take over: 0.8 to 1.3, 0.9 for another age; or points "
        "over the run, see below",
    )
    for name, (type_, metavar, text) in SETTINGS.items():
        add(f"--{name.replace('_', '-')}", type=type_, metavar=metavar, help=text)
    add(
        "--solver",
        choices=get_args(SolverName),
        help="how to go from one noise level to the next; dpm++2m needs the fewest steps, heun "
        "takes twice as long for each, euler-ancestral adds fresh noise",
    )
    add(
        "--spacing",
        choices=get_args(Spacing),
        help="which noise levels to visit; the released code uses trailing",
    )
    machine = parser.add_argument_group("machine")
    add = machine.add_argument
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
        choices=ATTENTIONS,
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
    return parser


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line.

    Raises:
        ValueError: naming the option that is unknown, or has no value that will do.
    """
    return make_parser().parse_args(arguments)


def check_options(options: argparse.Namespace) -> None:
    """Raise a ValueError for options that do not go together, or that no image could have."""
    ways = [options.prompt, options.jobs, options.repeat]
    if sum(bool(way) for way in ways) != 1:
        raise ValueError("Give either --prompt, --jobs or --repeat; sample.py --help explains.")
    if not options.prompt:
        _check_alone(options)
    if options.prompt and not options.references:
        raise ValueError("Give --references: one or more photos of the person.")
    if options.weights is None and options.repeat is None:
        raise ValueError("Give --weights: the directory of converted weights, or of a run.")
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
    if options.repaint is None:
        for name in _given(options, ("mask", "repaint_box", "repaint_face", "context")):
            raise ValueError(f"{name} says how to paint into a photo: give --repaint PHOTO.")
    if options.mask and options.repaint_box:
        raise ValueError("Give either --mask or --repaint-box.")
    if options.face_models is not None and options.detector not in (None, "insightface"):
        raise ValueError(f"--face-models does not go with --detector {options.detector}.")


def _check_alone(options: argparse.Namespace) -> None:
    """Raise a ValueError if an option says what images show, where a file does."""
    way = "--jobs" if options.jobs is not None else "--repeat"
    for name in _given(options, set(vars(options)) - FOR_ANY_JOB):
        raise ValueError(
            f"{name} does not go with {way}, whose file says what the images show: leave it out."
        )


def _given(options: argparse.Namespace, names: Collection[str]) -> list[str]:
    """Those of some options that are not at their defaults, as a user writes them."""
    parser = make_parser()
    return [
        f"--{name.replace('_', '-')}"
        for name, value in vars(options).items()
        if name in names and value != parser.get_default(name)
    ]
