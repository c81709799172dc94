"""Training batches: who is drawn, what is shown, and that only seed and global index decide."""

import dataclasses
import itertools
import json
import multiprocessing
import os
import signal

import numpy as np
import pytest
from absl import logging

from flashface_jax.data.loading.draws import Augmentation, DrawOptions, DropRates
from flashface_jax.data.loading.loader import BatchLoader, LoaderOptions
from flashface_jax.data.loading.pipeline import (
    Order,
    describe_pool,
    fingerprint,
    ordered,
    photo_pool,
    training_batches,
)
from flashface_jax.data.loading.samples import MakeSample, SampleShape
from flashface_jax.weights.tokenizer import train_tokenizer
from tests.data.worlds import flat_dataset, told

SHAPE = SampleShape(image_size=64, reference_size=32, stride=8)
PEOPLE, PHOTOS = 8, 5
NO_DROPS = DrawOptions(drop=DropRates(0.0, 0.0, 0.0))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return flat_dataset(tmp_path_factory.mktemp("flat"), [PHOTOS] * PEOPLE)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    captions = [f"a photo number {i}" for i in range(PHOTOS)]
    return train_tokenizer(captions, tmp_path_factory.mktemp("tokens"), 32, 600)


@pytest.fixture
def start(dataset, tokenizer):
    """Loaders of the dataset; all are closed at the end."""
    opened = []

    def begin(
        *, of=dataset, seed=0, size=4, draws=NO_DROPS, loader=None, hosts=1, host=0
    ) -> BatchLoader:
        pool, order = photo_pool(of, "train", SHAPE.reference_size), Order(seed, draws)
        made = BatchLoader(
            ordered(pool, seed, MakeSample(pool, tokenizer, SHAPE, draws)),
            size,
            fingerprint(of, "train", pool, SHAPE, order),
            loader or LoaderOptions(threads=1),
            range(host * size // hosts, (host + 1) * size // hosts),
        )
        opened.append(made)
        return made

    yield begin
    for loader in opened:
        loader.close()


def shown(batch):
    """(identity, photo) of the target and of each reference, of every sample."""
    return told(batch["target"][:, 32, 32]), told(batch["references"][:, :, 16, 16])


def take(loader, count):
    return list(itertools.islice(loader, count))


def equal(a, b):
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


def test_target_and_references_are_different_photos_of_one_person(start):
    counts = []
    for batch in take(start(), 40):
        targets, references = shown(batch)
        for target, refs, valid in zip(targets, references, batch["reference_valid"], strict=True):
            pictures = [tuple(target), *map(tuple, refs[valid])]
            assert len(set(pictures)) == len(pictures), pictures
            assert len({identity for identity, _ in pictures}) == 1, pictures
            counts.append(valid.sum())
        assert len(set(map(int, targets[:, 0]))) == len(targets), "identities of a batch differ"
        assert not batch["references"][~batch["reference_valid"]].any()
    frequency = np.bincount(counts, minlength=5)[1:] / len(counts)
    assert (np.abs(frequency - 0.25) < 0.12).all(), frequency


def test_every_epoch_shows_every_identity_in_another_order(start):
    loader, orders = start(), []
    for _ in range(3):
        orders.append([int(i) for batch in take(loader, 2) for i in shown(batch)[0][:, 0]])
        assert sorted(orders[-1]) == list(range(PEOPLE))
    assert len(set(map(tuple, orders))) == 3


def test_a_sample_is_small_integers_of_the_models_sizes(start):
    batch = next(start())
    assert {name: (value.shape, value.dtype.name) for name, value in batch.items()} == {
        "target": ((4, 64, 64, 3), "uint8"),
        "face_mask": ((4, 8, 8, 1), "uint8"),
        "target_face": ((4, 8, 8, 1), "uint8"),
        "tokens": ((4, 32), "int32"),
        "references": ((4, 4, 32, 32, 3), "uint8"),
        "reference_valid": ((4, 4), "bool"),
    }


def test_the_mask_is_the_face_box_of_the_target(start):
    batch = next(start())
    mask = batch["face_mask"][0, :, :, 0]
    # A 32 x 48 box at (16, 8): a square of 48 from its top-left corner, in eighths.
    expected = np.zeros((8, 8), np.uint8)
    expected[1:7, 2:8] = 1
    np.testing.assert_array_equal(mask, expected)
    np.testing.assert_array_equal(batch["target_face"], batch["face_mask"])


def test_tokens_are_those_of_the_targets_caption(start, tokenizer):
    batch = next(start())
    captions = [f"a photo number {photo}" for _, photo in shown(batch)[0]]
    np.testing.assert_array_equal(batch["tokens"], tokenizer(captions))


def test_what_is_dropped_is_empty_and_the_rest_stays(start, tokenizer):
    whole, empty = next(start()), tokenizer([""])[0]
    without = {
        "text": next(start(draws=DrawOptions(drop=DropRates(1.0, 0.0, 0.0)))),
        "mask": next(start(draws=DrawOptions(drop=DropRates(0.0, 1.0, 0.0)))),
        "references": next(start(draws=DrawOptions(drop=DropRates(0.0, 0.0, 1.0)))),
    }
    assert (without["text"]["tokens"] == empty).all()
    assert not without["mask"]["face_mask"].any() and without["mask"]["target_face"].any()
    assert not without["references"]["reference_valid"].any()
    assert not without["references"]["references"].any()
    changed = {"text": {"tokens"}, "mask": {"face_mask"}}
    changed["references"] = {"references", "reference_valid"}
    for name, batch in without.items():
        for key in batch.keys() - changed[name]:
            np.testing.assert_array_equal(batch[key], whole[key], err_msg=f"{name}: {key}")


def test_the_sequence_depends_on_the_seed(start):
    first, again, other = (take(start(seed=seed), 5) for seed in (0, 0, 1))
    assert all(equal(a, b) for a, b in zip(first, again, strict=True))
    assert not any(equal(a, b) for a, b in zip(first, other, strict=True))


def joined(loaders, count):
    """Global batches, put together from those of the hosts."""
    batches = zip(*(take(loader, count) for loader in loaders), strict=True)
    return [
        {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        for parts in batches
    ]


def check_same_sequence(start, workers, hosts, threads=1):
    options = LoaderOptions(workers=workers, threads=threads)
    loaders = [start(size=8, loader=options, hosts=hosts, host=host) for host in range(hosts)]
    found, expected = joined(loaders, 5), take(start(size=8), 5)
    assert all(equal(a, b) for a, b in zip(found, expected, strict=True)), (workers, hosts)


@pytest.mark.parametrize(
    ("workers", "hosts", "threads"),
    [(0, 1, 3), (0, 2, 1), (0, 4, 2), (1, 1, 2), (3, 1, 1), (2, 2, 1)],
)
def test_the_sequence_is_the_same_on_any_hosts_workers_and_threads(start, workers, hosts, threads):
    check_same_sequence(start, workers, hosts, threads)


@pytest.mark.slow
@pytest.mark.parametrize("workers", range(4))
@pytest.mark.parametrize("hosts", [1, 2, 4])
def test_the_sequence_is_the_same_for_every_pair(start, workers, hosts):
    check_same_sequence(start, workers, hosts)


def test_a_smaller_batch_goes_through_the_same_sequence(start):
    eights, fours = take(start(size=8), 3), take(start(size=4), 6)
    for i, batch in enumerate(eights):
        halves = [{name: half[name] for name in half} for half in fours[2 * i : 2 * i + 2]]
        both = {name: np.concatenate([half[name] for half in halves]) for name in batch}
        assert equal(both, batch)


def test_resumption_continues_exactly_at_random_points(start):
    expected = take(start(size=2), 33)
    rng = np.random.default_rng(0)
    for position in rng.choice(30, 20, replace=False).tolist():
        loader = start(size=2)
        take(loader, position)
        state = json.loads(json.dumps(loader.get_state()))
        resumed = start(size=2)
        resumed.set_state(state)
        for found, batch in zip(take(resumed, 3), expected[position : position + 3], strict=True):
            assert equal(found, batch), position


@pytest.mark.parametrize(("workers", "hosts"), [(0, 2), (0, 4), (2, 1)])
def test_resumption_may_change_workers_and_hosts(start, workers, hosts):
    expected = take(start(size=8), 7)
    loader = start(size=8, loader=LoaderOptions(workers=1))
    assert equal(take(loader, 3)[-1], expected[2])
    state = loader.get_state()
    resumed = [
        start(size=8, loader=LoaderOptions(workers=workers), hosts=hosts, host=host)
        for host in range(hosts)
    ]
    for one in resumed:
        one.set_state(state)
    found = joined(resumed, 4)
    assert all(equal(a, b) for a, b in zip(found, expected[3:], strict=True))


def test_a_loader_can_go_back(start):
    loader = start()
    state = loader.get_state()
    first = take(loader, 3)
    loader.set_state(state)
    assert all(equal(a, b) for a, b in zip(take(loader, 3), first, strict=True))


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"seed": 1}, "seed: 0 -> 1"),
        ({"draws": DrawOptions()}, "draws: .* first_draws: "),
        ({"draws": dataclasses.replace(NO_DROPS, max_references=3)}, "draws: "),
    ],
)
def test_a_state_of_another_sequence_is_refused(start, changed, named):
    with pytest.raises(ValueError, match=named):
        start(**changed).set_state(start().get_state())


@pytest.mark.parametrize("state", [{"next_index": 4}, {"0": {"next_index": 4}}, {}])
def test_a_state_that_names_no_data_is_refused(start, state):
    with pytest.raises(ValueError, match=r"does not say which data it was trained on.*another run"):
        start().set_state(state)


def test_a_state_of_other_data_is_refused(start, tmp_path):
    other = flat_dataset(tmp_path, [PHOTOS] * (PEOPLE - 1) + [PHOTOS - 1])
    with pytest.raises(ValueError, match=r"dataset: .*restore them, or begin another run"):
        start(of=other).set_state(start().get_state())


BROKEN = {(0, 1), (0, 3), (3, 0), (3, 1), (3, 2), (3, 3)}


@pytest.fixture(scope="module")
def broken(tmp_path_factory):
    """Person 0 has three photos that decode, person 3 a single one."""
    return flat_dataset(tmp_path_factory.mktemp("broken"), [5, 5, 5, 5], BROKEN)


def test_photos_that_do_not_decode_are_replaced_counted_and_named(start, broken, monkeypatch):
    named = []
    monkeypatch.setattr(logging, "warning", lambda text, *values: named.append(text % values))
    loader, seen = start(of=broken), []
    for batch in take(loader, 40):
        targets, references = shown(batch)
        for target, refs, valid in zip(targets, references, batch["reference_valid"], strict=True):
            pictures = [tuple(map(int, one)) for one in (target, *refs[valid])]
            assert valid.any()
            assert len(set(pictures)) == len(pictures)
            seen += pictures
    assert not BROKEN & set(seen)
    people = {identity for identity, _ in seen}
    assert people == {0, 1, 2}, "person 3 has no reference left"
    assert loader.replaced > 40
    assert len(named) == len(set(named)) == len(BROKEN)
    assert all("another photo of this person takes its place" in line for line in named)


def test_replacing_depends_on_the_global_index_alone(start, broken):
    expected = take(start(of=broken), 12)
    hosts = [start(of=broken, hosts=2, host=host) for host in range(2)]
    assert all(equal(a, b) for a, b in zip(joined(hosts, 12), expected, strict=True))
    first, later = start(of=broken), start(of=broken)
    take(first, 7)
    later.set_state(first.get_state())
    assert all(equal(a, b) for a, b in zip(take(later, 5), expected[7:], strict=True))


def test_a_person_without_two_good_photos_gives_way_to_the_next(tmp_path, start):
    nobody = flat_dataset(tmp_path, [2, 2], {(0, 0), (0, 1), (1, 0)})
    with pytest.raises(ValueError, match="No identity has two photos that decode"):
        next(start(of=nobody, size=2))


def test_people_with_one_photo_are_left_out_and_said_to_be(tmp_path, start):
    few = flat_dataset(tmp_path, [1, 4, 1, 2])
    pool = photo_pool(few, "train", SHAPE.reference_size)
    said = describe_pool(pool)
    assert said.startswith("6 photos of 2 people; 2 people with fewer than 2 photos are left out")
    targets = [int(i) for batch in take(start(of=few, size=2), 4) for i in shown(batch)[0][:, 0]]
    assert sorted(targets) == [1] * 4 + [3] * 4


def test_stored_crops_are_those_cut_from_the_photos(start, dataset, tmp_path):
    stored = flat_dataset(tmp_path, [PHOTOS] * PEOPLE, reference_size=32)
    pool = photo_pool(stored, "train", 32)
    assert "stored crops" in describe_pool(pool)
    assert photo_pool(stored, "train", 64).crops is None, "64 is more than is stored"
    assert photo_pool(dataset, "train", 32).crops is None
    for cut, kept in zip(take(start(), 5), take(start(of=stored), 5), strict=True):
        difference = np.abs(cut["references"].astype(int) - kept["references"]).max()
        assert difference <= 12, f"{difference} levels; JPEG rings beside the black padding"
        for name in cut.keys() - {"references"}:
            np.testing.assert_array_equal(kept[name], cut[name], err_msg=name)


def test_augmentation_leaves_the_draws_as_they_are(start):
    varied = DrawOptions(drop=NO_DROPS.drop, augmentation=Augmentation(1.0, 0.05, 0.0, 0.0))
    for plain, other in zip(take(start(), 5), take(start(draws=varied), 5), strict=True):
        # Flat photos: mirrored they are the same, but the box of the face is not.
        np.testing.assert_array_equal(other["target"], plain["target"])
        np.testing.assert_array_equal(other["reference_valid"], plain["reference_valid"])
        difference = np.abs(other["references"].astype(int) - plain["references"])
        assert 0 < difference.max() <= 0.05 * 255 + 1


def test_ctrl_c_ends_the_program_and_not_its_workers_by_themselves(start, capfd):
    expected, before = take(start(), 8), {*multiprocessing.active_children()}
    loader = start(loader=LoaderOptions(workers=1, prefetch=1))
    found = take(loader, 1)
    (worker,) = {*multiprocessing.active_children()} - before
    os.kill(worker.pid, signal.SIGINT)
    found += take(loader, 7)
    assert all(equal(a, b) for a, b in zip(found, expected, strict=True))
    assert "Traceback" not in capfd.readouterr().err
    loader.close()


def test_batches_that_cannot_be_are_refused(dataset, tokenizer, start):
    with pytest.raises(ValueError, match="8 identities with two photos or more cannot fill a batc"):
        training_batches(dataset, tokenizer, SHAPE, Order(0, NO_DROPS), 9)
    with pytest.raises(ValueError, match=r"rows \[4, 5, 6, 7\] are none of a batch of 4"):
        start(size=4, hosts=1, host=1)
    with pytest.raises(ValueError, match="has no split 'test': choose among train"):
        photo_pool(dataset, "test", 32)


def test_a_loader_makes_whole_batches_unless_told_otherwise(dataset, tokenizer):
    loader = training_batches(dataset, tokenizer, SHAPE, Order(0, NO_DROPS), 8)
    assert next(loader)["target"].shape == (8, 64, 64, 3)
    loader.close()
