"""From jobs to PNGs: reads photos, makes batches, writes each image with its record."""

from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import UInt8

from flashface_jax.faces.choose import choose_face, parse_which
from flashface_jax.faces.compositing import paste_back
from flashface_jax.faces.detect import FaceDetector
from flashface_jax.faces.files import (
    read_cropped_faces,
    read_mask,
    read_photo,
    read_reference_faces,
)
from flashface_jax.faces.position import face_box
from flashface_jax.faces.region import Region, cut, cut_mask, latent_mask, mask_of_box, plan_region
from flashface_jax.jobs import Job, Repaint
from flashface_jax.pipeline import FlashFacePipeline, Painting, Person, Shot
from flashface_jax.records import SOFTWARE, Record, read_record, write_png
from flashface_jax.reference_cache import ReferenceCache
from flashface_jax.system import SamplingConfig

PEOPLE_KEPT = 256
"""People whose faces are kept for later jobs."""


class Photo(NamedTuple):
    """A photo to paint into, and where."""

    pixels: UInt8[np.ndarray, "H W 3"]
    mask: np.ndarray
    region: Region


@dataclass(frozen=True)
class Prepared:
    """A job with its photos read, ready to be made.

    Attributes:
        job: the job.
        shot: what the pipeline makes.
        sampling: every setting.
        size: height and width that the model makes.
        photo: what the result is pasted into, or None.
    """

    job: Job
    shot: Shot
    sampling: SamplingConfig
    size: tuple[int, int]
    photo: Photo | None

    @property
    def program(self) -> Hashable:
        """Jobs with the same can be made in one batch."""
        sampling = tuple(sorted((name, str(value)) for name, value in vars(self.sampling).items()))
        painting = self.photo is not None
        return self.size, sampling, self.job.negative_prompt, len(self.job.people), painting

    def finish(self, image: UInt8[np.ndarray, "_ _ 3"]) -> UInt8[np.ndarray, "_ _ 3"]:
        """Put what the model made into the photo, if there is one."""
        if self.photo is None:
            return image
        return paste_back(self.photo.pixels, image, self.photo.region, self.photo.mask)


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


@dataclass
class Studio:
    """Makes jobs with a pipeline.

    Attributes:
        pipeline: the networks.
        weights: where they came from, for the record.
        find_detector: opens the face detector; asked for only when a photo needs it.
        at_a_time: images in a batch.
        cache: keeps people's features between batches; None to compute them each time.
        say: takes a sentence for the user.
        on_batch: called with the number of images before a batch is made.
    """

    pipeline: FlashFacePipeline
    weights: Path
    find_detector: Callable[[], FaceDetector]
    at_a_time: int = 1
    cache: ReferenceCache | None = None
    say: Callable[[str], None] = print
    on_batch: Callable[[int, int], None] = lambda images, steps: None
    _detector: FaceDetector | None = None
    _people: OrderedDict[Hashable, Person] = field(default_factory=OrderedDict)

    def run(self, jobs: Sequence[Job], out: Path) -> Outcome:
        """Make every job that is not made yet; what fails is reported, and the rest goes on.

        An image that is there and was made of the same job is kept, so that the same call goes on
        after a stop; one that was made of another job is never overwritten.

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
        todo = [job for job in jobs if self._is_open(job, out, outcome)]
        # Hosts must agree on what is left before any of them writes.
        multihost_utils.sync_global_devices("jobs are chosen")
        for batch in self._batches(self._prepared(todo, outcome)):
            self._make(batch, out, outcome)
        return outcome

    def prepare(self, job: Job) -> Prepared:
        """Read what a job names.

        Raises:
            ValueError: naming the file or setting that will not do.
        """
        config = self.pipeline.config
        sampling = job.sampling(config.sampling)
        sampling.plan(config.schedule)  # what is impossible shows before anything is made
        size = (job.height or config.image_size, job.width or config.image_size)
        photo = None if job.repaint is None else self._photo(job.repaint, size)
        shot = Shot(
            prompt=job.prompt,
            people=tuple(self._person(job, i) for i in range(len(job.people))),
            seed=job.seed,
            negative_prompt=job.negative_prompt,
            face_box=face_box(job.face_position, size),
            painting=None if photo is None else self._painting(photo),
        )
        self.pipeline.request([shot], sampling, size)  # so does what does not fit the model
        return Prepared(job, shot, sampling, size, photo)

    def _is_open(self, job: Job, out: Path, outcome: Outcome) -> bool:
        path = out / f"{job.name}.png"
        if not path.exists():
            return True
        try:
            record = read_record(path)
            same = record["job"] == job.described()
            same &= record["weights"]["sha256"] == self.pipeline.weights_sha256
        except ValueError:
            same = False
        if same:
            outcome.kept.append(path)
        else:
            self._fail(job, f"{path} was made otherwise: choose another --out.", outcome)
        return False

    def _fail(self, job: Job, why: str, outcome: Outcome) -> None:
        outcome.failed[job.name] = why
        self.say(f"{job.name}: {why}")

    def _prepared(self, jobs: Sequence[Job], outcome: Outcome) -> Iterator[Prepared]:
        for job in jobs:
            try:
                yield self.prepare(job)
            except (ValueError, OSError) as error:
                self._fail(job, str(error), outcome)

    def _batches(self, prepared: Iterator[Prepared]) -> Iterator[list[Prepared]]:
        """Collect jobs that one program can make; the last batches may be smaller."""
        waiting: dict[Hashable, list[Prepared]] = defaultdict(list)
        for one in prepared:
            group = waiting[one.program]
            group.append(one)
            if len(group) == self.at_a_time:
                yield waiting.pop(one.program)
        yield from waiting.values()

    def _make(self, batch: list[Prepared], out: Path, outcome: Outcome) -> None:
        first = batch[0]
        self.on_batch(len(batch), first.sampling.steps)
        shots = [one.shot for one in batch]
        shots += shots[-1:] * (self.at_a_time - len(shots))  # or a last batch would be compiled for
        alike = all(shot.people == shots[0].people for shot in shots)
        images = self.pipeline.make(
            shots,
            sampling=first.sampling,
            size=first.size,
            cache=self.cache if alike else None,
        )
        out.mkdir(parents=True, exist_ok=True)
        for one, image in ((batch[i], image) for i, image in images.items() if i < len(batch)):
            path = out / f"{one.job.name}.png"
            write_png(path, one.finish(image), self._record(one))
            outcome.made.append(path)

    def _record(self, one: Prepared) -> Record:
        return {
            "software": SOFTWARE,
            "job": one.job.described(),
            "sampling": asdict(one.sampling),
            "size": list(one.size),
            "references": [person.sha256 for person in one.shot.people],
            "weights": {"path": str(self.weights), "sha256": self.pipeline.weights_sha256},
            "precision": self.pipeline.precision,
            "detector": None if self._detector is None else self._detector.describe(),
        }

    def _person(self, job: Job, index: int) -> Person:
        """Read one person's photos, or remember them."""
        photos, counts = job.people[index], job.counts(index)
        share = 1.0 if job.shares is None else job.shares[index]
        key = photos, counts, share, job.faces_cropped, job.face
        if key not in self._people:
            faces = self._faces(job, photos)
            self._people[key] = Person(faces, counts, share)
        self._people.move_to_end(key)
        while len(self._people) > PEOPLE_KEPT:
            self._people.popitem(last=False)
        return self._people[key]

    def _faces(self, job: Job, photos: Sequence[str]) -> UInt8[np.ndarray, "refs R R 3"]:
        size, paths = self.pipeline.config.reference_size, [Path(photo) for photo in photos]
        if job.faces_cropped:
            return read_cropped_faces(paths, size)
        faces, notes = read_reference_faces(paths, self._detect(), size, parse_which(str(job.face)))
        for note in notes:
            self.say(note)
        return faces

    def _detect(self) -> FaceDetector:
        if self._detector is None:
            self._detector = self.find_detector()
            self.say(f"finding faces with {self._detector.describe()}")
        return self._detector

    def _photo(self, repaint: Repaint, size: tuple[int, int]) -> Photo:
        """Read a photo to paint into, and plan what the model sees of it."""
        path = Path(repaint.photo)
        pixels = read_photo(path, longest_side=None)
        shape = (pixels.shape[0], pixels.shape[1])
        if repaint.mask is not None:
            mask = read_mask(Path(repaint.mask), shape)
        elif repaint.box is not None:
            mask = mask_of_box(face_box(repaint.box, shape), shape)
        else:
            which = parse_which(str(repaint.face))
            box = choose_face(self._detect().detect(pixels), str(path), which).box
            within = np.clip(box / np.tile(shape[::-1], 2), 0, 1)
            mask = mask_of_box(within, shape)
        try:
            return Photo(pixels, mask, plan_region(mask, size, repaint.context))
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error

    def _painting(self, photo: Photo) -> Painting:
        mask = cut_mask(photo.mask, photo.region)
        return Painting(
            image=cut(photo.pixels, photo.region),
            repaint_pixels=mask,
            repaint=latent_mask(mask, self.pipeline.config.autoencoder.stride),
        )
