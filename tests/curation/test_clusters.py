"""Finding the person among the faces of a name: planted people, strangers, twins, and none."""

import numpy as np
import pytest

pytest.importorskip("sklearn", reason="pip install 'flashface-jax[curation]'")

from flashface_jax.curation.clusters import find_person, merge_alike
from flashface_jax.curation.rules import ClusterRules
from tests.curation.planted import faces, person, strangers, twin

RULES = ClusterRules()


def find(embeddings, photos=None, rules=RULES):
    """What is found, and which faces would be kept."""
    photos = np.arange(len(embeddings)) if photos is None else np.array(photos)
    found = find_person(embeddings, photos, rules)
    return found, found.member & (found.similarity >= rules.min_similarity)


def name_with_strangers(seed, count, share, each):
    """The faces of a name of which a share are strangers', and whose they are."""
    rng = np.random.default_rng(seed)
    other = round(count * share)
    own = faces(rng, person(rng), count - other)
    return np.concatenate([own, strangers(rng, other, each)]), np.arange(count) < count - other


@pytest.mark.parametrize("count", [5, 10, 20, 80, 200])
@pytest.mark.parametrize("each", [1, 3, 1000])
def test_with_three_strangers_in_ten_the_person_is_kept_and_hardly_anyone_else(count, each):
    """`each` photos of each stranger: all different people, some, or a single second one."""
    right = wrong = own = 0
    for seed in range(24 if count < 100 else 6):
        embeddings, mine = name_with_strangers(seed, count, 0.3, each)
        found, kept = find(embeddings)
        assert found.problem == ""
        right, wrong = right + (kept & mine).sum(), wrong + (kept & ~mine).sum()
        own += mine.sum()
    assert right / (right + wrong) >= 0.99
    assert right / own >= 0.97


@pytest.mark.parametrize("count", [20, 80])
def test_a_person_on_four_photos_in_ten_is_found_among_strangers(count):
    for seed in range(12):
        embeddings, mine = name_with_strangers(seed, count, 0.6, 1)
        found, kept = find(embeddings)
        assert found.problem == "" and not (kept & ~mine).any()
        assert (kept & mine).sum() / mine.sum() >= 0.8


def test_a_name_without_strangers_keeps_nearly_all_although_k_means_splits_it():
    for seed in range(6):
        embeddings, _ = name_with_strangers(seed, 80, 0.0, 1)
        found, kept = find(embeddings)
        assert found.sizes[0] >= 78 and kept.mean() >= 0.97


@pytest.mark.parametrize(("own", "others"), [(12, 6), (60, 40), (100, 20)])
def test_a_twin_is_left_out(own, others):
    """Two people whose centres have a cosine of 0.5, as siblings may."""
    for seed in range(8):
        rng = np.random.default_rng(seed)
        center = person(rng)
        mine, theirs = faces(rng, center, own), faces(rng, twin(rng, center), others)
        found, kept = find(np.concatenate([mine, theirs]))
        assert found.problem == ""
        assert kept[own:].sum() == 0 and kept[:own].mean() >= 0.9


@pytest.mark.parametrize(("first", "second"), [(10, 10), (40, 36), (60, 60)])
@pytest.mark.parametrize("cosine", [0.0, 0.5])
def test_two_people_on_about_as_many_photos_are_ambiguous(first, second, cosine):
    for seed in range(8):
        rng = np.random.default_rng(seed)
        center = person(rng)
        mine, theirs = faces(rng, center, first), faces(rng, twin(rng, center, cosine), second)
        found, _ = find(np.concatenate([mine, theirs]))
        assert found.problem == "ambiguous_identity"
        assert len(found.sizes) == 2


@pytest.mark.parametrize("count", [1, 2, 3, 10, 50])
def test_strangers_alone_are_nobody(count):
    for seed in range(12):
        found, kept = find(strangers(np.random.default_rng(seed), count))
        assert found.problem == "no_dense_cluster" and not kept.any()


def test_two_photos_of_one_person_are_enough_and_of_two_people_are_not():
    """The centre of any two vectors is alike to both: they must be alike themselves."""
    rng = np.random.default_rng(0)
    center = person(rng)
    assert find(faces(rng, center, 2))[1].all()
    assert not find(strangers(rng, 2))[1].any()
    assert find(faces(rng, center, 1))[0].problem == "no_dense_cluster"


def test_a_few_photos_of_someone_among_many_strangers_are_not_the_person():
    few = ClusterRules(min_share=0.0)
    found_otherwise = 0
    for seed in range(8):
        rng = np.random.default_rng(seed)
        embeddings = np.concatenate([faces(rng, person(rng), 4), strangers(rng, 30)])
        found_otherwise += find(embeddings, rules=few)[0].problem == ""
        assert find(embeddings)[0].problem == "no_dense_cluster"
    assert found_otherwise >= 6, "it must be their share that decides"


@pytest.mark.parametrize("count", [20, 100])
def test_one_person_among_several_others_is_found(count):
    """Four tenths of the photos are the person's, the rest those of four others."""
    for seed in range(12):
        rng = np.random.default_rng(seed)
        mine = count * 4 // 10
        others = [faces(rng, person(rng), (count - mine) // 4) for _ in range(4)]
        found, kept = find(np.concatenate([faces(rng, person(rng), mine), *others]))
        assert found.problem == "" and not kept[mine:].any() and kept[:mine].mean() >= 0.9


def test_faces_of_one_photo_count_as_one_photo():
    """Someone on twenty faces of one collage is not the one who is on ten photos."""
    rng = np.random.default_rng(0)
    collage, own = faces(rng, person(rng), 20), faces(rng, person(rng), 10)
    found, kept = find(np.concatenate([collage, own]), [0] * 20 + list(range(1, 11)))
    assert found.problem == "" and found.sizes == (10,)
    np.testing.assert_array_equal(kept, [False] * 20 + [True] * 10)


@pytest.mark.parametrize("seed", range(4))
def test_the_order_of_the_faces_does_not_matter_to_the_last_bit(seed):
    embeddings, _ = name_with_strangers(seed, 60, 0.3, 2)
    order = np.random.default_rng(seed + 100).permutation(60)
    one, _ = find(embeddings)
    other, _ = find(embeddings[order])
    assert (one.problem, one.sizes) == (other.problem, other.sizes)
    np.testing.assert_array_equal(one.member[order], other.member)
    np.testing.assert_array_equal(one.similarity[order], other.similarity)


def test_faces_that_are_all_the_same_are_one_cluster():
    rng = np.random.default_rng(0)
    found, kept = find(np.repeat(faces(rng, person(rng), 1), 9, axis=0))
    assert found.problem == "" and kept.all()
    np.testing.assert_allclose(found.similarity, 1, rtol=0, atol=1e-6)


def test_clusters_of_one_person_are_merged_and_of_twins_are_not():
    """From single faces on: each face is a cluster at first."""
    for seed in range(8):
        rng = np.random.default_rng(seed)
        center = person(rng)
        points = [faces(rng, center, 20), faces(rng, twin(rng, center), 20)]
        labels = merge_alike(np.concatenate(points).astype(float), np.arange(40), 0.6)
        assert len(set(labels[:20])) == len(set(labels[20:])) == 1
        assert labels[0] != labels[20]
