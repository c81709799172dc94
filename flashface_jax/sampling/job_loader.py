"""From jobs, which are files and words, to what the pipeline takes: arrays."""

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, UInt8

from flashface_jax.diffusion.settings import SamplingConfig
from flashface_jax.faces.choose import choose_face, parse_which
from flashface_jax.faces.compositing import paste_back
from flashface_jax.faces.detect import FaceDetector
from flashface_jax.faces.files import (
    check_picture,
    read_cropped_faces,
    read_mask,
    read_photo,
    read_reference_faces,
)
from flashface_jax.faces.position import face_box
from flashface_jax.faces.region import Region, cut, cut_mask, latent_mask, mask_of_box, plan_region
from flashface_jax.sampling.jobs import Job, Repaint
from flashface_jax.sampling.requests import ImageRequest, InpaintingImage, Person
from flashface_jax.weights.system import SystemConfig, count_evaluations

PEOPLE_KEPT = 256
"""People whose faces are kept for later jobs."""


class Photo(NamedTuple):
    """A photo to paint into, and where."""

    pixels: UInt8[np.ndarray, "H W 3"]
    mask: Float32[np.ndarray, "H W 1"]
    region: Region

    @property
    def sha256(self) -> str:
        """Hash of the photo and of what is painted anew of it."""
        masked = np.packbits(self.mask > 0)
        described = repr(self.pixels.shape).encode()
        return hashlib.sha256(described + self.pixels.tobytes() + masked.tobytes()).hexdigest()


@dataclass(frozen=True)
class LoadedJob:
    """A job with its photos read, ready to be made.

    Attributes:
        job: the job.
        request: what the pipeline makes.
        sampling: every setting.
        size: height and width that the model makes.
        photo: what the result is pasted into, or None.
    """

    job: Job
    request: ImageRequest
    sampling: SamplingConfig
    size: tuple[int, int]
    photo: Photo | None

    @property
    def program(self) -> Hashable:
        """Jobs with the same can be made in one batch."""
        sampling = tuple(sorted((name, str(value)) for name, value in vars(self.sampling).items()))
        inpainting = self.photo is not None
        return self.size, sampling, self.job.negative_prompt, len(self.job.people), inpainting

    def finish(self, image: UInt8[np.ndarray, "_ _ 3"]) -> UInt8[np.ndarray, "_ _ 3"]:
        """Put what the model made into the photo, if there is one."""
        if self.photo is None:
            return image
        return paste_back(self.photo.pixels, image, self.photo.region, self.photo.mask)


@dataclass
class JobLoader:
    """Reads what jobs name; needs to know the networks, but not their parameters.

    Attributes:
        config: what the networks look like and how they like to be sampled.
        find_detector: opens the face detector; asked for only when a photo needs it.
        note: takes a sentence for the user.
    """

    config: SystemConfig
    find_detector: Callable[[], FaceDetector]
    note: Callable[[str], None]
    _detector: FaceDetector | None = None
    _people: OrderedDict[Hashable, Person] = field(default_factory=OrderedDict)

    @property
    def detector(self) -> str | None:
        """What finds faces, if any have been looked for."""
        return None if self._detector is None else self._detector.describe()

    def check(self, job: Job) -> tuple[SamplingConfig, tuple[int, int]]:
        """Look for what is wrong with a job without reading its files.

        Returns:
            Every setting, and the height and width that the model makes.

        Raises:
            ValueError: naming the file that is not there, or the setting that will not do.
        """
        config = self.config
        sampling = job.sampling(config.sampling)
        count_evaluations(sampling.steps, sampling.solver, sampling.spacing, config.schedule)
        size = (job.height or config.image_size, job.width or config.image_size)
        stride = config.autoencoder.stride
        if any(side % stride for side in size):
            raise ValueError(
                f"image size {size[1]}x{size[0]} is no multiple of {stride}: choose sides that are."
            )
        face_box(job.face_position, size)
        if config.flashface.inpaints and job.repaint is None:
            raise ValueError("These weights only repaint: name a photo to paint into.")
        for name in job.files:
            check_picture(Path(name))
        return sampling, size

    def load(self, job: Job) -> LoadedJob:
        """Read what a job names.

        Raises:
            ValueError: naming the file or setting that will not do.
        """
        sampling, size = self.check(job)
        photo = None if job.repaint is None else self._photo(job.repaint, size)
        request = ImageRequest(
            prompt=job.prompt,
            people=tuple(self._person(job, i) for i in range(len(job.people))),
            seed=job.seed,
            negative_prompt=job.negative_prompt,
            face_box=face_box(job.face_position, size),
            inpainting=None if photo is None else self._inpainting(photo),
        )
        return LoadedJob(job, request, sampling, size, photo)

    def _person(self, job: Job, index: int) -> Person:
        """Read one person's photos, or remember them."""
        photos, counts = job.people[index], job.counts(index)
        share = 1.0 if job.shares is None else job.shares[index]
        key = photos, counts, share, job.faces_cropped, job.face
        if key not in self._people:
            self._people[key] = Person(self._faces(job, photos), counts, share)
        self._people.move_to_end(key)
        while len(self._people) > PEOPLE_KEPT:
            self._people.popitem(last=False)
        return self._people[key]

    def _faces(self, job: Job, photos: Sequence[str]) -> UInt8[np.ndarray, "refs R R 3"]:
        size, paths = self.config.reference_size, [Path(photo) for photo in photos]
        if job.faces_cropped:
            return read_cropped_faces(paths, size)
        faces, notes = read_reference_faces(paths, self._detect(), size, parse_which(str(job.face)))
        for note in notes:
            self.note(note)
        return faces

    def _detect(self) -> FaceDetector:
        if self._detector is None:
            self._detector = self.find_detector()
            self.note(f"finding faces with {self._detector.describe()}")
        return self._detector

    def _photo(self, repaint: Repaint, size: tuple[int, int]) -> Photo:
        """Read a photo to paint into, and plan what the model sees of it."""
        path = Path(repaint.photo)
        pixels = read_photo(path, longest_side=None)
        mask = self._mask(repaint, pixels)
        try:
            return Photo(pixels, mask, plan_region(mask, size, repaint.context))
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error

    def _mask(
        self, repaint: Repaint, pixels: UInt8[np.ndarray, "H W 3"]
    ) -> Float32[np.ndarray, "H W 1"]:
        """What is painted anew of a photo."""
        shape = (pixels.shape[0], pixels.shape[1])
        if repaint.mask is not None:
            return read_mask(Path(repaint.mask), shape)
        if repaint.box is not None:
            box = face_box(repaint.box, shape)
            if not any(box):
                raise ValueError(f"box {repaint.box!r} names no part of {repaint.photo}.")
            return mask_of_box(box, shape)
        found = self._detect().detect(pixels)
        face = choose_face(found, repaint.photo, parse_which(str(repaint.face)))
        return mask_of_box(np.clip(face.box / np.tile(shape[::-1], 2), 0, 1), shape)

    def _inpainting(self, photo: Photo) -> InpaintingImage:
        mask = cut_mask(photo.mask, photo.region)
        return InpaintingImage(
            image=cut(photo.pixels, photo.region),
            repaint_pixels=mask,
            repaint=latent_mask(mask, self.config.autoencoder.stride),
        )
