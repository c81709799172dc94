"""The sample.py command: opens the weights, makes the jobs, and says what became of them."""

import argparse
import os
import sys
from pathlib import Path

import jax
import numpy as np
from PIL import Image
from tqdm import tqdm

from flashface_jax.faces.cascade_detector import CascadeDetector
from flashface_jax.faces.detect import FaceDetector
from flashface_jax.faces.insightface_detector import InsightFaceDetector
from flashface_jax.pictures import write_sheet
from flashface_jax.pipeline import FlashFacePipeline
from flashface_jax.records import Record, read_record
from flashface_jax.reference_cache import ReferenceCache
from flashface_jax.sample_options import check_options, jobs_of
from flashface_jax.studio import Outcome, Studio


def main(options: argparse.Namespace) -> int:
    """Make the images, and say where they are; 0 if all were made, 1 if some failed."""
    check_options(options)
    if options.distributed:
        jax.distributed.initialize()
    keep_compiled_programs()
    repeated = None if options.repeat is None else read_record(options.repeat)
    jobs, broken = jobs_of(options, repeated)
    weights = options.weights or Path(repeated["weights"]["path"] if repeated else "")
    precision = options.precision if repeated is None else repeated["precision"]
    with Progress(len(jobs)) as progress:
        pipeline = FlashFacePipeline.from_directory(
            weights, precision=precision, tile=options.tile, on_step=progress.step
        )
        studio = Studio(
            pipeline,
            weights,
            lambda: _detector(options),
            at_a_time=min(options.batch or _usual_batch(pipeline), max(len(jobs), 1)),
            cache=ReferenceCache(int(options.keep_features * 1e9))
            if options.keep_features
            else None,
            say=tqdm.write,
            on_batch=lambda images, steps: progress.begin(images, steps * pipeline.mesh.size),
        )
        for place, error in broken.items():
            tqdm.write(f"{place}: {error}")
        outcome = studio.run(jobs, options.out)
        progress.kept(len(outcome.kept))
    if repeated is not None and outcome.made:
        _compare(options.repeat, repeated, outcome.made[0])
    return _report(options, outcome, len(broken))


def keep_compiled_programs() -> None:
    """Have JAX keep compiled programs on disk, where it is not told otherwise."""
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        home = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
        jax.config.update("jax_compilation_cache_dir", str(home / "flashface_jax" / "compiled"))


class Progress:
    """A bar that counts images, and moves at every step."""

    def __init__(self, images: int):
        form = (
            "{desc}: {percentage:3.0f}%|{bar}| {n:.1f}/{total} [{elapsed}<{remaining}, {rate_fmt}]"
        )
        self._bar = tqdm(total=images, desc="sampling", unit="image", bar_format=form)
        self._each = 0.0

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def begin(self, images: int, steps: int) -> None:
        """Announce a batch: its images, and the steps that will be reported."""
        self._each = images / steps

    def step(self) -> None:
        """Advance by a step."""
        self._bar.update(self._each)

    def kept(self, images: int) -> None:
        """Count images that needed no making."""
        self._bar.update(images)


def _detector(options: argparse.Namespace) -> FaceDetector:
    if options.detector == "cascade":
        return CascadeDetector()
    if options.detector == "none":
        raise ValueError("A photo needs its face found: choose another --detector than none.")
    return InsightFaceDetector(options.face_models)


def _usual_batch(pipeline: FlashFacePipeline) -> int:
    return pipeline.mesh.size * (1 if jax.default_backend() == "cpu" else 4)


def _compare(original: Path, record: Record, made: Path) -> None:
    """Say how the image made again differs from the first."""
    now = read_record(made)
    for what, name in (("references", "the reference faces"), ("weights", "the weights")):
        before, after = record[what], now[what]
        if what == "weights":
            before, after = before["sha256"], after["sha256"]
        if before != after:
            print(f"note: {name} are not those that {original} was made of")
    with Image.open(original) as first, Image.open(made) as second:
        pixels = [np.asarray(image, np.int16) for image in (first, second)]
    if pixels[0].shape != pixels[1].shape:
        print(f"{made} has another size than {original}")
        return
    difference = np.abs(pixels[0] - pixels[1]).max()
    print(f"{made} differs from {original} by at most {difference} of 255 levels")


def _report(options: argparse.Namespace, outcome: Outcome, broken: int) -> int:
    made, kept = len(outcome.made), len(outcome.kept)
    if made:
        print(f"wrote {made} image{'s' * (made != 1)} to {options.out}")
        sheet = write_sheet(options.out, sorted([*outcome.made, *outcome.kept]))
        print(f"wrote {sheet}")
    if kept:
        print(f"kept {kept} that were there already")
    failed = len(outcome.failed) + broken
    if failed:
        print(
            f"error: {failed} of {made + kept + failed} could not be made, as said above",
            file=sys.stderr,
        )
    return 1 if failed else 0
