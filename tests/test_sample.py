"""The sample.py command: from a run, with its errors."""

import dataclasses
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

import sample
from flashface_jax.faces.files import read_photo
from flashface_jax.pipeline import Pipeline
from flashface_jax.training.loop import train
from flashface_jax.weights import RunDirectory, WeightsError, open_weights
from tests.small import CONFIG, with_changes


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of one step, and a folder of two face crops."""
    folder = tmp_path_factory.mktemp("sample")
    train(with_changes(steps=1, grid_people=0), folder / "run")
    rng = np.random.default_rng(0)
    for i, shape in enumerate([(40, 30, 3), (32, 32, 3)]):
        Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).save(folder / f"{i}.png")
    return folder


def command(run, out, *more, cropped=True):
    faces = [str(run / "0.png"), str(run / "1.png")]
    flags = ["--faces-cropped"] if cropped else []
    base = ["--weights", str(run / "run"), "--references", *faces, "--out", str(out), *flags]
    sample.main(sample.parse_arguments([*base, *more]))


def pictures(out: Path):
    return [np.asarray(Image.open(path)) for path in sorted(out.glob("0*.png"))]


@pytest.fixture(scope="module")
def four(run):
    out = run / "four"
    command(run, out, "--prompt", "smiling", "--prompt", "a child", "--images", "2", "--seed", "5")
    return out


def test_writes_every_image_and_a_sheet(four, capsys):
    assert sorted(p.name for p in four.iterdir()) == [
        "000.png",
        "001.png",
        "002.png",
        "003.png",
        "sheet.png",
    ]
    assert all(image.shape == (64, 64, 3) for image in pictures(four))


def test_an_image_depends_on_its_own_seed_and_prompt(run, four, tmp_path):
    command(run, tmp_path / "out", "--prompt", "a child", "--images", "1", "--seed", "7")
    alone, together = pictures(tmp_path / "out")[0], pictures(four)[2]
    # One level: other batch sizes add up in another order.
    difference = np.abs(alone.astype(int) - together.astype(int)).max()
    assert difference <= 1, f"{difference} levels"
    assert np.abs(alone.astype(int) - pictures(four)[3].astype(int)).max() > 10


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--images", "0"], "--images must be 1 or more"),
        (["--seed", "-1"], "--seed 0 or more"),
        (["--steps", "0"], "0 sampling steps"),
        (["--face-box", "0.5", "0", "0.4", "1"], "0.5"),
        (["--weights", "nowhere"], "nowhere is no weights directory"),
        (["--references", "missing.png"], "missing.png does not exist"),
        (["--references", "sample.py"], "sample.py is no picture"),
    ],
)
def test_errors_name_the_input_and_write_nothing(run, tmp_path, more, message):
    with pytest.raises((ValueError, OSError), match=message):
        command(run, tmp_path / "out", "--prompt", "x", *more)
    assert not list(tmp_path.iterdir())


def test_uncropped_photos_are_refused(run, tmp_path):
    with pytest.raises(ValueError, match="give --faces-cropped"):
        command(run, tmp_path / "out", "--prompt", "x", cropped=False)


def test_an_existing_directory_is_kept(run, tmp_path):
    (tmp_path / "keep").write_text("mine")
    with pytest.raises(FileExistsError, match="exists already"):
        command(run, tmp_path, "--prompt", "x")
    assert (tmp_path / "keep").read_text() == "mine"


def test_changing_what_an_image_shows_never_recompiles(run):
    pipeline = Pipeline.from_directory(run / "run")
    rng = np.random.default_rng(1)
    images = []
    for i, strength in enumerate([0.8, 1.3]):
        sampling = dataclasses.replace(
            pipeline.config.sampling,
            text_guidance=3.0 + i,
            reference_guidance=1.0 + i,
            reference_strength=strength,
            early_reference_strength=strength / 2,
            launch_timestep=300 + 500 * i,
            rescale=0.1 * i,
        )
        faces = rng.integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
        box = (0.1 * i, 0.2, 0.6, 0.8)
        prompt = ["a child", "sad, at night"][i]
        images.append(
            pipeline(
                [prompt],
                faces,
                seeds=[i],
                face_box=box,
                negative_prompt=prompt[::-1],
                sampling=sampling,
            )
        )
    assert pipeline.generate._cache_size() == 1
    assert not np.array_equal(*images)


def test_a_run_is_sampled_with_its_average(run):
    weights = open_weights(run / "run")
    assert isinstance(weights, RunDirectory) and weights.config == CONFIG.system


def test_a_run_without_checkpoint_says_so(run, tmp_path):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "config.json").write_text((run / "run/config.json").read_text())
    from flashface_jax.system import build_system  # noqa: PLC0415

    system = build_system(CONFIG.system)
    with pytest.raises(WeightsError, match="has no checkpoint yet"):
        open_weights(tmp_path).params("flashface", system.flashface)


def test_photos_are_turned_upright_and_lose_transparency(tmp_path):
    image = Image.new("RGBA", (4, 2), (0, 0, 0, 0))
    image.putpixel((0, 0), (255, 0, 0, 255))
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying on its side
    image.save(tmp_path / "photo.png", exif=exif)
    upright = read_photo(tmp_path / "photo.png")
    assert upright.shape == (4, 2, 3)
    assert upright[0, 1].tolist() == [255, 0, 0] and upright[3, 0].tolist() == [255, 255, 255]


def test_help_explains_every_strength(capsys):
    with pytest.raises(SystemExit):
        sample.parse_arguments(["--help"])
    text = capsys.readouterr().out
    assert all(f"--{name.replace('_', '-')}" in text for name in sample.STRENGTHS)


def test_strengths_are_the_fields_of_the_sampling_configuration():
    assert set(sample.STRENGTHS) <= set(vars(CONFIG.system.sampling))
    assert jax.tree.leaves(CONFIG.system.sampling.guidance)
