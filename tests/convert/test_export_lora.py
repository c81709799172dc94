"""Exporting a run that trains low-rank updates: added to the weights, and by themselves."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from flashface_jax.convert.command import main
from flashface_jax.convert.lora import kernel_names
from flashface_jax.models.flashface import References
from flashface_jax.models.lora import (
    LoraConfig,
    lora_shapes,
    trains_beside_lora,
    with_lora,
)
from flashface_jax.models.network import Params, flatten, unflatten
from flashface_jax.weights.directory import WeightsDirectory
from flashface_jax.weights.run_directory import RunDirectory, open_weights
from flashface_jax.weights.run_files import TRAIN_FILE
from tests.convert.conftest import HEADS
from tests.convert.runs import write_run
from tests.recorded import assert_close, drawn_parameters

LORA = LoraConfig(rank=3, alpha=4.5)
FORWARD = 1e-6
FILE = 1e-5  # weights that are rounded otherwise; measured 4.4e-6


@dataclass(frozen=True)
class LoraRun:
    """A run, and what its average holds apart: the weights, and the updates to add."""

    workdir: Path
    weights: Params
    updates: Params

    @property
    def merged(self) -> Params:
        return with_lora(self.weights, self.updates, LORA)


@pytest.fixture(scope="module")
def run(converted, tmp_path_factory):
    workdir, networks = tmp_path_factory.mktemp("lora") / "run", converted.system.parts()
    workdir.mkdir()
    drawn = {name: drawn_parameters(part.shapes, seed=5) for name, part in networks.items()}
    whole, shapes = drawn["flashface"], lora_shapes(networks["flashface"].shapes, LORA)
    rng = np.random.default_rng(0)
    lora = jax.tree.map(lambda x: 0.1 * rng.standard_normal(x.shape).astype("f4"), shapes)
    write_run(workdir, converted.directory.config, {**drawn, "lora": lora}, LORA)
    # The newest average is 2 / 64 more than what was drawn, where the run trains.
    weights = {
        name: jnp.asarray(x + np.float32(2 / 64) if trains_beside_lora(name) else x)
        for name, x in flatten(whole).items()
    }
    updates = jax.tree.map(lambda x: jnp.asarray(x + np.float32(2 / 64)), lora)
    return LoraRun(workdir, unflatten(weights, whole), updates)


@pytest.fixture(scope="module")
def official(run, tmp_path_factory):
    """What the released code would load of the run: its files, converted anew."""
    folder = tmp_path_factory.mktemp("official")
    assert main(["export", str(run.workdir), "--to=official", f"--out={folder / 'out'}"]) == 0
    unet = folder / "out" / "flashface.ckpt"
    assert main(["official", f"--unet={unet}", *HEADS, f"--out={folder / 'weights'}"]) == 0
    return WeightsDirectory.open(folder / "weights")


@pytest.fixture(scope="module")
def lora_file(run, tmp_path_factory):
    out = tmp_path_factory.mktemp("updates") / "mine.safetensors"
    assert main(["export", str(run.workdir), "--to=lora", f"--out={out}"]) == 0
    return load_file(out)


def assert_same(ours, theirs):
    ours, theirs = flatten(ours), flatten(theirs)
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        np.testing.assert_array_equal(ours[name], value, err_msg=name)


def test_a_runs_parameters_have_its_updates_added(run, converted):
    opened = open_weights(run.workdir)
    assert isinstance(opened, RunDirectory)
    assert_same(opened.params("flashface", converted.system.flashface), run.merged)


def test_the_released_files_have_the_updates_added(run, official, converted):
    assert_same(official.params("flashface", converted.system.flashface), run.merged)


def test_the_updates_by_themselves_are_the_average(run, converted):
    assert_same(open_weights(run.workdir).updates(converted.system.flashface, LORA), run.updates)


def added(params, file, denoiser):
    """Parameters with a file's updates added as Stable Diffusion's tools do, in float64."""
    named = flatten(params)
    for ours, theirs in kernel_names(denoiser).items():
        down, up, alpha = (
            file[f"{theirs}.{name}"].astype(np.float64)
            for name in ("lora_down.weight", "lora_up.weight", "alpha")
        )
        update = (alpha / down.shape[0] * (up @ down)).T
        named[ours] = (np.asarray(named[ours], np.float64) + update).astype(np.float32)
    return unflatten(named, params)


def predict(flashface, params):
    """The denoiser's prediction with a reference."""
    rng = np.random.default_rng(1)
    x, words = rng.standard_normal((2, 2, 8, 8, 4)), rng.standard_normal((2, 7, 24))

    @jax.jit
    def forward(params, latents, references, words):
        model = flashface.bind(params)
        times = jnp.full((2,), 500)
        seen = model.encode_references(references[None], times[:1], words[:1])
        mask = jnp.ones((2, 8, 8, 1))
        some = References(seen, jnp.ones((1, 2)), jnp.full((2, 1), 0.9))
        return model.denoise(latents, mask, times, words, some)

    return np.asarray(forward(params, *np.float32(x), np.float32(words)))


@pytest.fixture(scope="module")
def merged(run, converted):
    return predict(converted.system.flashface, run.merged)


def test_the_released_files_predict_as_the_run_does(run, official, merged, converted):
    flashface = converted.system.flashface
    ours = predict(flashface, official.params("flashface", flashface))
    assert_close("prediction", ours, merged, FORWARD)
    without = predict(flashface, run.weights)
    assert np.abs(without - merged).max() > 0.1 * merged.std()  # the updates matter


def test_the_updates_beside_their_weights_predict_as_the_run_does(
    run, lora_file, merged, converted
):
    config = converted.directory.config.flashface.denoiser
    params = added(run.weights, lora_file, config)
    assert_close("prediction", predict(converted.system.flashface, params), merged, FILE)


def test_half_precision_halves_the_updates(run, lora_file, tmp_path):
    out = tmp_path / "half.safetensors"
    options = ["--to=lora", "--dtype=float16", f"--out={out}"]
    assert main(["export", str(run.workdir), *options]) == 0
    half = load_file(out)
    assert half.keys() == lora_file.keys()
    for key, value in lora_file.items():
        np.testing.assert_array_equal(half[key], value.astype(np.float16))
        assert half[key].dtype == np.float16
    assert list(tmp_path.iterdir()) == [out]


def test_what_is_written_is_said(run, tmp_path, capfd):
    out = tmp_path / "new" / "mine.safetensors"
    assert main(["export", str(run.workdir), "--to=lora", f"--out={out}"]) == 0
    said = capfd.readouterr().out.splitlines()
    assert said[-1] == f"wrote {out}"
    assert said[-2].startswith("note: these are the updates of the denoiser's attention; ")


# ---------------------------------------------------------------------------------------- errors


def refusal(capfd, directory, out):
    """What the command says of why it writes nothing."""
    assert main(["export", str(directory), "--to=lora", f"--out={out}"]) == 1
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("error: ") and "Traceback" not in line
    return line.removeprefix("error: ")


def test_a_run_without_updates_is_refused(converted, tmp_path, capfd):
    (tmp_path / "checkpoints").mkdir()
    shutil.copy(converted.directory.path / "config.json", tmp_path)
    (tmp_path / TRAIN_FILE).write_text('{"lora": null}')
    said = refusal(capfd, tmp_path, tmp_path / "mine.safetensors")
    assert said == (
        f"{tmp_path} trains no LoRA, so it has no updates: export its weights with --to official."
    )


def test_converted_weights_have_no_updates(converted, tmp_path, capfd):
    said = refusal(capfd, converted.directory.path, tmp_path / "mine.safetensors")
    assert said.startswith(f"{converted.directory.path} is no run's directory, so it has no ")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["mine", "mine.ckpt"])
def test_updates_are_a_safetensors_file(run, tmp_path, capfd, name):
    said = refusal(capfd, run.workdir, tmp_path / name)
    assert said.startswith(f"{tmp_path / name} must end in .safetensors")


def test_an_existing_file_is_left_alone(run, tmp_path, capfd):
    out = tmp_path / "mine.safetensors"
    out.write_text("precious")
    assert refusal(capfd, run.workdir, out).startswith(f"{out} exists already")
    assert out.read_text() == "precious"


def torn(workdir):
    for path in (workdir / "checkpoints" / "2").rglob("*"):
        if path.is_file() and path.stat().st_size > 1000:
            path.write_bytes(path.read_bytes()[:100])


def without_updates(workdir):
    for kind in ("params", "average"):
        shutil.rmtree(workdir / "checkpoints" / "2" / f"{kind}-lora")


def larger(workdir):
    (workdir / TRAIN_FILE).write_text('{"lora": {"rank": 4, "alpha": 4.5}}')


def configuration(text):
    return lambda workdir: (workdir / TRAIN_FILE).write_text(text)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (torn, "The newest checkpoint of {0} is damaged, or is of other networks"),
        (larger, "The newest checkpoint of {0} is damaged, or is of other networks"),
        (without_updates, "The newest checkpoint of {0} has no lora."),
        (configuration("{"), "{0}/train.json is missing or damaged: restore it"),
        (configuration("[]"), "{0}/train.json is missing or damaged: restore it"),
        (configuration('{"lora": {"rank": 999, "alpha": 1.0}}'), "{0}/train.json is damaged: "),
        (configuration('{"lora": {"rank": 0, "alpha": 1.0}}'), "{0}/train.json is missing or"),
        (lambda workdir: (workdir / TRAIN_FILE).unlink(), "{0}/train.json is missing or damaged"),
        (lambda workdir: shutil.rmtree(workdir / "checkpoints" / "1"), None),
    ],
    ids=[
        "torn",
        "larger",
        "no updates",
        "cut",
        "a list",
        "too large",
        "bad rank",
        "no train.json",
        "old gone",
    ],
)
def test_only_a_whole_run_is_exported(run, tmp_path, capfd, damage, reason):
    workdir, out = tmp_path / "run", tmp_path / "mine.safetensors"
    shutil.copytree(run.workdir, workdir)
    damage(workdir)
    if reason is None:
        assert main(["export", str(workdir), "--to=lora", f"--out={out}"]) == 0
        return
    assert refusal(capfd, workdir, out).startswith(reason.format(workdir))
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_what_float16_cannot_hold_is_refused(converted, tmp_path, capfd):
    shapes = lora_shapes(converted.system.flashface.shapes, LORA)
    large = jax.tree.map(lambda x: np.full(x.shape, 1e5, np.float32), shapes)
    drawn = {
        name: drawn_parameters(part.shapes, seed=5)
        for name, part in converted.system.parts().items()
    }
    workdir, out = tmp_path / "run", tmp_path / "mine.safetensors"
    workdir.mkdir()
    write_run(workdir, converted.directory.config, {**drawn, "lora": large}, LORA)
    options = ["--to=lora", "--dtype=float16", f"--out={out}"]
    assert main(["export", str(workdir), *options]) == 1
    assert "holds 1e+05, which is more than float16 can" in capfd.readouterr().err
    assert not out.exists()
