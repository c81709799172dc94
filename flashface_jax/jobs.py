"""Jobs: images to make, in files and words, as a command, a jobs file and a PNG all name them."""

import dataclasses
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dacite

from flashface_jax.presets import PRESETS
from flashface_jax.system import SamplingConfig

SETTINGS = frozenset(f.name for f in dataclasses.fields(SamplingConfig))


@dataclass(frozen=True)
class Repaint:
    """A photo of which a part is painted anew.

    Attributes:
        photo: the photo's file, of any size.
        mask: a picture of the photo's size, white where it is painted anew.
        box: a box to paint anew instead, in words or numbers as for a face position; the face that
            is found there if neither is given.
        face: which face is meant, where several are found: "only", "largest" or a number.
        context: side of what the model sees over the side of the mask.
    """

    photo: str
    mask: str | None = None
    box: str | None = None
    face: str | int = "only"
    context: float = 3.0


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
    people: tuple[tuple[str, ...], ...]
    negative_prompt: str = ""
    seed: int = 0
    reference_weights: tuple[tuple[float, ...], ...] | None = None
    shares: tuple[float, ...] | None = None
    fill_references: int = 0
    faces_cropped: bool = False
    face: str | int = "only"
    face_position: str = "centre"
    height: int | None = None
    width: int | None = None
    preset: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    repaint: Repaint | None = None
    name: str = ""

    def __post_init__(self) -> None:
        if not self.people or not all(self.people):
            raise ValueError("A job needs references: one or more photos of a person.")
        if self.reference_weights is not None:
            given = [len(weights) for weights in self.reference_weights]
            if given != [len(photos) for photos in self.people]:
                raise ValueError(
                    f"reference_weights {_plain(self.reference_weights)} do not match the photos: "
                    "give one weight for each photo."
                )
            if self.fill_references:
                raise ValueError("Give either reference_weights or fill_references, not both.")
        if self.shares is not None and len(self.shares) != len(self.people):
            raise ValueError(
                f"{len(self.people)} people have {len(self.shares)} shares: give one for each."
            )
        if not 0 <= self.fill_references <= 64:
            raise ValueError(f"fill_references is {self.fill_references}; choose from 0 to 64.")
        if self.preset is not None and self.preset not in PRESETS:
            raise ValueError(f"There is no preset {self.preset!r}: choose {', '.join(PRESETS)}.")
        if "/" in self.name or self.name.startswith("."):
            raise ValueError(
                f"Name {self.name!r} is no file name: leave out '/' and a leading '.'."
            )

    def sampling(self, liked: SamplingConfig) -> SamplingConfig:
        """Settings of this job: those that the weights like, changed by preset and settings.

        Raises:
            ValueError: naming the setting that is impossible.
        """
        preset = PRESETS[self.preset] if self.preset else {}
        chosen = {**dataclasses.asdict(liked), **preset, **self.settings}
        try:
            return dacite.from_dict(
                SamplingConfig, chosen, dacite.Config(cast=[tuple], strict=True)
            )
        except dacite.WrongTypeError as error:
            raise ValueError(
                f"{error.field_path} is {error.value!r}, which is no {_kind(error.field_type)}."
            ) from error

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
    people = values.get("people")
    if isinstance(people, (list, tuple)) and people and all(isinstance(p, str) for p in people):
        values["people"] = [people]
    settings = {name: values.pop(name) for name in [*values] if name in SETTINGS}
    values["settings"] = {**values.get("settings", {}), **settings}
    unknown = values.keys() - {f.name for f in dataclasses.fields(Job)}
    unknown |= values["settings"].keys() - SETTINGS
    if unknown:
        raise ValueError(
            f"There is no setting {sorted(unknown)[0]!r}: sample.py --help lists them."
        )
    try:
        return dacite.from_dict(Job, values, dacite.Config(cast=[tuple, float], strict=True))
    except dacite.MissingValueError as error:
        raise ValueError(f"{error.field_path!r} is missing.") from error
    except dacite.UnexpectedDataError as error:
        raise ValueError(f"repaint has no setting {sorted(error.keys)[0]!r}.") from error
    except dacite.WrongTypeError as error:
        raise ValueError(
            f"{error.field_path!r} is {error.value!r}, which is no {_kind(error.field_type)}."
        ) from error
    except (TypeError, ValueError) as error:
        if isinstance(error, ValueError) and str(error).endswith("."):
            raise
        raise ValueError(f"a value is of the wrong kind ({error}).") from error


def read_jobs(path: Path) -> Iterator[tuple[str, Job | ValueError]]:
    """Read a file with a job in JSON on each line; blank lines are passed over.

    Yields:
        Where a job stands ("jobs.jsonl, line 3"), and the job or what is wrong with it.

    Raises:
        ValueError: if the file itself cannot be read.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError as error:
        raise ValueError(f"{path} does not exist.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no text file that can be read ({error}).") from error
    for number, line in enumerate(lines, start=1):
        if line.strip():
            yield f"{path}, line {number}", _read_line(line)


def _read_line(line: str) -> Job | ValueError:
    try:
        described = json.loads(line)
    except (ValueError, RecursionError) as error:
        return ValueError(f"it is no JSON ({error}).")
    if not isinstance(described, dict):
        return ValueError("it is no JSON object: write {...} with a prompt and people.")
    try:
        return parse_job(described)
    except ValueError as error:
        return error


def _plain(values: Any) -> Any:
    """Values as JSON gives them back: lists for tuples."""
    return json.loads(json.dumps(values))


def _kind(kind: Any) -> str:
    """What a type is called in a sentence."""
    names = {int: "whole number", float: "number", str: "text", bool: "true or false"}
    return names.get(kind, str(kind))
