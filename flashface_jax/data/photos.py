"""Photos of identities, held in memory: what the input pipeline draws from."""

import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int, UInt8

from flashface_jax.data.synthetic import SyntheticWorld

ARRAYS = ("images", "face_boxes", "landmarks", "captions", "starts")


@dataclass(frozen=True)
class IdentityPhotos:
    """Photos sorted by identity.

    Attributes:
        images: RGB.
        face_boxes: x1, y1, x2, y2 in pixels.
        landmarks: left eye, right eye, nose tip, left and right mouth corner, in pixels.
        captions: one a photo.
        starts: identity i has the photos starts[i] .. starts[i + 1] - 1.
    """

    images: UInt8[np.ndarray, "photos H W 3"]
    face_boxes: Float32[np.ndarray, "photos 4"]
    landmarks: Float32[np.ndarray, "photos 5 2"]
    captions: list[str]
    starts: Int[np.ndarray, " boundaries"]

    @property
    def num_identities(self) -> int:
        """Number of identities."""
        return len(self.starts) - 1

    def photos_of(self, identity: int) -> range:
        """Positions of an identity's photos."""
        return range(int(self.starts[identity]), int(self.starts[identity + 1]))

    def save(self, path: Path) -> None:
        """Write one file; a file that exists is whole."""
        draft = path.with_suffix(".draft.npz")
        np.savez(
            draft,
            images=self.images,
            face_boxes=self.face_boxes,
            landmarks=self.landmarks,
            captions=np.asarray(self.captions),
            starts=self.starts,
        )
        draft.rename(path)

    @classmethod
    def load(cls, path: Path) -> "IdentityPhotos":
        """Read what `save` wrote.

        Raises:
            ValueError: if the file is damaged or another kind of file.
        """
        try:
            with path.open("rb") as opened, np.load(opened) as file:
                arrays = {name: file[name] for name in ARRAYS}
        except (ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise ValueError(
                f"{path} holds no photos: remove it and they are drawn anew."
            ) from error
        return cls(**{**arrays, "captions": arrays["captions"].tolist()})


def draw_photos(
    world: SyntheticWorld, identities: Sequence[int], advance: Callable[[], object]
) -> IdentityPhotos:
    """Draw all photos of some identities of the built-in world; `advance` ticks each photo."""
    photos = []
    for identity in identities:
        for j in range(world.photos_per_identity):
            photos.append(world.photo(identity, j))
            advance()
    return IdentityPhotos(
        images=np.stack([photo.image for photo in photos]),
        face_boxes=np.stack([photo.face_box for photo in photos]),
        landmarks=np.stack([photo.landmarks for photo in photos]),
        captions=[photo.caption for photo in photos],
        starts=np.arange(len(identities) + 1) * world.photos_per_identity,
    )
