"""Writes a picture of a synthetic world: one person a row.

python -m flashface_jax.data.synthetic --out world.png
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from flashface_jax.data.synthetic.drawing import Pixels
from flashface_jax.data.synthetic.world import SyntheticWorld


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


def main(arguments: Sequence[str] | None = None) -> None:
    """Parses the command line, writes the picture, prints its path."""
    parser = argparse.ArgumentParser(prog="flashface_jax.data.synthetic", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="picture to write")
    parser.add_argument("--identities", type=int, default=5, help="rows")
    parser.add_argument("--photos", type=int, default=6, help="columns")
    parser.add_argument("--size", type=int, default=128, help="side of a photo in pixels")
    parser.add_argument("--seed", type=int, default=0, help="seed of the world")
    options = parser.parse_args(arguments)
    world = SyntheticWorld(options.seed, options.identities, options.photos, options.size)
    Image.fromarray(contact_sheet(world)).save(options.out, optimize=True)
    print(options.out)


if __name__ == "__main__":
    main()
