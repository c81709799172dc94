"""FlashFacePipeline: people and prompts to images, from any weights directory."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Float, UInt8

from flashface_jax.common.devices import Precision, images_mesh, resolve_precision
from flashface_jax.common.shape_checks import checked
from flashface_jax.diffusion.sampling import Plan, ReferenceTrack
from flashface_jax.diffusion.settings import SamplingConfig
from flashface_jax.faces.position import position_mask
from flashface_jax.models.attention.backends import attention_named
from flashface_jax.models.blocks import Compute
from flashface_jax.models.network import Params
from flashface_jax.sampling.collate import collate_inpainting, collate_people
from flashface_jax.sampling.program import (
    Generate,
    RequestBatch,
    Sampler,
    make_generate,
    make_stepwise,
    make_track,
    request_specs,
)
from flashface_jax.sampling.reference_cache import ReferenceCache
from flashface_jax.sampling.requests import ANYWHERE, ImageRequest, Person
from flashface_jax.weights.directory import sha256_of
from flashface_jax.weights.run_directory import open_weights
from flashface_jax.weights.system import SystemConfig, build_system, sampling_plan
from flashface_jax.weights.tokenizer import Tokenizer

PARTS = ("flashface", "autoencoder", "text_tower")


@dataclass(frozen=True, eq=False)
class SamplingResult:
    """Images, and everything that makes them again from the same weights.

    `pipeline.make(made.requests, sampling=made.sampling, size=made.size)` repeats them where
    `pipeline.weights_sha256` and `pipeline.precision` are what they were.

    Attributes:
        images: pixels, one image a request.
        requests: what was asked for: prompts, faces, seeds, face boxes, images painted into.
        sampling: every setting.
        size: height and width in pixels.
    """

    images: UInt8[np.ndarray, "requests H W 3"]
    requests: tuple[ImageRequest, ...]
    sampling: SamplingConfig
    size: tuple[int, int]


def cast_params(params: Params, dtype: jnp.dtype) -> Params:
    """Parameters in a dtype; vectors (biases and norms) stay float32, as they are few."""
    return jax.tree.map(lambda leaf: leaf.astype(dtype) if leaf.ndim > 1 else leaf, params)


@dataclass(frozen=True)
class FlashFacePipeline:
    """Networks, parameters and tokenizer, ready to make images.

    Attributes:
        config: what the networks look like and how they like to be sampled.
        params: parameters of the parts that sampling needs.
        tokenizer: prompt -> tokens.
        precision: of activations and of the parameters held.
        mesh: devices that share the images of a batch.
        generate: makes images; one compiled program, unless it reports how far it is.
        track: the compiled program that computes reference features ahead.
    """

    config: SystemConfig
    params: dict[str, Params]
    tokenizer: Tokenizer
    precision: Literal["float32", "bfloat16"]
    mesh: Mesh
    generate: Generate = field(repr=False)
    track: Callable[..., ReferenceTrack] = field(repr=False)

    @classmethod
    def from_directory(
        cls,
        path: Path,
        *,
        precision: Precision = "auto",
        devices: Sequence[jax.Device] | None = None,
        attention: str = "auto",
        tile: int = 0,
        on_step: Callable[[], None] | None = None,
    ) -> "FlashFacePipeline":
        """Open a converted directory or a training run.

        Args:
            path: the directory.
            precision: "float32", or "bfloat16" for half the memory and more speed on
                accelerators, which "auto" takes there.
            devices: devices that share the images of a batch; all of this host if None.
            attention: backend, as `models.attention_backends.attention_named` takes it.
            tile: decode images in tiles of so many latent positions, which takes less memory and
                more time, and changes nothing; 32 is a good size, 0 decodes whole images.
            on_step: called after every evaluation of a batch (for a progress bar).

        Raises:
            WeightsError: if the directory is neither, or lacks a part.
            ValueError: if its parts do not fit each other, or cannot be built.
        """
        weights = open_weights(path)
        weights.config.check_consistency()
        chosen = resolve_precision(precision)
        dtype = jnp.dtype(chosen)
        compute = Compute(dtype, attention_named(attention))
        try:
            system = build_system(weights.config, compute)
        except (ValueError, TypeError, ArithmeticError) as error:
            raise ValueError(
                f"{path}/config.json describes networks that cannot be built ({error})."
            ) from error
        tokenizer = weights.tokenizer()
        if tokenizer.vocab_size > weights.config.text_tower.vocabulary:
            raise ValueError(
                f"The tokenizer of {path} has {tokenizer.vocab_size} tokens, its text tower only "
                f"{weights.config.text_tower.vocabulary}."
            )
        mesh = images_mesh(devices)
        everywhere = NamedSharding(mesh, PartitionSpec())
        params = {
            name: jax.device_put(
                cast_params(weights.params(name, system.parts()[name]), dtype), everywhere
            )
            for name in PARTS
        }
        sampler = Sampler(system, weights.config.schedule.prediction, tile)
        generate = (
            make_generate(sampler, mesh)
            if on_step is None
            else make_stepwise(sampler, mesh, on_step)
        )
        return cls(weights.config, params, tokenizer, chosen, mesh, generate, make_track(system))

    @cached_property
    def weights_sha256(self) -> str:
        """Hash of the parameters as they are held."""
        return sha256_of(self.params)

    @checked(lambda pipeline: {"R": pipeline.config.reference_size})
    def __call__(
        self,
        prompts: Sequence[str],
        references: UInt8[np.ndarray, "refs R R 3"],
        *,
        seeds: Sequence[int],
        negative_prompt: str = "",
        face_box: Sequence[float] = ANYWHERE,
        sampling: SamplingConfig | None = None,
        size: tuple[int, int] | None = None,
        cache: ReferenceCache | None = None,
    ) -> UInt8[np.ndarray, "batch H W 3"]:
        """Make one image for each prompt and seed, all of the person in `references`.

        Args:
            prompts: what each image shows.
            references: upright face crops at the model's reference size.
            seeds: one for each prompt.
            negative_prompt: what to avoid.
            face_box: x1, y1, x2, y2 as fractions of the image; zeros for anywhere.
            sampling: steps, strengths and suffixes; what the weights like if None.
            size: height and width in pixels; what the weights were trained at if None.
            cache: keeps the person's features for the next call.

        Raises:
            ValueError: if prompts and seeds differ in number, references have another size than
                the model's, or as `make` does.
            TypeError: if references are no pixels of uint8.
        """
        if len(prompts) != len(seeds):
            raise ValueError(f"{len(prompts)} prompts have {len(seeds)} seeds: give one for each.")
        people = (Person(references),)
        requests = [
            ImageRequest(prompt, people, seed, negative_prompt, tuple(face_box))
            for prompt, seed in zip(prompts, seeds, strict=True)
        ]
        return self.make(requests, sampling=sampling, size=size, cache=cache).images

    def make(
        self,
        requests: Sequence[ImageRequest],
        *,
        sampling: SamplingConfig | None = None,
        size: tuple[int, int] | None = None,
        cache: ReferenceCache | None = None,
    ) -> SamplingResult:
        """Make a batch of images, spread over the pipeline's devices.

        Args:
            requests: the images, with the same negative prompt; people may differ from one to the
                next.
            sampling: steps, strengths and suffixes; what the weights like if None.
            size: height and width in pixels, multiples of 8 (the autoencoder's stride); what the
                weights were trained at if None.
            cache: where the features of a person that all requests share are kept between calls.

        Raises:
            ValueError: if there is no request, or they do not fit each other or the model.
        """
        if not requests:
            raise ValueError("There is no image to make: give at least one request.")
        sampling = sampling or self.config.sampling
        plan = sampling_plan(sampling, self.config.schedule)
        devices = self.mesh.size
        padded = [*requests, *[requests[-1]] * (-len(requests) % devices)]
        size = size or (self.config.image_size,) * 2
        batch = self.collate(padded, sampling, size)
        if cache is not None:
            batch = self._with_features(batch, requests[0].people, plan, cache)
        leaves, structure = jax.tree.flatten(batch)
        places = [NamedSharding(self.mesh, spec) for spec in request_specs(batch)]
        placed = jax.tree.unflatten(structure, jax.device_put(leaves, places))
        images = np.asarray(self.generate(self.params, placed, plan))[: len(requests)]
        return SamplingResult(images, tuple(requests), sampling, size)

    def collate(
        self, requests: Sequence[ImageRequest], sampling: SamplingConfig, size: tuple[int, int]
    ) -> RequestBatch:
        """Put requests into arrays, as the compiled program takes them.

        Raises:
            ValueError: if the size is impossible, negative prompts differ, or faces have another
                size than the model's.
        """
        stride = self.config.autoencoder.stride
        if min(size) < stride or any(side % stride for side in size):
            raise ValueError(
                f"image size {size[0]}x{size[1]} is no multiple of {stride}: choose sides that are."
            )
        negatives = {request.negative_prompt for request in requests}
        if len(negatives) > 1:
            raise ValueError("The images of a batch must have one negative prompt.")
        shared = all(request.people == requests[0].people for request in requests)
        people = collate_people(
            [request.people for request in requests[: 1 if shared else None]],
            self.config.reference_size,
        )
        prompts = [sampling.full_prompt(request.prompt) for request in requests]
        return RequestBatch(
            tokens=jnp.asarray(self.tokenizer(prompts)),
            negative_tokens=jnp.asarray(self.tokenizer([sampling.full_negative(*negatives)])),
            references=jnp.asarray(people.references),
            reference_weight=jnp.asarray(people.weight),
            person_share=jnp.asarray(people.share),
            face_mask=jnp.asarray(
                np.stack([self._face_mask(request, size) for request in requests])
            ),
            seeds=jnp.asarray([request.seed for request in requests], jnp.uint32),
            inpainting=collate_inpainting([request.inpainting for request in requests], size),
        )

    def _face_mask(
        self, request: ImageRequest, size: tuple[int, int]
    ) -> Float[np.ndarray, "h w 1"]:
        if request.inpainting is not None:
            return request.inpainting.repaint
        return position_mask(request.face_box, size, self.config.autoencoder.stride)

    def _with_features(
        self,
        batch: RequestBatch,
        people: tuple[Person, ...],
        plan: Plan,
        cache: ReferenceCache,
    ) -> RequestBatch:
        """Look up, or compute and keep, the features of the people that all images share.

        Raises:
            ValueError: if images are of different people, or the cache's features are not of this
                run.
        """
        if len(batch.person_share) > 1:
            raise ValueError("Features are kept only where all images are of the same people.")
        timestep = plan.evaluations.timestep[: int(plan.count)]
        key = (
            self.weights_sha256,
            *(person.faces_sha256 for person in people),
            np.asarray(batch.negative_tokens).tobytes(),
            np.asarray(timestep).tobytes(),
        )
        track = cache.get(
            key,
            lambda: self.track(self.params, batch.references, batch.negative_tokens, timestep),
        )
        track.require_made_for(plan)
        return replace(batch, track=track)
