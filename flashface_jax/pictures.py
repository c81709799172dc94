"""Contact sheets: rows of pictures of any size, with a caption above each row and column."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

from flashface_jax.faces.align import fit_and_pad

Pixels = UInt8[np.ndarray, "_ _ 3"]

GAP = 4
LINE = 14
BACKGROUND = (255, 255, 255)
INK = (40, 40, 40)


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
                fitted = Image.fromarray(fit_and_pad(picture, cell))
                sheet.paste(fitted, (x * (cell + GAP), corner + title))
    return sheet


def write_sheet(out: Path, pictures: Sequence[Path], most: int = 64) -> Path:
    """Write `sheet.png`: the first pictures, small, six to a row."""
    images = []
    for path in pictures[:most]:
        with Image.open(path) as file:
            images.append(np.asarray(file.convert("RGB")))
    rows = [images[i : i + 6] for i in range(0, len(images), 6)]
    cell = min(256, 2 * max(images[0].shape[:2]))
    place = out / "sheet.png"
    contact_sheet(rows, cell=cell).save(place)
    return place
