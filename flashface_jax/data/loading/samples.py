"""Training samples: an identity's number in, one target and 1..N references out (paper, §4)."""

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import cv2
import grain
import numpy as np
from absl import logging
from jaxtyping import UInt8

from flashface_jax.data.dataset import PhotoRecord, Photos
from flashface_jax.data.loading.allocation import keep_freed_memory
from flashface_jax.data.loading.draws import Draw, DrawOptions, draw_sample
from flashface_jax.data.loading.transforms import (
    Picture,
    UndecodableError,
    crop_reference,
    decode,
    mirrored,
    stored_reference,
    target_and_mask,
    vary_colours,
)
from flashface_jax.weights.tokenizer import Tokenizer

Sample = dict[str, np.ndarray]
T = TypeVar("T")
R = TypeVar("R")
REPLACED = "replaced"
"""Key of the number of photos that did not decode, and were replaced by others."""
TARGET_FACE = "target_face"
"""Key of the mask of the target's face, whether or not the model is shown it."""


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

    @functools.cached_property
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


@dataclass(frozen=True)
class Chosen(Generic[T, R]):
    """A sample of photos that decode.

    Attributes:
        identity: number of the person.
        draw: what was drawn, and left out.
        target: what was read of the target's photo.
        references: what was read of the references'.
        failures: why each photo that was passed over does not decode.
    """

    identity: int
    draw: Draw
    target: T
    references: tuple[R, ...]
    failures: tuple[str, ...]


def choose(
    pool: PhotoPool,
    element: int,
    rng: np.random.Generator,
    options: DrawOptions,
    read_target: Callable[[int], T],
    read_references: Callable[[Iterator[int], Draw, list[str]], Iterator[R]],
) -> Chosen[T, R]:
    """Draw the sample of a usable identity. Nothing but the random numbers decides what is drawn.

    A photo that does not decode is passed over for the identity's next one in the drawn order; an
    identity without a target and a reference (where they are not dropped) that decode is passed
    over for the next identity.

    Args:
        pool: what is drawn from.
        element: which of its usable identities to begin with.
        rng: of this sample alone.
        options: what to draw with.
        read_target: reads the photo at a position; raises UndecodableError.
        read_references: reads photos of an order, as many as were drawn, and adds to the failures.

    Raises:
        ValueError: no identity has two photos that decode.
    """
    usable, clusters = pool.usable, pool.photos.clusters
    failures: list[str] = []
    for further in range(len(usable)):
        identity = int(usable[(element + further) % len(usable)])
        photos = clusters.photos_of(identity)
        draw = draw_sample(rng, len(photos), options)
        order = iter([photos[i] for i in draw.order])
        target = next(decodable(read_target, order, failures), None)
        references = () if draw.drop_references else tuple(read_references(order, draw, failures))
        if target is not None and (references or draw.drop_references):
            return Chosen(identity, draw, target, references, tuple(failures))
    raise ValueError("No identity has two photos that decode: build the dataset again.")


def decodable(read: Callable[[int], T], order: Iterator[int], failures: list[str]) -> Iterator[T]:
    """What is read of the photos of an order that decode, each when it is asked for."""
    for position in order:
        try:
            yield read(position)
        except UndecodableError as error:
            failures.append(str(error))


class Complaints:
    """Names photos that do not decode, each once by every process that meets it."""

    def __init__(self) -> None:
        self._named: set[str] = set()

    def __call__(self, failures: Sequence[str]) -> None:
        """Say of photos that they do not decode."""
        for failure in failures:
            if failure not in self._named:
                self._named.add(failure)
                logging.warning("%s; another photo of this person takes its place", failure)


class DrawSample(grain.transforms.RandomMap):
    """Draws the sample of a usable identity, as pictures; see `choose`."""

    def __init__(self, pool: PhotoPool, shape: SampleShape, options: DrawOptions):
        self._pool, self._shape, self._options = pool, shape, options
        self._references = pool.photos if pool.crops is None else pool.crops
        self._cut = crop_reference if pool.crops is None else stored_reference
        self._complain = Complaints()

    def random_map(self, element: int, rng: np.random.Generator) -> DrawnSample:
        """Draw one sample.

        Raises:
            ValueError: no identity has two photos that decode.
        """
        keep_freed_memory()
        cv2.setNumThreads(1)  # samples are made side by side already
        read = functools.partial(_read, self._pool.photos)
        chosen = choose(self._pool, element, rng, self._options, read, self._crops)
        self._complain(chosen.failures)
        return self._shown(chosen)

    def _shown(
        self, chosen: Chosen[tuple[Picture, PhotoRecord], tuple[np.ndarray, PhotoRecord]]
    ) -> DrawnSample:
        picture, record = chosen.target
        shown = mirrored(picture) if chosen.draw.flips[0] else picture
        pixels, mask = target_and_mask(shown, self._shape.image_size, self._shape.stride)
        return DrawnSample(
            identity=chosen.identity,
            draw=chosen.draw,
            target=record,
            references=tuple(record for _, record in chosen.references),
            pixels=pixels,
            mask=mask,
            crops=tuple(crop for crop, _ in chosen.references),
            failures=len(chosen.failures),
        )

    def _crops(
        self, order: Iterator[int], draw: Draw, failures: list[str]
    ) -> Iterator[tuple[np.ndarray, PhotoRecord]]:
        """As many face crops as were drawn, of the photos that come next in the order."""
        pictures = decodable(functools.partial(_read, self._references), order, failures)
        varied = zip(draw.flips[1:], draw.colours, strict=True)
        for flip, colours in itertools.islice(varied, draw.references):
            decoded = next(pictures, None)
            if decoded is None:
                break
            picture = mirrored(decoded[0]) if flip else decoded[0]
            crop = vary_colours(self._cut(picture, self._shape.reference_size), colours)
            yield crop, decoded[1]


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
            TARGET_FACE: drawn.mask,
            "tokens": self._tokenizer([caption])[0] if caption else self._empty_tokens,
            "references": references,
            "reference_valid": np.arange(most) < len(drawn.crops),
            REPLACED: np.array(drawn.failures, np.int32),
        }


def _read(source: Photos, position: int) -> tuple[Picture, PhotoRecord]:
    record = source[position]
    return decode(record), record
