"""The sampling command: checks what is asked for before anything slow is imported."""

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from flashface_jax.common.command_line import run_command
from flashface_jax.common.files import require_exists, require_writable
from flashface_jax.common.pictures import check_picture
from flashface_jax.sampling.jobs import Job
from flashface_jax.sampling.options import check_options, make_parser
from flashface_jax.sampling.requested_jobs import job_again, jobs_of

WEIGHTS = "converted weights (flashface convert --help says how to make them), or a training run"
OUT_OF_MEMORY = "there is too little memory: lower --batch or --size, or give --tile 32."


def main(arguments: Sequence[str] | None = None, prog: str = "flashface sample") -> int:
    """Run the command.

    Args:
        arguments: those of the command line if None.
        prog: what the user called it.

    Returns:
        The exit status: 0 if all images were made, 1 if not, 2 for wrong usage, 130 if the user
        stopped it.
    """
    return run_command(
        partial(_run, arguments, prog),
        on_stop="the same command goes on from here.",
        on_memory=OUT_OF_MEMORY,
    )


def _run(arguments: Sequence[str] | None, prog: str) -> int:
    parser = make_parser(prog)
    options = parser.parse_args(arguments)
    check_options(options, parser)
    require_writable(options.out)
    if options.repeat is not None:
        return _repeat(options)
    if options.distributed is not None:  # first: others would wait for a host that refuses
        from flashface_jax.sampling.run import join_hosts  # noqa: PLC0415

        join_hosts(options.distributed)
    jobs, broken = jobs_of(options)
    require_exists(options.weights, WEIGHTS)
    if options.jobs is None:
        _require_files(jobs)
    # The networks' code takes seconds to import: help and mistakes need none of it.
    from flashface_jax.sampling.run import make_images  # noqa: PLC0415

    return make_images(options, jobs, broken)


def _repeat(options: argparse.Namespace) -> int:
    from flashface_jax.sampling.records import read_record  # noqa: PLC0415

    record = read_record(options.repeat)
    job = job_again(options.repeat, record)
    if options.weights is not None:
        require_exists(options.weights, WEIGHTS)
    from flashface_jax.sampling.run import make_again  # noqa: PLC0415

    return make_again(options, job, record)


def _require_files(jobs: Sequence[Job]) -> None:
    """Raise a ValueError that names the first file that is not there."""
    for name in dict.fromkeys(name for job in jobs for name in job.files):
        check_picture(Path(name))
