"""Images of held-out people in the course of a run."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding
from jaxtyping import UInt8
from PIL import Image

from flashface_jax.data.dataset import VALIDATION, IdClusters
from flashface_jax.sampling.program import RequestBatch, Sampler, make_generate, request_specs
from flashface_jax.training.computation.program import Program
from flashface_jax.training.computation.state import TrainState
from flashface_jax.training.config import TrainConfig
from flashface_jax.training.monitoring.held_out import (
    HeldOutBatch,
    held_out_requests,
    held_out_sheet,
)
from flashface_jax.training.monitoring.held_out_metric import HeldOutMetric, MadeImages
from flashface_jax.training.monitoring.identity_judge import open_identity_judge
from flashface_jax.weights.system import sampling_plan
from flashface_jax.weights.tokenizer import Tokenizer
from flashface_jax.weights.trainable import merge_trainable


@dataclass(frozen=True)
class Preview:
    """Draws some held-out people with the parameters of the moment.

    Attributes:
        asked: the people, and the images asked for.
        generate: makes the images; every process must call it.
        metrics: judge the images.
        cell: side of a cell of the sheet in pixels.
    """

    asked: HeldOutBatch
    generate: Callable[[TrainState], UInt8[np.ndarray, "people H W 3"]]
    metrics: tuple[HeldOutMetric, ...]
    cell: int

    def scores(self, images: UInt8[np.ndarray, "people H W 3"]) -> dict[str, float]:
        """What the metrics say of the images; empty without any."""
        made = MadeImages(
            images=images,
            targets=self.asked.targets,
            references=np.asarray(self.asked.request.references),
            prompts=tuple(self.asked.captions),
            face_boxes=self.asked.face_boxes,
        )
        return {name: value for metric in self.metrics for name, value in metric(made).items()}

    def sheet(self, images: UInt8[np.ndarray, "people H W 3"]) -> Image.Image:
        """A row a person: references, the real photo, and the image made."""
        return held_out_sheet(self.asked, {"generated": images}, self.cell)


def held_out_metrics(config: TrainConfig) -> tuple[HeldOutMetric, ...]:
    """The metrics that a run is configured with.

    Raises:
        ValueError: one cannot be opened.
    """
    metrics = []
    if config.identity_judge:
        metrics.append(open_identity_judge(Path(config.identity_judge)))
    return tuple(metrics)


def make_preview(program: Program, dataset: IdClusters, tokenizer: Tokenizer) -> Preview | None:
    """Return what draws held-out people, or None if there are none or nobody asked."""
    config, shape = program.config, program.config.sample_shape
    if not config.grid_people or VALIDATION not in dataset.splits:
        return None
    asked = held_out_requests(
        dataset.photos(VALIDATION),
        config.grid_people,
        tokenizer,
        shape,
        config.data.draws.max_references,
        config.seed,
    )
    people = len(asked.captions)
    layout, lora = program.layout, config.lora
    sampler = Sampler(program.system, config.system.schedule.prediction)
    shapes = {name: part.shapes for name, part in program.system.parts().items()}
    make = make_generate(sampler, layout.mesh, layout.specs(shapes))
    plan = sampling_plan(config.system.sampling, config.system.schedule)
    request = _spread(_repeated(asked.request, layout.mesh.size), program)
    joined = jax.jit(
        lambda trained, frozen: merge_trainable(trained, frozen, lora),
        out_shardings=layout.shardings(shapes),
    )

    def generate(state: TrainState) -> UInt8[np.ndarray, "people H W 3"]:
        images = make(joined(state.sampled, state.frozen), request, plan)
        if jax.process_count() > 1:
            images = multihost_utils.process_allgather(images, tiled=True)
        return np.asarray(images)[:people]

    cell = 2 * shape.image_size if shape.image_size <= 128 else 256
    return Preview(asked, generate, held_out_metrics(config), cell)


def _repeated(request: RequestBatch, multiple: int) -> RequestBatch:
    """The request with its last image repeated, so that devices share the images evenly."""
    images = len(request.tokens)
    chosen = np.minimum(np.arange(-(-images // multiple) * multiple), images - 1)
    return RequestBatch(
        tokens=request.tokens[chosen],
        negative_tokens=request.negative_tokens,
        references=request.references[chosen],
        reference_weight=request.reference_weight[chosen],
        person_share=request.person_share[chosen],
        face_mask=request.face_mask[chosen],
        seeds=request.seeds[chosen],
    )


def _spread(request: RequestBatch, program: Program) -> RequestBatch:
    """Put a request that every process has alike on all devices."""
    leaves, structure = jax.tree.flatten(request)
    specs = request_specs(request, program.layout.rows.spec)

    def put(leaf: jax.Array, spec: jax.sharding.PartitionSpec) -> jax.Array:
        values, place = np.asarray(leaf), NamedSharding(program.layout.mesh, spec)
        return jax.make_array_from_callback(values.shape, place, values.__getitem__)

    return jax.tree.unflatten(structure, map(put, leaves, specs))
