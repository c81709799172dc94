"""Jobs: images to make, in files and words, as a command, a jobs file and a PNG all name them."""

import dataclasses
import json
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flashface_jax.common.errors import sentence, shortened
from flashface_jax.common.from_json import from_json
from flashface_jax.common.options import option
from flashface_jax.diffusion.settings import SamplingConfig
from flashface_jax.faces.choose import parse_which
from flashface_jax.sampling.presets import PRESETS

SETTINGS = tuple(f.name for f in dataclasses.fields(SamplingConfig))

Box = tuple[float, float, float, float]

MOST_REFERENCES = 64
HEAVIEST = 1000.0
"""Most that a photo's weight or a person's share can be; more is as good as alone."""
LONGEST_SIDE = 8192
LONGEST_TEXT = 10_000
LONGEST_NAME = 200
SHEET = "sheet"
"""The name of the contact sheet that is written beside the images."""


@dataclass(frozen=True)
class Repaint:
    """A photo of which a part is painted anew.

    Attributes:
        photo: the photo's file, of any size.
        mask: a picture of the photo's size, white where it is painted anew.
        box: a box to paint anew instead, in words or numbers as for a face position; the face that
            is found there if neither is given.
        face: which face is meant, where several are found: "only", "largest" or a number.
        context: side of what the model sees over the side of the mask, 1 to 100.
    """

    photo: str = option(
        "paint the face of this photo anew, in its surroundings; the result has its size, and is "
        "the photo where nothing was painted",
        "PHOTO",
        flags=("--repaint",),
    )
    mask: str | None = option(
        "what to paint anew: white in a picture of the photo's size", "PICTURE", default=None
    )
    box: str | Box | None = option(
        "or a box to paint anew, as for --face-position (default: the face that is found in the "
        "photo)",
        "P",
        default=None,
        flags=("--repaint-box",),
        nargs="+",
    )
    face: str | int = option(
        "which face to paint anew where several are found, as for --face (default: only)",
        "WHICH",
        default="only",
        flags=("--repaint-face",),
        parse=str,
    )
    context: float = option(
        "how much of the photo the model sees: the side of that part over the side of the mask, 1 "
        "to 100 (default: 3)",
        "X",
        default=3.0,
    )

    def __post_init__(self) -> None:
        if self.mask is not None and self.box is not None:
            raise ValueError("A photo is repainted inside a mask or a box: give one of them.")
        if not 1 <= self.context <= 100:
            raise ValueError(f"context is {self.context}; choose between 1 and 100.")
        parse_which(str(self.face))

    @property
    def finds_face(self) -> bool:
        """Whether a face has to be found in the photo."""
        return self.mask is None and self.box is None


@dataclass(frozen=True)
class Job:
    """One image to make.

    Attributes:
        prompt: what it shows.
        people: photo files of each person; several people are mixed into one.
        negative_prompt: what to avoid.
        seed: of the noise.
        reference_weights: how often each photo counts, in the order of `people`.
        shares: how much each person counts, relative to the others.
        fill_references: let few photos count as often as this many would, as the released code
            does with 4; 0 for each once.
        faces_cropped: the photos are upright face crops already.
        face: which face of each photo: "only", "largest", or a number from the left.
        face_position: where the face goes: words, or four numbers.
        height: in pixels, a multiple of 8; what the weights were trained at if None.
        width: likewise.
        preset: a set of strengths by intent.
        settings: fields of SamplingConfig that differ from the preset's and the weights'.
        repaint: a photo to paint into.
        name: of the file to write, without ".png".
    """

    prompt: str
    people: tuple[tuple[str, ...], ...] = option(
        "photos of one person; give it again for another person, and both are mixed into one",
        "PHOTO",
        flags=("--references",),
        nargs="+",
        repeated=True,
    )
    negative_prompt: str = option("what to avoid", "TEXT", default="")
    seed: int = option(
        "seed of the first image, each further one has the next; the same seed and settings give "
        "the same image (default: 0)",
        "N",
        default=0,
    )
    reference_weights: tuple[tuple[float, ...], ...] | None = option(
        "how often each photo counts, in the order of --references, which is given as often "
        "(default: 1 each); 0 leaves a photo out",
        "W",
        default=None,
        parse=float,
        nargs="+",
        repeated=True,
    )
    shares: tuple[float, ...] | None = option(
        "how much each person counts beside the others, as 0.7 0.3 (default: equally)",
        "S",
        default=None,
        parse=float,
        nargs="+",
    )
    fill_references: int = option(
        "let fewer than N photos count as often as N; the released code does so with 4 (default: "
        "0, each photo once)",
        "N",
        default=0,
    )
    faces_cropped: bool = False
    face: str | int = option(
        "which face of a photo that shows several: largest, or a number counted from the left, 0 "
        "first (default: only, which refuses such photos)",
        "WHICH",
        default="only",
        parse=str,
    )
    face_position: str | Box = option(
        "where the face goes: anywhere, left, centre, right, close-up, 'left close-up', 'right "
        "close-up', or x1 y1 x2 y2 from the top left corner, as fractions or pixels (default: "
        "centre)",
        "P",
        default="centre",
        flags=("--face-position", "--face-box"),
        nargs="+",
    )
    height: int | None = None
    width: int | None = None
    preset: str | None = option(
        "strengths by intent, for the released weights: identity for a close likeness, age_change "
        "for another age or gender than in the photos, artwork for a painting or a statue of the "
        "person, real_from_art for a drawn character as a real person; each strength can still be "
        "set",
        default=None,
        choices=tuple(PRESETS),
    )
    settings: dict[str, Any] = field(default_factory=dict)
    repaint: Repaint | None = None
    name: str = ""

    def __post_init__(self) -> None:
        if not self.people or not all(self.people):
            raise ValueError("A job needs references: one or more photos of a person.")
        for name in ("prompt", "negative_prompt"):
            _check_text(name, getattr(self, name))
        if not 0 <= self.seed < 2**32:
            raise ValueError(
                f"seed is {shortened(self.seed)}; choose a whole number from 0 to 2^32 - 1."
            )
        _check_weights(self)
        parse_which(str(self.face))
        for name in ("height", "width"):
            side = getattr(self, name)
            if side is not None and not 1 <= side <= LONGEST_SIDE:
                raise ValueError(
                    f"{name} is {shortened(side)} pixels; choose from 8 to {LONGEST_SIDE}."
                )
        if self.preset is not None and self.preset not in PRESETS:
            raise ValueError(
                f"There is no preset {shortened(self.preset)}: choose {', '.join(PRESETS)}."
            )
        _check_name(self.name)
        self.sampling(SamplingConfig())  # raises for what is impossible with any weights

    @property
    def finds_faces(self) -> bool:
        """Whether faces have to be found in a photo of this job."""
        painted_by_face = self.repaint is not None and self.repaint.finds_face
        return not self.faces_cropped or painted_by_face

    @property
    def files(self) -> tuple[str, ...]:
        """Every file that this job reads."""
        photos = [photo for photos in self.people for photo in photos]
        if self.repaint is not None:
            photos += [name for name in (self.repaint.photo, self.repaint.mask) if name is not None]
        return tuple(photos)

    def sampling(self, liked: SamplingConfig) -> SamplingConfig:
        """Settings of this job: those that the weights like, changed by preset and settings.

        Raises:
            ValueError: naming the setting that is impossible.
        """
        preset = PRESETS[self.preset] if self.preset else {}
        chosen = {**dataclasses.asdict(liked), **preset, **self.settings}
        config: SamplingConfig = from_json(SamplingConfig, chosen, "settings")
        return config

    def counts(self, person: int) -> tuple[float, ...] | None:
        """How often each photo of a person counts; None for each once."""
        if self.reference_weights is not None:
            return self.reference_weights[person]
        photos = len(self.people[person])
        if self.fill_references <= photos:
            return None
        each, rest = divmod(self.fill_references, photos)
        return tuple(float(each + (i < rest)) for i in range(photos))

    def described(self) -> dict[str, Any]:
        """The job as JSON holds it, without what is left at its default."""
        defaults = {f.name: f.default for f in dataclasses.fields(self)}
        values = dataclasses.asdict(self)
        changed = {name: value for name, value in values.items() if value != defaults[name]}
        if not self.settings:
            changed.pop("settings")
        plain: dict[str, Any] = _plain(changed)
        return plain


def parse_job(described: Mapping[str, Any]) -> Job:
    """Make a job of what JSON holds.

    `people` may be one person's photos, and fields of SamplingConfig may stand beside the job's.

    Raises:
        ValueError: naming what is missing, unknown or of the wrong kind.
    """
    values = dict(described)
    fields = [f.name for f in dataclasses.fields(Job)]
    for key in values:
        if key not in fields and key not in SETTINGS:
            known = ", ".join([*fields, *SETTINGS])
            raise ValueError(f"There is no setting {shortened(key)}: choose among {known}.")
    people = values.get("people")
    if isinstance(people, (list, tuple)) and people and all(isinstance(p, str) for p in people):
        values["people"] = [people]
    given = from_json(dict[str, Any], values.get("settings", {}), "settings")
    beside = {name: values.pop(name) for name in SETTINGS if name in values}
    job: Job = from_json(Job, {**values, "settings": {**given, **beside}}, "the job")
    return job


def read_jobs(path: Path) -> Iterator[tuple[str, Job | ValueError]]:
    """Read a file with a job in JSON on each line; blank lines are passed over.

    Yields:
        Where a job stands ("jobs.jsonl, line 3"), and the job or what is wrong with it.

    Raises:
        ValueError: if the file itself cannot be read.
    """
    try:
        kind = path.stat().st_mode
        if not (stat.S_ISREG(kind) or stat.S_ISFIFO(kind)):
            raise ValueError("it is a directory or a device")
        text = path.read_text(encoding="utf-8-sig")  # some editors put a mark in front
    except FileNotFoundError as error:
        raise ValueError(f"{path} does not exist.") from error
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} is no text file that can be read ({error}).") from error
    # splitlines would also split at characters that may stand inside JSON's texts.
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield f"{path}, line {number}", _read_line(line)


def _read_line(line: str) -> Job | ValueError:
    try:
        described = json.loads(line, parse_constant=_no_number, object_pairs_hook=_only_once)
    except (ValueError, RecursionError) as error:
        return ValueError(f"it is no JSON: {sentence(error)}")
    if not isinstance(described, dict):
        return ValueError("it is no JSON object: write {...} with a prompt and people.")
    try:
        return parse_job(described)
    except ValueError as error:
        return error


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is no number")


def _only_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"{shortened(twice)} is given twice")
    return values


def _check_text(name: str, text: str) -> None:
    if len(text) > LONGEST_TEXT:
        raise ValueError(f"{name} has {len(text)} characters; {LONGEST_TEXT} are the most.")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{name} {shortened(text)} is no text: {error.reason}.") from error


def _check_weights(job: Job) -> None:
    """Raise a ValueError unless weights and shares fit the people, and are sensible numbers."""
    rows = job.reference_weights
    if rows is not None:
        given = [len(weights) for weights in rows]
        if given != [len(photos) for photos in job.people]:
            raise ValueError(
                f"reference_weights {shortened(_plain(rows))} do not match the photos: give one "
                "weight for each photo."
            )
        for weights in rows:
            if not all(0 <= weight <= HEAVIEST for weight in weights) or not any(weights):
                raise ValueError(
                    f"reference_weights {shortened(list(weights))} of a person must be between 0 "
                    f"and {HEAVIEST:g}, and not all of them 0."
                )
        if job.fill_references:
            raise ValueError("Give either reference_weights or fill_references, not both.")
    if not 0 <= job.fill_references <= MOST_REFERENCES:
        raise ValueError(
            f"fill_references is {shortened(job.fill_references)}; choose from 0 to "
            f"{MOST_REFERENCES}."
        )
    if job.shares is not None:
        if len(job.shares) != len(job.people):
            raise ValueError(
                f"shares {shortened(list(job.shares))} do not match the {len(job.people)} "
                f"{'person' if len(job.people) == 1 else 'people'}: give one for each."
            )
        if not all(0 < share <= HEAVIEST for share in job.shares):
            raise ValueError(
                f"shares {shortened(list(job.shares))} must be above 0, and {HEAVIEST:g} or less."
            )


def _check_name(name: str) -> None:
    plain = name.isprintable() and "/" not in name and "\\" not in name
    if name.startswith(".") or not plain or len(name.encode(errors="replace")) > LONGEST_NAME:
        raise ValueError(
            f"name {shortened(name)} is no file name: leave out '/', a leading '.' and control "
            f"characters, and take {LONGEST_NAME} letters at most."
        )
    if name.lower() == SHEET:
        raise ValueError(f"name {name!r} is kept for the contact sheet: choose another.")


def _plain(values: Any) -> Any:
    """Values as JSON gives them back: lists for tuples."""
    return json.loads(json.dumps(values))
