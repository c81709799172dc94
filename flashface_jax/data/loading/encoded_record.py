"""What frozen networks made of one photo, as the bytes of a record.

A record is a byte that says which of two it is, and then the arrays of the layout one behind the
other (little-endian, C order), or why there are none: the photo does not decode.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import ml_dtypes
import numpy as np

from flashface_jax.data.loading.transforms import UndecodableError

Storage = Literal["float16", "bfloat16", "float32"]
Arrays = dict[str, np.ndarray]
ENCODED, DAMAGED = b"\x01", b"\x00"

_DTYPES = {
    "float16": np.dtype("<f2"),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "float32": np.dtype("<f4"),
    "uint8": np.dtype(np.uint8),
}


@dataclass(frozen=True)
class Sizes:
    """Shapes of what is stored.

    Attributes:
        image_size: side of a target in pixels.
        reference_size: side of a reference face crop in pixels.
        stride: pixels of a latent position, each way.
        latent_channels: channels of a latent.
        words: tokens of a prompt.
        context_channels: width of the text context.
    """

    image_size: int
    reference_size: int
    stride: int
    latent_channels: int
    words: int
    context_channels: int

    def latent(self, size: int) -> tuple[int, int, int]:
        """Shape of the latent of a square picture of that many pixels each way."""
        return size // self.stride, size // self.stride, self.latent_channels


@dataclass(frozen=True)
class Layout:
    """Arrays of a record, in order.

    Attributes:
        fields: name -> shape and dtype.
    """

    fields: Mapping[str, tuple[tuple[int, ...], np.dtype]]

    @property
    def size(self) -> int:
        """Bytes of a record."""
        return len(ENCODED) + sum(
            math.prod(s) * dtype.itemsize for s, dtype in self.fields.values()
        )

    def pack(self, arrays: Mapping[str, np.ndarray]) -> bytes:
        """The record of arrays, which are cast to the layout's dtypes."""
        parts = [arrays[name].astype(dtype).tobytes() for name, (_, dtype) in self.fields.items()]
        return ENCODED + b"".join(parts)

    def unpack(self, record: bytes) -> Arrays:
        """The arrays of a record.

        Raises:
            UndecodableError: the photo did not decode.
            ValueError: the record has another length.
        """
        if record[:1] == DAMAGED:
            raise UndecodableError(record[1:].decode())
        if record[:1] != ENCODED or len(record) != self.size:
            raise ValueError(f"A record has {len(record)} bytes in place of {self.size}.")
        arrays, place = {}, len(ENCODED)
        for name, (shape, dtype) in self.fields.items():
            values = np.frombuffer(record, dtype, math.prod(shape), place)
            arrays[name] = values.reshape(shape)
            place += values.nbytes
        return arrays


def damaged_record(why: str) -> bytes:
    """The record of a photo that does not decode."""
    return DAMAGED + why.encode()


def target_layout(sizes: Sizes, storage: Storage, *, without_face: bool) -> Layout:
    """The record of a photo as a target.

    Its latent's posterior and its caption's context; with `without_face` also the posterior mean of
    the image with its face blotted out, which inpainting models see.
    """
    latent, dtype = sizes.latent(sizes.image_size), _DTYPES[storage]
    fields = {
        "target_mean": (latent, dtype),
        "target_log_variance": (latent, dtype),
        "face_mask": ((*latent[:2], 1), _DTYPES["uint8"]),
        "context": ((sizes.words, sizes.context_channels), dtype),
    }
    return Layout(fields | ({"without_face": (latent, dtype)} if without_face else {}))


def reference_layout(sizes: Sizes, storage: Storage) -> Layout:
    """The record of a photo as a reference: the posterior mean of its face crop's latent."""
    return Layout({"reference": (sizes.latent(sizes.reference_size), _DTYPES[storage])})


def context_layout(sizes: Sizes, storage: Storage) -> Layout:
    """The record of a prompt."""
    return Layout({"context": ((sizes.words, sizes.context_channels), _DTYPES[storage])})
