"""The input pipeline (paper, §4): identities -> one target and 1..4 references each -> batches.

Which photos a sample shows depends on the seed and the sample's global index alone.
"""

from dataclasses import dataclass

import grain
import numpy as np

from flashface_jax.data.photos import IdentityPhotos
from flashface_jax.faces.align import largest_square, reference_face
from flashface_jax.faces.position import position_mask
from flashface_jax.tokenizer import Tokenizer

Sample = dict[str, np.ndarray]


@dataclass(frozen=True)
class SampleShape:
    """Sizes that a model wants.

    Attributes:
        image_size: side of the target in pixels.
        reference_size: side of a reference face crop in pixels.
        stride: pixels of a latent position, each way.
        max_references: most references of a sample; the number is uniform in 1..this.
    """

    image_size: int
    reference_size: int
    stride: int
    max_references: int = 4


def target_and_mask(
    photos: IdentityPhotos, photo: int, shape: SampleShape
) -> tuple[np.ndarray, np.ndarray]:
    """The largest square that holds the face, at the model's size, and its position mask."""
    square, box = largest_square(photos.images[photo], photos.face_boxes[photo], shape.image_size)
    size = (shape.image_size, shape.image_size)
    return square, position_mask(box, size, shape.stride)


def reference_crop(photos: IdentityPhotos, photo: int, shape: SampleShape) -> np.ndarray:
    """The upright face crop of one photo."""
    return reference_face(
        photos.images[photo],
        photos.face_boxes[photo],
        photos.landmarks[photo],
        shape.reference_size,
    )


class DrawSample(grain.transforms.RandomMap):
    """Identity index -> a target and references, all different photos of that person.

    Every photo is cropped once, both ways: the photos are in memory, and a run shows each of them
    a hundred times.
    """

    def __init__(self, photos: IdentityPhotos, tokenizer: Tokenizer, shape: SampleShape):
        few = [i for i in range(photos.num_identities) if len(photos.photos_of(i)) < 2]
        if few:
            raise ValueError(
                f"Identity {few[0]} has fewer than 2 photos, so it cannot give a target and a "
                "reference: remove it from the data."
            )
        self._photos = photos
        self._max_references = shape.max_references
        self._tokens = tokenizer(photos.captions)
        every = range(len(photos.captions))
        targets, masks = zip(*(target_and_mask(photos, i, shape) for i in every), strict=True)
        self._targets, self._masks = np.stack(targets), np.stack(masks)
        self._references = np.stack([reference_crop(photos, i, shape) for i in every])

    def random_map(self, element: int, rng: np.random.Generator) -> Sample:
        """Draw one sample."""
        candidates = self._photos.photos_of(element)
        wanted = int(rng.integers(1, self._max_references + 1))
        count = min(wanted, len(candidates) - 1)
        target, *chosen = rng.choice(candidates, size=1 + count, replace=False).tolist()
        references = np.zeros((self._max_references, *self._references.shape[1:]), np.uint8)
        references[:count] = self._references[chosen]
        return {
            "target": self._targets[target],
            "face_mask": self._masks[target],
            "tokens": self._tokens[target],
            "references": references,
            "reference_valid": np.arange(self._max_references) < count,
        }


def training_batches(
    photos: IdentityPhotos,
    tokenizer: Tokenizer,
    shape: SampleShape,
    batch_size: int,
    seed: int,
) -> grain.DatasetIterator[Sample]:
    """Endless batches; every epoch shuffles the identities anew.

    Raises:
        ValueError: if there are fewer identities than a batch has samples, or one of them has
            fewer than two photos.
    """
    if photos.num_identities < batch_size:
        raise ValueError(
            f"{photos.num_identities} identities cannot fill a batch of {batch_size} different "
            "ones: lower batch_size or add identities."
        )
    dataset = (
        grain.MapDataset.range(photos.num_identities)
        .seed(seed)
        .shuffle()
        .repeat()
        .random_map(DrawSample(photos, tokenizer, shape))
        .batch(batch_size, drop_remainder=True)
    )
    # One thread and a short queue: grain's default would hold 500 batches.
    options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=4)
    return iter(dataset.to_iter_dataset(options))
