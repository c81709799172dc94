"""Parts of an inspection: what is drawn, counted, suspected, and how text is kept text."""

import html
import io

import numpy as np
import pytest
from PIL import Image

from flashface_jax.data.dataset import Clusters, Photos
from flashface_jax.inspection.inspecting import InspectOptions
from flashface_jax.inspection.measuring.clusters import Cluster, odd_sizes, suspicious
from flashface_jax.inspection.measuring.facts import (
    COLUMNS,
    PhotoFacts,
    face_hash,
    same_face_pictures,
    table,
)
from flashface_jax.inspection.measuring.reading import MOST_OF_A_CLUSTER, choose_identities
from flashface_jax.inspection.measuring.statistics import histogram, measure
from flashface_jax.inspection.measuring.suspicion import (
    Limits,
    Suspicion,
    rank,
    suspicions,
)
from flashface_jax.inspection.page.markup import markdown, plain, size, text
from flashface_jax.inspection.sheets import (
    PHOTOS_OF_A_CLUSTER,
    SIDE,
    chosen_positions,
    jpeg,
)
from flashface_jax.world import SyntheticWorld

LIMITS = Limits()
FINE = PhotoFacts(
    position=0, size=1000, width=500, height=400, face_width=100.0, face_height=120.0,
    landmarks=True, sharpness=200.0, words=5,
)  # fmt: skip


def cluster(count=20, captions=("one", "two"), photos=None, median=20.0, **changed):
    """Suspicions of a cluster of fine photos, the first of which are changed."""
    rng = np.random.default_rng(0)
    facts = []
    for i in range(count):
        known = {**vars(FINE), "position": i}
        known["face_hash"] = tuple(rng.integers(0, 2**63, 4).tolist())
        known |= {name: values[i] for name, values in changed.items() if i < len(values)}
        facts.append(PhotoFacts(**known))
    found = suspicions(table(facts), captions, photos or count, median, LIMITS)
    return {suspicion.kind: suspicion for suspicion in found}


def test_nothing_is_odd_about_fine_photos():
    assert cluster() == {}


@pytest.mark.parametrize(
    ("kind", "changed", "words"),
    [
        ("unreadable", {"readable": [False]}, "1 of 20 records cannot be read"),
        ("undecodable", {"decodes": [False]}, "1 of 20 photos do not decode"),
        ("tiny_faces", {"face_width": [40.0, 50.0]}, "2 of 20 faces tiny (down to 40 pixels)"),
        (
            "blurred_faces",
            {"sharpness": [29.0, 12.0]},
            "2 of 20 faces blurred (sharpness down to 12; 30 is enough)",
        ),
        ("cut_faces", {"face_cut": [True] * 2}, "2 of 20 faces cut by the photo's border"),
        ("steep_eyes", {"tilt": [-41.0, 60.0]}, "2 of 20 eye lines steep (up to 60 degrees)"),
        ("no_landmarks", {"landmarks": [False] * 2}, "2 of 20 photos without landmarks"),
        ("no_captions", {"words": [0, 0]}, "2 of 20 photos without a caption"),
        (
            "face_sizes",
            {"face_height": [1210.0], "face_width": [100.0] * 19 + [120.0]},
            "face sides from 120 to 1210 pixels, 10-fold",
        ),
        (
            "same_pictures",
            {"face_hash": [(1, 2, 3, 4), (1, 2, 3, 4 + 2**20)]},
            "2 of 20 faces near-identical to another",
        ),
    ],
)
def test_each_flaw_of_photos_is_told_with_its_number(kind, changed, words):
    found = cluster(**changed)
    assert {kind: found[kind].words} == {kind: words}
    assert set(found) == {kind}, "and nothing else"


@pytest.mark.parametrize(
    "changed",
    [
        {"face_width": [40.0]},
        {"sharpness": [10.0]},
        {"face_cut": [True]},
        {"tilt": [80.0]},
        {"landmarks": [False]},
        {"words": [0]},
        {"face_height": [1190.0]},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_what_is_ordinary_of_one_photo_in_twenty_is_not_told(changed):
    assert cluster(**changed) == {}


@pytest.mark.parametrize(
    ("photos", "words"),
    [
        (1, "1 photo: training leaves this person out"),
        (4, "only 4 photos; the median is 20"),
        (5, None),
        (80, None),
        (81, "81 photos, 4.0 times the median of 20"),
    ],
)
def test_sizes_are_judged_by_the_median(photos, words):
    found = cluster(count=1, photos=photos)
    assert [suspicion.words for suspicion in found.values()] == ([words] if words else [])


def test_equal_captions_are_told_of_three_photos_or_more():
    assert set(cluster(captions=["same"])) == {"equal_captions"}
    assert set(cluster(count=2, captions=["same"], photos=20)) == set()
    assert set(cluster(captions=[""], words=[0] * 20)) == {"no_captions"}


def test_more_kinds_of_suspicion_outrank_more_photos():
    one = [Suspicion("no_landmarks", "", 1.0)]
    two = [Suspicion("tiny_faces", "", 0.1), Suspicion("cut_faces", "", 0.1)]
    assert rank(two) > rank(one) > rank([])
    facts = np.zeros(0, COLUMNS)
    clusters = [Cluster("train", i, f"{i}", 9, facts, tuple(f)) for i, f in enumerate([one, two])]
    clusters.append(Cluster("train", 2, "fine", 9, facts, ()))
    assert [found.number for found in suspicious(clusters)] == [1, 0]


def test_photos_that_show_something_odd_are_shown_first():
    facts = table([PhotoFacts(position=i) for i in range(100, 200)])
    odd = (Suspicion("same_pictures", "", 0.1, (150, 170)), Suspicion("cut_faces", "", 0.1, (120,)))
    found = chosen_positions(Cluster("train", 0, "name", 100, facts, odd))
    assert found[:3] == [150, 170, 120] and len(set(found)) == len(found) == PHOTOS_OF_A_CLUSTER
    few = Cluster("train", 0, "name", 2, facts[:2], ())
    assert chosen_positions(few) == [100, 101]


@pytest.fixture(scope="module")
def faces():
    world = SyntheticWorld(2, 12, 4, 256)
    return [[world.photo(i, j) for j in range(4)] for i in range(12)]


def again(photo, quality, scale):
    """The hash of a photo that was resized and compressed again."""
    image = Image.fromarray(photo.image)
    side = round(image.width * scale)
    file = io.BytesIO()
    image.resize((side, side), Image.Resampling.LANCZOS).save(file, "JPEG", quality=quality)
    return face_hash(np.asarray(Image.open(file)), photo.face_box * np.float32(scale))


@pytest.mark.parametrize(("quality", "scale"), [(60, 1.0), (90, 0.7)])
def test_a_photo_that_was_compressed_or_resized_is_found_and_no_other(faces, quality, scale):
    found = wrong = 0
    for photos in faces:
        hashes = [face_hash(photo.image, photo.face_box) for photo in photos]
        hashes.append(again(photos[0], quality, scale))
        pairs = same_face_pictures(np.array(hashes, np.uint64), LIMITS.hash_bits)
        found += (0, 4) in pairs
        wrong += len([pair for pair in pairs if pair != (0, 4)])
    assert wrong == 0
    assert found >= 11, "of 12"


def test_a_face_outside_the_photo_has_no_hash():
    assert face_hash(np.zeros((9, 9, 3), np.uint8), np.array([20.0, 20, 30, 30])) == (0, 0, 0, 0)


def test_whole_clusters_are_drawn_until_there_are_enough_photos():
    sizes = np.array([5, 1, 9, 4000, 7, 3] * 50, np.int64)
    chosen = choose_identities(sizes, 300, 0)
    count = sum(len(which) for _, which in chosen)
    assert 300 <= count < 300 + MOST_OF_A_CLUSTER
    assert [number for number, _ in chosen] == sorted({number for number, _ in chosen})
    for number, which in chosen:
        assert len(which) == min(int(sizes[number]), MOST_OF_A_CLUSTER)
        assert which == sorted(set(which)) and which[-1] < sizes[number]
    assert choose_identities(sizes, 300, 0) == chosen
    assert choose_identities(sizes, 300, 1) != chosen
    everything = choose_identities(sizes, 0, 0)
    assert sum(len(which) for _, which in everything) == sizes.sum()


def test_odd_sizes_need_no_reading():
    sizes = np.array([80] * 50 + [1, 19, 20, 320, 321], np.int64)
    clusters = Clusters([str(i) for i in range(55)], np.concatenate([[0], np.cumsum(sizes)]))
    photos = Photos([], clusters)
    assert odd_sizes(photos, LIMITS, 10) == [50, 51, 54]
    assert odd_sizes(photos, LIMITS, 1) == [50], "the oddest"


@pytest.mark.parametrize(
    "values",
    [
        np.array([3]),
        np.array([0, 0, 0]),
        np.arange(1000),
        np.array([80] * 500 + [20_000]),
        np.random.default_rng(0).gamma(2, 40, 5000).astype(np.int64),
        np.random.default_rng(1).random(300).astype(np.float32),
        np.array([0.0, 0.0]),
    ],
    ids=["one", "zeros", "even", "tail", "gamma", "fractions", "no fraction"],
)
def test_a_histogram_counts_every_value_once(values):
    found = histogram(values)
    edges = np.array(found.edges)
    assert sum(found.counts) == len(values) and len(edges) == len(found.counts) + 1 <= 23
    assert (np.diff(edges) > 0).all() and edges[0] <= values.min()
    np.testing.assert_allclose(np.diff(edges), edges[1] - edges[0], rtol=1e-6)
    assert found.open_ended == (values.max() >= edges[-1])
    upper = np.append(edges[:-1], np.inf if found.open_ended else edges[-1])
    assert list(found.counts) == np.histogram(values, upper)[0].tolist()


def test_a_measure_sums_up():
    found = measure("things", np.arange(101))
    assert (found.smallest, found.low, found.median) == (0.0, 5.0, 50.0)
    assert (found.mean, found.high, found.largest, found.count) == (50.0, 95.0, 100.0, 101)


HOSTILE = "<script>'\"&</script>\n\x00\u202e $x ${y} | `z` [a](http://b) *c* _d_ # e ~ !"


def test_html_text_comes_back_as_it_was():
    found = text(HOSTILE)
    assert found.startswith("<bdi>") and found.endswith("</bdi>")
    inner = found.removeprefix("<bdi>").removesuffix("</bdi>")
    assert not set(inner) & set("<>\"'")
    assert html.unescape(inner) == plain(HOSTILE)
    assert "\x00" not in found and "\n" not in found


def test_markdown_escapes_all_that_formats():
    found = markdown(HOSTILE)
    for character in "<>[]()*_`|#~!$&":
        assert found.count(character) == found.count("\\" + character), character


def test_long_text_is_cut():
    assert plain("x" * 1000, 10) == "x" * 10 + "…"


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (1, "1 byte"),
        (999, "999 bytes"),
        (1000, "1.0 kB"),
        (12_345_678, "12 MB"),
        (344_000_000_000, "344 GB"),
        (5_000_000_000_000_000, "5000 TB"),
    ],
)
def test_bytes_in_words(count, words):
    assert size(count) == words


def test_the_page_stays_below_twelve_megabytes_however_rich_its_pictures():
    noise = np.random.default_rng(0).integers(0, 256, (768, 768, 3), dtype=np.uint8)
    default = InspectOptions()
    most = {SIDE: (default.clusters + 6) * PHOTOS_OF_A_CLUSTER, 448: default.samples}
    most[160] = default.samples * 4
    full = sum(len(jpeg(noise[:side, :side], side)) * count for side, count in most.items())
    assert full * 4 / 3 < 12e6


def test_facts_take_the_memory_that_is_promised():
    assert COLUMNS.itemsize <= 85
    assert set(COLUMNS.names) == set(vars(FINE))
