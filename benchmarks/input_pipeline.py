"""Samples a second of the input pipeline, over what decoding alone of the same JPEGs would give.

    python benchmarks/input_pipeline.py [--dataset DIR] [--seconds 6] [--rounds 3]
    python benchmarks/input_pipeline.py --steps 10000            # memory of a long run

Without a dataset one is made in a temporary folder: 300 identities x 12 textured photos of 900x700
pixels, about 190 kB each, with face crops of 224 stored beside them. A sample is a target at 768
and one to four references at 224; nothing is dropped, so that the bound decodes just what the
pipeline does. The bound decodes with as many threads as the machine has cores, and is measured in
turn with every case: a ratio is of neighbours in time. A training run logs how long it waits for
its batches itself, as data_wait.
"""

import argparse
import itertools
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import simplejpeg

from flashface_jax.data.building.options import BuildOptions, PhotoFormat
from flashface_jax.data.dataset import TRAIN, IdClusters
from flashface_jax.data.id_clusters.build import build
from flashface_jax.data.loading.draws import DrawOptions, DropRates, draw_sample
from flashface_jax.data.loading.loader import BatchLoader, LoaderOptions
from flashface_jax.data.loading.pipeline import Order, fingerprint, ordered, photo_pool
from flashface_jax.data.loading.samples import MakeSample, PhotoPool, SampleShape
from flashface_jax.data.manifest import FILE_NAME, PhotoEntry, write_manifest
from flashface_jax.weights.tokenizer import Tokenizer, train_tokenizer

SHAPE = SampleShape(image_size=768, reference_size=224, stride=8)
DRAWS = DrawOptions(drop=DropRates(0.0, 0.0, 0.0))
BATCH = 8
CASES = [(0, 1), (0, 2), (0, 3), (1, 1), (1, 2), (2, 1), (2, 2)]  # workers, threads


def textured_photo(rng: np.random.Generator) -> np.ndarray:
    """Smooth shapes under grain, which compress about as a photo does."""
    coarse = rng.integers(0, 256, (9, 7, 3), np.uint8)
    smooth = cv2.resize(coarse, (700, 900), interpolation=cv2.INTER_CUBIC)
    grain = cv2.resize(rng.normal(0, 14, (450, 350, 3)), (700, 900)) + rng.normal(
        0, 5, (900, 700, 3)
    )
    return np.clip(smooth + grain, 0, 255).astype(np.uint8)


def make_dataset(root: Path, identities: int = 300, photos: int = 12) -> IdClusters:
    """Write the photos and build both the dataset and its face crops."""
    folder, rng, entries = root / "photos", np.random.default_rng(0), []
    folder.mkdir(parents=True)
    landmarks = ((280.0, 320.0), (420.0, 330.0), (350.0, 400.0), (300.0, 460.0), (410.0, 470.0))
    for i in range(identities):
        for j in range(photos):
            name = f"{i}_{j}.jpg"
            jpeg = simplejpeg.encode_jpeg(textured_photo(rng), 90, "RGB", "420")
            (folder / name).write_bytes(jpeg)
            face = (210.0, 200.0, 490.0, 580.0)
            caption = "a young woman with long brown hair sitting in the desert at noon"
            entries.append(PhotoEntry(name, f"person {i:04d}", face, landmarks, caption, name))
    write_manifest(folder / FILE_NAME, entries)
    size = sum(path.stat().st_size for path in folder.glob("*.jpg"))
    print(f"{len(entries)} photos of {size / len(entries) / 1000:.0f} kB")
    for reference_size in (0, 224):
        began, out = time.perf_counter(), root / f"data-{reference_size}"
        options = BuildOptions(PhotoFormat(reference_size=reference_size), held_out=0)
        build(folder, out, options)
        seconds = time.perf_counter() - began
        what = "with face crops" if reference_size else "photos alone"
        print(f"built ({what}): {size / 1e6 / seconds:.0f} MB/s on {os.cpu_count()} cores")
    return IdClusters(out)


def drawn_photos(pool: PhotoPool) -> Iterator[list[int]]:
    """Positions of the photos of samples, as the pipeline draws them."""
    rng, clusters = np.random.default_rng(0), pool.photos.clusters
    while True:
        identity = int(rng.choice(pool.usable))
        photos = clusters.photos_of(identity)
        draw = draw_sample(rng, len(photos), DRAWS)
        yield [photos[i] for i in draw.order[: 1 + draw.references]]


def decode_only(pool: PhotoPool, seconds: float) -> float:
    """Samples a second when photos, in memory, are only decoded, on every core."""
    samples = [
        [pool.photos[i].jpeg for i in photos] for photos in itertools.islice(drawn_photos(pool), 64)
    ]

    def work(_: int) -> int:
        done, end = 0, time.perf_counter() + seconds
        for sample in itertools.cycle(samples):
            for jpeg in sample:
                simplejpeg.decode_jpeg(jpeg, "RGB")
            done += 1
            if time.perf_counter() > end:
                return done
        return done

    threads = os.cpu_count() or 1
    began = time.perf_counter()
    with ThreadPoolExecutor(threads) as executor:
        done = sum(executor.map(work, range(threads)))
    return done / (time.perf_counter() - began)


def loader(
    dataset: IdClusters, pool: PhotoPool, tokenizer: Tokenizer, size: int, options: LoaderOptions
) -> BatchLoader:
    known = fingerprint(dataset, TRAIN, pool, SHAPE, Order(0, DRAWS))
    samples = ordered(pool, 0, MakeSample(pool, tokenizer, SHAPE, DRAWS))
    return BatchLoader(samples, size, known, options)


def memory_of_children() -> list[int]:
    """Resident megabytes of the worker processes."""
    listed = subprocess.run(
        ["ps", "--ppid", str(os.getpid()), "-o", "rss=,args="],
        check=False,
        capture_output=True,
        text=True,
    )
    lines = [line.split(None, 1) for line in listed.stdout.splitlines()]
    return [int(rss) // 1024 for rss, args in lines if "spawn_main" in args]


def pipeline_rate(batches: BatchLoader, seconds: float) -> tuple[float, list[int]]:
    """Samples a second after a warm-up, and the workers' memory then."""
    for _ in range(6):
        next(batches)
    done, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        done += len(next(batches)["target"])
    rate, memory = done / (time.perf_counter() - began), memory_of_children()
    batches.close()
    return rate, memory


def compare(dataset: IdClusters, tokenizer: Tokenizer, seconds: float, rounds: int) -> None:
    stored = photo_pool(dataset, TRAIN, SHAPE.reference_size)
    cut = PhotoPool(stored.photos, None)
    pools = {"cut from photos": cut} | ({"stored crops": stored} if stored.crops else {})
    ratios: dict[tuple[str, int, int], list[tuple[float, float, list[int]]]] = {}
    for _ in range(rounds):
        for name, pool in pools.items():
            for workers, threads in CASES:
                bound = decode_only(cut, seconds / 2)
                options = LoaderOptions(workers, threads)
                batches = loader(dataset, pool, tokenizer, BATCH, options)
                rate, memory = pipeline_rate(batches, seconds)
                ratios.setdefault((name, workers, threads), []).append((rate, bound, memory))
    print(
        "references       workers threads  samples/s  images/s  of the bound  (from .. to)  worker"
    )
    for (name, workers, threads), found in ratios.items():
        of_bound = [rate / bound for rate, bound, _ in found]
        rate = statistics.median(rate for rate, _, _ in found)
        memory = max((mb for _, _, each in found for mb in each), default=0)
        print(
            f"{name:16s} {workers:7d} {threads:7d} {rate:10.1f} {3.5 * rate:9.1f} "
            f"{statistics.median(of_bound):13.2f}  ({min(of_bound):.2f} .. {max(of_bound):.2f})"
            + (f"  {memory} MB" if memory else "")
        )


def long_run(dataset: IdClusters, tokenizer: Tokenizer, steps: int) -> None:
    """Resident memory of this process over many small batches made by one worker."""
    pool = photo_pool(dataset, TRAIN, SHAPE.reference_size)
    batches = loader(dataset, pool, tokenizer, 1, LoaderOptions(workers=1))
    for step in range(1, steps + 1):
        next(batches)
        if step % (steps // 10) == 0:
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            mine = pages * os.sysconf("SC_PAGE_SIZE") >> 20
            print(f"step {step}: {mine} MB, worker {memory_of_children()} MB", flush=True)
    batches.close()


def main() -> None:
    text = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=text)
    parser.add_argument("--dataset", type=Path, help="a built dataset instead of a made one")
    parser.add_argument("--seconds", type=float, default=6, help="of each measurement")
    parser.add_argument("--keep", type=Path, help="make the dataset here, and leave it")
    parser.add_argument("--rounds", type=int, default=3, help="of all cases in turn")
    parser.add_argument("--steps", type=int, help="measure memory over so many batches instead")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        dataset = IdClusters(asked.dataset) if asked.dataset else make_dataset(asked.keep or root)
        tokenizer = train_tokenizer(["a young woman in the desert"], root / "tokens", 77, 600)
        if asked.steps:
            return long_run(dataset, tokenizer, asked.steps)
        return compare(dataset, tokenizer, asked.seconds, asked.rounds)


if __name__ == "__main__":
    main()
