"""PNGs that carry everything needed to make them again."""

import dataclasses
import json
import warnings
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import UInt8
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from flashface_jax.common.errors import DAMAGED_PICTURE
from flashface_jax.common.files import atomic_file
from flashface_jax.common.from_json import from_json
from flashface_jax.common.pictures import check_picture

KEY = "flashface"
SOFTWARE = f"flashface-jax {version('flashface-jax')}"


@dataclass(frozen=True)
class Weights:
    """Where parameters came from, and which they were.

    Attributes:
        path: their directory.
        sha256: their hash.
    """

    path: str
    sha256: str


@dataclass(frozen=True)
class Record:
    """What a PNG carries, as JSON.

    Attributes:
        software: program and version.
        job: files and words, as `flashface_jax.sampling.jobs.Job.described` gives them.
        sampling: every setting as it was used.
        size: height and width that the model made, in pixels.
        references: hash of each person's faces and weights.
        painted: hash of the photo that was painted into and of its mask, or None.
        weights: where the parameters came from, and their hash.
        precision: of the computation.
        detector: what found the faces, or None.
    """

    software: str
    job: dict[str, Any]
    sampling: dict[str, Any]
    size: tuple[int, int]
    references: tuple[str, ...]
    painted: str | None
    weights: Weights
    precision: Literal["float32", "bfloat16"]
    detector: str | None


def write_png(path: Path, image: UInt8[np.ndarray, "H W 3"], record: Record) -> None:
    """Write an image with its record; the file appears when it is whole."""
    info = PngInfo()
    info.add_itxt(KEY, json.dumps(dataclasses.asdict(record)), zip=True)
    with atomic_file(path) as draft:
        Image.fromarray(image).save(draft, format="PNG", pnginfo=info)


def read_record(path: Path) -> Record:
    """Read the record that a PNG carries.

    Raises:
        ValueError: naming the file, if it is missing, no picture, or carries none.
    """
    check_picture(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of many pixels
            with Image.open(path) as image:
                image.load()  # the text may stand behind the pixels
                text = getattr(image, "text", {}).get(KEY)
    except (*DAMAGED_PICTURE, Image.DecompressionBombError) as error:
        raise ValueError(f"{path} is no picture that can be read ({error}).") from error
    if text is None:
        raise ValueError(
            f"{path} does not say how it was made: only PNGs that flashface sample wrote do, and "
            "only until another program saves them."
        )
    try:
        record: Record = from_json(Record, json.loads(text), "the record")
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{path} says how it was made, but not so that this version can read it ({error})."
        ) from error
    return record
