"""Take people and photos out of a dataset, without building it again.

    flashface data remove data --list removals.txt

The list is a text file; a line names a person or a photo, # begins a comment:

    identity: Ann Lee
    source_id: flickr/123

Only files of the dataset that hold such photos are written anew, and what was there is removed from
the disk. Stopped at any moment, the dataset is whole, with or without the photos, and the same
command goes on. Keep the list: the photos' sources still have them, and flashface data build
--remove leaves them out of the next build. The build's outcomes.jsonl, if you kept it, may still
name them. Latents that flashface data precompute made are pictures of them, too: remove that
directory and make it again. A training run on the dataset cannot be resumed afterwards: its samples
would be others. Begin another run from its weights.
"""

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from flashface_jax.common.command_line import Parser, run_command
from flashface_jax.common.files import require_exists
from flashface_jax.data.building.removals import read_removals
from flashface_jax.data.removing.replacement import WORKSHOP


def make_parser(prog: str) -> Parser:
    """Describe the command line."""
    parser = Parser(prog=prog, description=__doc__)
    add = parser.add_argument
    add("dataset", type=Path, help="the dataset's directory, or TFDS' data_dir above it")
    add("--list", type=Path, required=True, help="who and what is removed, a line each")
    add("--dry-run", action="store_true", help="only say what would be removed")
    return parser


def main(arguments: Sequence[str] | None = None, prog: str = "flashface data remove") -> int:
    """Run the command; 0 when all that the list names is gone, 1 on an error, 130 after Ctrl-C."""
    on_stop = "the dataset is whole, and the same command goes on."
    return run_command(partial(_run, arguments, prog), on_stop=on_stop)


def _run(arguments: Sequence[str] | None, prog: str) -> None:
    asked = make_parser(prog).parse_args(arguments)
    removals = read_removals(asked.list)
    # A removal that was stopped may have taken the dataset away for a moment.
    if not (asked.dataset.parent / WORKSHOP).exists():
        require_exists(asked.dataset, "a dataset's directory, or the one above it")
    from flashface_jax.data.removing.remove import remove, report  # noqa: PLC0415  (slow to import)

    outcome = remove(asked.dataset, removals, dry_run=asked.dry_run)
    told = report(outcome, dry_run=asked.dry_run)
    print(told if asked.dry_run else f"{told}\nwrote {outcome.place}")


if __name__ == "__main__":
    sys.exit(main(prog="python -m flashface_jax.data.remove"))
