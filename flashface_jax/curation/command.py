"""The curation command: from folders of photos of people to a manifest."""

import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from flashface_jax.common.command_line import run_command
from flashface_jax.common.files import require_writable
from flashface_jax.curation.options import make_parser


def main(arguments: Sequence[str] | None = None, prog: str = "flashface curate") -> int:
    """Run the command; what goes wrong becomes one sentence on standard error."""
    on_stop = "the same command goes on from here."
    return run_command(partial(_run, arguments, prog), on_stop=on_stop)


def _run(arguments: Sequence[str] | None, prog: str) -> None:
    options, flags = make_parser(prog).parse_known_args(arguments)  # what is unknown is for Beam
    check_places(options.photos, options.out)
    # Beam tells of packages that it can do without, and of errors that are told here.
    logging.getLogger().setLevel(logging.ERROR)
    logging.getLogger("apache_beam").setLevel(logging.CRITICAL)
    from flashface_jax.curation.pipeline.curate import curate  # noqa: PLC0415  (slow to import)

    curate(options, flags)


def check_places(photos: Path, out: Path) -> None:
    """Raise a ValueError if photos are not there, or results would become photos."""
    if not photos.exists():
        raise ValueError(
            f"{photos} does not exist: name a folder with one folder a person, or a .jsonl list."
        )
    if photos.is_dir() and photos.resolve() in (out.resolve(), *out.resolve().parents):
        raise ValueError(f"{out} lies in {photos}: choose an --out outside the photos.")
    require_writable(out)
