"""What makes a cluster suspicious, measured without any model.

Nothing here is proof: each suspicion says what to look at, and why.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from flashface_jax.faces.choose import SHARP_ENOUGH
from flashface_jax.inspection.measuring.facts import Facts, same_face_pictures

SUSPICIONS = {
    "unreadable": "records that cannot be read: the dataset's files are damaged",
    "undecodable": "photos that do not decode: training draws others in their place",
    "same_pictures": "faces that are nearly the same picture: a reference then shows the target",
    "few_photos": "under a quarter of the median, or too few to train on",
    "many_photos": "over four times the median: perhaps several people of one name",
    "face_sizes": "the largest face has over ten times the side of the smallest",
    "tiny_faces": "faces that a reference enlarges more than fourfold",
    "blurred_faces": f"faces whose sharpness is under {SHARP_ENOUGH:.0f}",
    "cut_faces": "face boxes that reach out of the photo",
    "steep_eyes": "eye lines steeper than 40 degrees: the head lies, or the landmarks are wrong",
    "no_landmarks": "photos without landmarks: their crops are not turned upright",
    "no_captions": "photos without a caption: they train like dropped captions",
    "equal_captions": "every photo has the same caption",
}
"""Every suspicion and what it means."""


@dataclass(frozen=True)
class Limits:
    """From where on something is suspicious.

    Attributes:
        few: photos of a cluster as a fraction of the median.
        many: likewise.
        face_ratio: side of the largest face of a cluster over that of the smallest.
        tiny_face: shorter side of a face box in pixels.
        tilt: of the eye line in degrees.
        hash_bits: of 256, by which two pictures of one face may differ. Drawn faces of 200 pixels,
            compressed again at quality 60 or reduced to half, differ by less than 13 from
            themselves in 95 % of cases. Of 51,300 pairs of different drawn photos of a person, one
            is within the limit.
        share: of a cluster's photos that must be concerned, where single ones are ordinary.
    """

    few: float = 0.25
    many: float = 4.0
    face_ratio: float = 10.0
    tiny_face: float = 56.0
    tilt: float = 40.0
    hash_bits: int = 20
    share: float = 0.1


@dataclass(frozen=True)
class Suspicion:
    """One thing that is odd about a cluster.

    Attributes:
        kind: a key of SUSPICIONS.
        words: what was found, with its number.
        share: of the cluster's photos that it concerns; 1 if it concerns the cluster.
        positions: records that show it.
    """

    kind: str
    words: str
    share: float
    positions: tuple[int, ...] = ()


def suspicions(
    facts: Facts, captions: Iterable[str], photos: int, median: float, limits: Limits
) -> list[Suspicion]:
    """What is odd about one cluster.

    Args:
        facts: of those of its photos that were read.
        captions: the different captions among them.
        photos: how many it has.
        median: of the photos of all clusters.
        limits: from where on something is odd.
    """
    found = [_size(photos, median, limits), _same_pictures(facts, limits)]
    found += [_face_sizes(facts, limits), _equal_captions(facts, set(captions))]
    found += [_concerned(kind, facts, limits) for kind in _RULES]
    order = list(SUSPICIONS)
    present = [suspicion for suspicion in found if suspicion is not None]
    return sorted(present, key=lambda suspicion: order.index(suspicion.kind))


def rank(found: Iterable[Suspicion]) -> float:
    """How suspicious a cluster is: the number of suspicions, and the share of photos of each."""
    return float(sum(1 + suspicion.share for suspicion in found))


def tiny(facts: Facts, limits: Limits) -> np.ndarray:
    """Which faces are tiny."""
    return facts["readable"] & (
        np.minimum(facts["face_width"], facts["face_height"]) < limits.tiny_face
    )


def blurred(facts: Facts) -> np.ndarray:
    """Which faces are blurred."""
    return facts["decodes"] & (facts["sharpness"] < SHARP_ENOUGH)


def steep(facts: Facts, limits: Limits) -> np.ndarray:
    """Which eye lines are steep."""
    return np.abs(facts["tilt"]) > limits.tilt


def same_pictures(facts: Facts, limits: Limits) -> tuple[tuple[int, int], ...]:
    """Pairs of photos of a cluster, by row, whose faces are the same picture."""
    rows = np.flatnonzero(facts["decodes"])
    pairs = same_face_pictures(facts["face_hash"][rows], limits.hash_bits)
    return tuple((int(rows[a]), int(rows[b])) for a, b in pairs)


@dataclass(frozen=True)
class _Rule:
    """A suspicion that photos raise one by one.

    Attributes:
        which: photos that raise it.
        words: what is said of them, after their number.
        always: whether a single photo is enough.
    """

    which: Callable[[Facts, Limits], np.ndarray]
    words: str
    always: bool = False


_RULES: Mapping[str, _Rule] = {
    "unreadable": _Rule(lambda facts, _: ~facts["readable"], "records cannot be read", True),
    "undecodable": _Rule(
        lambda facts, _: facts["readable"] & ~facts["decodes"], "photos do not decode", True
    ),
    "tiny_faces": _Rule(tiny, "faces tiny"),
    "blurred_faces": _Rule(lambda facts, _: blurred(facts), "faces blurred"),
    "cut_faces": _Rule(lambda facts, _: facts["face_cut"], "faces cut by the photo's border"),
    "steep_eyes": _Rule(steep, "eye lines steep"),
    "no_landmarks": _Rule(
        lambda facts, _: facts["readable"] & ~facts["landmarks"], "photos without landmarks"
    ),
    "no_captions": _Rule(
        lambda facts, _: facts["readable"] & (facts["words"] == 0), "photos without a caption"
    ),
}


def _concerned(kind: str, facts: Facts, limits: Limits) -> Suspicion | None:
    rule = _RULES[kind]
    which = rule.which(facts, limits)
    count, share = int(which.sum()), float(which.mean()) if len(facts) else 0.0
    if count == 0 or (not rule.always and share < limits.share):
        return None
    words = f"{count} of {len(facts)} {rule.words}"
    detail = {"tiny_faces": _smallest, "blurred_faces": _least_sharp, "steep_eyes": _steepest}
    words += detail[kind](facts[which]) if kind in detail else ""
    return Suspicion(kind, words, share, tuple(facts["position"][which].tolist()))


def _smallest(facts: Facts) -> str:
    return f" (down to {np.minimum(facts['face_width'], facts['face_height']).min():.0f} pixels)"


def _least_sharp(facts: Facts) -> str:
    return f" (sharpness down to {facts['sharpness'].min():.0f}; {SHARP_ENOUGH:.0f} is enough)"


def _steepest(facts: Facts) -> str:
    return f" (up to {np.abs(facts['tilt']).max():.0f} degrees)"


def _size(photos: int, median: float, limits: Limits) -> Suspicion | None:
    count = f"{photos} photo{'s' if photos != 1 else ''}"
    if photos < 2:
        return Suspicion("few_photos", f"{count}: training leaves this person out", 1.0)
    if photos < limits.few * median:
        return Suspicion("few_photos", f"only {count}; the median is {median:.0f}", 1.0)
    if photos > limits.many * median:
        words = f"{count}, {photos / median:.1f} times the median of {median:.0f}"
        return Suspicion("many_photos", words, 1.0)
    return None


def _same_pictures(facts: Facts, limits: Limits) -> Suspicion | None:
    pairs = same_pictures(facts, limits)
    if not pairs:
        return None
    rows = sorted({row for pair in pairs for row in pair})
    words = f"{len(rows)} of {len(facts)} faces near-identical to another"
    where = tuple(facts["position"][rows].tolist())
    return Suspicion("same_pictures", words, len(rows) / len(facts), where)


def _face_sizes(facts: Facts, limits: Limits) -> Suspicion | None:
    sides = np.maximum(facts["face_width"], facts["face_height"])[facts["readable"]]
    if len(sides) < 2 or sides.max() <= limits.face_ratio * sides.min():
        return None
    low, high = float(sides.min()), float(sides.max())
    words = f"face sides from {low:.0f} to {high:.0f} pixels, {high / low:.0f}-fold"
    extremes = facts["position"][facts["readable"]][[sides.argmin(), sides.argmax()]]
    return Suspicion("face_sizes", words, 1.0, tuple(extremes.tolist()))


def _equal_captions(facts: Facts, captions: set[str]) -> Suspicion | None:
    if int(facts["readable"].sum()) < 3 or len(captions) != 1 or "" in captions:
        return None
    return Suspicion("equal_captions", f"all {len(facts)} photos have the same caption", 1.0)
