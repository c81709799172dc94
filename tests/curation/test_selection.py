"""Names as a whole: copies, the person, quality, and how few photos are too few."""

import dataclasses

import numpy as np
import pytest

pytest.importorskip("sklearn", reason="pip install 'flashface-jax[curation]'")

from flashface_jax.curation.measured import Measured
from flashface_jax.curation.outcomes import KEPT
from flashface_jax.curation.rules import QualityRules, Rules
from flashface_jax.curation.selection import Selection, select
from tests.curation.planted import faces, person, strangers

RULES = Rules(quality=QualityRules(min_face=96))


def photo(embeddings, sides=(200,), sharpness=100.0, picture=None, rng=None):
    """A photo with faces of some sizes, the largest first, side by side."""
    hashed = int(rng.integers(2**63)) if picture is None else picture
    boxes = [[500 * i, 0, 500 * i + side, 1.3 * side] for i, side in enumerate(sides)]
    return Measured(
        problems=[""],
        details=[""],
        hashes=np.array([hashed], np.uint64),
        photo_of_face=np.zeros(len(sides), np.int64),
        boxes=np.array(boxes, np.float32),
        landmarks=np.arange(len(sides) * 10, dtype=np.float32).reshape(-1, 5, 2),
        sharpness=np.full(len(sides), float(sharpness)),
        embeddings=np.atleast_2d(embeddings).astype(np.float32),
    )


def faceless(problem):
    return Measured(
        problems=[problem],
        details=["because"],
        hashes=np.zeros(1, np.uint64),
        photo_of_face=np.zeros(0, np.int64),
        boxes=np.zeros((0, 4), np.float32),
        landmarks=np.zeros((0, 5, 2), np.float32),
        sharpness=np.zeros(0),
        embeddings=np.zeros((0, 0), np.float32),
    )


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def chosen(photos, rules=RULES):
    ids = [f"{i:03d}" for i in range(len(photos))]
    selection = select(Measured.join(photos), ids, rules)
    return selection, [verdict.outcome for verdict in selection.verdicts]


def test_every_photo_has_one_verdict_and_each_kind_its_name(rng):
    center = person(rng)
    own = faces(rng, center, 12)
    photos = [photo(one, rng=rng) for one in own[:6]]
    photos += [
        photo(own[0], sides=(150,), picture=int(photos[0].hashes[0])),
        photo(own[7], sides=(95,), rng=rng),
        photo(own[8], sharpness=5, rng=rng),
        photo(np.stack([own[9], *strangers(rng, 1)]), sides=(200, 120), rng=rng),
        photo(np.stack([own[10], *strangers(rng, 1)]), sides=(200, 90), rng=rng),
        photo(strangers(rng, 1), rng=rng),
        faceless("unreadable"),
        faceless("no_face"),
    ]
    selection, outcomes = chosen(photos)
    assert selection.identity_outcome == KEPT
    assert outcomes[:6] == [KEPT] * 6
    assert outcomes[6:] == [
        *("near_duplicate", "small_face", "blurred", "several_faces", KEPT),
        *("outside_cluster", "unreadable", "no_face"),
    ]
    assert selection.verdicts[6].detail == "of 000"
    assert selection.verdicts[12].detail == "because"


def test_the_face_nearest_the_centre_is_the_persons_with_its_own_box_and_landmarks(rng):
    own = faces(rng, person(rng), 8)
    photos = [photo(one, rng=rng) for one in own[:7]]
    # The larger face is a stranger's, the second one the person's.
    photos.append(photo(np.stack([*strangers(rng, 1), own[7]]), sides=(210, 200), rng=rng))
    lenient = dataclasses.replace(RULES, quality=QualityRules(largest_other=2.0))
    selection, outcomes = chosen(photos, lenient)
    assert outcomes == [KEPT] * 8
    assert selection.verdicts[7].box == (500, 0, 700, 260)
    assert selection.verdicts[7].landmarks[0] == (10, 11)
    assert chosen(photos)[1][7] == "several_faces"


def test_a_photo_found_many_times_counts_once(rng):
    """Twenty copies of one stranger's photo do not make the stranger the person."""
    own, stranger = faces(rng, person(rng), 6), strangers(rng, 1)
    photos = [photo(one, rng=rng) for one in own]
    photos += [photo(stranger, sides=(200 + i,), picture=77) for i in range(20)]
    selection, outcomes = chosen(photos)
    assert selection.identity_outcome == KEPT
    assert outcomes == [KEPT] * 6 + ["near_duplicate"] * 19 + ["outside_cluster"]


def test_a_good_copy_is_preferred_to_a_larger_blurred_one(rng):
    own = faces(rng, person(rng), 5)
    photos = [photo(one, rng=rng) for one in own]
    photos.append(photo(own[0], sides=(400,), sharpness=5, picture=int(photos[0].hashes[0])))
    assert chosen(photos)[1] == [KEPT] * 5 + ["near_duplicate"]


@pytest.mark.parametrize(
    ("count", "least", "identity", "outcome"),
    [
        (0, 2, "no_faces", None),
        (1, 2, "too_few_photos", "too_few_photos"),
        (2, 2, KEPT, KEPT),
        (4, 5, "too_few_photos", "too_few_photos"),
    ],
)
def test_a_name_with_too_few_photos_is_dropped(rng, count, least, identity, outcome):
    photos = [photo(one, rng=rng) for one in faces(rng, person(rng), count)]
    photos.append(faceless("no_face"))
    rules = dataclasses.replace(RULES, min_photos=least)
    selection, outcomes = chosen(photos, rules)
    assert selection.identity_outcome == identity
    assert outcomes == [outcome] * count + ["no_face"]


def test_a_name_whose_photos_mostly_fail_is_dropped_but_each_failure_keeps_its_name(rng):
    own = faces(rng, person(rng), 5)
    photos = [photo(own[0], rng=rng), *(photo(one, sides=(50,), rng=rng) for one in own[1:])]
    selection, outcomes = chosen(photos)
    assert selection.identity_outcome == "too_few_photos"
    assert outcomes == ["too_few_photos"] + ["small_face"] * 4


def test_an_ambiguous_name_is_dropped_with_the_sizes_of_both_people(rng):
    photos = [photo(one, rng=rng) for _ in range(2) for one in faces(rng, person(rng), 10)]
    selection, outcomes = chosen(photos)
    assert selection.identity_outcome == "ambiguous_identity"
    assert outcomes == ["ambiguous_identity"] * 20 and selection.cluster_sizes == (10, 10)


@pytest.mark.parametrize("seed", range(3))
def test_the_order_of_the_photos_does_not_matter(seed):
    rng = np.random.default_rng(seed)
    center = person(rng)
    mixed = np.concatenate([faces(rng, center, 20), strangers(rng, 10, 2)])
    photos = [photo(one, sides=(rng.integers(60, 300),), rng=rng) for one in mixed]
    photos += [dataclasses.replace(photos[i]) for i in range(5)]  # equally good copies
    ids = [f"{i:03d}" for i in range(len(photos))]
    order = rng.permutation(len(photos))
    straight = select(Measured.join(photos), ids, RULES)
    mixed_up = select(Measured.join([photos[i] for i in order]), [ids[i] for i in order], RULES)
    assert [straight.verdicts[i] for i in order] == list(mixed_up.verdicts)
    assert len(set(v.outcome for v in straight.verdicts)) >= 3


def test_a_selection_comes_back_from_its_bytes(rng):
    photos = [photo(one, rng=rng) for one in faces(rng, person(rng), 3)] + [faceless("no_face")]
    selection, _ = chosen(photos)
    assert Selection.from_bytes(selection.to_bytes()) == selection


def test_measurements_come_back_from_their_file(rng, tmp_path):
    photos = [photo(one, rng=rng) for one in faces(rng, person(rng), 3)] + [faceless("no_face")]
    joined = Measured.join([*photos[3:], *photos])
    (tmp_path / "some.npz").write_bytes(joined.to_bytes())
    again = Measured.load(tmp_path / "some.npz")
    assert again.problems == ["no_face", "", "", "", "no_face"]
    assert again.photo_of_face.tolist() == [1, 2, 3]
    for field in dataclasses.fields(Measured):
        np.testing.assert_array_equal(getattr(again, field.name), getattr(joined, field.name))
