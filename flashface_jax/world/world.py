"""A world of drawn people: any photo of any of them, drawn alone and always the same."""

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float32

from flashface_jax.world.attributes import (
    Framing,
    PhotoAttributes,
    sample_attributes,
)
from flashface_jax.world.captions import caption
from flashface_jax.world.drawing.canvas import Pixels
from flashface_jax.world.drawing.rendering import SIZES, render
from flashface_jax.world.identity import Identity, sample_identity


@dataclass(frozen=True)
class Photo:
    """A captioned photo of one person.

    Attributes:
        image: RGB.
        face_box: x1, y1, x2, y2 in pixels, inside the image.
        landmarks: x, y in pixels of left eye, right eye, nose tip, left and right mouth corner;
            left and right as seen in the image.
        identity: index of the person.
        caption: what varies in the photo, in words.
        source_id: name of the photo, unique over all worlds.
    """

    image: Pixels
    face_box: Float32[np.ndarray, "4"]
    landmarks: Float32[np.ndarray, "5 2"]
    identity: int
    caption: str
    source_id: str


def _check_index(name: str, index: int, count: int) -> None:
    if not 0 <= index < count:
        raise IndexError(f"{name} is {index} but must lie between 0 and {count - 1}.")


@dataclass(frozen=True)
class SyntheticWorld:
    """A set of identities, each with a set of photos.

    Identity `i` depends on the seed alone, and so does photo `(i, j)` but for the framing: a world
    can be made larger, or drawn at another size, without changing what it already held.

    Attributes:
        seed: >= 0.
        num_identities: >= 1.
        photos_per_identity: >= 1.
        image_size: side of the images in pixels, 64 to 768.
        framing: how the photos are taken, from close by for instance.

    Raises:
        ValueError: one of them is outside its range.
    """

    seed: int
    num_identities: int
    photos_per_identity: int
    image_size: int
    framing: Framing = field(default_factory=Framing)

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise ValueError(f"seed is {self.seed} but must be 0 or more.")
        if self.num_identities < 1:
            raise ValueError(f"num_identities is {self.num_identities} but must be 1 or more.")
        if self.photos_per_identity < 1:
            count = self.photos_per_identity
            raise ValueError(f"photos_per_identity is {count} but must be 1 or more.")
        low, high = SIZES
        if not low <= self.image_size <= high:
            size = self.image_size
            raise ValueError(f"image_size is {size} but must lie between {low} and {high} pixels.")

    def identity(self, i: int) -> Identity:
        """The person with index `i`.

        Raises:
            IndexError: there is no such person.
        """
        _check_index("identity", i, self.num_identities)
        return sample_identity(self.seed, i)

    def attributes(self, i: int, j: int) -> PhotoAttributes:
        """What varies in photo `j` of person `i`.

        Raises:
            IndexError: there is no such person or photo.
        """
        _check_index("identity", i, self.num_identities)
        _check_index("photo", j, self.photos_per_identity)
        return sample_attributes(self.seed, i, j, self.framing)

    def photo(self, i: int, j: int) -> Photo:
        """Draws photo `j` of person `i`.

        Raises:
            IndexError: there is no such person or photo.
        """
        attributes = self.attributes(i, j)
        drawn = render(self.identity(i), attributes, self.image_size)
        return Photo(
            image=drawn.image,
            face_box=drawn.face_box,
            landmarks=drawn.landmarks,
            identity=i,
            caption=caption(attributes),
            source_id=f"synthetic/{self.seed}/{i:06d}/{j:06d}",
        )
