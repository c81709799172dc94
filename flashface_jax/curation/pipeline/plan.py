"""The steps as the options say them, with the settings that their results depend on."""

import argparse
import dataclasses
import hashlib
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flashface_jax.curation.captions import QUESTION
from flashface_jax.curation.options import rules_of
from flashface_jax.curation.pipeline.steps import Caption, Measure, Select, Step
from flashface_jax.curation.pipeline.work import digest, file_digest, prepare
from flashface_jax.faces.embedding import ArcFaceEmbedder, find_recogniser
from flashface_jax.faces.insightface_detector import PACK, download_pack, find_detector

# Changed with what the steps compute, so that older files are not taken for newer ones.
FORMAT = 1
SMALL_FILE = 1 << 20


@dataclass(frozen=True)
class Plan:
    """The steps in turn; captions may come with the photos instead."""

    measure: Measure
    select: Select
    caption: Caption | None

    @property
    def steps(self) -> list[Step]:
        """Those that are done, in turn."""
        return [self.measure, self.select, *([self.caption] if self.caption else [])]


def make_plan(options: argparse.Namespace, work: Path) -> Plan:
    """Make the steps and their folders, and say which are done anew because settings changed.

    Raises:
        ValueError: a model or a package is missing or damaged.
    """
    if importlib.util.find_spec("sklearn") is None:
        raise ValueError("scikit-learn is missing: pip install 'flashface-jax[curation]'.")
    models = (options.models or _downloaded_pack()).absolute()
    measure = Measure(work / "measure", "", options.detector, models)
    settings = {
        "format": FORMAT,
        "detector": options.detector,
        "recognition model": file_digest(find_recogniser(models)),
    }
    if options.detector == "insightface":
        settings["detection model"] = file_digest(find_detector(models))
    # What does not open here does not open in a worker.
    print(f"faces: {measure.open_detector().describe()}")
    print(f"embeddings: {ArcFaceEmbedder(models).describe()}")
    measure = dataclasses.replace(measure, version=_version(measure.folder, settings))
    rules = rules_of(options)
    settings = {"format": FORMAT, **dataclasses.asdict(rules)}
    folder = work / "select"
    select = Select(folder, _version(folder, settings), rules, measure)
    return Plan(measure, select, _caption_step(options, work / "caption", select))


def _downloaded_pack() -> Path:
    try:
        return download_pack()
    except ImportError as error:
        raise ValueError(
            f"insightface cannot be imported ({error}): pip install 'flashface-jax[curation]'."
        ) from error
    except ValueError as error:
        raise ValueError(
            f"No model pack was given and {PACK} cannot be downloaded ({error.__cause__}): give "
            "--models DIR, the folder of an insightface model pack; --detector cascade needs its "
            "recognition model too."
        ) from error


def _caption_step(options: argparse.Namespace, folder: Path, select: Select) -> Caption | None:
    if options.captions is None:
        return None
    model = Path(options.captions)
    settings = {
        "format": FORMAT,
        "model": _directory_digest(model) if model.is_dir() else options.captions,
        "question": QUESTION,
        "longest answer": options.caption_tokens,
        "batch": options.caption_batch,  # rounding differs with it
    }
    name = str(model.absolute()) if model.is_dir() else options.captions
    version = _version(folder, settings)
    return Caption(folder, version, name, options.caption_tokens, options.caption_batch, select)


def _version(folder: Path, settings: dict[str, Any]) -> str:
    """A step's version; says so if the step is done anew."""
    changed = prepare(folder, settings)
    if changed:
        print(f"{folder.name}: done anew, because of other settings: {', '.join(changed)}")
    return digest(settings)


def _directory_digest(model: Path) -> str:
    """What tells a model from others: its small files, and the sizes of its weights."""
    parts = []
    for file in sorted(path for path in model.rglob("*") if path.is_file()):
        size = file.stat().st_size
        inside = file_digest(file) if size <= SMALL_FILE else ""
        parts.append((str(file.relative_to(model)), size, inside))
    return hashlib.sha256(repr(parts).encode("utf-8", "backslashreplace")).hexdigest()
