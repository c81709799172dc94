"""Curation from a command line's options to a manifest."""

import argparse
import dataclasses
import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from flashface_jax.curation.outcomes import Outcome
from flashface_jax.curation.pipeline.collect import collect
from flashface_jax.curation.pipeline.plan import make_plan
from flashface_jax.curation.pipeline.results import write_results
from flashface_jax.curation.pipeline.running import run_step, unknown_flags
from flashface_jax.curation.pipeline.work import DRAFT, write_person
from flashface_jax.data.manifest import FILE_NAME

COLLECTED = "collected.jsonl"


def curate(options: argparse.Namespace, flags: Sequence[str]) -> None:
    """Curate photos, and say where the results are."""
    photos, out = options.photos, options.out
    unknown = unknown_flags(flags)
    if unknown:
        raise ValueError(f"{unknown[0]} is no option here nor of Apache Beam; see --help.")
    work = out.absolute() / "work"
    (work / "people").mkdir(parents=True, exist_ok=True)
    plan = make_plan(options, work)
    people, photos_in = gather(photos, work)
    for step in plan.steps:
        run_step(step, people, flags)
    report = write_results(out, people, work / COLLECTED, photos_in, plan.select, plan.caption)
    print(report.table())
    for name in (FILE_NAME, "outcomes.jsonl", "report.json"):
        print(out / name)
    if report.kept:
        print(f"next: flashface data build --source {out} --out DATA")


def gather(photos: Path, work: Path) -> tuple[list[Path], int]:
    """Write a file for each identity with its photos, and one with all that is none.

    Returns:
        The files of the identities, sorted by identity, and the number of photos and of files that
        are none.
    """
    people: list[tuple[str, Path]] = []
    count = 0
    number, draft = tempfile.mkstemp(prefix=DRAFT, dir=work)
    with os.fdopen(number, "w", encoding="ascii") as file, tqdm(desc="collect") as bar:
        for found in collect(photos):
            if isinstance(found, Outcome):
                file.write(json.dumps(dataclasses.asdict(found)) + "\n")
                found_here = 1
            else:
                people.append((found.identity, write_person(work / "people", found)))
                found_here = len(found.sources)
            count += found_here
            bar.update(found_here)
    os.replace(draft, work / COLLECTED)
    if not people:
        raise ValueError(f"{photos} holds no photos of people: see --help for how to lay them out.")
    return [path for _, path in sorted(people)], count
