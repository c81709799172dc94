"""A dataset of the paper's size: building it, opening it, the first batch, and their memory.

    python benchmarks/dataset_scale.py DIRECTORY [--photos 1800000] [--identities 23042]

Every identity has its own subset of a hundred tiny pictures, so that the number of records is the
paper's and their size is not. DIRECTORY keeps the dataset; a second run measures it again.
"""

import argparse
import json
import multiprocessing
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

PICTURES, SIDE = 100, 16


def write_pictures(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for i in range(PICTURES):
        pixels = rng.integers(0, 256, (SIDE, SIDE, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.jpg", quality=50)


def manifest_lines(photos: int, identities: int) -> Iterator[str]:
    each, more = divmod(photos, identities)
    for i in range(identities):
        for j in range(each + (i < more)):
            entry = {
                "photo": f"{(j + i) % PICTURES}.jpg",
                "identity": f"person {i:05d}",
                "face_box": [2, 2, 14, 14],
                "landmarks": [[5, 6], [11, 6], [8, 9], [6, 11], [10, 11]],
                "caption": f"picture {j} of a person",
                "source_id": f"{i}/{j}",
            }
            yield json.dumps(entry) + "\n"


def build(root: Path, photos: int, identities: int) -> None:
    source = root / "source"
    write_pictures(source)
    with (source / "manifest.jsonl").open("w") as file:
        file.writelines(manifest_lines(photos, identities))
    began = time.perf_counter()
    command = [sys.executable, "-m", "flashface_jax.data.build", "--source", str(source)]
    subprocess.run([*command, "--out", str(root), "--shard-megabytes", "4"], check=True)
    seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(f"build: {seconds:.0f} s, {photos / seconds:.0f} photos/s, peak {peak:.0f} MB")


def resident() -> float:
    """Megabytes of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


def read(root: str, tokens: str, answers: "multiprocessing.Queue[dict[str, float]]") -> None:
    """Open the dataset in a fresh process and draw batches."""
    from flashface_jax.data.dataset import IdClusters  # noqa: PLC0415  (a process of its own)
    from flashface_jax.data.loading.draws import DrawOptions  # noqa: PLC0415
    from flashface_jax.data.loading.loader import LoaderOptions  # noqa: PLC0415
    from flashface_jax.data.loading.pipeline import Order, training_batches  # noqa: PLC0415
    from flashface_jax.data.loading.samples import SampleShape  # noqa: PLC0415
    from flashface_jax.weights.tokenizer import Tokenizer, train_tokenizer  # noqa: PLC0415

    if not Path(tokens).exists():
        train_tokenizer(["a picture of a person"], tokens, 16, 600)
    tokenizer = Tokenizer.from_directory(tokens)
    before, began = resident(), time.perf_counter()
    shape, order = SampleShape(64, 32, 8), Order(0, DrawOptions())
    loader = LoaderOptions(threads=1)
    batches = training_batches(IdClusters(Path(root)), tokenizer, shape, order, 8, loader)
    opened, memory = time.perf_counter() - began, resident() - before
    next(batches)
    first = time.perf_counter() - began
    for _ in range(200):
        next(batches)
    after = resident() - before
    batches.close()
    answers.put({"opened": opened, "memory": memory, "first": first, "after": after})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--photos", type=int, default=1_800_000)
    parser.add_argument("--identities", type=int, default=23_042)
    asked = parser.parse_args()
    if not (asked.directory / "id_clusters").exists():
        build(asked.directory, asked.photos, asked.identities)
    context = multiprocessing.get_context("spawn")
    for _ in range(3):
        answers: multiprocessing.Queue[dict[str, float]] = context.Queue()
        tokens = asked.directory / "tokenizer"
        process = context.Process(target=read, args=(str(asked.directory), str(tokens), answers))
        process.start()
        found = answers.get()
        process.join()
        print(
            f"opened in {found['opened']:.2f} s with {found['memory']:.0f} MB more; first batch "
            f"after {found['first']:.2f} s; {found['after']:.0f} MB more after 200 batches"
        )


if __name__ == "__main__":
    main()
