"""Requests for images of held-out people, and the sheets that show the results."""

from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from PIL import Image

from flashface_jax.data.photos import IdentityPhotos
from flashface_jax.data.pipeline import SampleShape, reference_crop, target_and_mask
from flashface_jax.generation import Request
from flashface_jax.pictures import contact_sheet
from flashface_jax.tokenizer import Tokenizer


@dataclass(frozen=True)
class HeldOut:
    """One target and some references of each of several people (paper, §4.1).

    Attributes:
        request: asks for the targets' captions, at the targets' face positions.
        targets: the real photos, (people, S, S, 3).
        captions: of the targets.
    """

    request: Request
    targets: np.ndarray
    captions: list[str]


def held_out_requests(
    photos: IdentityPhotos,
    people: range,
    tokenizer: Tokenizer,
    shape: SampleShape,
    seed: int,
) -> HeldOut:
    """Ask for each person's first photo, with the following ones as references."""
    targets, masks, references, captions = [], [], [], []
    for person in people:
        target, *others = photos.photos_of(person)
        image, mask = target_and_mask(photos, target, shape)
        targets.append(image)
        masks.append(mask)
        captions.append(photos.captions[target])
        chosen = others[: shape.max_references]
        references.append(np.stack([reference_crop(photos, photo, shape) for photo in chosen]))
    request = Request(
        tokens=jnp.asarray(tokenizer(captions)),
        negative_tokens=jnp.asarray(tokenizer([""])),
        references=jnp.asarray(np.stack(references)),
        reference_weight=jnp.ones((len(people), len(references[0]))),
        person_share=jnp.ones((len(people), 1)),
        face_mask=jnp.asarray(np.stack(masks)),
        seeds=jnp.arange(len(people), dtype=jnp.uint32) + seed,
    )
    return HeldOut(request, np.stack(targets), captions)


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
