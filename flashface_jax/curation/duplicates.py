"""Near-duplicates: the same photo stored, scaled or cropped again."""

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from jaxtyping import Float, Int, UInt8, UInt64

HASHED_SIDE = 32
HASH_SIDE = 8
# Of 64 bits; storing again at another size or quality turns over about 0 to 4.
HASH_BITS = 6
# With alike pictures: other people before the same wall are no duplicates.
SAME_FACE = 0.8
# Whatever the picture: only one photo, cropped or framed otherwise, gives faces as alike as that.
# Two photos of a person mostly have cosines of 0.4 to 0.7.
SAME_PHOTO = 0.97


def perceptual_hash(image: UInt8[np.ndarray, "H W 3"]) -> int:
    """64 bits that photos keep when they are scaled or stored again.

    The signs of the 8x8 lowest frequencies of the photo in 32x32 greys, about their median.

    Source: Zauner, Implementation and benchmarking of perceptual image hash functions, 2010.
    """
    gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(gray, (HASHED_SIDE, HASHED_SIDE), interpolation=cv2.INTER_AREA)
    low = cv2.dct(small.astype(np.float32))[:HASH_SIDE, :HASH_SIDE]
    bits = (low > np.median(low)).ravel()
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def near_duplicates(
    hashes: UInt64[np.ndarray, " photos"],
    embeddings: Float[np.ndarray, "photos dims"],
    ranks: Sequence[Any],
) -> Int[np.ndarray, " photos"]:
    """For each photo the one that stands for it: itself, or the better copy that it repeats.

    Photos are taken best first, and each is compared with those that are kept, so that a row of
    photos, each a little different from the one before, is not one photo.

    Args:
        hashes: of the photos, as `perceptual_hash` makes them.
        embeddings: unit vectors of each photo's largest face.
        ranks: what the photos are sorted by, the best first; no two may be equal.
    """
    order = np.array(sorted(range(len(hashes)), key=lambda i: ranks[i]), int)
    hashes, embeddings = hashes[order], embeddings[order]
    stands_for, kept = np.arange(len(order)), np.ones(len(order), bool)
    for i in range(len(order)):
        alike = embeddings[:i] @ embeddings[i]
        near = np.bitwise_count(hashes[:i] ^ hashes[i]) <= HASH_BITS
        same = kept[:i] & ((near & (alike >= SAME_FACE)) | (alike >= SAME_PHOTO))
        if same.any():
            kept[i] = False
            stands_for[order[i]] = order[same.argmax()]
    return stands_for
