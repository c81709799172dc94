"""The manifest, the outcomes and the report, from the files that the steps left."""

import dataclasses
import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from flashface_jax.common.files import atomic_file
from flashface_jax.curation.outcomes import KEPT, Outcome
from flashface_jax.curation.pipeline.collect import PersonSources, sidecar_caption
from flashface_jax.curation.pipeline.report import Report
from flashface_jax.curation.pipeline.steps import Caption, Select
from flashface_jax.curation.pipeline.work import read_person, write_whole
from flashface_jax.curation.selection import Verdict
from flashface_jax.data.manifest import FILE_NAME, PhotoEntry, write_manifest

OUTCOMES, REPORT = "outcomes.jsonl", "report.json"


def write_results(
    out: Path,
    people: Sequence[Path],
    collected: Path,
    photos_in: int,
    select: Select,
    caption: Caption | None,
) -> Report:
    """Write manifest.jsonl, outcomes.jsonl and report.json.

    Args:
        out: folder to write to.
        people: files of the identities, sorted by identity.
        collected: outcomes of the files that no identity has, JSON lines.
        photos_in: what was collected, to check the sum.
        select: the step that chose the photos, done.
        caption: the step that described them, done; None for captions that came with the photos.

    Returns:
        The report, whose sum is right.
    """
    report = Report(photos_in=photos_in)
    with (
        atomic_file(out / OUTCOMES) as draft,
        draft.open("w", encoding="ascii") as file,
        collected.open(encoding="ascii") as before,
    ):

        def tell(outcome: Outcome) -> None:
            report.add_outcome(outcome)
            file.write(json.dumps(dataclasses.asdict(outcome)) + "\n")

        for line in before:
            tell(Outcome(**json.loads(line)))
        entries = _entries(out.resolve(), people, select, caption, report, tell)
        write_manifest(out / FILE_NAME, entries)
    write_whole(out / REPORT, json.dumps(report.described(), indent=2).encode() + b"\n")
    return report


def _entries(
    out: Path,
    people: Sequence[Path],
    select: Select,
    caption: Caption | None,
    report: Report,
    tell: Callable[[Outcome], None],
) -> Iterator[PhotoEntry]:
    """The kept photos of all people, in turn; ends with the check of the sum."""
    for path in people:
        person, selection = read_person(path), select.result(path)
        captions = caption.result(path) if caption else None
        report.add_identity(person.identity, selection.identity_outcome, selection.cluster_sizes)
        for i, verdict in enumerate(selection.verdicts):
            photo = person.sources[i].photo
            if verdict.outcome != KEPT:
                tell(Outcome(photo, person.identity, verdict.outcome, verdict.detail))
                continue
            report.kept += 1
            said = _own_caption(person, i) if captions is None else captions[i]
            if captions is not None and not said:
                tell(Outcome(photo, person.identity, "empty_caption"))
            yield _entry(out, person, i, verdict, said)
    report.check()


def _own_caption(person: PersonSources, i: int) -> str:
    """The caption that a photo was collected with, or that lies beside it."""
    source = person.sources[i]
    return source.caption or sidecar_caption(Path(source.photo))


def _entry(out: Path, person: PersonSources, i: int, verdict: Verdict, caption: str) -> PhotoEntry:
    source = person.sources[i]
    assert verdict.box is not None  # every photo that is kept has one
    return PhotoEntry(
        photo=os.path.relpath(source.photo, out),
        identity=person.identity,
        face_box=verdict.box,
        landmarks=verdict.landmarks,
        caption=caption,
        source_id=source.source_id,
        provenance=source.provenance,
    )
