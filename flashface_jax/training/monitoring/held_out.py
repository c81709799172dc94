"""Requests for images of held-out people, and the sheets that show the results."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from absl import logging
from jaxtyping import Float32
from PIL import Image

from flashface_jax.common.contact_sheet import contact_sheet
from flashface_jax.data.dataset import PhotoRecord, Photos
from flashface_jax.data.loading.samples import SampleShape
from flashface_jax.data.loading.transforms import (
    Picture,
    UndecodableError,
    crop_reference,
    decode,
    target_and_mask,
)
from flashface_jax.faces.align import largest_square
from flashface_jax.sampling.program import RequestBatch
from flashface_jax.weights.tokenizer import Tokenizer


@dataclass(frozen=True)
class HeldOutBatch:
    """One target and some references of each of several people (paper, §4.1).

    Attributes:
        request: asks for the targets' captions, at the targets' face positions.
        targets: the real photos, (people, S, S, 3).
        face_boxes: of the targets, x1, y1, x2, y2 in their pixels.
        captions: of the targets.
    """

    request: RequestBatch
    targets: np.ndarray
    face_boxes: Float32[np.ndarray, "people 4"]
    captions: list[str]


def held_out_requests(
    photos: Photos,
    most_people: int,
    tokenizer: Tokenizer,
    shape: SampleShape,
    references: int,
    seed: int,
) -> HeldOutBatch:
    """Ask for each person's first photo, with the following ones as references.

    A person with fewer references repeats them. Photos that do not decode are passed over, and
    people of whom fewer than two do.

    Args:
        photos: of people who were not trained on.
        most_people: people to ask for, as far as there are so many.
        tokenizer: of the captions.
        shape: sizes that the model wants.
        references: how many references of each.
        seed: of the first person's noise; the next numbers are the others'.

    Raises:
        ValueError: there is nobody of whom two photos decode.
    """
    targets, masks, boxes, crops, captions = [], [], [], [], []
    for (picture, record), *others in itertools.islice(
        _people(photos, 1 + references), most_people
    ):
        target, mask = target_and_mask(picture, shape.image_size, shape.stride)
        height, width, _ = picture.pixels.shape
        box = largest_square(width, height, picture.face_box).fractions(picture.face_box)
        targets.append(target)
        masks.append(mask.astype(np.float32))
        boxes.append((box * shape.image_size).astype(np.float32))
        captions.append(record.caption)
        shown = itertools.islice(itertools.cycle(others), references)
        crops.append(np.stack([crop_reference(one, shape.reference_size) for one, _ in shown]))
    if not targets:
        raise ValueError(
            "No held-out person has two photos that decode: build the dataset again, or set "
            "grid_people to 0."
        )
    request = RequestBatch(
        tokens=jnp.asarray(tokenizer(captions)),
        negative_tokens=jnp.asarray(tokenizer([""])),
        references=jnp.asarray(np.stack(crops)),
        reference_weight=jnp.ones((len(targets), references)),
        person_share=jnp.ones((len(targets), 1)),
        face_mask=jnp.asarray(np.stack(masks)),
        seeds=jnp.arange(len(targets), dtype=jnp.uint32) + seed,
    )
    return HeldOutBatch(request, np.stack(targets), np.stack(boxes), captions)


def _people(photos: Photos, most: int) -> Iterator[Sequence[tuple[Picture, PhotoRecord]]]:
    """Each person's first photos that decode, two or more."""
    for person in range(len(photos.clusters)):
        decoded = _decodable(photos, photos.clusters.photos_of(person))
        first = list(itertools.islice(decoded, most))
        if len(first) > 1:
            yield first


def _decodable(photos: Photos, places: range) -> Iterator[tuple[Picture, PhotoRecord]]:
    for place in places:
        record = photos[place]
        try:
            yield decode(record), record
        except UndecodableError as error:
            logging.warning("%s; another photo of this held-out person takes its place", error)


def held_out_sheet(held_out: HeldOutBatch, made: dict[str, np.ndarray], cell: int) -> Image.Image:
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
