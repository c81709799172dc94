"""From jobs to PNGs: makes batches, and writes each image with its record."""

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path

import jax

from flashface_jax.common.errors import sentence
from flashface_jax.faces.detect import FaceDetector
from flashface_jax.sampling.job_loader import JobLoader, LoadedJob
from flashface_jax.sampling.jobs import Job
from flashface_jax.sampling.pipeline import FlashFacePipeline
from flashface_jax.sampling.records import SOFTWARE, Record, Weights, read_record, write_png
from flashface_jax.sampling.reference_cache import ReferenceCache
from flashface_jax.weights.system import SystemConfig, count_evaluations

BATCHES_WAITING = 4
"""Jobs of so many batches are kept waiting, with their photos, for others to be made with."""


@dataclass
class Outcome:
    """What became of some jobs.

    Attributes:
        made: files written.
        kept: files that were there already.
        failed: name of a job -> why it could not be made.
    """

    made: list[Path] = field(default_factory=list)
    kept: list[Path] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)


class Reporter:
    """Hears what a runner does; this one prints notes and goes on after failures."""

    def note(self, text: str) -> None:
        """Take a sentence for the user."""
        print(text)

    def failed(self, name: str, error: Exception) -> None:
        """Hear why a job cannot be made; what is raised here stops the runner."""
        print(f"{name}: {sentence(error)}")

    def kept(self, images: int) -> None:
        """Hear how many images are there already, before any is made."""

    def begin(self, images: int, evaluations: int) -> None:
        """Hear of a batch before it is made: its images, and how often it will report progress."""


@dataclass
class BatchRunner:
    """Makes jobs with a pipeline, which is opened only when there is something to make.

    Attributes:
        config: what the networks look like and how they like to be sampled.
        open_pipeline: opens them.
        weights: where they come from, for the record.
        find_detector: opens the face detector; asked for only when a photo needs it.
        at_a_time: images in a batch.
        cache: keeps people's features between batches; None to compute them each time.
        reporter: hears what is done.
    """

    config: SystemConfig
    open_pipeline: Callable[[], FlashFacePipeline]
    weights: Path
    find_detector: Callable[[], FaceDetector]
    at_a_time: int = 1
    cache: ReferenceCache | None = None
    reporter: Reporter = field(default_factory=Reporter)

    @cached_property
    def pipeline(self) -> FlashFacePipeline:
        """The networks, opened."""
        return self.open_pipeline()

    @cached_property
    def loader(self) -> JobLoader:
        """What reads photos."""
        return JobLoader(self.config, self.find_detector, self.reporter.note)

    def run(self, jobs: Sequence[Job], out: Path) -> Outcome:
        """Make every job that is not made yet; what fails is reported, and the rest goes on.

        An image that is there and was made of the same job is kept, so that the same call goes on
        after a stop; one that was made of another job is never overwritten. What can be seen to be
        wrong without reading photos is reported before anything is made. Of several hosts with
        the same jobs, each makes its share.

        Args:
            jobs: with different names.
            out: directory of `<name>.png`.

        Raises:
            ValueError: if two jobs have one name.
        """
        twice = [name for name, count in Counter(job.name for job in jobs).items() if count > 1]
        if twice:
            raise ValueError(f"Two jobs are named {twice[0]!r}: give each a name of its own.")
        outcome = Outcome()
        own = jobs[jax.process_index() :: jax.process_count()]
        todo = [job for job in own if self._is_open(job, out, outcome)]
        self.reporter.kept(len(outcome.kept))
        for batch in self._batches(self._loaded(todo, outcome)):
            self._make(batch, out, outcome)
        return outcome

    def _is_open(self, job: Job, out: Path, outcome: Outcome) -> bool:
        path = out / f"{job.name}.png"
        try:
            if not path.exists():
                self.loader.check(job)
                return True
            if not self._is_of(path, job):
                raise ValueError(f"{path} was made otherwise: choose another --out, or remove it.")
            outcome.kept.append(path)
        except (ValueError, OSError) as error:
            self._fail(job, error, outcome)
        return False

    def _is_of(self, path: Path, job: Job) -> bool:
        """Whether an image was made of a job, with these weights."""
        try:
            record = read_record(path)
        except ValueError:
            return False
        same = record.job == job.described()
        return same and record.weights.sha256 == self.pipeline.weights_sha256

    def _fail(self, job: Job, error: Exception, outcome: Outcome) -> None:
        outcome.failed[job.name] = sentence(error)
        self.reporter.failed(job.name, error)

    def _loaded(self, jobs: Sequence[Job], outcome: Outcome) -> Iterator[LoadedJob]:
        for job in jobs:
            try:
                loaded = self.loader.load(job)
            except (ValueError, OSError) as error:
                self._fail(job, error, outcome)
            else:
                yield loaded

    def _batches(self, loaded: Iterator[LoadedJob]) -> Iterator[list[LoadedJob]]:
        """Collect jobs that one program can make; few wait for others, so some are alone."""
        waiting: dict[Hashable, list[LoadedJob]] = defaultdict(list)
        for one in loaded:
            group = waiting[one.program]
            group.append(one)
            if len(group) == self.at_a_time:
                yield waiting.pop(one.program)
            elif sum(map(len, waiting.values())) >= BATCHES_WAITING * self.at_a_time:
                yield waiting.pop(next(iter(waiting)))
        yield from waiting.values()

    def _make(self, batch: list[LoadedJob], out: Path, outcome: Outcome) -> None:
        first, pipeline = batch[0], self.pipeline  # whose opening may have something to say
        how = first.sampling
        evaluations = count_evaluations(how.steps, how.solver, how.spacing, self.config.schedule)
        self.reporter.begin(len(batch), evaluations)
        requests = [one.request for one in batch]
        # Filled up, or a last, smaller batch would be compiled for.
        requests += requests[-1:] * (self.at_a_time - len(requests))
        alike = all(request.people == requests[0].people for request in requests)
        made = pipeline.make(
            requests,
            sampling=first.sampling,
            size=first.size,
            cache=self.cache if alike else None,
        )
        out.mkdir(parents=True, exist_ok=True)
        for one, image in zip(batch, made.images, strict=False):  # without what was made to fill up
            path = out / f"{one.job.name}.png"
            write_png(path, one.finish(image), self._record(one))
            outcome.made.append(path)

    def _record(self, one: LoadedJob) -> Record:
        return Record(
            software=SOFTWARE,
            job=one.job.described(),
            sampling=asdict(one.sampling),
            size=one.size,
            references=tuple(person.sha256 for person in one.request.people),
            painted=None if one.photo is None else one.photo.sha256,
            weights=Weights(str(self.weights), self.pipeline.weights_sha256),
            precision=self.pipeline.precision,
            detector=self.loader.detector if one.job.finds_faces else None,
        )
