"""The jobs that the command line of sample.py asks for."""

import argparse
import re
from dataclasses import replace
from pathlib import Path

from flashface_jax.common.errors import sentence, shortened
from flashface_jax.sampling.jobs import Job, Repaint, parse_job, read_jobs
from flashface_jax.sampling.options import SETTINGS
from flashface_jax.sampling.records import Record


def jobs_of(
    options: argparse.Namespace, repeated: Record | None = None
) -> tuple[list[Job], dict[str, ValueError]]:
    """The images that are asked for, and the lines of a jobs file that ask for none.

    Raises:
        ValueError: naming the option that will not do, or the file that cannot be read.
    """
    if repeated is not None:
        return [_job_again(options.repeat, repeated)], {}
    if options.jobs is None:
        return _jobs_of_prompts(options), {}
    jobs, broken = [], {}
    for number, (place, job) in enumerate(read_jobs(options.jobs)):
        if isinstance(job, Job):
            cropped = job.faces_cropped or options.detector == "none"
            jobs.append(replace(job, name=job.name or f"{number:06d}", faces_cropped=cropped))
        else:
            broken[place] = job
    if not jobs and not broken:
        raise ValueError(f"{options.jobs} holds no job: write one in JSON on each line.")
    return jobs, broken


def _job_again(path: Path, record: Record) -> Job:
    """The job of a record, with every setting and size as it was."""
    height, width = record.size
    again = {**record.job, "settings": record.sampling, "height": height, "width": width}
    try:
        return parse_job({**again, "preset": None, "name": path.stem})
    except ValueError as error:
        raise ValueError(f"{path} was made by another version: {sentence(error)}") from error


def _jobs_of_prompts(options: argparse.Namespace) -> list[Job]:
    names = [*SETTINGS, "reference_strength", "solver", "spacing"]
    settings = {name: getattr(options, name) for name in names}
    height, width = _size(options.size)
    base = Job(
        prompt=options.prompt[0],
        people=tuple(tuple(photos) for photos in options.references),
        negative_prompt=options.negative_prompt,
        seed=options.seed,
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
    sides = re.fullmatch(r"([0-9]{1,6})x([0-9]{1,6})", text.lower())
    if sides is None:
        raise ValueError(
            f"--size is {shortened(text)}; write width x height in pixels, as 768x1024."
        )
    width, height = map(int, sides.groups())
    return height, width


def _repaint(options: argparse.Namespace) -> Repaint | None:
    if options.repaint is None:
        return None
    box = None if options.repaint_box is None else " ".join(options.repaint_box)
    return Repaint(options.repaint, options.mask, box, options.repaint_face, options.context)
