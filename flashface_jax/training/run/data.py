"""The data of a run: a built dataset, or one of the built-in world, and the tokenizer."""

import dataclasses
import json
import math
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from flashface_jax.common.files import atomic_directory
from flashface_jax.data.building.drawn_photos import identity_name, write_photos
from flashface_jax.data.building.options import BuildOptions, PhotoFormat
from flashface_jax.data.config import DataConfig, WorldConfig
from flashface_jax.data.dataset import TRAIN, IdClusters
from flashface_jax.data.id_clusters.build import build
from flashface_jax.data.loading.loader import BatchLoader
from flashface_jax.data.loading.pipeline import (
    Order,
    describe_pool,
    describe_samples,
    photo_pool,
    training_batches,
)
from flashface_jax.data.loading.samples import PhotoPool
from flashface_jax.training.config import TrainConfig
from flashface_jax.training.parallel.processes import is_first, say, wait_for_all
from flashface_jax.training.run.precomputed import precomputed_batches
from flashface_jax.weights.directory import tokenizer_of
from flashface_jax.weights.run_files import has_checkpoints
from flashface_jax.weights.tokenizer import Tokenizer, train_tokenizer

WORLD = "world.json"
MOST_CAPTIONS = 100_000


@dataclass(frozen=True)
class TrainingData:
    """What a run is trained on.

    Attributes:
        dataset: photos of people.
        tokenizer: of their captions.
        pool: the photos to train on.
        order: what decides which of them follow each other.
        batches: this process's part of the batches.
    """

    dataset: IdClusters
    tokenizer: Tokenizer
    pool: PhotoPool
    order: Order
    batches: BatchLoader

    def names(self, indices: list[int]) -> list[str]:
        """What samples show, by their global indices."""
        return describe_samples(self.pool, self.order, indices)


def open_data(config: TrainConfig, workdir: Path, rows: Sequence[int]) -> TrainingData:
    """Open what a run is trained on; what it makes itself is made in `workdir` once.

    Args:
        config: the run.
        workdir: its directory.
        rows: of a global batch, those that this process makes.

    Raises:
        ValueError: there is no such dataset, it is damaged, or what was precomputed is of another.
    """
    dataset = open_dataset(workdir, config.data)
    tokenizer = open_tokenizer(workdir, config, dataset)
    shape, order = config.sample_shape, Order(config.seed, config.data.draws)
    pool = photo_pool(dataset, TRAIN, shape.reference_size)
    if config.data.precomputed:
        batches = precomputed_batches(config, dataset, tokenizer, order, rows)
    else:
        batches = training_batches(
            dataset, tokenizer, shape, order, config.batch_size, config.data.loader, rows
        )
    say(describe_pool(pool))
    return TrainingData(dataset, tokenizer, pool, order, batches)


def open_dataset(workdir: Path, config: DataConfig) -> IdClusters:
    """The configured dataset; that of the built-in world is drawn and built in `workdir` once.

    Raises:
        ValueError: there is no such dataset, or it is damaged.
    """
    if "://" in config.dataset:
        raise ValueError(
            f"data.dataset is {config.dataset}: mount the bucket, and name the mounted directory."
        )
    if config.dataset:
        return IdClusters(Path(config.dataset))
    place = workdir / "data"
    if is_first() and not place.exists():
        with atomic_directory(place) as draft:
            _build_world(config.world, draft)
            (draft / WORLD).write_text(_described(config.world))
    wait_for_all("the world is drawn")
    if (place / WORLD).exists() and (place / WORLD).read_text() != _described(config.world):
        raise ValueError(
            f"{place} holds another world than data.world describes: remove it, or choose another "
            "workdir."
        )
    return IdClusters(place)


def _described(world: WorldConfig) -> str:
    return json.dumps(dataclasses.asdict(world), sort_keys=True)


def _build_world(config: WorldConfig, out: Path) -> None:
    """Draw the world's photos and build the dataset of them, as from anybody's."""
    world, form = config.draw(), PhotoFormat(longest_side=max(64, config.image_size))
    names = tuple(identity_name(i) for i in config.held_out_people)
    with tempfile.TemporaryDirectory(dir=out) as folder:
        total = world.num_identities * world.photos_per_identity
        with tqdm(total=total, desc="drawing photos", unit="photo") as bar:
            write_photos(world, range(world.num_identities), Path(folder), bar.update)
        build(Path(folder), out, BuildOptions(form, held_out=0, held_out_names=names))


def open_tokenizer(workdir: Path, config: TrainConfig, dataset: IdClusters) -> Tokenizer:
    """Open the run's tokenizer: that of the weights it starts from, or one of its captions' own."""
    path = workdir / "tokenizer"
    if is_first() and not (has_checkpoints(workdir) and path.exists()):
        if path.exists():
            shutil.rmtree(path)  # an earlier start, which saved nothing, had perhaps another
        with atomic_directory(path) as draft:
            if config.initial:
                shutil.copytree(tokenizer_of(Path(config.initial)), draft, dirs_exist_ok=True)
            else:
                _train_tokenizer(dataset, draft, config)
    wait_for_all("the tokenizer is there")
    return Tokenizer.from_directory(path)


def _train_tokenizer(dataset: IdClusters, out: Path, config: TrainConfig) -> None:
    """Train a tokenizer on captions from all over the dataset."""
    records = dataset.references(TRAIN) or dataset.photos(TRAIN)  # crops are quicker to read
    every = math.ceil(len(records) / MOST_CAPTIONS)
    places = tqdm(range(0, len(records), every), desc="reading captions", unit="photo")
    captions = (records[i].caption for i in places)
    length = config.system.text_tower.length
    train_tokenizer(captions, out, length, config.data.world.vocabulary)
