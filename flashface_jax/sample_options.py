"""The options of sample.py, and the jobs that they ask for."""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NoReturn, get_args

from flashface_jax.diffusion.guidance import StrengthOverTime
from flashface_jax.diffusion.schedule import Spacing
from flashface_jax.diffusion.solvers import SolverName
from flashface_jax.jobs import Job, Repaint, parse_job, read_jobs
from flashface_jax.pipeline import Precision
from flashface_jax.presets import PRESETS
from flashface_jax.records import Record

DESCRIPTION = r"""Make images of a person from photos and a prompt.

    python sample.py --weights weights/flashface --references me1.jpg me2.jpg me3.jpg \
        --prompt "a young man with long brown hair is sitting in the desert" --out desert

--weights takes a converted directory (python -m flashface_jax.convert official --help) or the
working directory of a training run. Any number of photos serves; several that differ in pose and
light work best. Name an age word in the prompt ("a young woman"), and say where the face goes.
Strengths left out are those that the weights were released or trained with; --preset changes them
by intent, and each can be set on its own. Every PNG says how it was made:

    python sample.py --repeat desert/000.png --out again
"""

SETTINGS = {
    "steps": (int, "solver steps; 25 to 50 for the released weights"),
    "text_guidance": (float, "how closely to follow the prompt; 7 to 9"),
    "reference_guidance": (float, "how hard to push towards the references; 2 to 3.2"),
    "early_reference_strength": (float, "reference strength before the launch timestep"),
    "launch_timestep": (int, "reference guidance starts below this timestep; 0 to 1000"),
    "rescale": (float, "how far guidance's contrast is taken back; 0 to 1"),
    "eta": (float, "share of fresh noise in each step of ddim; 0 to 1"),
    "prompt_suffix": (str, "words joined to the prompt; '' for none"),
    "negative_suffix": (str, "words joined to the negative prompt; '' for none"),
}


class Parser(argparse.ArgumentParser):
    """Reports a mistake in one line."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong, and leave."""
        self.exit(2, f"error: {message} (sample.py --help explains)\n")


def strength(text: str) -> StrengthOverTime:
    """A number, or points over the run: "0:0.6,0.5:1.2" rises from 0.6 to 1.2 by half of it."""
    if ":" not in text:
        return float(text)
    points = [point.split(":") for point in text.split(",")]
    return tuple((float(progress), float(value)) for progress, value in points)


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    kind = argparse.RawDescriptionHelpFormatter
    parser = Parser(
        prog="sample.py", description=DESCRIPTION, formatter_class=kind, allow_abbrev=False
    )
    add = parser.add_argument
    add("--weights", type=Path, metavar="DIR", help="weights or run to open")
    add("--out", type=Path, default=Path("samples"), metavar="DIR", help="directory to write to")
    what = parser.add_argument_group("what to make")
    add = what.add_argument
    add("--prompt", action="append", default=[], help="give it again for more pictures")
    add("--negative-prompt", default="", metavar="TEXT", help="what to avoid")
    add("--images", type=int, default=1, metavar="N", help="images of each prompt (default: 1)")
    add("--seed", type=int, default=0, help="seed of the first image; the next is one more")
    add(
        "--jobs",
        type=Path,
        metavar="FILE",
        help="a job in JSON on each line: prompt, people, seed, "
        "preset and what else is listed here; the same command goes on after a stop",
    )
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
        help="how often each photo counts (default: once); 0 leaves it out",
    )
    add(
        "--shares",
        type=float,
        nargs="+",
        metavar="S",
        help="how much each person counts (default: equally)",
    )
    add(
        "--fill-references",
        type=int,
        default=0,
        metavar="N",
        help="let few photos count as often as N would; 4 is what the released code does",
    )
    add(
        "--face",
        default="only",
        help="where a photo shows several faces: largest, or a number "
        "counted from the left, 0 first (default: there must be only one)",
    )
    add(
        "--detector",
        choices=["insightface", "cascade", "none"],
        default="insightface",
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
        "or x1 y1 x2 y2 as fractions or pixels (default: centre)",
    )
    add(
        "--size",
        metavar="WxH",
        help="in pixels, multiples of 8 (default: what the weights were trained at)",
    )
    add("--repaint", metavar="PHOTO", help="paint the face of this photo anew, in its surroundings")
    add(
        "--mask",
        metavar="PICTURE",
        help="what to paint anew: white in a picture of the photo's size",
    )
    add(
        "--repaint-box",
        nargs="+",
        metavar="P",
        help="or a box, as for --face-position (default: the "
        "face that is found; --repaint-face says which)",
    )
    add(
        "--repaint-face",
        default="only",
        metavar="FACE",
        help="as --face, in the photo to paint into",
    )
    add(
        "--context",
        type=float,
        default=3.0,
        metavar="X",
        help="side of what the model sees of the photo, over that of the mask (default: 3)",
    )
    knobs = parser.add_argument_group("strengths (default: what the weights say)")
    add = knobs.add_argument
    add("--preset", choices=list(PRESETS), help="strengths by intent, for the released weights")
    add(
        "--reference-strength",
        type=strength,
        metavar="X",
        help="share of reference attention, 0.8 to 1.3, 0.9 for "
        "another age; or points over the run, as 0:0.6,0.5:1.2",
    )
    for name, (type_, text) in SETTINGS.items():
        add(f"--{name.replace('_', '-')}", type=type_, metavar="X", help=text)
    add("--solver", choices=get_args(SolverName), help="how to go from one noise level to the next")
    add("--spacing", choices=get_args(Spacing), help="which noise levels to visit")
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
        help="float32, or bfloat16 for half the memory; auto: bfloat16 but on a CPU",
    )
    add(
        "--tile",
        type=int,
        default=0,
        metavar="N",
        help="decode images in tiles of N latent positions, for less memory; 32 is a good size "
        "(default: whole images)",
    )
    add(
        "--keep-features",
        type=float,
        default=0,
        metavar="GB",
        help="memory for keeping people's reference features between batches (default: 0)",
    )
    add(
        "--distributed",
        action="store_true",
        help="work on all hosts of a pod; give each this command",
    )
    return parser.parse_args(arguments)


def check_options(options: argparse.Namespace) -> None:
    """Raise a ValueError for options that do not go together."""
    ways = [options.prompt, options.jobs, options.repeat]
    if sum(bool(way) for way in ways) != 1:
        raise ValueError("Give either --prompt, --jobs or --repeat.")
    if options.prompt and not options.references:
        raise ValueError("Give --references: one or more photos of the person.")
    if options.weights is None and options.repeat is None:
        raise ValueError("Give --weights: the directory of converted weights, or of a run.")
    if options.images < 1 or options.seed < 0:
        raise ValueError("--images must be 1 or more, and --seed 0 or more.")
    if options.batch is not None and options.batch < 1:
        raise ValueError("--batch must be 1 or more.")
    if options.tile and options.tile < 8:
        raise ValueError("--tile must be 8 or more, or 0 for whole images.")
    if not 0 <= options.keep_features < 1e4:
        raise ValueError("--keep-features must be 0 or more gigabytes.")
    if options.repaint is None and (options.mask or options.repaint_box):
        raise ValueError("--mask and --repaint-box say what to paint anew of --repaint PHOTO.")
    if options.mask and options.repaint_box:
        raise ValueError("Give either --mask or --repaint-box.")


def jobs_of(
    options: argparse.Namespace, repeated: Record | None
) -> tuple[list[Job], dict[str, ValueError]]:
    """The images that are asked for, and the lines of a jobs file that ask for none."""
    if repeated is not None:
        return [_job_again(options.repeat, repeated)], {}
    if options.jobs is None:
        return _jobs_of_prompts(options), {}
    jobs, broken = [], {}
    for number, (place, job) in enumerate(read_jobs(options.jobs)):
        if isinstance(job, Job):
            jobs.append(job if job.name else replace(job, name=f"{number:06d}"))
        else:
            broken[place] = job
    if not jobs and not broken:
        raise ValueError(f"{options.jobs} holds no job: write one in JSON on each line.")
    return jobs, broken


def _job_again(path: Path, record: Record) -> Job:
    """The job of a record, with every setting and size as it was."""
    try:
        height, width = record["size"]
        again = {**record["job"], "settings": record["sampling"], "height": height, "width": width}
        return replace(parse_job({**again, "name": path.stem}), preset=None)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} was made by another version: {error}") from error


def _jobs_of_prompts(options: argparse.Namespace) -> list[Job]:
    names = [*SETTINGS, "reference_strength", "solver", "spacing"]
    settings = {name: getattr(options, name) for name in names}
    height, width = _size(options.size)
    base = Job(
        prompt="",
        people=tuple(tuple(photos) for photos in options.references),
        negative_prompt=options.negative_prompt,
        reference_weights=_nested(options.reference_weights),
        shares=None if options.shares is None else tuple(options.shares),
        fill_references=options.fill_references,
        faces_cropped=options.detector == "none",
        face=options.face,
        face_position=" ".join(options.face_position),
        height=height,
        width=width,
        preset=options.preset,
        settings={name: value for name, value in settings.items() if value is not None},
        repaint=_repaint(options),
    )
    prompts = [prompt for prompt in options.prompt for _ in range(options.images)]
    return [
        replace(base, prompt=prompt, seed=options.seed + i, name=f"{i:03d}")
        for i, prompt in enumerate(prompts)
    ]


def _nested(values: list[list[float]] | None) -> tuple[tuple[float, ...], ...] | None:
    return None if values is None else tuple(tuple(row) for row in values)


def _size(text: str | None) -> tuple[int | None, int | None]:
    """Height and width of "768x1024", which names the width first."""
    if text is None:
        return None, None
    width, _, height = text.lower().partition("x")
    if not (width.isascii() and width.isdecimal() and height.isascii() and height.isdecimal()):
        raise ValueError(f"--size is {text!r}; write width x height in pixels, as 768x1024.")
    return int(height), int(width)


def _repaint(options: argparse.Namespace) -> Repaint | None:
    if options.repaint is None:
        return None
    box = None if options.repaint_box is None else " ".join(options.repaint_box)
    return Repaint(options.repaint, options.mask, box, options.repaint_face, options.context)
