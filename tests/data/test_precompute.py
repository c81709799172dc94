"""Latents and contexts computed ahead: the same samples, the same loss, and none but the right."""

import argparse
import dataclasses
import functools
import json
import shutil
from contextlib import closing

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl import logging

from flashface_jax.data import remove
from flashface_jax.data.config import DataConfig
from flashface_jax.data.dataset import TRAIN, VALIDATION
from flashface_jax.data.loading.draws import Augmentation, DrawOptions
from flashface_jax.data.loading.encoded_record import Sizes, target_layout
from flashface_jax.data.loading.encoders import encoders_sha256
from flashface_jax.data.loading.pipeline import Order, encoded_batches, training_batches
from flashface_jax.data.loading.precomputed import Precomputed
from flashface_jax.data.loading.transforms import UndecodableError
from flashface_jax.data.precomputing import drafting, planning, writing
from flashface_jax.diffusion.loss import draw_loss_noise
from flashface_jax.models.autoencoder.patch_cosines import PatchCosinesConfig
from flashface_jax.training.computation.batch import Batch, EncodedBatch
from flashface_jax.training.computation.program import Program
from flashface_jax.training.computation.step import make_loss_terms
from flashface_jax.training.run.data import open_dataset
from flashface_jax.training.run.loop import train
from flashface_jax.weights.run_directory import open_weights
from flashface_jax.weights.system import SystemConfig, build_system
from tests.data.encoded_world import config, no_posterior, run, system
from tests.data.worlds import flat_dataset
from tests.random_weights import write_random_weights
from tests.small import CONFIG

PHOTOS = {TRAIN: 30, VALIDATION: 10}
PER_FILE = ("--photos-per-file", 8)
SYSTEMS = {
    "a posterior": system(),
    "inpainting": system(PatchCosinesConfig(patch=8), inpaints=True),
    "no posterior": no_posterior(),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("precompute")


@pytest.fixture(scope="module")
def dataset(folder):
    """The built-in world: 6 people to train on and 2 held out, 5 photos each."""
    return open_dataset(folder, CONFIG.data)


@pytest.fixture(scope="module")
def weights(folder):
    """Weights of each system."""
    return {
        name: write_random_weights(folder / name.replace(" ", "-"), of)
        for name, of in SYSTEMS.items()
    }


@pytest.fixture(scope="module")
def made(folder, dataset, weights):
    """Directories by system and dtype, each made once."""
    places = {}

    def make(name="a posterior", dtype="float32"):
        if (name, dtype) not in places:
            out = folder / f"{name}-{dtype}".replace(" ", "-")
            assert run(weights[name], dataset.path, out, "--dtype", dtype, *PER_FILE) == 0
            places[name, dtype] = out
        return places[name, dtype]

    return make


def pixel_batches(of, dataset, weights, order):
    """Batches of photos, as a run makes them."""
    tokenizer = open_weights(weights).tokenizer()
    return training_batches(dataset, tokenizer, of.sample_shape, order, of.batch_size)


@pytest.fixture(scope="module")
def networks(weights):
    """Networks of each system, their parameters, and tokens of the empty prompt."""

    @functools.cache
    def opened(name):
        directory, net = open_weights(weights[name]), build_system(SYSTEMS[name])
        params = {part: directory.params(part, one) for part, one in net.parts().items()}
        return net, params, jnp.asarray(directory.tokenizer()([""]))

    return opened


def batches(name, dataset, weights, place, count=2):
    """Some batches of photos, and those of what is stored; both loaders go by the same seed."""
    of = config(SYSTEMS[name], weights[name], dataset.path, place)
    order, inpaints = Order(3, of.data.draws), of.system.flashface.inpaints
    photos = pixel_batches(of, dataset, weights[name], order)
    stored = encoded_batches(
        dataset, Precomputed(place), order, of.batch_size, without_face=inpaints
    )
    with closing(photos), closing(stored):
        pairs = [
            (Batch(**arrays(next(photos))), EncodedBatch(**arrays(next(stored))))
            for _ in range(count)
        ]
    assert photos.replaced == stored.replaced
    return of, pairs


def arrays(batch):
    """A batch on the device; small floats as the step widens them, so that less is compiled."""
    return {
        name: jnp.asarray(leaf, jnp.float32) if leaf.dtype.itemsize == 2 else jnp.asarray(leaf)
        for name, leaf in batch.items()
    }


@pytest.fixture(scope="module")
def losses(dataset, weights, made, networks):
    """Each sample's loss over two batches, from photos and from what is stored."""
    net, params, empty = networks("a posterior")
    of = config(SYSTEMS["a posterior"], "", "", "")
    loss_terms = jax.jit(make_loss_terms(net, of, empty))

    def of_both(dtype):
        _, pairs = batches("a posterior", dataset, weights, made("a posterior", dtype))
        found = [
            loss_terms(
                params, batch, draw_loss_noise(jax.random.key(step), of.latent_shape, 1000, of.loss)
            )["noise"]
            for step, pair in enumerate(pairs)
            for batch in pair
        ]
        return np.concatenate(found[::2]), np.concatenate(found[1::2])

    return of_both


def examples(of, networks, pair):
    """What the loss is computed on, from photos and from what is stored."""
    net, params, empty = networks
    drawn = draw_loss_noise(jax.random.key(0), of.latent_shape, 1000, of.loss)
    inpaints = of.system.flashface.inpaints
    return [jax.jit(lambda b=b: b.example(net, params, drawn, empty, inpaints))() for b in pair]


def require_same(expected, found):
    """Alike but for float32's rounding; references that do not exist are no part of it."""
    assert np.array_equal(expected.reference_valid, found.reference_valid)
    valid = np.asarray(expected.reference_valid)
    for name, value in vars(expected).items():
        a, b = np.asarray(value), np.asarray(getattr(found, name))
        if name == "references":
            a, b = a[valid], b[valid]
        np.testing.assert_allclose(b, a, rtol=1e-5, atol=1e-5, err_msg=name)


def test_the_loss_is_that_of_the_photos(losses):
    expected, found = losses("float32")
    assert len(set(expected.tolist())) == 12
    worst = float(np.max(np.abs(found / expected - 1)))
    assert worst <= 1e-5, f"{worst:.1e}"


@pytest.mark.parametrize(("dtype", "bound"), [("float16", 1e-4), ("bfloat16", 5e-4)])
def test_a_small_dtype_changes_the_loss_by_its_rounding(losses, dtype, bound):
    expected, found = losses(dtype)
    worst = float(np.max(np.abs(found / expected - 1)))
    assert 1e-7 < worst <= bound, f"{worst:.1e}"


@pytest.mark.parametrize("name", ["inpainting", "no posterior"])
def test_what_the_loss_is_computed_on_is_that_of_the_photos(dataset, weights, made, networks, name):
    of, pairs = batches(name, dataset, weights, made(name))
    expected, found = examples(of, networks(name), pairs[1])
    assert expected.condition.shape[-1] == (13 if name == "inpainting" else 1)
    require_same(expected, found)


def test_conditions_are_dropped_as_of_photos(dataset, weights, made):
    _, pairs = batches("a posterior", dataset, weights, made("a posterior", "float16"), 4)
    empty = Precomputed(made("a posterior", "float16")).empty_context
    tokens = open_weights(weights["a posterior"]).tokenizer()([""])
    dropped = [
        ((np.asarray(photos.tokens) == tokens).all(1), (stored.context == empty).all((1, 2)))
        for photos, stored in pairs
    ]
    expected, found = np.concatenate(dropped, axis=1)
    assert np.array_equal(expected, found) and 0 < expected.sum() < 24
    masks = [
        [np.asarray(batch.face_mask) for batch in (photos, stored)] for photos, stored in pairs
    ]
    assert all(np.array_equal(a, b) for a, b in masks)
    assert 0 < sum((a.sum((1, 2, 3)) == 0).sum() for a, _ in masks) < 24
    for photos, stored in pairs:
        assert np.array_equal(photos.target_face, stored.target_face)
        assert np.asarray(stored.target_face).any((1, 2, 3)).all(), "the loss is told every face"
    valid = np.concatenate([stored.reference_valid for _, stored in pairs])
    assert 0 < (~valid.any(1)).sum() < 24


@pytest.mark.parametrize("inpaints", [False, True])
def test_planned_batches_have_the_shapes_of_real_ones(dataset, weights, made, inpaints):
    name = "inpainting" if inpaints else "no posterior"
    of = config(SYSTEMS[name], weights[name], dataset.path, "latents")
    stored = encoded_batches(
        dataset,
        Precomputed(made(name, "float16")),
        Order(0, of.data.draws),
        of.batch_size,
        without_face=inpaints,
    )
    with closing(stored):
        batch = EncodedBatch(**next(stored))
    planned = Program.over(of, jax.devices()[:1]).batch_shapes()
    assert isinstance(planned, EncodedBatch)
    for name, value in vars(planned).items():
        real = getattr(batch, name)
        assert (value is None) == (real is None)
        assert value is None or (value.shape, value.dtype) == (real.shape, real.dtype), name


@pytest.mark.parametrize("crops", [0, 32])
def test_photos_that_do_not_decode_give_way_to_the_same_others(
    tmp_path, weights, networks, monkeypatch, crops
):
    named = []
    monkeypatch.setattr(logging, "warning", lambda text, *values: named.append(text % values))
    # With stored crops the photos are decoded as they are built, and none that is damaged is kept.
    broken = frozenset() if crops else {(0, 1), (2, 0), (2, 2), (5, 3)}
    dataset = flat_dataset(tmp_path, [4] * 7, broken, crops)
    assert (dataset.reference_size > 0) == bool(crops)
    out = tmp_path / "out"
    assert run(weights["no posterior"], dataset.path, out, "--dtype", "float32") == 0
    assert len(named) == 2 * len(broken)  # as target and as reference
    of, pairs = batches("no posterior", dataset, weights, out, 4)
    for pair in pairs[::3]:
        require_same(*examples(of, networks("no posterior"), pair))
    records = Precomputed(out).targets(TRAIN)
    if broken:
        with pytest.raises(UndecodableError, match=r"0-1\.jpg"):
            records[1]


def files(place):
    return {path.name: path.read_bytes() for path in place.iterdir()}


def test_a_stopped_command_goes_on_and_gives_the_same_bytes(
    folder, dataset, weights, made, tmp_path, monkeypatch, capsys
):
    out, written = tmp_path / "out", []
    write_shard = writing.write_shard

    def stopping(path, records):
        written.append(path.name)
        if len(written) == 6:  # the second file's references are whole, the third's targets begin
            next(iter(records))
            path.write_bytes(b"half a file")
            raise KeyboardInterrupt
        write_shard(path, records)

    words = (weights["a posterior"], dataset.path, out, "--dtype", "float32", *PER_FILE)
    monkeypatch.setattr(writing, "write_shard", stopping)
    assert run(*words) == 130
    assert "the same command goes on from here" in capsys.readouterr().err
    assert not out.exists() and len(list((tmp_path / ".out.unfinished").glob("*record"))) == 5
    (tmp_path / ".out.unfinished/.train-targets-00002.array_record.part").write_bytes(b"half")
    assert run(*words[:3], "--dtype", "float16", *PER_FILE) == 1
    said = capsys.readouterr().err
    assert (
        "was stopped, with other photos, weights or options (storage: float32 -> float16)" in said
    )
    assert run(*words) == 0
    assert capsys.readouterr().out.startswith("24 photos to encode take")
    assert files(out) == files(made("a posterior", "float32"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


def test_training_goes_on_from_what_is_stored_wherever_it_lies(dataset, weights, made, tmp_path):
    place = tmp_path / "latents"
    shutil.copytree(made("a posterior", "float16"), place)
    of = config(SYSTEMS["a posterior"], weights["a posterior"], dataset.path, place)
    of = dataclasses.replace(of, steps=2)
    train(of, tmp_path / "run")
    moved = place.rename(tmp_path / "moved")
    there = dataclasses.replace(of.data, precomputed=str(moved))
    state = train(dataclasses.replace(of, data=there), tmp_path / "run")
    lines = (tmp_path / "run/metrics.jsonl").read_text().splitlines()
    assert int(state.step) == len(lines) == 2 and all(
        0 < json.loads(line)["loss"] < 100 for line in lines
    )
    assert encoders_sha256(state.frozen) == Precomputed(moved).origin.weights
    of_photos = dataclasses.replace(of.data, precomputed="")
    with pytest.raises(ValueError, match=r"interrupted with \(precomputed: .* float16 float32 ->"):
        train(dataclasses.replace(of, data=of_photos), tmp_path / "run")


@pytest.fixture
def refused(dataset, weights, made, tmp_path):
    """What training says of a run that does not fit what is stored."""
    base = config(SYSTEMS["a posterior"], weights["a posterior"], dataset.path, made("a posterior"))

    def said(**changes):
        with pytest.raises(ValueError) as caught:
            train(dataclasses.replace(base, **changes), tmp_path / "run")
        return str(caught.value)

    return base, said


def test_a_dataset_that_people_were_taken_out_of_is_refused(refused, folder, dataset, tmp_path):
    base, said = refused
    shutil.copytree(dataset.path, tmp_path / "data/id_clusters/1.0.0")
    gone = dataset.photos(TRAIN).clusters.identities[2]
    (tmp_path / "list.txt").write_text(f"identity: {gone}\n")
    assert remove.main([str(tmp_path / "data"), "--list", str(tmp_path / "list.txt")]) == 0
    data = dataclasses.replace(base.data, dataset=str(tmp_path / "data"))
    message = said(data=data)
    assert "was not made of the photos that" in message and "taken out" in message
    assert "(train: " in message and "remove it, and make it with flashface" in message


def test_other_weights_are_refused(refused, tmp_path):
    _, said = refused
    other = write_random_weights(tmp_path / "other", SYSTEMS["a posterior"], seed=1)
    assert "was made with another autoencoder or text tower" in said(initial=str(other))


def test_other_sizes_are_refused(refused):
    base, said = refused
    message = said(system=dataclasses.replace(base.system, image_size=32))
    assert "does not fit the run (image_size: 64 -> 32)" in message


def test_an_inpainting_model_wants_its_own_latents(refused):
    base, said = refused
    drop = dataclasses.replace(base.data.draws.drop, face_mask=0.0)
    data = dataclasses.replace(base.data, draws=DrawOptions(drop=drop))
    assert "no latents of images without their faces" in said(
        system=system(inpaints=True), data=data
    )


def test_a_damaged_directory_is_refused(refused, tmp_path):
    base, said = refused
    place = tmp_path / "latents"
    shutil.copytree(base.data.precomputed, place)
    data = dataclasses.replace(base.data, precomputed=str(place))
    file = place / "train-references-00001.array_record"
    file.write_bytes(file.read_bytes()[:-1])
    assert f"{file} is missing or damaged" in said(data=data)
    (place / "metadata.json").write_text("{")
    assert "holds no precomputed latents that can be read" in said(data=data)
    shutil.rmtree(place)
    assert f"{place} holds no precomputed latents: make it with" in said(data=data)


def test_varied_pictures_and_trained_encoders_are_refused():
    draws = DrawOptions(augmentation=Augmentation(flip=0.5, contrast=0.1))
    with pytest.raises(ValueError, match=r"augmentation varies pictures \(flip, contrast\)"):
        DataConfig(precomputed="latents", draws=draws)
    data = DataConfig(precomputed="latents")
    with pytest.raises(ValueError, match='train "flashface" alone'):
        dataclasses.replace(CONFIG, data=data)


CONFIG_FILE = """
import dataclasses
from ml_collections import ConfigDict
from tests.data.encoded_world import config, no_posterior, system
def get_config():
    return ConfigDict(dataclasses.asdict(config(system(), "", "", "")))
"""
WRONG = {
    "augmentation": (
        ("--config.data.draws.augmentation.flip=0.5",),
        "varies pictures (data.draws.augmentation: flip), which cannot be precomputed",
    ),
    "another text tower": (
        ("--config.system.text_tower.layers=2",),
        "(system.text_tower: layers: 1 -> 2): set the configuration's fields",
    ),
    "a field": (("--config.batch=2",), "has no field"),
    "a size": (("--config.system.image_size=62",), "is no multiple of the autoencoder's stride"),
    "workers": (("--workers", "-1"), "workers is -1"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_said_in_one_line(folder, dataset, weights, tmp_path, capsys, name):
    (tmp_path / "config.py").write_text(CONFIG_FILE)
    words, said = WRONG[name]
    more = ("--config", tmp_path / "config.py", *words)
    assert run(weights["a posterior"], dataset.path, tmp_path / "out", *more) == 1
    err = capsys.readouterr().err
    assert err.startswith("error: ") and said in err and err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["config.py"]


def test_an_existing_directory_and_a_full_disk_are_refused(
    dataset, weights, made, tmp_path, capsys, monkeypatch
):
    assert run(weights["a posterior"], dataset.path, made("a posterior")) == 1
    assert "exists already: choose another directory or remove it" in capsys.readouterr().err
    usage = shutil.disk_usage(tmp_path)._replace(free=50_000)
    monkeypatch.setattr(drafting.shutil, "disk_usage", lambda place: usage)
    assert run(weights["a posterior"], dataset.path, tmp_path / "out") == 1
    err = capsys.readouterr().err
    assert "40 photos to encode take" in err and "0.1 MB are free" in err
    assert "name another disk with --out" in err and not (tmp_path / "out").exists()


def test_sizes_are_those_of_the_configuration(dataset, weights, tmp_path, capsys):
    (tmp_path / "config.py").write_text(CONFIG_FILE.replace("system()", "no_posterior()"))
    more = ("--config", tmp_path / "config.py", "--config.system.image_size=32")
    assert run(weights["no posterior"], dataset.path, tmp_path / "out", *more) == 0
    stored = Precomputed(tmp_path / "out")
    assert stored.targets(VALIDATION)[0]["target_mean"].shape == (4, 4, 12)
    assert [len(stored.targets(split)) for split in PHOTOS] == list(PHOTOS.values())
    assert f"--config.data.precomputed={tmp_path / 'out'}" in capsys.readouterr().out


@pytest.mark.parametrize(("storage", "bound"), [("float16", 0.008), ("bfloat16", 0.07)])
def test_the_posterior_survives_its_dtype(storage, bound):
    """Deviations of 1e-5 are common, and would not survive as such in float16."""
    sizes = Sizes(64, 32, 8, 4, 40, 16)
    layout = target_layout(sizes, storage, without_face=False)
    rng = np.random.default_rng(0)
    given = {name: rng.normal(size=shape) for name, (shape, _) in layout.fields.items()}
    given["target_log_variance"] = rng.uniform(-33.5, 23, given["target_log_variance"].shape)
    back = layout.unpack(layout.pack(given))
    shift = back["target_log_variance"].astype(float) - given["target_log_variance"]
    assert np.abs(np.expm1(shift / 2)).max() <= bound
    half = 2.0**-11 if storage == "float16" else 2.0**-8
    np.testing.assert_allclose(back["target_mean"].astype(float), given["target_mean"], rtol=half)


def test_a_configuration_may_leave_out_what_has_a_default(tmp_path):
    path = tmp_path / "short.py"
    head = "from ml_collections import ConfigDict\ndef get_config():\n    return ConfigDict("
    path.write_text(head + "{'steps': 1})\n")
    asked = argparse.Namespace(config=path, weights=tmp_path, precision="auto")
    system, precision = planning._configured(asked, [], SystemConfig())
    assert (system, precision) == (SystemConfig(), "float32")
    path.write_text(head + "{'compute_dtype': 'float16'})\n")
    with pytest.raises(ValueError, match="compute_dtype is 'float16'; it must be one of float32"):
        planning._configured(asked, [], SystemConfig())
