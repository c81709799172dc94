"""Draw a world of people that do not exist.

    flashface data draw sheet --out world.png
    flashface data draw photos --out world --identities 100 --size 256
    flashface data build --source world --out data

`sheet` writes one picture, a person a row. `photos` writes JPEGs and a manifest.jsonl, from which a
dataset is built as from anybody's photos.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from flashface_jax.common.command_line import Parser, run_command
from flashface_jax.common.files import require_writable


def make_parser(prog: str) -> Parser:
    """Describe the command line."""
    parser = Parser(prog=prog, description=__doc__)
    what = "one picture, or photos with a manifest"
    parser.add_argument("what", choices=("sheet", "photos"), help=what)
    parser.add_argument("--out", type=Path, required=True, help="picture or folder to write")
    parser.add_argument("--identities", type=int, default=5, help="people (default: 5)")
    parser.add_argument("--photos", type=int, default=6, help="photos of each (default: 6)")
    parser.add_argument(
        "--size", type=int, default=128, help="side in pixels, 64 to 768 (default: 128)"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the world (default: 0)")
    return parser


def main(arguments: Sequence[str] | None = None, prog: str = "flashface data draw") -> int:
    """Draw, and print the path; 1 on an error, 130 after Ctrl-C."""
    return run_command(partial(_run, arguments, prog), on_stop="the same command begins again.")


def _run(arguments: Sequence[str] | None, prog: str) -> None:
    asked = make_parser(prog).parse_args(arguments)
    require_writable(asked.out.parent if asked.what == "sheet" else asked.out)
    from flashface_jax.data.building.drawn_photos import write_folder  # noqa: PLC0415  (slow)
    from flashface_jax.world.sheet import write_sheet  # noqa: PLC0415
    from flashface_jax.world.world import SyntheticWorld  # noqa: PLC0415

    world = SyntheticWorld(asked.seed, asked.identities, asked.photos, asked.size)
    writers = {"sheet": write_sheet, "photos": write_folder}
    writers[asked.what](world, asked.out)
    print(f"wrote {asked.out}")
