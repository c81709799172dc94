"""Running a step over all people with Apache Beam."""

import contextlib
import os
import re
import threading
from collections.abc import Container, Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions
from tqdm import tqdm

from flashface_jax.common.errors import sentence
from flashface_jax.curation.pipeline.steps import Step, Work
from flashface_jax.curation.pipeline.work import Chunk, write_whole

# In this process, with nothing to set up. Beam's own default may download another runner.
RUNNER = "FnApiRunner"
SECONDS = 0.5


class StepError(ValueError):
    """A step cannot be done; a sentence says why."""


class _DoChunk(beam.DoFn):
    """Does chunks; the models are loaded once a worker, and never sent to it."""

    def __init__(self, step: Step) -> None:
        self._step = step

    def setup(self) -> None:
        """Load the models."""
        with _as_step_error():
            self._work: Work = self._step.open()

    def process(self, chunk: Chunk) -> None:
        """Do one chunk and write its file."""
        with _as_step_error():
            write_whole(chunk.target, self._work(chunk))


def run_step(step: Step, people: Sequence[Path], flags: Sequence[str]) -> int:
    """Do what is not done yet of a step.

    Each chunk of work leaves one file, so that a run that was stopped goes on where it was.

    Args:
        step: what to do.
        people: files of the identities.
        flags: Beam's options; without a runner among them the work is done in this process.

    Returns:
        How many chunks were done.

    Raises:
        StepError: naming what is wrong.
    """
    there = _files(step)
    counts = {person: len(_missing(step, person, there)) for person in people}
    waiting = [str(person) for person, count in counts.items() if count]
    total = sum(counts.values())
    if not waiting:
        return 0
    options = PipelineOptions(list(flags))
    runner = None if any(flag.startswith("--runner") for flag in flags) else RUNNER
    with _progress(step, len(there), total):
        try:
            with beam.Pipeline(runner, options) as pipeline:
                _ = (
                    pipeline
                    | "people" >> beam.Create(waiting)
                    | "chunks" >> beam.FlatMap(lambda person: _missing(step, Path(person)))
                    | "spread" >> beam.Reshuffle()
                    | step.folder.name >> beam.ParDo(_DoChunk(step))
                )
        except Exception as error:
            raise _unwrapped(error) from error
    return total


def _unwrapped(error: Exception) -> BaseException:
    """What a worker raised, of what its runner made of that; the same if it was unforeseen."""
    text = re.sub(r" \[while running .*", "", str(error), flags=re.DOTALL)
    if text == "KeyboardInterrupt":
        return KeyboardInterrupt()
    if isinstance(error, StepError):
        return StepError(text)
    # From another process it comes as the text of its traceback.
    remote = re.search(r"StepError: (.*)", text)
    return StepError(remote[1]) if remote else error


def unknown_flags(flags: Sequence[str]) -> list[str]:
    """Options that Beam does not know either, and words that follow none, which it passes over."""
    known = PipelineOptions(list(flags)).get_all_options()
    return [
        flag
        for before, flag in pairwise(["", *flags])
        if not (_is_option(flag, known) or _takes(before, flag))
    ]


def _is_option(flag: str, known: Container[str]) -> bool:
    name = flag.removeprefix("--").split("=")[0]
    return flag.startswith("--") and (name in known or name.removeprefix("no_") in known)


def _takes(before: str, flag: str) -> bool:
    """Whether a word may be the value of the one before it."""
    return before.startswith("--") and "=" not in before and not flag.startswith("-")


def _files(step: Step) -> set[str]:
    """Names of the whole files of a step."""
    return {name for name in os.listdir(step.folder) if not name.startswith(".")}


def _missing(step: Step, person: Path, there: set[str] | None = None) -> list[Chunk]:
    """The chunks of an identity whose files are not there."""
    if there is None:
        return [chunk for chunk in step.chunks(person) if not chunk.target.exists()]
    return [chunk for chunk in step.chunks(person) if chunk.target.name not in there]


@contextlib.contextmanager
def _as_step_error() -> Iterator[None]:
    try:
        yield
    except (ValueError, OSError) as error:
        raise StepError(sentence(error)) from error


@contextlib.contextmanager
def _progress(step: Step, before: int, total: int) -> Iterator[None]:
    """A bar of the chunks that are done, wherever the workers are: their files are counted."""
    done = threading.Event()

    def watch() -> None:
        with tqdm(total=total, desc=step.folder.name, unit="chunk") as bar:
            while True:
                last = done.wait(SECONDS)
                bar.update(min(len(_files(step)) - before, total) - bar.n)
                if last:
                    return

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()
