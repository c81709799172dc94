"""From folders of photos of people to a manifest: `python -m flashface_jax.curation --help`."""

import argparse
import dataclasses
import io
import json
import logging
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from flashface_jax.common.errors import sentence, stopped
from flashface_jax.common.files import require_writable
from flashface_jax.curation.options import parse_arguments
from flashface_jax.curation.outcomes import Outcome
from flashface_jax.curation.pipeline.collect import collect
from flashface_jax.curation.pipeline.plan import make_plan
from flashface_jax.curation.pipeline.results import write_results
from flashface_jax.curation.pipeline.work import DRAFT, write_person
from flashface_jax.data.manifest import FILE_NAME

COLLECTED = "collected.jsonl"
NO_BEAM = "curation needs Apache Beam: pip install 'flashface-jax[curation]'"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; what goes wrong becomes one sentence on standard error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # file names may be no text
    # Beam tells of packages that it can do without, and of errors that are told here.
    logging.getLogger().setLevel(logging.ERROR)
    logging.getLogger("apache_beam").setLevel(logging.CRITICAL)
    options, flags = parse_arguments(arguments)
    try:
        curate(options, flags)
    except KeyboardInterrupt:
        return stopped("the same command goes on from here.")
    except ModuleNotFoundError as error:
        if error.name != "apache_beam":
            raise
        print(f"error: {NO_BEAM}", file=sys.stderr)
        return 1
    except (ValueError, OSError) as error:
        print(f"error: {sentence(error)}", file=sys.stderr)
        return 1
    return 0


def curate(options: argparse.Namespace, flags: Sequence[str]) -> None:
    """Curate photos, and say where the results are."""
    from flashface_jax.curation.pipeline.running import run_step, unknown_flags  # noqa: PLC0415  (optional)

    photos, out = options.photos, options.out
    unknown = unknown_flags(flags)
    if unknown:
        raise ValueError(f"{unknown[0]} is no option here nor of Apache Beam; see --help.")
    check_places(photos, out)
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
        print(f"next: python -m flashface_jax.data.build --source {out} --out DATA")


def check_places(photos: Path, out: Path) -> None:
    """Raise a ValueError if photos are not there, or results would become photos."""
    if not photos.exists():
        raise ValueError(
            f"{photos} does not exist: name a folder with one folder a person, or a .jsonl list."
        )
    if photos.is_dir() and photos.resolve() in (out.resolve(), *out.resolve().parents):
        raise ValueError(f"{out} lies in {photos}: choose an --out outside the photos.")
    require_writable(out)


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


if __name__ == "__main__":
    sys.exit(main())
