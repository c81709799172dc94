"""A picture of a world: a person a row."""

from pathlib import Path

import numpy as np
from PIL import Image

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
    image = Image.fromarray(contact_sheet(world))
    out.parent.mkdir(parents=True, exist_ok=True)
    image.save(out, optimize=True)
