"""Training samples of latents and contexts that were precomputed; see `data/loading/samples.py`."""

from collections.abc import Iterator
from itertools import islice

import grain
import numpy as np

from flashface_jax.data.dataset import TRAIN
from flashface_jax.data.loading.draws import Draw, DrawOptions
from flashface_jax.data.loading.precomputed import Precomputed
from flashface_jax.data.loading.samples import (
    REPLACED,
    TARGET_FACE,
    Complaints,
    PhotoPool,
    Sample,
    choose,
    decodable,
)


class MakeEncodedSample(grain.transforms.RandomMap):
    """Makes the sample of a usable identity, of the photos that `MakeSample` would take.

    Args:
        pool: the training photos that the latents are of.
        precomputed: their latents and contexts.
        options: what samples are drawn with; pictures are not varied.
        without_face: whether the model sees the latent of the image without its face.
    """

    def __init__(
        self,
        pool: PhotoPool,
        precomputed: Precomputed,
        options: DrawOptions,
        *,
        without_face: bool,
    ):
        self._pool, self._options = pool, options
        self._targets = precomputed.targets(TRAIN)
        self._references = precomputed.references(TRAIN)
        self._empty_context = precomputed.empty_context
        self._shape, self._dtype = precomputed.origin.references.fields["reference"]
        self._left_out = () if without_face else ("without_face",)
        self._complain = Complaints()

    def random_map(self, element: int, rng: np.random.Generator) -> Sample:
        """Make one sample.

        Raises:
            ValueError: no identity has two photos that decode.
        """
        read = self._targets.__getitem__
        chosen = choose(self._pool, element, rng, self._options, read, self._latents)
        self._complain(chosen.failures)
        target = {k: v for k, v in chosen.target.items() if k not in self._left_out}
        target[TARGET_FACE] = target["face_mask"]
        if chosen.draw.drop_face_mask:
            target["face_mask"] = np.zeros_like(target["face_mask"])
        if chosen.draw.drop_text:
            target["context"] = self._empty_context
        most = self._options.max_references
        references = np.zeros((most, *self._shape), self._dtype)
        for place, latent in enumerate(chosen.references):
            references[place] = latent
        return {
            **target,
            "references": references,
            "reference_valid": np.arange(most) < len(chosen.references),
            REPLACED: np.array(len(chosen.failures), np.int32),
        }

    def _latents(
        self, order: Iterator[int], draw: Draw, failures: list[str]
    ) -> Iterator[np.ndarray]:
        """As many references as were drawn, of the photos that come next in the order."""
        read = self._references.__getitem__
        found = islice(decodable(read, order, failures), draw.references)
        return (arrays["reference"] for arrays in found)
