"""The steps: what is done with each chunk. They are data, which a worker opens its models from."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

from flashface_jax.curation.captions import VisionLanguageCaptioner
from flashface_jax.curation.measured import Measured, measure
from flashface_jax.curation.outcomes import KEPT
from flashface_jax.curation.pipeline.collect import Source
from flashface_jax.curation.pipeline.work import Chunk, digest, pieces, read_person
from flashface_jax.curation.rules import Rules
from flashface_jax.curation.selection import Selection, select
from flashface_jax.faces.cascade_detector import CascadeDetector
from flashface_jax.faces.detect import FaceDetector
from flashface_jax.faces.embedding import ArcFaceEmbedder
from flashface_jax.faces.files import read_photo
from flashface_jax.faces.insightface_detector import InsightFaceDetector

PHOTOS_MEASURED = 128
PHOTOS_CAPTIONED = 32
# Some models turn every pixel into words.
CAPTIONED_SIDE = 1024

DetectorName = Literal["insightface", "cascade"]
Work = Callable[[Chunk], bytes]


@runtime_checkable
class Step(Protocol):
    """A step over all people."""

    @property
    def folder(self) -> Path:
        """Where its files go."""
        ...

    @property
    def version(self) -> str:
        """A digest of its settings."""
        ...

    def chunks(self, person: Path) -> list[Chunk]:
        """The chunks of an identity; the step before must have been done for it."""
        ...

    def open(self) -> Work:
        """Load what the work needs, once a worker."""
        ...


@dataclass(frozen=True)
class Measure:
    """Read each photo once: find its faces, embed them, hash the picture."""

    folder: Path
    version: str
    detector: DetectorName
    models: Path

    def chunks(self, person: Path) -> list[Chunk]:
        """Up to 128 photos of a person each."""
        sources = read_person(person).sources
        return [
            Chunk(self.folder / f"{_name(self, sources, piece)}.npz", person, piece)
            for piece in pieces(range(len(sources)), PHOTOS_MEASURED)
        ]

    def open(self) -> Work:
        """Load the detector and the embedder."""
        detector, embedder = self.open_detector(), ArcFaceEmbedder(self.models)

        def work(chunk: Chunk) -> bytes:
            sources = read_person(chunk.person).sources
            photos = [Path(sources[i].photo) for i in chunk.photos]
            return Measured.join(
                [measure(photo, detector, embedder) for photo in photos]
            ).to_bytes()

        return work

    def open_detector(self) -> FaceDetector:
        """The detector that was asked for."""
        if self.detector == "cascade":
            return CascadeDetector()
        return InsightFaceDetector(self.models)


@dataclass(frozen=True)
class Select:
    """Find the person among the faces of a name, and choose the photos."""

    folder: Path
    version: str
    rules: Rules
    measured: Measure

    def chunks(self, person: Path) -> list[Chunk]:
        """A whole identity; none if it has no files."""
        sources = read_person(person).sources
        inputs = tuple(chunk.target for chunk in self.measured.chunks(person))
        ids = [source.source_id for source in sources]
        name = digest(self.version, ids, [file.name for file in inputs])
        target = self.folder / f"{name}.json"
        return [Chunk(target, person, tuple(range(len(ids))), inputs)] if ids else []

    def open(self) -> Work:
        """Nothing to load."""

        def work(chunk: Chunk) -> bytes:
            measured = Measured.join([Measured.load(file) for file in chunk.inputs])
            ids = [source.source_id for source in read_person(chunk.person).sources]
            return select(measured, ids, self.rules).to_bytes()

        return work

    def result(self, person: Path) -> Selection:
        """What was chosen of an identity; the step must have been done."""
        chunks = self.chunks(person)
        if not chunks:
            return Selection("no_faces", (), ())
        return Selection.from_bytes(chunks[0].target.read_bytes())


@dataclass(frozen=True)
class Caption:
    """Describe the chosen photos in words."""

    folder: Path
    version: str
    model: str
    max_tokens: int
    batch: int
    selected: Select

    def chunks(self, person: Path) -> list[Chunk]:
        """Up to 32 chosen photos of a person each."""
        sources = read_person(person).sources
        verdicts = self.selected.result(person).verdicts
        kept = [i for i, verdict in enumerate(verdicts) if verdict.outcome == KEPT]
        return [
            Chunk(self.folder / f"{_name(self, sources, piece)}.json", person, piece)
            for piece in pieces(kept, PHOTOS_CAPTIONED)
        ]

    def open(self) -> Work:
        """Load the model."""
        captioner = VisionLanguageCaptioner(self.model, self.max_tokens, self.batch)

        def work(chunk: Chunk) -> bytes:
            sources = read_person(chunk.person).sources
            photos = [Path(sources[i].photo) for i in chunk.photos]
            said: list[str] = []
            for piece in pieces(range(len(photos)), self.batch):  # a batch of photos in memory
                said += captioner.caption([read_photo(photos[i], CAPTIONED_SIDE) for i in piece])
            return json.dumps(said).encode()

        return work

    def result(self, person: Path) -> dict[int, str]:
        """Captions of an identity's chosen photos by position; the step must have been done."""
        return {
            i: caption
            for chunk in self.chunks(person)
            for i, caption in zip(chunk.photos, json.loads(chunk.target.read_bytes()), strict=True)
        }


def _name(step: Step, sources: Sequence[Source], photos: Sequence[int]) -> str:
    """A name for what a step makes of some photos; a file that changed gives another."""
    files = [(sources[i].photo, sources[i].size, sources[i].modified) for i in photos]
    return digest(step.version, files)
