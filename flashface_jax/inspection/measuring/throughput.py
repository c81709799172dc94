"""How fast training's samples are made here, next to what decoding their JPEGs allows."""

import os
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import simplejpeg

from flashface_jax.data.loading.draws import DrawOptions
from flashface_jax.data.loading.loader import BatchLoader, LoaderOptions
from flashface_jax.data.loading.pipeline import ordered
from flashface_jax.data.loading.samples import MakeSample, PhotoPool, SampleShape
from flashface_jax.inspection.measuring.samples import draw_samples
from flashface_jax.weights.tokenizer import LENGTH, Tokenizer, train_tokenizer

BATCH = 8
DECODED_SAMPLES = 32


@dataclass(frozen=True)
class Throughput:
    """Rates, in one process.

    Attributes:
        seconds: that each rate was measured for.
        threads: that worked at the same time.
        samples_per_second: of training's pipeline.
        images_per_second: targets and references of these samples.
        decoded_samples_per_second: if nothing but their JPEGs were decoded.
        decoded_images_per_second: likewise.
    """

    seconds: float
    threads: int
    samples_per_second: float
    images_per_second: float
    decoded_samples_per_second: float
    decoded_images_per_second: float


def throughput(
    pool: PhotoPool, shape: SampleShape, seed: int, tokenizer: Tokenizer | None, seconds: float
) -> Throughput:
    """Measure both rates, each for some seconds.

    Raises:
        ValueError: no samples can be drawn.
    """
    threads = os.cpu_count() or 1
    drawn = draw_samples(pool, shape, seed, DECODED_SAMPLES)
    jpegs = [photo.jpeg for sample in drawn for photo in (sample.target, *sample.references)]
    captions = [sample.target.caption for sample in drawn]
    make = MakeSample(pool, tokenizer or _any_tokenizer(captions), shape, DrawOptions())
    samples, images = _pipeline_rate(pool, make, seed, threads, seconds)
    decoded = _decoding_rate(jpegs, threads, seconds)
    return Throughput(
        seconds=seconds,
        threads=threads,
        samples_per_second=samples,
        images_per_second=images,
        decoded_samples_per_second=decoded * len(drawn) / len(jpegs),
        decoded_images_per_second=decoded,
    )


def _any_tokenizer(captions: list[str]) -> Tokenizer:
    """A small vocabulary of the captions: it takes as long to use as the text tower's own."""
    with tempfile.TemporaryDirectory() as folder:
        return train_tokenizer(captions, Path(folder), LENGTH, 1000)


def _pipeline_rate(
    pool: PhotoPool, make: MakeSample, seed: int, threads: int, seconds: float
) -> tuple[float, float]:
    """Samples and images a second."""
    batch = min(BATCH, len(pool.usable))
    loader = BatchLoader(ordered(pool, seed, make), batch, {}, LoaderOptions(threads=threads))
    try:
        next(loader)  # threads start
        samples = images = 0
        start = time.perf_counter()
        while (spent := time.perf_counter() - start) < seconds or not samples:
            valid = next(loader)["reference_valid"]
            samples += batch
            images += batch + int(np.sum(valid))
    finally:
        loader.close()
    return samples / spent, images / spent


def _decoding_rate(jpegs: list[bytes], threads: int, seconds: float) -> float:
    """JPEGs decoded a second."""

    def decode(jpeg: bytes) -> int:
        return simplejpeg.decode_jpeg(jpeg, "RGB").size  # the pixels are not kept

    decoded, start = 0, time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        while (spent := time.perf_counter() - start) < seconds or not decoded:
            decoded += sum(1 for _ in pool.map(decode, jpegs))
    return decoded / spent
