"""What training saves where latents and contexts are computed ahead.

    python benchmarks/precomputed.py [--config configs/flashface.py] [--photos 64]

Counts the operations of a step's loss and gradient with the frozen networks in it and without, and
times the samples of both input pipelines on photos of the built-in world, drawn at 512 pixels. The
latents are random numbers of the right sizes: reading them takes no longer than reading true ones.
"""

import argparse
import dataclasses
import tempfile
import time
from pathlib import Path

import numpy as np

from flashface_jax.data.building.drawn_photos import write_photos
from flashface_jax.data.building.options import BuildOptions, PhotoFormat
from flashface_jax.data.dataset import IdClusters
from flashface_jax.data.id_clusters.build import build
from flashface_jax.data.loading.draws import DrawOptions
from flashface_jax.data.loading.encoded_record import Layout
from flashface_jax.data.loading.encoders import sizes_of
from flashface_jax.data.loading.loader import BatchLoader, LoaderOptions
from flashface_jax.data.loading.pipeline import Order, encoded_batches, training_batches
from flashface_jax.data.loading.precomputed import EMPTY_CONTEXT, Origin, Precomputed
from flashface_jax.data.precomputing.drafting import drafting
from flashface_jax.data.precomputing.writing import Records, write_files
from flashface_jax.planning.flops import count_flops
from flashface_jax.training.computation.program import model_jaxpr
from flashface_jax.training.config import TrainConfig, load_config
from flashface_jax.weights.tokenizer import train_tokenizer
from flashface_jax.world import SyntheticWorld

PEOPLE, SIDE, BATCH = 16, 512, 16


def operations(config: TrainConfig, precomputed: str) -> int:
    """Of the loss and its gradient, a sample."""
    data = dataclasses.replace(config.data, precomputed=precomputed)
    one = dataclasses.replace(config, batch_size=1, data=data)
    return count_flops(model_jaxpr(one)).total


def random_latents(out: Path, config: TrainConfig, dataset: IdClusters) -> Precomputed:
    """A directory as the command writes it, of random numbers."""
    origin = Origin(
        weights="",
        tokenizer="",
        contents=dict(dataset.metadata["contents"]),
        sizes=sizes_of(config.system),
        without_face=False,
        storage="float16",
        precision="float32",
        photos_per_file=512,
    )
    photos = {split: len(dataset.photos(split)) for split in dataset.splits}
    rng = np.random.default_rng(0)

    def record(layout: Layout) -> bytes:
        return layout.pack({name: rng.random(shape) for name, (shape, _) in layout.fields.items()})

    with drafting(out, origin, photos) as draft:
        for split in photos:
            for number, places in draft.missing(split).items():
                records = (
                    Records(place, record(origin.targets), record(origin.references))
                    for place in places
                )
                write_files(draft, split, number, records, lambda: None)
        (draft.place / EMPTY_CONTEXT).write_bytes(record(origin.prompt))
        draft.finish(out)
    return Precomputed(out)


def rate(batches: BatchLoader, count: int = 20) -> float:
    """Samples a second."""
    next(batches)  # threads start
    began = time.perf_counter()
    for _ in range(count):
        next(batches)
    spent = time.perf_counter() - began
    batches.close()
    return count * BATCH / spent


def rates(config: TrainConfig, photos: int, folder: Path) -> tuple[float, float]:
    """Samples a second from photos, with stored face crops, and from latents."""
    world = SyntheticWorld(0, PEOPLE, photos // PEOPLE, SIDE)
    write_photos(world, range(PEOPLE), folder / "photos", lambda: None)
    form = PhotoFormat(reference_size=config.system.reference_size)
    dataset = IdClusters(build(folder / "photos", folder / "data", BuildOptions(form, held_out=0)))
    captions = [photo.caption for photo in dataset.photos("train")]
    words = config.system.text_tower.length
    tokenizer = train_tokenizer(captions, folder / "tokens", words, 1000)
    latents = random_latents(folder / "latents", config, dataset)
    order, options = Order(0, DrawOptions()), LoaderOptions()
    shape = config.sample_shape
    from_photos = training_batches(dataset, tokenizer, shape, order, BATCH, options)
    from_latents = encoded_batches(dataset, latents, order, BATCH, options)
    return rate(from_photos), rate(from_latents)


def main() -> None:
    """Print both comparisons."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, default=Path("configs/flashface.py"))
    parser.add_argument("--photos", type=int, default=64, help="to draw, 32 or more")
    options = parser.parse_args()
    config = load_config(options.config)
    whole, without = operations(config, ""), operations(config, "latents")
    print(f"loss and gradient of a sample: {whole / 1e12:.2f} TFLOP")
    print(f"the same from latents: {without / 1e12:.2f} TFLOP")
    with tempfile.TemporaryDirectory() as folder:
        photos, latents = rates(config, options.photos, Path(folder))
    print(f"input pipeline: {photos:.0f} samples/s of photos, {latents:.0f} of latents")


if __name__ == "__main__":
    main()
