"""What is asked for: people, images to paint into, and requests."""

import hashlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float, UInt8

from flashface_jax.common.shape_checks import check_fields

ANYWHERE = (0.0, 0.0, 0.0, 0.0)


@dataclass(frozen=True, eq=False)
class Person:
    """Reference faces of one person.

    Attributes:
        faces: upright face crops at the model's reference size.
        weights: how often each counts: 1 once, 2 as two copies of it would; ones if None.
        share: how much this person counts among those of an image, relative to the others.
    """

    faces: UInt8[np.ndarray, "refs R R 3"]
    weights: tuple[float, ...] | None = None
    share: float = 1.0

    def __post_init__(self) -> None:
        check_fields(self)
        if len(self.faces) == 0:
            raise ValueError("A person needs at least one reference face.")
        weights = self.counts
        if len(weights) != len(self.faces):
            raise ValueError(
                f"{len(self.faces)} references have {len(weights)} weights: give one for each."
            )
        if not all(0 <= weight < np.inf for weight in weights) or not any(weights):
            raise ValueError(
                f"Reference weights {list(weights)} must be 0 or more, and not all of them 0."
            )
        if not 0 < self.share < np.inf:
            raise ValueError(f"A person's share is {self.share}; it must be above 0.")

    @property
    def counts(self) -> tuple[float, ...]:
        """The weights, also where none were given."""
        return (1.0,) * len(self.faces) if self.weights is None else self.weights

    @cached_property
    def faces_sha256(self) -> str:
        """Hash of the faces, which is all that their features depend on."""
        return hashlib.sha256(repr(self.faces.shape).encode() + self.faces.tobytes()).hexdigest()

    @cached_property
    def sha256(self) -> str:
        """Hash of the faces and their weights."""
        counts = repr(tuple(map(float, self.counts)))
        return hashlib.sha256((counts + self.faces_sha256).encode()).hexdigest()


@dataclass(frozen=True, eq=False)
class InpaintingImage:
    """An image at the size to generate, of which a part is painted anew.

    Attributes:
        image: its pixels.
        repaint_pixels: 1 where pixels are painted anew.
        repaint: the same on the latents' grid.
    """

    image: UInt8[np.ndarray, "H W 3"]
    repaint_pixels: Float[np.ndarray, "H W 1"]
    repaint: Float[np.ndarray, "h w 1"]

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class ImageRequest:
    """One image to make.

    Attributes:
        prompt: what it shows.
        people: who is in it: one person, or several whose identities are mixed.
        seed: of its noise, 0 to 2^32 - 1; an image depends on no other image's seed.
        negative_prompt: what to avoid.
        face_box: x1, y1, x2, y2 as fractions of the image; zeros for anywhere.
        inpainting: an image to paint into, or None.
    """

    prompt: str
    people: tuple[Person, ...]
    seed: int = 0
    negative_prompt: str = ""
    face_box: tuple[float, ...] = ANYWHERE
    inpainting: InpaintingImage | None = None

    def __post_init__(self) -> None:
        if not self.people:
            raise ValueError("An image needs at least one person.")
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"Seed {self.seed} is out of range: choose one from 0 to 2^32 - 1.")
