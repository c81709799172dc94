"""What a metric of images of held-out people is."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8


@dataclass(frozen=True)
class MadeImages:
    """Images of held-out people that a run made, and all that was asked for.

    Attributes:
        images: what was made.
        targets: the real photos of the same people that the prompts were written for.
        references: upright crops of the people's faces, which the model was given.
        prompts: what was asked for.
        face_boxes: where each face was asked for, x1, y1, x2, y2 in pixels of the images; the
            targets' faces are there.
    """

    images: UInt8[np.ndarray, "people H W 3"]
    targets: UInt8[np.ndarray, "people H W 3"]
    references: UInt8[np.ndarray, "people refs R R 3"]
    prompts: tuple[str, ...]
    face_boxes: Float[np.ndarray, "people 4"]


HeldOutMetric = Callable[[MadeImages], dict[str, float]]
"""From images to numbers by the names under which they are logged; every process calls it."""
