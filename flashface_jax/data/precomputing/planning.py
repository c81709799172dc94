"""What a precomputation is made of: networks, sizes, photos, and whether they fit each other."""

import argparse
import dataclasses
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import jax

from flashface_jax.common.choices import ComputeDtype
from flashface_jax.common.config_file import read_config_file
from flashface_jax.common.devices import resolve_precision
from flashface_jax.common.files import atomic_file, require_new
from flashface_jax.common.from_json import from_json
from flashface_jax.data.config import DataConfig
from flashface_jax.data.dataset import IdClusters
from flashface_jax.data.loading.encoded_record import Storage
from flashface_jax.data.loading.encoders import sizes_of
from flashface_jax.data.loading.loader import LoaderOptions
from flashface_jax.data.loading.pipeline import photo_pool
from flashface_jax.data.loading.precomputed import EMPTY_CONTEXT, Origin, differences
from flashface_jax.data.loading.samples import SampleShape
from flashface_jax.data.precomputing.encoding import Encoders
from flashface_jax.data.precomputing.preparation import Preparation
from flashface_jax.data.precomputing.writing import Work
from flashface_jax.weights.run_directory import open_weights
from flashface_jax.weights.system import SystemConfig
from flashface_jax.weights.tokenizer import Tokenizer


@dataclass(frozen=True)
class Plan:
    """A precomputation.

    Attributes:
        dataset: the photos.
        encoders: the networks.
        tokenizer: of the captions.
        origin: all that decides what is computed.
        batch: photos that are encoded together.
        options: how photos are made ready.
    """

    dataset: IdClusters
    encoders: Encoders
    tokenizer: Tokenizer
    origin: Origin
    batch: int
    options: LoaderOptions

    @property
    def photos(self) -> dict[str, int]:
        """Photos of each split."""
        return {split: len(self.dataset.photos(split)) for split in self.dataset.splits}

    def work(self, split: str) -> Work:
        """How the photos of a split become records."""
        sizes = self.origin.sizes
        shape = SampleShape(sizes.image_size, sizes.reference_size, sizes.stride)
        pool = photo_pool(self.dataset, split, shape.reference_size)
        preparation = Preparation(pool, self.tokenizer, shape)
        return Work(preparation, self.encoders, self.batch, self.options)

    def write_prompt(self, place: Path) -> None:
        """Write the context of the empty prompt into a directory."""
        context = self.encoders.prompt(self.tokenizer([""]))
        with atomic_file(place / EMPTY_CONTEXT) as file:
            file.write_bytes(self.origin.prompt.pack({"context": context}))


def make_plan(asked: argparse.Namespace, overrides: Sequence[str]) -> Plan:
    """Open what the command line names.

    Raises:
        ValueError: something is missing, or does not fit the rest.
    """
    require_new(asked.out)
    threads = (os.cpu_count() or 1) // max(1, asked.workers)
    options = LoaderOptions(workers=asked.workers, threads=max(1, threads))
    dataset, weights = IdClusters(asked.dataset), open_weights(asked.weights)
    config, precision = _configured(asked, overrides, weights.config)
    config.check_consistency()
    devices = jax.local_devices()
    encoders = Encoders.of(weights, config, precision, devices)
    tokenizer = weights.tokenizer()
    _check_tokenizer(tokenizer, asked.weights, config)
    origin = Origin(
        weights=encoders.sha256,
        tokenizer=tokenizer.sha256,
        contents=dict(dataset.metadata["contents"]),
        sizes=sizes_of(config),
        without_face=config.flashface.inpaints,
        storage=cast(Storage, asked.dtype),
        precision=precision,
        photos_per_file=asked.photos_per_file,
    )
    batch = asked.batch * len(devices)
    return Plan(dataset, encoders, tokenizer, origin, batch, options)


def _check_tokenizer(tokenizer: Tokenizer, weights: Path, config: SystemConfig) -> None:
    tower = config.text_tower
    if tokenizer.length != tower.length or tokenizer.vocab_size > tower.vocabulary:
        raise ValueError(
            f"The tokenizer of {weights} makes prompts of {tokenizer.length} of "
            f"{tokenizer.vocab_size} tokens, its text tower takes {tower.length} of "
            f"{tower.vocabulary}: convert again with the right one."
        )


def _configured(
    asked: argparse.Namespace, overrides: Sequence[str], weights: SystemConfig
) -> tuple[SystemConfig, str]:
    """The system, and the precision that its networks compute in."""
    if asked.config is None:
        return weights, resolve_precision(asked.precision)
    values = read_config_file(asked.config, overrides)
    configured: SystemConfig = from_json(SystemConfig, values.get("system", {}), "system")
    data: DataConfig = from_json(DataConfig, values.get("data", {}), "data")
    dtype = from_json(ComputeDtype, values.get("compute_dtype", "float32"), "compute_dtype")
    varied = [name for name, value in vars(data.draws.augmentation).items() if value]
    if varied:
        raise ValueError(
            f"{asked.config} varies pictures (data.draws.augmentation: {', '.join(varied)}), which "
            "cannot be precomputed: set them to 0, or train without data.precomputed."
        )
    for name in ("autoencoder", "text_tower"):
        there, here = getattr(weights, name), getattr(configured, name)
        were, are = dataclasses.asdict(there), dataclasses.asdict(here)
        for fields in (were, are):
            fields.pop("embedding", None)  # of the projection, which nothing here depends on
        if differ := differences(were, are):
            raise ValueError(
                f"{asked.weights} does not fit {asked.config} (system.{name}: "
                f"{'; '.join(differ)}): set the configuration's fields to what the weights have."
            )
    auto = asked.precision == "auto"
    system = dataclasses.replace(configured, text_tower=weights.text_tower)
    return system, dtype if auto else asked.precision
