"""Each photo of a split as the frozen networks want it, a batch at a time."""

from collections.abc import Generator, Sequence
from dataclasses import dataclass

import cv2
import grain
import numpy as np

from flashface_jax.data.dataset import PhotoRecord
from flashface_jax.data.loading.allocation import keep_freed_memory
from flashface_jax.data.loading.loader import LoaderOptions, whole_batches
from flashface_jax.data.loading.samples import PhotoPool, SampleShape
from flashface_jax.data.loading.transforms import (
    Picture,
    UndecodableError,
    crop_reference,
    decode,
    stored_reference,
    target_and_mask,
)
from flashface_jax.weights.tokenizer import Tokenizer

Prepared = dict[str, np.ndarray]
TARGET_DECODES, CROP_DECODES = "target_decodes", "crop_decodes"


@dataclass(frozen=True)
class Preparation:
    """How photos are prepared.

    Attributes:
        pool: the photos, and their stored face crops if these serve.
        tokenizer: of the captions.
        shape: sizes that the networks want.
    """

    pool: PhotoPool
    tokenizer: Tokenizer
    shape: SampleShape

    def why_damaged(self, position: int, *, crop: bool) -> str:
        """Why a photo, or its face crop, does not decode."""
        source = self.pool.crops if crop and self.pool.crops is not None else self.pool.photos
        try:
            decode(source[position])
        except UndecodableError as error:
            return str(error)
        raise ValueError(
            f"Record {position} decoded only the second time: is its disk damaged? Start again."
        )


class Prepare(grain.transforms.Map):
    """Makes arrays of the photo at a position; zeros of what does not decode."""

    def __init__(self, preparation: Preparation):
        self._preparation = preparation

    def map(self, element: int) -> Prepared:
        """Decode a photo and its face crop, and cut them as training does."""
        keep_freed_memory()
        cv2.setNumThreads(1)  # photos are prepared side by side already
        pool, shape = self._preparation.pool, self._preparation.shape
        record = pool.photos[element]
        picture = _decoded(record)
        whole = picture or _nothing()
        pixels, mask = target_and_mask(whole, shape.image_size, shape.stride)
        face, cut = picture, crop_reference
        if pool.crops is not None:
            face, cut = _decoded(pool.crops[element]), stored_reference
        return {
            "position": np.array(element),
            "target": pixels,
            "face_mask": mask,
            "tokens": self._preparation.tokenizer([record.caption])[0],
            "crop": cut(face or _nothing(), shape.reference_size),
            TARGET_DECODES: np.array(picture is not None),
            CROP_DECODES: np.array(face is not None),
        }


def _decoded(record: PhotoRecord) -> Picture | None:
    try:
        return decode(record)
    except UndecodableError:
        return None


def _nothing() -> Picture:
    """Stands for a picture that does not decode."""
    return Picture(np.zeros((8, 8, 3), np.uint8), np.array([0, 0, 8, 8], np.float32), None)


def prepared(
    preparation: Preparation, positions: Sequence[int], batch: int, options: LoaderOptions
) -> Generator[Prepared, None, None]:
    """Photos at some positions, in that order; the last batch may be smaller.

    The workers stop when the generator is closed.
    """
    photos = grain.MapDataset.source(positions).map(Prepare(preparation))
    batches = whole_batches(photos, batch, options)
    try:
        yield from batches
    finally:
        batches.close()
