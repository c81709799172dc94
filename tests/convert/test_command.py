"""The conversion command: what it accepts, and one clear message for everything else."""

import pickle
import shutil

import numpy as np
import pytest
import torch

from flashface_jax.convert import run
from flashface_jax.convert.command import main
from flashface_jax.convert.files.torch_file import TorchFile, UnreadableError
from flashface_jax.convert.table import ConversionError
from flashface_jax.models.network import flatten
from flashface_jax.weights.directory import WeightsDirectory
from tests.recorded import drawn_state_dict

HEADS = {"num-heads": 4, "clip-text-heads": 4, "clip-image-heads": 2}


def convert(out, files, **options):
    """Run the command."""
    named = {**{name: files[name] for name in files}, **HEADS, **options, "out": out}
    return main(["official", *(f"--{name}={value}" for name, value in named.items())])


def assert_refused(tmp_path, capfd, files, *expected, **options):
    """The command fails with one message that says all of this, and leaves nothing behind."""
    out = tmp_path / "out" / "weights"
    before = sorted(tmp_path.rglob("*"))
    assert convert(out, files, **options) == 1
    captured = capfd.readouterr()
    assert captured.err.startswith("error: "), captured.err
    assert captured.err.count("error: ") == 1
    assert "Traceback" not in captured.err
    for text in expected:
        assert str(text) in captured.err
    left = [path for path in tmp_path.rglob("*") if path not in before and path != out.parent]
    assert not left


@pytest.fixture
def files(checkpoints):
    return dict(vars(checkpoints))


# --------------------------------------------------------------------------------- files refused


def text_file(path):
    path.write_text("<html>file not found</html>\n")


def empty_file(path):
    path.touch()


def truncated_zip(path):
    torch.save(drawn_state_dict("tiny_vae"), path)
    path.write_bytes(path.read_bytes()[:200_000])


def truncated_legacy(path):
    torch.save(drawn_state_dict("tiny_vae"), path, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes()[:200_000])


def pickled_list(path):
    torch.save([torch.zeros(3)], path)


def pickled_function(path):
    path.write_bytes(pickle.dumps(print))


def numbers_for_keys(path):
    torch.save({0: torch.zeros(3)}, path)


def training_state(path):
    torch.save({"model": {"weight": torch.zeros(3)}, "step": 7}, path)


def empty_state(path):
    torch.save({}, path)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda path: None, "does not exist"),
        (lambda path: path.mkdir(), "does not exist or is no file"),
        (text_file, "is no PyTorch checkpoint, or a truncated one"),
        (empty_file, "is no PyTorch checkpoint, or a truncated one"),
        (truncated_zip, "is no PyTorch checkpoint, or a truncated one"),
        (truncated_legacy, "is no PyTorch checkpoint, or a truncated one"),
        (pickled_function, "is no PyTorch checkpoint, or a truncated one"),
        (pickled_list, "holds no state dict but a list"),
        (empty_state, "holds no state dict"),
        (numbers_for_keys, "0 names no tensor"),
        (training_state, "'model' names no tensor"),
    ],
    ids=[
        "missing", "directory", "text", "empty", "truncated zip", "truncated legacy",
        "function", "list", "empty state", "numbers for keys", "training state",
    ],
)  # fmt: skip
def test_what_is_no_checkpoint_is_refused(tmp_path, capfd, files, make, reason):
    bad = tmp_path / "bad.pth"
    make(bad)
    assert_refused(tmp_path, capfd, {**files, "vae": bad}, bad, reason)


def test_all_unreadable_files_are_named_together(tmp_path, capfd, files):
    bad = {name: tmp_path / f"{name}.pth" for name in ("vae", "clip")}
    for path in bad.values():
        text_file(path)
    assert_refused(tmp_path, capfd, {**files, **bad}, *bad.values())


@pytest.mark.parametrize(
    ("place", "given", "missing"),
    [
        ("unet", "vae", "ori_encoder.<n>"),
        ("vae", "clip", "encoder.conv1.(weight|bias)"),
        ("clip", "unet", "textual.norm.(weight|bias)"),
    ],
)
def test_a_file_in_the_wrong_place_is_refused(tmp_path, capfd, files, place, given, missing):
    files[place] = files[given]
    reason = f"it has no key like {missing}; is it the file for this place?"
    assert_refused(tmp_path, capfd, files, files[given], reason)


def saved(path, name, changes):
    """A recording's checkpoint with keys changed, or left out where the change is None."""
    state = {**drawn_state_dict(name), **changes}
    torch.save({key: value for key, value in state.items() if value is not None}, path)
    return path


def test_problems_of_all_files_are_reported_together(tmp_path, capfd, files):
    files["unet"] = saved(
        tmp_path / "unet.ckpt",
        "tiny_unet",
        {"head.0.bias": None, "ori_middle.0.layer1.0.weight": torch.zeros(3)},
    )
    files["vae"] = saved(tmp_path / "vae.pth", "tiny_vae", {"loss.weight": torch.zeros(3)})
    assert_refused(
        tmp_path,
        capfd,
        files,
        f"{files['unet']} does not fit: 2 problems",
        "head.0.bias: missing",
        "ori_middle.0.layer1.0.weight: shape [3], expected [64]",
        f"{files['vae']} does not fit: 1 problem",
        "loss.weight: not a key of this model",
    )


# ------------------------------------------------------------------------------- options refused


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"num-heads": 5}, "cannot be split into heads: num_heads is 5"),
        ({"num-heads": 0}, "cannot be split into heads: num_heads is 0"),
        ({"head-channels": 8}, "exactly one of num_heads and head_channels"),
        ({"clip-text-heads": 5}, "choose another --clip-text-heads"),
        ({"clip-image-heads": -2}, "choose another --clip-image-heads"),
    ],
)
def test_impossible_heads_are_refused(tmp_path, capfd, files, options, reason):
    place = files["clip" if "clip" in next(iter(options)) else "unet"]
    assert_refused(tmp_path, capfd, files, place, reason, **options)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (text_file, "is not CLIP's vocabulary"),
        (empty_file, "is not CLIP's vocabulary"),
        (lambda path: None, "does not exist"),
    ],
)
def test_a_bad_vocabulary_is_refused(tmp_path, capfd, files, make, reason):
    bad = tmp_path / "vocabulary.txt.gz"
    make(bad)
    files = {"unet": files["unet"], "tokenizer": bad}
    assert_refused(tmp_path, capfd, files, bad, reason)


def test_an_existing_directory_is_left_alone(tmp_path, capfd, files):
    out = tmp_path / "out" / "weights"
    out.mkdir(parents=True)
    (out / "mine").write_text("precious")
    assert_refused(tmp_path, capfd, files, out, "exists already")
    assert (out / "mine").read_text() == "precious"


@pytest.mark.parametrize(
    ("failure", "status", "said"),
    [
        (OSError("disk on fire"), 1, "error: disk on fire"),
        (KeyboardInterrupt(), 130, "error: stopped; nothing was written."),
    ],
)
def test_a_failure_half_way_leaves_nothing(
    tmp_path, capfd, files, monkeypatch, failure, status, said
):
    written = []

    def fail_second(directory, part, params):
        written.append(part)
        if len(written) == 2:
            raise failure
        (directory / "params" / part).mkdir(parents=True)

    monkeypatch.setattr(run, "write_params", fail_second)
    assert convert(tmp_path / "weights", files) == status
    assert said in capfd.readouterr().err
    assert written == ["flashface", "autoencoder"]
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_noticed_first(tmp_path, capfd, files, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(9, 8, 1))
    assert_refused(
        tmp_path, capfd, files, "weights will take 0.0", "but its disk has 1e-09 GB left"
    )


# --------------------------------------------------------------------------- forms of checkpoints


def half_precision(state):
    return {key: value.half() for key, value in state.items()}


def nested(state):
    return {"state_dict": state, "global_step": 3}


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("form", [dict, half_precision, nested])
def test_forms_of_checkpoints_are_read_as_float32(tmp_path, form, legacy):
    # A view with a stride of its own, and one storage behind two names.
    whole = torch.arange(12.0).reshape(3, 4)
    state = {"turned": whole.T, "whole": whole, "scalar": torch.tensor(0.5)}
    torch.save(form(state), tmp_path / "file", _use_new_zipfile_serialization=not legacy)
    file = TorchFile(tmp_path / "file")
    assert file.shapes == {"turned": (4, 3), "whole": (3, 4), "scalar": ()}
    for key, value in state.items():
        read = file.read(key)
        assert read.dtype == np.float32
        np.testing.assert_array_equal(read, value.numpy())


def test_the_mapping_is_dropped_and_opened_again(tmp_path, monkeypatch):
    monkeypatch.setattr("flashface_jax.convert.files.torch_file.REOPEN_AFTER", 10)
    state = {str(i): torch.full((4,), float(i)) for i in range(5)}
    torch.save(state, tmp_path / "file")
    file = TorchFile(tmp_path / "file")
    for key, value in state.items():
        np.testing.assert_array_equal(file.read(key), value.numpy())


def test_other_forms_convert_to_the_same_numbers(tmp_path, converted):
    """Half precision under "state_dict", and the format from before PyTorch 1.6."""
    unet = drawn_state_dict("tiny_unet")
    torch.save(nested(half_precision(unet)), tmp_path / "unet.ckpt")
    torch.save(
        drawn_state_dict("tiny_vae"), tmp_path / "vae.pth", _use_new_zipfile_serialization=False
    )
    files = {"unet": tmp_path / "unet.ckpt", "vae": tmp_path / "vae.pth"}
    assert convert(tmp_path / "weights", files) == 0
    directory = WeightsDirectory.open(tmp_path / "weights")
    assert directory.config.flashface == converted.directory.config.flashface
    half = flatten(directory.params("flashface", converted.system.flashface))
    for name, value in flatten(converted.params["flashface"]).items():
        np.testing.assert_array_equal(half[name], np.float16(value).astype(np.float32), name)
    vae = flatten(directory.params("autoencoder", converted.system.autoencoder))
    for name, value in flatten(converted.params["autoencoder"]).items():
        np.testing.assert_array_equal(vae[name], value, name)


def test_errors_of_reading_are_conversion_errors():
    assert issubclass(UnreadableError, ConversionError)
