"""Making the images of a command line: opens the weights, and says what became of the jobs."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from PIL import Image
from tqdm import tqdm

from flashface_jax.common.contact_sheet import is_sheet, write_sheet
from flashface_jax.common.errors import sentence
from flashface_jax.faces.cascade_detector import CascadeDetector
from flashface_jax.faces.detect import FaceDetector
from flashface_jax.faces.insightface_detector import InsightFaceDetector
from flashface_jax.sampling.batch_runner import BatchRunner, Outcome, Reporter
from flashface_jax.sampling.jobs import SHEET, Job
from flashface_jax.sampling.pipeline import FlashFacePipeline
from flashface_jax.sampling.records import Record, read_record
from flashface_jax.sampling.reference_cache import ReferenceCache
from flashface_jax.weights.run_directory import open_weights

FAILED = 1


def make_images(options: argparse.Namespace, jobs: Sequence[Job], broken: dict[str, Any]) -> int:
    """Make the images, and say where they are; 0 if all were made, 1 if some failed.

    Args:
        options: of the command line.
        jobs: one for each image.
        broken: lines of a jobs file that are none: where they stand, and what is wrong with them.
    """
    keep_compiled_programs()
    kind = OneCommand if options.jobs is None else Progress
    own = len(jobs[jax.process_index() :: jax.process_count()])
    with kind(own) as progress:
        runner = _runner(options, options.weights, progress, own)
        if jax.process_index() > 0:
            broken = {}  # the first host tells of them
        for place, error in broken.items():
            progress.failed(place, error)
        outcome = runner.run(jobs, options.out)
    return _report(options.out, outcome, len(broken))


def make_again(options: argparse.Namespace, job: Job, record: Record) -> int:
    """Make an image again, and say how it differs from the first."""
    keep_compiled_programs()
    if (options.out / f"{job.name}.png").resolve() == options.repeat.resolve():
        raise ValueError(f"{options.repeat} would be made again in its own place: give --out.")
    if options.precision == "auto":
        options.precision = record.precision
    try:
        with OneCommand(1) as progress:
            weights = options.weights or Path(record.weights.path)
            outcome = _runner(options, weights, progress, 1, record).run([job], options.out)
    except (ValueError, OSError) as error:
        raise ValueError(f"{options.repeat} cannot be made again: {sentence(error)}") from error
    again = [*outcome.made, *outcome.kept][0]
    print(_differences(options.repeat, record, again))
    return 0


def _runner(
    options: argparse.Namespace,
    weights: Path,
    progress: "Progress",
    images: int,
    record: Record | None = None,
) -> BatchRunner:
    """What makes the images; raises for weights that cannot be opened."""

    def open_pipeline() -> FlashFacePipeline:
        progress.note(f"opening {weights}")
        return FlashFacePipeline.from_directory(
            weights,
            precision=options.precision,
            attention=options.attention,
            tile=options.tile,
            on_step=progress.step,
        )

    config = open_weights(weights).config
    try:
        config.check_consistency()
    except ValueError as error:
        raise ValueError(f"{weights}: {error}") from error
    cache = ReferenceCache(int(options.keep_features * 1e9)) if options.keep_features else None
    return BatchRunner(
        config,
        open_pipeline,
        weights,
        lambda: _detector(options, record),
        at_a_time=min(options.batch or _usual_batch(), max(images, 1)),
        cache=cache,
        reporter=progress,
    )


def keep_compiled_programs() -> None:
    """Have JAX keep compiled programs on disk, where it is not told otherwise."""
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        home = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
        jax.config.update("jax_compilation_cache_dir", str(home / "flashface_jax" / "compiled"))


class Progress(Reporter):
    """A bar that counts images, and moves at every evaluation; it appears with the first batch."""

    def __init__(self, images: int):
        self._images = images
        self._there = 0
        self._bar: tqdm | None = None
        self._each = 0.0

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def note(self, text: str) -> None:
        """Print a sentence above the bar."""
        tqdm.write(text)

    def failed(self, name: str, error: Exception) -> None:
        """Say why an image cannot be made, and go on."""
        tqdm.write(f"{name}: {sentence(error)}", file=sys.stderr)

    def kept(self, images: int) -> None:
        """Count images that need no making."""
        self._there = images

    def begin(self, images: int, evaluations: int) -> None:
        """Announce a batch: its images, and how many evaluations will be reported."""
        if self._bar is None:
            form = (
                "{desc}: {percentage:3.0f}%|{bar}| {n:.1f}/{total} "
                "[{elapsed}<{remaining}, {rate_fmt}]"
            )
            self._bar = tqdm(
                total=self._images,
                initial=self._there,
                desc="sampling",
                unit="image",
                bar_format=form,
            )
        self._each = images / evaluations

    def step(self) -> None:
        """Advance by an evaluation."""
        if self._bar is not None:
            # Rounding must not lead beyond the end, which tqdm warns of.
            self._bar.update(min(self._each, self._bar.total - self._bar.n))


class OneCommand(Progress):
    """Progress of images that a command asks for; what is wrong with one is so with all."""

    def failed(self, name: str, error: Exception) -> None:
        """Stop."""
        raise error


def join_hosts(named: list[str]) -> None:
    """Meet the other hosts, which JAX finds if they are not named."""
    if named and not (len(named) == 3 and named[1].isdecimal() and named[2].isdecimal()):
        raise ValueError(
            f"--distributed is {' '.join(named)!r}; give ADDRESS:PORT, INDEX and COUNT, or nothing."
        )
    try:
        if named:
            jax.distributed.initialize(named[0], int(named[2]), int(named[1]))
        else:
            jax.distributed.initialize()
    except (ValueError, RuntimeError) as error:
        raise ValueError(
            f"--distributed finds no other hosts ({error}): leave it out on a single machine."
        ) from error


def _detector(options: argparse.Namespace, record: Record | None) -> FaceDetector:
    name = options.detector
    if name is None:
        # Only the cascades' description begins so; the other detector is the usual one.
        cascade = record is not None and (record.detector or "").startswith("OpenCV")
        name = "cascade" if cascade else "insightface"
    if name == "none":
        raise ValueError("A photo needs its face found: choose another --detector than none.")
    return CascadeDetector() if name == "cascade" else InsightFaceDetector(options.face_models)


def _usual_batch() -> int:
    return jax.local_device_count() * (1 if jax.default_backend() == "cpu" else 4)


def _differences(original: Path, before: Record, made: Path) -> str:
    """How an image made again differs from the first, in sentences."""
    now = read_record(made)
    compared = {
        "reference faces": (before.references, now.references),
        "photo to paint into": (before.painted, now.painted),
        "weights": (before.weights.sha256, now.weights.sha256),
    }
    others = [f"other {name}" for name, (first, second) in compared.items() if first != second]
    with Image.open(original) as first, Image.open(made) as second:
        pixels = [np.asarray(image.convert("RGB"), np.int16) for image in (first, second)]
    if pixels[0].shape != pixels[1].shape:
        said = f"{made} has another size than {original}"
    elif np.array_equal(pixels[0], pixels[1]):
        said = f"{made} has the same pixels as {original}"
    else:
        most = np.abs(pixels[0] - pixels[1]).max()
        said = f"{made} differs from {original} by up to {most} of 255 levels"
    return f"{said}; it was made with {' and '.join(others)}." if others else f"{said}."


def _sheet(place: Path, images: Sequence[Path]) -> str:
    """Write the contact sheet, unless something of the user's is there; says what was done."""
    if place.exists() and not is_sheet(place):
        return f"wrote no contact sheet, since {place} is something else"
    write_sheet(place, images)
    return f"wrote {place}"


def _report(out: Path, outcome: Outcome, broken: int) -> int:
    made, kept = len(outcome.made), len(outcome.kept)
    if made:
        print(f"wrote {made} image{'s' * (made != 1)} to {out}")
        if jax.process_index() == 0:
            print(_sheet(out / f"{SHEET}.png", sorted([*outcome.made, *outcome.kept])))
    if kept:
        print(f"kept {kept} that {'was' if kept == 1 else 'were'} there already")
    failed = len(outcome.failed) + broken
    if failed:
        print(
            f"error: {failed} of {made + kept + failed} could not be made, as said above.",
            file=sys.stderr,
        )
    return FAILED if failed else 0
