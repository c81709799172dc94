"""Contact sheets: rows of pictures of any size, with a caption above each row and column."""

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont, ImageOps
from PIL.PngImagePlugin import PngInfo

from flashface_jax.common.errors import DAMAGED_PICTURE
from flashface_jax.common.files import atomic_file

Pixels = UInt8[np.ndarray, "_ _ 3"]

GAP = 4
LINE = 14
BACKGROUND = (255, 255, 255)
INK = (40, 40, 40)
LARGEST_CELL = 256
MARK = ("Software", "flashface-jax contact sheet")


def contact_sheet(
    rows: Sequence[Sequence[Pixels | None]],
    *,
    cell: int,
    column_titles: Sequence[str] = (),
    row_titles: Sequence[str] = (),
) -> Image.Image:
    """Lay pictures out in rows, each fitted into a square cell.

    Args:
        rows: pictures; None leaves a cell empty.
        cell: side of a cell in pixels.
        column_titles: above the first row.
        row_titles: above each row.
    """
    columns = max(len(row) for row in rows)
    top = LINE + GAP if column_titles else 0
    title = LINE if row_titles else 0
    height = top + len(rows) * (title + cell + GAP)
    sheet = Image.new("RGB", (columns * (cell + GAP) - GAP, height - GAP), BACKGROUND)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(11)
    for x, text in enumerate(column_titles):
        draw.text((x * (cell + GAP), 2), text, INK, font)
    for y, row in enumerate(rows):
        corner = top + y * (title + cell + GAP)
        if row_titles:
            draw.text((0, corner), row_titles[y], INK, font)
        for x, picture in enumerate(row):
            if picture is not None:
                fitted = ImageOps.pad(Image.fromarray(picture), (cell, cell))
                sheet.paste(fitted, (x * (cell + GAP), corner + title))
    return sheet


def write_sheet(place: Path, pictures: Sequence[Path], most: int = 64) -> None:
    """Write the first pictures, small, six to a row, as a PNG that `is_sheet` knows."""
    images = []
    for path in pictures[:most]:
        with Image.open(path) as file:
            small = file.convert("RGB")
        small.thumbnail((LARGEST_CELL, LARGEST_CELL))  # photos that were repainted may be large
        images.append(np.asarray(small))
    rows = [images[i : i + 6] for i in range(0, len(images), 6)]
    cell = min(LARGEST_CELL, 2 * max(images[0].shape[:2]))
    info = PngInfo()
    info.add_text(*MARK)
    with atomic_file(place) as draft:
        contact_sheet(rows, cell=cell).save(draft, format="PNG", pnginfo=info)


def is_sheet(path: Path) -> bool:
    """Whether a file is a sheet that was written here, and not something of the user's."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of many pixels
            with Image.open(path) as image:
                return bool(image.info.get(MARK[0]) == MARK[1])
    except (*DAMAGED_PICTURE, Image.DecompressionBombError):
        return False
