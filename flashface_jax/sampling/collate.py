"""The requests of a batch as arrays: padded to the same shapes, and checked to go together."""

from collections.abc import Sequence
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, UInt8

from flashface_jax.sampling.program import InpaintingBatch
from flashface_jax.sampling.requests import InpaintingImage, Person

PLACES = 4
"""References are padded with masked places to a multiple of this, so that a person with three
photos after one with four compiles nothing."""


@dataclass(frozen=True)
class PeopleBatch:
    """People of one image for all, or of each image, padded to the same number of places."""

    references: UInt8[np.ndarray, "sets refs R R 3"]
    weight: Float[np.ndarray, "sets refs"]
    share: Float[np.ndarray, "mixes people"]


def collate_people(mixes: Sequence[tuple[Person, ...]], size: int) -> PeopleBatch:
    """Pad people to the most of any image, and references to a multiple of PLACES."""
    most_people = max(map(len, mixes))
    most = max(len(person.faces) for people in mixes for person in people)
    places = -(-most // PLACES) * PLACES
    references = np.zeros((len(mixes), most_people, places, size, size, 3), np.uint8)
    weight = np.zeros((len(mixes), most_people, places), np.float32)
    share = np.zeros((len(mixes), most_people), np.float32)
    for i, people in enumerate(mixes):
        total = sum(person.share for person in people)
        for j, person in enumerate(people):
            count = len(person.faces)
            if person.faces.shape[1:] != (size, size, 3):
                raise ValueError(
                    f"Reference faces are {person.faces.shape[1]}x{person.faces.shape[2]} pixels; "
                    f"this model takes {size}x{size}: crop them with flashface_jax.faces."
                )
            references[i, j, :count] = person.faces
            weight[i, j, :count] = person.counts
            share[i, j] = person.share / total
    sets = len(mixes) * most_people
    return PeopleBatch(
        references.reshape(sets, *references.shape[2:]), weight.reshape(sets, places), share
    )


def collate_inpainting(
    inpaintings: Sequence[InpaintingImage | None], size: tuple[int, int]
) -> InpaintingBatch | None:
    """Stack the images to paint into; all images of a batch have one, or none has."""
    given = [inpainting for inpainting in inpaintings if inpainting is not None]
    if not given:
        return None
    if len(given) < len(inpaintings):
        raise ValueError("A batch either paints into images or does not: split it.")
    for inpainting in given:
        height, width = inpainting.image.shape[:2]
        if (height, width) != size:
            raise ValueError(
                f"An image to paint into is {height}x{width} pixels; it must be "
                f"{size[0]}x{size[1]}."
            )
    return InpaintingBatch(
        images=jnp.asarray(np.stack([inpainting.image for inpainting in given])),
        repaint_pixels=jnp.asarray(np.stack([inpainting.repaint_pixels for inpainting in given])),
        repaint=jnp.asarray(np.stack([inpainting.repaint for inpainting in given])),
    )
