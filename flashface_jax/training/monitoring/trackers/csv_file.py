"""One row of `metrics.csv` for each time that something is logged; columns by name."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TextIO

from PIL import Image

from flashface_jax.common.files import atomic_file

STEP = "step"
Row = Mapping[str, object]


class CsvFile:
    """Appends rows; a column that is new makes the whole file anew, with empty cells before."""

    def __init__(self, workdir: Path, step: int):
        """Continue after `step`: rows of later steps, of a run that was cut off, are dropped."""
        self._path = workdir / "metrics.csv"
        self._columns, rows = _read(self._path)
        _write(self._path, self._columns, [row for row in rows if int(row[STEP]) <= step])

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Append one row; the cells of columns that have no value are empty."""
        new = [name for name in values if name not in self._columns]
        if new:
            _, rows = _read(self._path)
            self._columns += new
            _write(self._path, self._columns, rows)
        with self._path.open("a", newline="") as file:
            _write_rows(file, self._columns, [{STEP: step, **values}])

    def picture(self, step: int, name: str, image: Image.Image) -> None:
        """Rows hold no pictures."""

    def close(self) -> None:
        """Every row is written already."""


def _read(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    """Columns and rows of a file; a last line that was cut off is none."""
    text = path.read_text() if path.exists() else ""
    lines = [line for line in text.splitlines(keepends=True) if line.endswith("\n")]
    reader = csv.DictReader(lines, restval="")
    return list(reader.fieldnames or [STEP]), list(reader)


def _write(path: Path, columns: Sequence[str], rows: Sequence[Row]) -> None:
    with atomic_file(path) as draft, draft.open("w", newline="") as file:
        _write_rows(file, columns, [{name: name for name in columns}, *rows])


def _write_rows(file: TextIO, columns: Sequence[str], rows: Sequence[Row]) -> None:
    csv.DictWriter(file, columns, lineterminator="\n").writerows(rows)
