"""The sample.py command run in process, with one opened pipeline for the whole session."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from flashface_jax.faces.detect import Face
from flashface_jax.sampling.command import main
from flashface_jax.sampling.pipeline import FlashFacePipeline
from tests.random_weights import small_system, write_random_weights

REALLY_OPEN = FlashFacePipeline.from_directory


@dataclass
class Said:
    """What a command answered."""

    status: int
    out: str
    err: str

    @property
    def errors(self) -> list[str]:
        """Lines of standard error, without the progress bar."""
        return [line for line in self.err.replace("\r", "\n").split("\n") if _is_said(line)]


def _is_said(line: str) -> bool:
    return bool(line.strip()) and not line.startswith("sampling:")


@dataclass
class Opened:
    """Opens each directory once, and remembers what was asked for.

    No step is reported: programs that call back into Python are not kept by JAX's cache, and so
    each test that opens other weights would compile anew.
    """

    pipelines: dict[Any, FlashFacePipeline] = field(default_factory=dict)
    asked: list[dict[str, Any]] = field(default_factory=list)

    def __call__(self, path: Path, **options: Any) -> FlashFacePipeline:
        self.asked.append(options)
        options = {name: value for name, value in options.items() if name == "precision"}
        key = Path(path).resolve(), options.get("precision")
        if key not in self.pipelines:
            self.pipelines[key] = REALLY_OPEN(path, **options)
        return self.pipelines[key]


def make_folder(folder: Path) -> Path:
    """Weights, and photos: face crops, and one to paint into with its mask."""
    write_random_weights(folder / "weights", small_system())
    rng = np.random.default_rng(0)
    for i, shape in enumerate([(40, 30, 3), (32, 32, 3), (32, 32, 3), (32, 32, 3)]):
        save(folder / f"{i}.png", rng.integers(0, 256, shape, dtype=np.uint8))
    rows, columns = np.mgrid[:100, :150]
    photo = np.stack([rows * 2, columns, 255 - rows - columns // 2], axis=-1).astype(np.uint8)
    save(folder / "photo.png", photo)
    mask = np.zeros((100, 150), np.uint8)
    mask[30:60, 50:90] = 255
    save(folder / "mask.png", mask)
    return folder


def save(path: Path, pixels: np.ndarray) -> Path:
    Image.fromarray(pixels).save(path)
    return path


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def images(out: Path) -> dict[str, np.ndarray]:
    """The images in a directory, without the sheet."""
    return {path.stem: pixels(path) for path in sorted(out.glob("*.png")) if path.stem != "sheet"}


def difference(first: np.ndarray, second: np.ndarray) -> int:
    """The most that two images differ, in levels."""
    return int(np.abs(first.astype(int) - second.astype(int)).max())


def face_at(x: float, y: float, side: float, score: float = 0.9) -> Face:
    box = np.array([x, y, x + side, y + side], np.float32)
    eyes = [[0.3, 0.4], [0.7, 0.4], [0.5, 0.6], [0.35, 0.8], [0.65, 0.8]]
    return Face(box, np.array(eyes, np.float32) * side + np.float32([x, y]), score)


class PlantedDetector:
    """Finds the same faces in every photo."""

    def __init__(self, *faces: Face):
        self.faces, self.asked = list(faces), 0

    def detect(self, image: np.ndarray) -> list[Face]:
        self.asked += 1
        return self.faces

    def describe(self) -> str:
        return f"{len(self.faces)} planted faces"


class Command:
    """Runs sample.py in process."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]):
        self.folder, self._capsys = folder, capsys

    def __call__(self, *arguments: object) -> Said:
        """Run with these arguments only."""
        self._capsys.readouterr()
        status = main([str(argument) for argument in arguments], prog="sample.py")
        return Said(status, *self._capsys.readouterr())

    def prompt(self, out: Path, *more: object) -> Said:
        """Run with weights and two face crops, for a prompt that `more` names."""
        return self(*self.usual(out), *more)

    def jobs(self, file: Path, out: Path, *more: object) -> Said:
        """Run a jobs file about face crops."""
        base = ["--weights", self.folder / "weights", "--detector", "none"]
        return self(*base, "--jobs", file, "--out", out, *more)

    def usual(self, out: Path) -> list[str]:
        faces = [str(self.folder / "0.png"), str(self.folder / "1.png")]
        weights = ["--weights", str(self.folder / "weights"), "--out", str(out)]
        return [*weights, "--references", *faces, "--detector", "none"]
