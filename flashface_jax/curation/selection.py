"""Which photos of a name are kept, with which face, and why the others are not."""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from flashface_jax.common.from_json import from_json
from flashface_jax.curation.clusters import PersonFaces, find_person
from flashface_jax.curation.duplicates import near_duplicates
from flashface_jax.curation.measured import Measured
from flashface_jax.curation.outcomes import KEPT
from flashface_jax.curation.quality import flaw, sides
from flashface_jax.curation.rules import Rules
from flashface_jax.data.manifest import Box, Landmarks


@dataclass(frozen=True)
class Verdict:
    """What becomes of a photo: "kept" with the person's face, or the name of an outcome."""

    outcome: str
    detail: str = ""
    box: Box | None = None
    landmarks: Landmarks | None = None


@dataclass(frozen=True)
class Selection:
    """The photos of a name, judged.

    Attributes:
        identity_outcome: "kept", "no_faces", "no_dense_cluster", "ambiguous_identity" or
            "too_few_photos".
        cluster_sizes: photos of each dense cluster of faces, the largest first.
        verdicts: one a photo.
    """

    identity_outcome: str
    cluster_sizes: tuple[int, ...]
    verdicts: tuple[Verdict, ...]

    def to_bytes(self) -> bytes:
        """As JSON."""
        return json.dumps(dataclasses.asdict(self)).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> "Selection":
        """Read what `to_bytes` made."""
        made: Selection = from_json(cls, json.loads(data), "the selection")
        return made


def select(measured: Measured, source_ids: Sequence[str], rules: Rules) -> Selection:
    """Judge the photos of one name; their order does not matter.

    Copies go first, so that a photo found twenty times counts once. Then the person is found, and
    their face in each photo; then the face must be good enough.

    Args:
        measured: the photos.
        source_ids: their names, no two equal; they decide between equally good copies.
        rules: see there.

    Source: paper, data collection; copies, quality and all that concerns whole names are this
    project's.
    """
    verdicts = {
        i: Verdict(problem, detail)
        for i, (problem, detail) in enumerate(zip(measured.problems, measured.details, strict=True))
        if problem
    }
    verdicts |= _copies(measured, source_ids, rules)
    distinct = [i for i in range(len(source_ids)) if i not in verdicts]
    shown = np.isin(measured.photo_of_face, distinct)
    identity_outcome, sizes = KEPT if distinct else "no_faces", tuple[int, ...]()
    if 0 < len(distinct) < rules.min_photos:
        identity_outcome = "too_few_photos"
    elif distinct:
        person = find_person(
            measured.embeddings[shown], measured.photo_of_face[shown], rules.clusters
        )
        identity_outcome, sizes = person.problem or KEPT, person.sizes
        if not person.problem:
            verdicts |= _judge_photos(measured, np.flatnonzero(shown), person, rules)
    kept = sum(verdict.outcome == KEPT for verdict in verdicts.values())
    if identity_outcome == KEPT and kept < rules.min_photos:
        identity_outcome = "too_few_photos"
    if identity_outcome not in (KEPT, "no_faces"):
        lost = [i for i in distinct if i not in verdicts or verdicts[i].outcome == KEPT]
        verdicts |= dict.fromkeys(lost, Verdict(identity_outcome))
    return Selection(identity_outcome, sizes, tuple(verdicts[i] for i in range(len(source_ids))))


def _copies(measured: Measured, source_ids: Sequence[str], rules: Rules) -> dict[int, Verdict]:
    """Verdicts on photos of which a better copy is there.

    The best is one whose largest face has no flaw; then the largest, then the sharpest.
    """
    photos, largest = np.unique(measured.photo_of_face, return_index=True)
    face_sides = sides(measured.boxes)
    ranks = []
    for photo, face in zip(photos, largest, strict=True):
        faces = np.flatnonzero(measured.photo_of_face == photo)
        flawed, _ = flaw(face_sides[faces], measured.sharpness[faces], 0, rules.quality)
        name = source_ids[photo]
        ranks.append((flawed != "", -face_sides[face], -measured.sharpness[face], name))
    stands_for = near_duplicates(measured.hashes[photos], measured.embeddings[largest], ranks)
    return {
        int(photo): Verdict("near_duplicate", f"of {source_ids[photos[better]]}")
        for photo, better, i in zip(photos, stands_for, range(len(photos)), strict=True)
        if better != i
    }


def _judge_photos(
    measured: Measured, shown: Int[np.ndarray, " faces"], person: PersonFaces, rules: Rules
) -> dict[int, Verdict]:
    """Verdicts on the photos that have the faces `shown`, which `person` speaks of in turn."""
    verdicts = {}
    photo_of_shown = measured.photo_of_face[shown]
    for photo in np.unique(photo_of_shown):
        of_photo = np.flatnonzero(photo_of_shown == photo)
        nearest = int(of_photo[person.similarity[of_photo].argmax()])
        similarity = person.similarity[nearest]
        detail = f"the cosine to the person's centre is {similarity:.2f}"
        if not person.member[nearest]:
            verdict = Verdict("outside_cluster", detail)
        elif similarity < rules.clusters.min_similarity:
            verdict = Verdict("dissimilar", detail)
        else:
            verdict = _judge_face(measured, shown[of_photo], int(shown[nearest]), rules)
        verdicts[int(photo)] = verdict
    return verdicts


def _judge_face(
    measured: Measured, faces: Int[np.ndarray, " faces"], chosen: int, rules: Rules
) -> Verdict:
    """The verdict on a photo with some faces, of which one is the person's."""
    place = int(np.flatnonzero(faces == chosen)[0])
    found, detail = flaw(
        sides(measured.boxes[faces]), measured.sharpness[faces], place, rules.quality
    )
    if found:
        return Verdict(found, detail)
    box = measured.boxes[chosen].astype(float).round(2).tolist()
    points = measured.landmarks[chosen].astype(float).round(2).tolist()
    left_eye, right_eye, nose, left_mouth, right_mouth = ((x, y) for x, y in points)
    return Verdict(KEPT, "", tuple(box), (left_eye, right_eye, nose, left_mouth, right_mouth))
