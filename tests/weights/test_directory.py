"""A weights directory: written whole or not at all, read back as it was, or refused."""

import json
from dataclasses import replace

import jax
import numpy as np
import pytest

from flashface_jax.common.files import atomic_directory
from flashface_jax.models.autoencoder.patch_cosines import PatchCosinesConfig
from flashface_jax.models.autoencoder.vae import AutoencoderKLConfig
from flashface_jax.models.clip import ImageTowerConfig, TextTowerConfig
from flashface_jax.models.flashface import FlashFaceConfig
from flashface_jax.models.network import flatten
from flashface_jax.models.unet_topology import UNetConfig
from flashface_jax.weights import directory as weights
from flashface_jax.weights.directory import (
    WeightsDirectory,
    WeightsError,
    read_config,
    write_config,
    write_params,
)
from flashface_jax.weights.system import SystemConfig, build_system
from flashface_jax.weights.tokenizer import train_tokenizer

CONFIG = SystemConfig(
    flashface=FlashFaceConfig(
        UNetConfig(
            base_channels=32,
            channel_multipliers=(2,),
            residual_blocks=(1,),
            transformer_depth=(1,),
            context_channels=16,
            num_heads=None,
            head_channels=8,
        ),
        tie_reference_middle=False,
    ),
    autoencoder=PatchCosinesConfig(patch=2, deviations=((1.0, 2.0), (0.5,), (0.5,))),
    text_tower=TextTowerConfig(90, 12, 16, 2, 1, 8),
    image_tower=ImageTowerConfig(16, 8, 16, 2, 1, 8),
)


@pytest.fixture(scope="module")
def networks():
    return build_system(CONFIG).parts()


@pytest.fixture(scope="module")
def params(networks):
    rng = np.random.default_rng(0)

    def draw(leaf):
        return rng.standard_normal(leaf.shape).astype(leaf.dtype)

    return {name: jax.tree.map(draw, network.shapes) for name, network in networks.items()}


@pytest.fixture(scope="module")
def directory(tmp_path_factory, params):
    path = tmp_path_factory.mktemp("weights") / "new" / "folder"
    with atomic_directory(path) as draft:
        write_config(draft, CONFIG)
        for name, part in params.items():
            if part:
                write_params(draft, name, part)
        train_tokenizer(["a young man", "a woman in a hat"], draft / "tokenizer", 12, 520)
    return path


# ---------------------------------------------------------------------------------- round trip


def test_everything_comes_back(directory, networks, params):
    opened = WeightsDirectory.open(directory)
    assert opened.config == CONFIG
    assert opened.tokenizer()(["a man"]).shape == (1, 12)
    for name, network in networks.items():
        read, written = flatten(opened.params(name, network)), flatten(params[name])
        assert read.keys() == written.keys()
        for key, value in written.items():
            assert isinstance(read[key], jax.Array)
            np.testing.assert_array_equal(read[key], value)


def test_a_part_without_parameters_needs_no_file(directory, networks):
    assert not (directory / "params" / "autoencoder").exists()
    assert WeightsDirectory.open(directory).params("autoencoder", networks["autoencoder"]) == {}


@pytest.mark.parametrize(
    "config",
    [
        CONFIG,
        SystemConfig(),
        replace(CONFIG, autoencoder=AutoencoderKLConfig(misread_attention=True), image_tower=None),
    ],
)
def test_configurations_come_back(tmp_path, config):
    write_config(tmp_path, config)
    read = read_config(tmp_path)
    assert read == config
    assert type(read.autoencoder) is type(config.autoencoder)


def test_the_directory_can_be_read_by_others(directory):
    assert directory.stat().st_mode & 0o777 == 0o755


# ----------------------------------------------------------------------------- whole or nothing


def test_an_interrupted_write_leaves_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt), atomic_directory(tmp_path / "out") as draft:
        write_config(draft, CONFIG)
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_a_directory_appears_only_when_it_is_whole(tmp_path):
    with atomic_directory(tmp_path / "out") as draft:
        write_config(draft, CONFIG)
        assert not (tmp_path / "out").exists()
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["config.json"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_an_existing_directory_is_not_replaced(tmp_path):
    (tmp_path / "mine").write_text("precious")
    with (
        pytest.raises(FileExistsError, match="exists already"),
        atomic_directory(tmp_path / "mine"),
    ):
        pass
    assert (tmp_path / "mine").read_text() == "precious"


def test_a_failed_write_of_parameters_says_where(tmp_path, monkeypatch):
    def fail(*arguments, **options):
        raise ValueError("RESOURCE_EXHAUSTED: no space left on device")

    monkeypatch.setattr(weights.ocp.Checkpointer, "save", fail)
    with pytest.raises(WeightsError, match="params/text_tower could not be written: RESOURCE_EX"):
        write_params(tmp_path, "text_tower", {"x": np.zeros(2)})


# --------------------------------------------------------------------------------------- refused


@pytest.mark.parametrize("name", ["nowhere", "file", "empty"])
def test_what_is_no_weights_directory_is_refused(tmp_path, name):
    (tmp_path / "file").write_text("text")
    (tmp_path / "empty").mkdir()
    with pytest.raises(WeightsError, match=f"{name} is no weights directory.*convert official"):
        WeightsDirectory.open(tmp_path / name)


def changed(place, value):
    """The JSON of the configuration with one value replaced, or removed where it is None."""

    def change(text):
        described = json.loads(text)
        *folders, last = place.split("/")
        inner = described
        for folder in folders:
            inner = inner[folder]
        if value is None:
            del inner[last]
        else:
            inner[last] = value
        return json.dumps(described)

    return change


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda text: text[:100], "is damaged"),
        (lambda text: "", "is damaged"),
        (lambda text: "[]", "is damaged"),
        (changed("format", 2), "has format 2, this version reads 1"),
        (changed("format", None), "is damaged"),
        (changed("system", None), "is damaged"),
        (changed("system/text_tower/channels", "wide"), "is damaged.*channels"),
        (changed("system/text_tower/colour", 3), "is damaged.*colour"),
        (changed("system/flashface/denoiser/base_channels", 48), "is damaged.*base_channels is 48"),
    ],
)
def test_a_damaged_configuration_is_refused(tmp_path, damage, reason):
    write_config(tmp_path, CONFIG)
    path = tmp_path / "config.json"
    path.write_text(damage(path.read_text()))
    with pytest.raises(WeightsError, match=f"config.json {reason}"):
        WeightsDirectory.open(tmp_path)


def test_a_missing_part_is_named(tmp_path, networks):
    write_config(tmp_path, CONFIG)
    opened = WeightsDirectory.open(tmp_path)
    with pytest.raises(WeightsError, match="has no text_tower: convert again"):
        opened.params("text_tower", networks["text_tower"])
    with pytest.raises(WeightsError, match="has no tokenizer: convert again with --tokenizer"):
        opened.tokenizer()


def test_parameters_of_other_shapes_are_refused(directory):
    other = replace(CONFIG, text_tower=TextTowerConfig(90, 12, 32, 2, 1, 8))
    network = build_system(other).parts()["text_tower"]
    with pytest.raises(WeightsError, match=r"text_tower is damaged.*have other names or shapes"):
        WeightsDirectory.open(directory).params("text_tower", network)


def test_a_torn_checkpoint_is_refused(tmp_path, params, networks):
    write_config(tmp_path, CONFIG)
    write_params(tmp_path, "text_tower", params["text_tower"])
    for path in (tmp_path / "params" / "text_tower").rglob("*"):
        if path.is_file() and path.stat().st_size > 1000:
            path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(WeightsError, match="text_tower is damaged, or holds another"):
        WeightsDirectory.open(tmp_path).params("text_tower", networks["text_tower"])
