"""Draw a world of people that do not exist.

    python -m flashface_jax.world sheet --out world.png
    python -m flashface_jax.world photos --out world --identities 100 --size 256
    python -m flashface_jax.data.build --source world --out data

`sheet` writes one picture, a person a row. `photos` writes JPEGs and a manifest.jsonl, from which a
dataset is built as from anybody's photos.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from flashface_jax.common.errors import sentence, stopped
from flashface_jax.data.building.drawn_photos import write_photos
from flashface_jax.world.drawing.canvas import Pixels
from flashface_jax.world.world import SyntheticWorld


def contact_sheet(world: SyntheticWorld) -> Pixels:
    """Lays out all photos of a world, one person a row, with white gaps."""
    gap = max(2, world.image_size // 32)
    cell = world.image_size + gap
    shape = (world.num_identities * cell - gap, world.photos_per_identity * cell - gap, 3)
    sheet = np.full(shape, 255, np.uint8)
    for i in range(world.num_identities):
        for j in range(world.photos_per_identity):
            y, x = i * cell, j * cell
            photo = world.photo(i, j)
            sheet[y : y + world.image_size, x : x + world.image_size] = photo.image
    return sheet


def write_sheet(world: SyntheticWorld, out: Path) -> None:
    """Write the contact sheet."""
    Image.fromarray(contact_sheet(world)).save(out, optimize=True)


def write_folder(world: SyntheticWorld, out: Path) -> None:
    """Write photos and manifest, with a progress bar."""
    total = world.num_identities * world.photos_per_identity
    with tqdm(total=total, desc="drawing photos", unit="photo") as bar:
        write_photos(world, range(world.num_identities), out, bar.update)


WRITERS = {"sheet": write_sheet, "photos": write_folder}


def main(arguments: Sequence[str] | None = None) -> int:
    """Parses the command line, draws, prints the path; 1 on an error, 130 after Ctrl-C."""
    text = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="python -m flashface_jax.world", description=__doc__, formatter_class=text
    )
    parser.add_argument("what", choices=WRITERS, help="one picture, or photos with a manifest")
    parser.add_argument("--out", type=Path, required=True, help="picture or folder to write")
    parser.add_argument("--identities", type=int, default=5, help="people (default: 5)")
    parser.add_argument("--photos", type=int, default=6, help="photos of each (default: 6)")
    parser.add_argument(
        "--size", type=int, default=128, help="side in pixels, 64 to 768 (default: 128)"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the world (default: 0)")
    asked = parser.parse_args(arguments)
    try:
        world = SyntheticWorld(asked.seed, asked.identities, asked.photos, asked.size)
        WRITERS[asked.what](world, asked.out)
    except KeyboardInterrupt:
        return stopped("the same command begins again.")
    except (ValueError, OSError) as error:
        print(f"error: {sentence(error)}", file=sys.stderr)
        return 1
    print(f"wrote {asked.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
