"""PNGs that carry everything needed to make them again."""

import json
import os
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image
from PIL.PngImagePlugin import PngInfo

KEY = "flashface"
SOFTWARE = f"flashface-jax {version('flashface-jax')}"

Record = dict[str, Any]
"""What a PNG carries, as JSON:

    software         program and version
    job              files and words, as `flashface_jax.jobs.Job`
    sampling         every setting as it was used
    size             height and width that the model made, in pixels
    references       hash of each person's faces and weights
    weights          path and hash of the parameters
    precision        float32 or bfloat16
    detector         what found the faces
"""


def write_png(path: Path, image: UInt8[np.ndarray, "H W 3"], record: Record) -> None:
    """Write an image with its record; the file appears when it is whole."""
    info = PngInfo()
    info.add_itxt(KEY, json.dumps(record), zip=True)
    draft = path.with_name(f".{path.name}.part")
    try:
        Image.fromarray(image).save(draft, format="PNG", pnginfo=info)
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def read_record(path: Path) -> Record:
    """Read the record that a PNG carries.

    Raises:
        ValueError: naming the file, if it is missing, no picture, or carries none.
    """
    try:
        with Image.open(path) as image:
            image.load()  # the text may stand behind the pixels
            text = getattr(image, "text", {}).get(KEY)
    except FileNotFoundError as error:
        raise ValueError(f"{path} does not exist.") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path} is no picture that can be read ({error}).") from error
    if text is None:
        raise ValueError(
            f"{path} does not say how it was made: only PNGs that sample.py wrote do, and only "
            "until another program saves them."
        )
    try:
        record = json.loads(text)
        if not {"job", "sampling", "size", "weights"} <= record.keys():
            raise ValueError("something is missing")
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{path} says how it was made, but not so that it can be read.") from error
    return record
