"""The sample.py command: prompts to images, presets and strengths, what is made again."""

import argparse
import dataclasses
import os
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from flashface_jax.diffusion.guidance import Guidance
from flashface_jax.diffusion.settings import (
    NEGATIVE_SUFFIX,
    PROMPT_SUFFIX,
    SamplingConfig,
    strength,
)
from flashface_jax.sampling import run as sampling_run
from flashface_jax.sampling.command import main
from flashface_jax.sampling.jobs import Job
from flashface_jax.sampling.options import FOR_ANY_JOB, make_parser
from flashface_jax.sampling.presets import PRESETS
from flashface_jax.sampling.records import read_record, write_png
from tests.random_weights import small_system, write_random_weights
from tests.sampling.world import difference, images, pixels, save

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def four(sample_folder, opened, tmp_path_factory):
    """Two images of each of two prompts."""
    out = tmp_path_factory.mktemp("four") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sampling_run.FlashFacePipeline, "from_directory", opened)
        faces = [str(sample_folder / f"{i}.png") for i in (0, 1)]
        base = ["--weights", str(sample_folder / "weights"), "--references", *faces]
        what = ["--prompt", "smiling", "--prompt", "a child", "--images", "2", "--seed", "5"]
        assert main([*base, "--detector", "none", *what, "--out", str(out)]) == 0
    return out


def test_every_prompt_gets_its_images_and_all_a_sheet(four):
    names = sorted(path.name for path in four.iterdir())
    assert names == ["000.png", "001.png", "002.png", "003.png", "sheet.png"]
    assert all(image.shape == (64, 64, 3) for image in images(four).values())
    records = [read_record(four / f"{i:03d}.png") for i in range(4)]
    made = [(record.job["prompt"], record.job["seed"]) for record in records]
    assert made == [("smiling", 5), ("smiling", 6), ("a child", 7), ("a child", 8)]
    assert pixels(four / "sheet.png").shape[1] > 4 * 64


def test_an_image_depends_on_its_own_seed_and_prompt(command, four, tmp_path):
    assert command.prompt(tmp_path / "out", "--prompt", "a child", "--seed", "7").status == 0
    alone, together = images(tmp_path / "out")["000"], images(four)
    assert difference(alone, together["002"]) == 0
    others = [difference(alone, together[name]) for name in ("000", "001", "003")]
    assert min(others) > 10, f"{others} levels"


def test_images_of_a_batch_are_those_made_one_at_a_time(command, four, tmp_path):
    what = ["--prompt", "smiling", "--prompt", "a child", "--images", "2", "--seed", "5"]
    assert command.prompt(tmp_path / "out", *what, "--batch", "2").status == 0
    for name, image in images(tmp_path / "out").items():
        # One level: other batch sizes add up in another order.
        levels = difference(image, images(four)[name])
        assert levels <= 1, f"{name} differs by {levels} levels"


@pytest.mark.parametrize(
    "more",
    [
        ["--prompt", "an old man"],
        ["--negative-prompt", "a hat"],
        ["--reference-strength", "0.2"],
        ["--reference-strength", "0:0.1,1:2"],
        ["--reference-guidance", "3.5"],
        ["--text-guidance", "5"],
        ["--early-reference-strength", "0.1"],
        ["--launch-timestep", "200"],
        ["--rescale", "0.9"],
        ["--steps", "2"],
        ["--eta", "1"],
        ["--solver", "dpm++2m"],
        ["--spacing", "karras"],
        ["--prompt-suffix", "at night"],
        ["--negative-suffix", "red"],
        ["--face-position", "left", "close-up"],
        ["--face-box", "0", "0", "40", "40"],
        ["--reference-weights", "0", "1"],
        ["--fill-references", "3"],
        ["--preset", "artwork"],
    ],
    ids=" ".join,
)
def test_every_setting_reaches_the_image(command, four, tmp_path, more):
    base = [] if "--prompt" in more else ["--prompt", "smiling"]
    said = command.prompt(tmp_path / "out", *base, "--seed", "5", *more)
    assert said.status == 0, said.err
    assert difference(images(tmp_path / "out")["000"], images(four)["000"]) > 0


def test_options_for_the_machine_reach_the_pipeline(command, opened, tmp_path):
    assert command.prompt(tmp_path / "out", "--prompt", "x", "--tile", "8").status == 0
    assert (opened.asked[-1]["tile"], opened.asked[-1]["precision"]) == (8, "auto")


def test_a_mixed_person_is_neither_of_the_two(command, sample_folder, four, tmp_path):
    both = ["--references", sample_folder / "2.png", "--prompt", "smiling", "--seed", "5"]
    made = {}
    for shares in ("1 1", "1 3"):
        out = tmp_path / shares.replace(" ", "-")
        assert command.prompt(out, *both, "--shares", *shares.split()).status == 0
        made[shares] = images(out)["000"]
    assert difference(made["1 1"], images(four)["000"]) > 0
    assert difference(made["1 1"], made["1 3"]) > 0


def test_presets_are_the_releases_and_the_papers():
    table = {
        name: tuple(
            PRESETS[name].get(key)
            for key in (
                "text_guidance",
                "reference_guidance",
                "reference_strength",
                "launch_timestep",
            )
        )
        for name in PRESETS
    }
    assert table == {
        "identity": (7.5, 3.2, 1.2, 750),
        "age_change": (8.5, 2.5, 0.9, 750),
        "artwork": (7.5, 2.0, 0.85, 750),
        "real_from_art": (7.5, 2.0, 0.85, 750),
    }
    assert "photo" not in PRESETS["artwork"]["prompt_suffix"]
    released = SamplingConfig()
    assert (released.text_guidance, released.reference_guidance) == (7.5, 3.2)
    assert (released.reference_strength, released.early_reference_strength) == (1.2, 0.85)
    assert (released.launch_timestep, released.rescale, released.steps) == (750, 0.5, 50)
    assert (released.prompt_suffix, released.negative_suffix) == (PROMPT_SUFFIX, NEGATIVE_SUFFIX)


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_changes_what_the_weights_like_and_a_knob_changes_both(preset):
    liked = SamplingConfig(steps=3, text_guidance=2.0, rescale=0.1)
    job = Job("x", (("a.png",),), preset=preset)
    assert job.sampling(liked) == dataclasses.replace(liked, **PRESETS[preset])
    for knob, value in {
        "steps": 7,
        "text_guidance": 1.5,
        "reference_guidance": 0.5,
        "reference_strength": ((0.0, 0.5), (1.0, 1.0)),
        "early_reference_strength": 0.25,
        "launch_timestep": 100,
        "rescale": 0.75,
        "eta": 0.5,
        "solver": "euler",
        "spacing": "karras",
        "prompt_suffix": "",
        "negative_suffix": "",
    }.items():
        set_ = dataclasses.replace(job, settings={knob: value}).sampling(liked)
        assert set_ == dataclasses.replace(job.sampling(liked), **{knob: value})


def test_strengths_are_numbers_or_points_over_the_run():
    assert strength("0.9") == 0.9
    points = strength("0:0.6,0.5:1.2")
    assert points == ((0.0, 0.6), (0.5, 1.2))
    told, progress = np.int32([999, 700, 500, 300, 0]), np.linspace(0, 1, 5)
    over = Guidance(reference_strength=points).over(told, progress)
    np.testing.assert_allclose(over.reference_strength, [0.6, 0.9, 1.2, 1.2, 1.2], rtol=1e-6)
    for wrong in ("", "a", "0:", "0:1:2", "0:1,", ":1", "0;1"):
        with pytest.raises(argparse.ArgumentTypeError, match="neither a number nor points"):
            strength(wrong)


def test_help_explains_every_option(capsys):
    parser = make_parser()
    with pytest.raises(SystemExit) as left:
        main(["--help"])
    assert left.value.code == 0
    text = capsys.readouterr().out
    for action in parser._actions:
        assert len(action.help or "") > 10, f"{action.dest} is not explained"
        assert all(option in text for option in action.option_strings)
    for name in (*PRESETS, *(field.name for field in dataclasses.fields(Job))):
        # Settings are the strengths, which stand in a job of their own.
        assert name in text or name == "settings", f"{name} is not explained"


def test_every_option_is_of_an_image_or_of_any_job_and_every_setting_an_option():
    names = {action.dest for action in make_parser()._actions} - {"help"}
    assert names >= FOR_ANY_JOB
    of_sampling = {field.name for field in dataclasses.fields(SamplingConfig)}
    assert of_sampling <= names


def test_a_stopped_command_goes_on_and_says_so(command, four, tmp_path, monkeypatch):
    what = ["--prompt", "smiling", "--prompt", "a child", "--images", "2", "--seed", "5"]
    out, write, written = tmp_path / "out", write_png, []

    def stop_at_the_third(path, *rest):
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(path)
        write(path, *rest)

    monkeypatch.setattr("flashface_jax.sampling.batch_runner.write_png", stop_at_the_third)
    said = command.prompt(out, *what)
    assert (said.status, said.errors[-1:]) == (
        130,
        ["error: stopped; the same command goes on from here."],
    )
    assert sorted(path.name for path in out.iterdir()) == ["000.png", "001.png"]
    monkeypatch.setattr("flashface_jax.sampling.batch_runner.write_png", write)
    said = command.prompt(out, *what)
    assert "wrote 2 images" in said.out and "kept 2" in said.out
    assert "2.0/4" in said.err, "the bar begins with what is there"
    for name, image in images(four).items():
        assert difference(image, images(out)[name]) == 0


def test_the_bar_counts_images_by_their_evaluations(capsys, recwarn):
    with sampling_run.Progress(5) as progress:
        progress.kept(2)
        for images_, evaluations in ((2, 3), (1, 7)):
            progress.begin(images_, evaluations)
            for _ in range(evaluations):
                progress.step()
        assert progress._bar.n == pytest.approx(5)
    shown = capsys.readouterr().err
    assert "2.0/5" in shown and "100%" in shown and "5.0/5" in shown
    assert not recwarn.list


def test_other_images_and_files_are_never_overwritten(command, four, tmp_path):
    out = tmp_path / "out"
    assert command.prompt(out, "--prompt", "smiling", "--seed", "5").status == 0
    save(out / "sheet.png", np.zeros((4, 4, 3), np.uint8))
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    for more in (["--prompt", "sad"], ["--prompt", "smiling", "--seed", "6"]):
        said = command.prompt(out, *more, "--images", "2")
        assert said.status == 1
        assert said.errors == [
            f"error: {out}/000.png was made otherwise: choose another --out, or remove it."
        ]
        assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    said = command.prompt(out, "--prompt", "smiling", "--seed", "5", "--images", "2")
    assert said.status == 0 and "wrote no contact sheet" in said.out
    assert {name: (out / name).read_bytes() for name in before} == before


def test_too_little_memory_is_said_with_what_helps(command, tmp_path, monkeypatch):
    def exhausted(*_, **__):
        raise sampling_run.jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory")

    monkeypatch.setattr(sampling_run.FlashFacePipeline, "make", exhausted)
    said = command.prompt(tmp_path / "out", "--prompt", "x")
    assert said.status == 1 and not (tmp_path / "out").exists()
    assert said.errors == [
        "error: there is too little memory: lower --batch or --size, or give --tile 32."
    ]


def test_other_failures_of_the_machine_are_not_hidden(command, tmp_path, monkeypatch):
    def broken(*_, **__):
        raise sampling_run.jax.errors.JaxRuntimeError("INTERNAL: broken")

    monkeypatch.setattr(sampling_run.FlashFacePipeline, "make", broken)
    with pytest.raises(sampling_run.jax.errors.JaxRuntimeError, match="broken"):
        command.prompt(tmp_path / "out", "--prompt", "x")


# Made again


def repeat(command, original, out, *more):
    said = command("--repeat", original, "--out", out, *more)
    return said, out / original.name


@pytest.mark.parametrize("kind", ["plain", "every setting", "mixed", "weighted", "painted"])
def test_an_image_is_made_again_exactly(command, sample_folder, tmp_path, kind):
    folder = sample_folder
    more = {
        "plain": [],
        "every setting": [
            *("--negative-prompt", "a hat", "--size", "48x64", "--face-position", "left"),
            *("--preset", "age_change", "--reference-strength", "0:0.6,0.5:1.2", "--steps", "4"),
            *("--solver", "euler-ancestral", "--spacing", "karras", "--prompt-suffix", "red"),
        ],
        "mixed": ["--references", folder / "2.png", folder / "3.png", "--shares", "0.3", "0.7"],
        "weighted": ["--reference-weights", "0.5", "2"],
        "painted": ["--repaint", folder / "photo.png", "--mask", folder / "mask.png"],
    }[kind]
    assert command.prompt(tmp_path / "out", "--prompt", "x", "--seed", "3", *more).status == 0
    original = tmp_path / "out" / "000.png"
    # The size names the width first; the photo's size stays.
    size = {"every setting": (64, 48, 3), "painted": (100, 150, 3)}.get(kind, (64, 64, 3))
    assert pixels(original).shape == size
    said, again = repeat(command, original, tmp_path / "again")
    assert said.status == 0, said.err
    assert said.out.splitlines()[-1] == f"{again} has the same pixels as {original}."
    assert difference(pixels(again), pixels(original)) == 0
    # And so is the copy, whose record says every setting.
    said, third = repeat(command, again, tmp_path / "third")
    assert f"{third} has the same pixels as {again}." in said.out


def test_an_image_is_made_again_in_its_precision(command, opened, tmp_path):
    assert command.prompt(tmp_path / "out", "--prompt", "x").status == 0
    original = tmp_path / "out" / "000.png"
    record = dataclasses.replace(read_record(original), precision="bfloat16")
    write_png(original, pixels(original), record)
    # Another precision is another hash; nothing is made, for that would have to be compiled.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sampling_run.FlashFacePipeline, "make", refuse)
        said, _ = repeat(command, original, tmp_path / "again")
    assert opened.asked[-1]["precision"] == "bfloat16"
    assert said.errors == [f"error: {original} cannot be made again: stopped here."]


def refuse(*_, **__):
    raise ValueError("stopped here.")


def test_weights_in_half_precision_have_a_hash_of_their_own(sample_folder, opened):
    hashes = {
        precision: opened(sample_folder / "weights", precision=precision).weights_sha256
        for precision in ("float32", "bfloat16")
    }
    assert len({*hashes.values()}) == 2 and all(len(hash_) == 64 for hash_ in hashes.values())


def test_what_has_changed_since_is_said(command, sample_folder, tmp_path):
    faces = [tmp_path / "a.png", tmp_path / "b.png"]
    rng = np.random.default_rng(1)
    for face in faces:
        save(face, rng.integers(0, 256, (32, 32, 3), np.uint8))
    out, weights = tmp_path / "out", sample_folder / "weights"
    base = ["--weights", weights, "--references", *faces, "--detector", "none"]
    assert command(*base, "--prompt", "x", "--out", out).status == 0
    original = out / "000.png"

    save(faces[0], rng.integers(0, 256, (32, 32, 3), np.uint8))
    said, again = repeat(command, original, tmp_path / "other-photo")
    assert said.status == 0
    last = said.out.splitlines()[-1]
    assert last.startswith(f"{again} differs from {original} by up to ")
    assert last.endswith(" of 255 levels; it was made with other reference faces.")
    levels = difference(pixels(again), pixels(original))
    assert f"up to {levels} of 255" in last and levels > 0

    faces[0].rename(tmp_path / "moved.png")
    said, again = repeat(command, original, tmp_path / "gone")
    assert said.status == 1 and not (tmp_path / "gone").exists()
    assert said.errors == [f"error: {original} cannot be made again: {faces[0]} does not exist."]


def test_other_weights_are_said(command, sample_folder, tmp_path):
    other = write_random_weights(tmp_path / "other", small_system(), seed=1)
    assert command.prompt(tmp_path / "out", "--prompt", "x").status == 0
    original = tmp_path / "out" / "000.png"
    said, _ = repeat(command, original, tmp_path / "again", "--weights", other)
    assert said.out.splitlines()[-1].endswith("; it was made with other weights.")
    said = command.prompt(tmp_path / "out", "--prompt", "x", "--weights", other)
    assert said.status == 1 and "000.png was made otherwise" in said.errors[0]


def test_an_image_is_not_made_again_over_itself(command, tmp_path):
    assert command.prompt(tmp_path / "out", "--prompt", "x").status == 0
    before = (tmp_path / "out" / "000.png").read_bytes()
    said, again = repeat(command, tmp_path / "out" / "000.png", tmp_path / "out")
    assert said.errors == [f"error: {again} would be made again in its own place: give --out."]
    assert (tmp_path / "out" / "000.png").read_bytes() == before


# As a user types it


def sample_py(*arguments, cwd):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, str(ROOT / "sample.py"), *map(str, arguments)]
    return subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )


def test_the_program_makes_an_image(sample_folder, tmp_path):
    base = ["--weights", "weights", "--references", "0.png", "--detector", "none"]
    done = sample_py(*base, "--prompt", "x", "--out", tmp_path / "out", cwd=sample_folder)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["000.png", "sheet.png"]
    assert f"wrote 1 image to {tmp_path}/out" in done.stdout
    assert "Traceback" not in done.stderr and "1.0/1" in done.stderr


def test_the_program_says_what_is_wrong(sample_folder, tmp_path):
    base = ["--weights", "weights", "--references", "none.png", "--detector", "none"]
    done = sample_py(*base, "--prompt", "x", "--out", tmp_path / "out", cwd=sample_folder)
    assert done.returncode == 1
    assert done.stderr == "error: none.png does not exist.\n" and done.stdout == ""
    assert not list(tmp_path.iterdir())


def test_hosts_share_the_images(sample_folder, four, tmp_path):
    """Two processes that have met make four images between them, two each."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    base = ["--weights", "weights", "--references", "0.png", "1.png", "--detector", "none"]
    what = ["--prompt", "smiling", "--prompt", "a child", "--images", "2", "--seed", "5"]

    def host(index):
        where = ["--out", tmp_path / "out", "--distributed", address, index, "2"]
        return sample_py(*base, *what, *where, cwd=sample_folder)

    with ThreadPoolExecutor() as hosts:
        done = list(hosts.map(host, "01"))
    for one in done:
        assert one.returncode == 0, one.stderr
        assert "wrote 2 images" in one.stdout
    made, alone = images(tmp_path / "out"), images(four)
    for name in ("000", "001", "002", "003"):
        levels = difference(made[name], alone[name])
        assert levels <= 1, f"{name} differs by {levels} levels"


@pytest.mark.parametrize("hosts", [["here"], ["a:1", "x", "2"], ["a:1", "0"]])
def test_hosts_are_named_in_three_words(command, tmp_path, hosts):
    said = command.prompt(tmp_path / "out", "--prompt", "x", "--distributed", *hosts)
    assert said.status == 1
    named = f"--distributed is {' '.join(hosts)!r}"
    assert said.errors == [f"error: {named}; give ADDRESS:PORT, INDEX and COUNT, or nothing."]
