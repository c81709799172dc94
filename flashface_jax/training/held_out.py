"""Requests for images of held-out people, and the sheets that show the results."""

from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float32
from PIL import Image

from flashface_jax.data.dataset import Photos
from flashface_jax.data.samples import SampleShape
from flashface_jax.data.transforms import crop_reference, decode, target_and_mask
from flashface_jax.faces.align import largest_square
from flashface_jax.generation import Request
from flashface_jax.pictures import contact_sheet
from flashface_jax.tokenizer import Tokenizer


@dataclass(frozen=True)
class HeldOut:
    """One target and some references of each of several people (paper, §4.1).

    Attributes:
        request: asks for the targets' captions, at the targets' face positions.
        targets: the real photos, (people, S, S, 3).
        face_boxes: of the targets, x1, y1, x2, y2 in their pixels.
        captions: of the targets.
    """

    request: Request
    targets: np.ndarray
    face_boxes: Float32[np.ndarray, "people 4"]
    captions: list[str]


def held_out_requests(
    photos: Photos,
    people: range,
    tokenizer: Tokenizer,
    shape: SampleShape,
    references: int,
    seed: int,
) -> HeldOut:
    """Ask for each person's first photo, with the following ones as references.

    A person with fewer references repeats them.
    """
    targets, masks, boxes, crops, captions = [], [], [], [], []
    for person in people:
        first, *others = photos.clusters.photos_of(person)
        picture = decode(photos[first])
        target, mask = target_and_mask(picture, shape.image_size, shape.stride)
        height, width, _ = picture.pixels.shape
        box = largest_square(width, height, picture.face_box).fractions(picture.face_box)
        targets.append(target)
        masks.append(mask.astype(np.float32))
        boxes.append((box * shape.image_size).astype(np.float32))
        captions.append(photos[first].caption)
        chosen = np.resize(others, references).tolist()
        crops.append(
            np.stack([crop_reference(decode(photos[i]), shape.reference_size) for i in chosen])
        )
    request = Request(
        tokens=jnp.asarray(tokenizer(captions)),
        negative_tokens=jnp.asarray(tokenizer([""])),
        references=jnp.asarray(np.stack(crops)),
        reference_weight=jnp.ones((len(people), references)),
        person_share=jnp.ones((len(people), 1)),
        face_mask=jnp.asarray(np.stack(masks)),
        seeds=jnp.arange(len(people), dtype=jnp.uint32) + seed,
    )
    return HeldOut(request, np.stack(targets), np.stack(boxes), captions)


def held_out_sheet(held_out: HeldOut, made: dict[str, np.ndarray], cell: int) -> Image.Image:
    """One row a person: references, real target, and the images made, titled.

    `made` maps a title to the images of the first people; as many rows are drawn.
    """
    people = min(len(images) for images in made.values())
    references = np.asarray(held_out.request.references)[:people]
    rows = [
        [*references[i], held_out.targets[i], *(images[i] for images in made.values())]
        for i in range(people)
    ]
    titles = ["reference"] * references.shape[1] + ["real target", *made]
    return contact_sheet(
        rows, cell=cell, column_titles=titles, row_titles=held_out.captions[:people]
    )
