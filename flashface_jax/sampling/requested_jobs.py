"""The jobs that a sampling command line asks for."""

import argparse
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from flashface_jax.common.errors import sentence, shortened
from flashface_jax.common.options import given
from flashface_jax.diffusion.settings import SamplingConfig
from flashface_jax.sampling.jobs import Job, Repaint, parse_job, read_jobs
from flashface_jax.sampling.records import Record


def jobs_of(options: argparse.Namespace) -> tuple[list[Job], dict[str, ValueError]]:
    """The images that are asked for, and the lines of a jobs file that ask for none.

    Raises:
        ValueError: naming the option that will not do, or the file that cannot be read.
    """
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


def job_again(path: Path, record: Record) -> Job:
    """The job of a record, with every setting and size as it was.

    Raises:
        ValueError: if another version wrote it so that this one cannot make it.
    """
    height, width = record.size
    again = {**record.job, "settings": record.sampling, "height": height, "width": width}
    try:
        return parse_job({**again, "preset": None, "name": path.stem})
    except ValueError as error:
        raise ValueError(f"{path} was made by another version: {sentence(error)}") from error


def _jobs_of_prompts(options: argparse.Namespace) -> list[Job]:
    described = {**given(options, Job), **given(options, SamplingConfig)}
    if "face_position" in described:
        described["face_position"] = " ".join(described["face_position"])
    height, width = _size(options.size)
    cropped = options.detector == "none"
    described |= {"height": height, "width": width, "faces_cropped": cropped}
    if options.repaint is not None:
        described["repaint"] = _repaint(options)
    base = parse_job({**described, "prompt": options.prompt[0]})
    prompts = [prompt for prompt in options.prompt for _ in range(options.images)]
    return [
        replace(base, prompt=prompt, seed=base.seed + i, name=f"{i:03d}")
        for i, prompt in enumerate(prompts)
    ]


def _repaint(options: argparse.Namespace) -> dict[str, Any]:
    described = given(options, Repaint)
    if "box" in described:
        described["box"] = " ".join(described["box"])
    return described


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
