"""One JSON object a line in `metrics.jsonl`."""

import json
from collections.abc import Mapping
from pathlib import Path

from PIL import Image

from flashface_jax.common.files import atomic_file


class JsonlFile:
    """Appends lines, each of which can be read as soon as it is written."""

    def __init__(self, workdir: Path, step: int):
        """Continue after `step`: lines of later steps, of a run that was cut off, are dropped."""
        self._path = workdir / "metrics.jsonl"
        kept = [
            line
            for line in (self._path.read_text().splitlines() if self._path.exists() else [])
            if line.endswith("}") and json.loads(line)["step"] <= step
        ]
        with atomic_file(self._path) as draft:
            draft.write_text("".join(f"{line}\n" for line in kept))

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Append one line."""
        with self._path.open("a") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")

    def picture(self, step: int, name: str, image: Image.Image) -> None:
        """Lines hold no pictures."""

    def close(self) -> None:
        """Every line is written already."""
