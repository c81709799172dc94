"""Training samples: an identity's number in, one target and 1..N references out (paper, §4)."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import grain
import numpy as np
from absl import logging
from jaxtyping import UInt8

from flashface_jax.data.allocation import keep_freed_memory
from flashface_jax.data.dataset import PhotoRecord, Photos
from flashface_jax.data.draws import Draw, DrawOptions, draw_sample
from flashface_jax.data.transforms import (
    Picture,
    UndecodableError,
    crop_reference,
    decode,
    mirrored,
    stored_reference,
    target_and_mask,
    vary_colours,
)
from flashface_jax.tokenizer import Tokenizer

Sample = dict[str, np.ndarray]
REPLACED = "replaced"
"""Key of the number of photos that did not decode, and were replaced by others."""


@dataclass(frozen=True)
class SampleShape:
    """Sizes that a model wants.

    Attributes:
        image_size: side of the target in pixels.
        reference_size: side of a reference face crop in pixels.
        stride: pixels of a latent position, each way.
    """

    image_size: int
    reference_size: int
    stride: int


@dataclass(frozen=True)
class PhotoPool:
    """What samples are drawn from.

    Attributes:
        photos: of one split.
        crops: face crops at the same positions, or None to cut them from the photos.
    """

    photos: Photos
    crops: Photos | None

    @property
    def usable(self) -> np.ndarray:
        """Identities with two photos or more: one for the target, one for a reference."""
        return np.flatnonzero(self.photos.clusters.sizes >= 2)


@dataclass(frozen=True)
class DrawnSample:
    """A sample as pictures, and which photos they are of.

    Attributes:
        identity: number of the person.
        draw: what was drawn, and left out.
        target: the photo of the target.
        references: the photos or stored face crops of the references.
        pixels: the target at the model's size.
        mask: of its face, of 0 and 1 on the latent's grid.
        crops: the references at the model's size.
        failures: photos that did not decode and were passed over.
    """

    identity: int
    draw: Draw
    target: PhotoRecord
    references: tuple[PhotoRecord, ...]
    pixels: UInt8[np.ndarray, "S S 3"]
    mask: UInt8[np.ndarray, "h w 1"]
    crops: tuple[UInt8[np.ndarray, "R R 3"], ...]
    failures: int


class DrawSample(grain.transforms.RandomMap):
    """Draws the sample of a usable identity. Nothing but its random numbers decides what is drawn.

    A photo that does not decode is passed over for the identity's next one in the drawn order; an
    identity without a target and a reference (where they are not dropped) that decode is passed
    over for the next identity.
    Both are counted, and each photo is named once by every process that meets it.
    """

    def __init__(self, pool: PhotoPool, shape: SampleShape, options: DrawOptions):
        self._photos, self._usable = pool.photos, pool.usable
        self._references = pool.photos if pool.crops is None else pool.crops
        self._cut = crop_reference if pool.crops is None else stored_reference
        self._shape, self._options = shape, options
        self._named: set[str] = set()

    def random_map(self, element: int, rng: np.random.Generator) -> DrawnSample:
        """Draw one sample.

        Raises:
            ValueError: no identity has two photos that decode.
        """
        keep_freed_memory()
        cv2.setNumThreads(1)  # samples are made side by side already
        failures: list[str] = []
        for further in range(len(self._usable)):
            identity = int(self._usable[(element + further) % len(self._usable)])
            photos = self._photos.clusters.photos_of(identity)
            draw = draw_sample(rng, len(photos), self._options)
            order = iter([photos[i] for i in draw.order])
            target = next(_decoded(self._photos, order, failures), None)
            crops = () if draw.drop_references else tuple(self._crops(order, draw, failures))
            if target is not None and (crops or draw.drop_references):
                self._name(failures)
                return self._shown(identity, draw, target, crops, len(failures))
        raise ValueError("No identity has two photos that decode: build the dataset again.")

    def _shown(
        self,
        identity: int,
        draw: Draw,
        target: tuple[Picture, PhotoRecord],
        crops: tuple[tuple[np.ndarray, PhotoRecord], ...],
        failures: int,
    ) -> DrawnSample:
        picture, record = target
        shown = mirrored(picture) if draw.flips[0] else picture
        pixels, mask = target_and_mask(shown, self._shape.image_size, self._shape.stride)
        return DrawnSample(
            identity=identity,
            draw=draw,
            target=record,
            references=tuple(record for _, record in crops),
            pixels=pixels,
            mask=mask,
            crops=tuple(crop for crop, _ in crops),
            failures=failures,
        )

    def _crops(
        self, order: Iterator[int], draw: Draw, failures: list[str]
    ) -> Iterator[tuple[np.ndarray, PhotoRecord]]:
        """As many face crops as were drawn, of the photos that come next in the order."""
        pictures = _decoded(self._references, order, failures)
        varied = zip(draw.flips[1:], draw.colours, strict=True)
        for flip, colours in itertools.islice(varied, draw.references):
            decoded = next(pictures, None)
            if decoded is None:
                break
            picture = mirrored(decoded[0]) if flip else decoded[0]
            crop = vary_colours(self._cut(picture, self._shape.reference_size), colours)
            yield crop, decoded[1]

    def _name(self, failures: list[str]) -> None:
        """Say once of every photo that it does not decode."""
        for failure in failures:
            if failure not in self._named:
                self._named.add(failure)
                logging.warning("%s; another photo of this person takes its place", failure)


class MakeSample(grain.transforms.RandomMap):
    """Makes the sample of a usable identity: what `DrawSample` draws, as arrays of fixed shapes."""

    def __init__(
        self, pool: PhotoPool, tokenizer: Tokenizer, shape: SampleShape, options: DrawOptions
    ):
        self._drawing = DrawSample(pool, shape, options)
        self._tokenizer, self._shape = tokenizer, shape
        self._most_references = options.max_references
        self._empty_tokens = tokenizer([""])[0]

    def random_map(self, element: int, rng: np.random.Generator) -> Sample:
        """Make one sample.

        Raises:
            ValueError: no identity has two photos that decode.
        """
        drawn = self._drawing.random_map(element, rng)
        most, side = self._most_references, self._shape.reference_size
        references = np.zeros((most, side, side, 3), np.uint8)
        for place, crop in enumerate(drawn.crops):
            references[place] = crop
        caption = "" if drawn.draw.drop_text else drawn.target.caption
        return {
            "target": drawn.pixels,
            "face_mask": np.zeros_like(drawn.mask) if drawn.draw.drop_face_mask else drawn.mask,
            "tokens": self._tokenizer([caption])[0] if caption else self._empty_tokens,
            "references": references,
            "reference_valid": np.arange(most) < len(drawn.crops),
            REPLACED: np.array(drawn.failures, np.int32),
        }


def _decoded(
    source: Photos, order: Iterator[int], failures: list[str]
) -> Iterator[tuple[Picture, PhotoRecord]]:
    """The photos of an order that decode, each decoded when it is asked for."""
    for position in order:
        record = source[position]
        try:
            yield decode(record), record
        except UndecodableError as error:
            failures.append(str(error))
