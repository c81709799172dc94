"""Back to the released files: every bit of what was converted, and what the released code wants."""

import contextlib
import gzip
import io
import json
import math
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.torch
import torch
from safetensors.numpy import load_file, save_file

from flashface_jax.convert.command import main
from flashface_jax.convert.export import FILES, TABLES, empty_state
from flashface_jax.convert.files.state_files import in_precision, writer
from flashface_jax.convert.released import inexpressible, settings_to_tell
from flashface_jax.convert.table import ConversionError, Table, joined, linear
from flashface_jax.convert.unused import find_unused, read_unused, write_unused
from flashface_jax.models.autoencoder.patch_cosines import PatchCosinesConfig
from flashface_jax.models.autoencoder.vae import AutoencoderKLConfig
from flashface_jax.models.flashface import FlashFaceConfig
from flashface_jax.models.network import flatten
from flashface_jax.models.unet_topology import UNetConfig
from flashface_jax.weights.directory import (
    WeightsDirectory,
    WeightsError,
    read_config,
    write_config,
)
from flashface_jax.weights.system import SystemConfig, build_system
from flashface_jax.weights.tokenizer import (
    END,
    START,
    convert_clip_vocabulary,
    train_tokenizer,
    write_clip_vocabulary,
)
from tests.convert.conftest import HEADS
from tests.convert.runs import write_run
from tests.recorded import drawn_parameters, drawn_state_dict, layout
from tests.weights.test_tokenizer import CLIP_FILE

NAMES = {"unet": "flashface", "vae": "sd-v1-vae", "clip": "openai-clip-vit-large-14"}
SUFFIXES = {"unet": ".ckpt", "vae": ".pth", "clip": ".pth"}


def export(directory, out, form="official", **options):
    """Run the command."""
    named = [f"--{name}={value}" for name, value in options.items()]
    return main(["export", str(directory), f"--to={form}", f"--out={out}", *named])


def read(folder, name):
    """One exported state dict as torch tensors, whatever its form."""
    path = folder / f"{NAMES[name]}.safetensors"
    if path.exists():
        return {key: torch.from_numpy(value) for key, value in load_file(path).items()}
    return torch.load(folder / (NAMES[name] + SUFFIXES[name]), weights_only=True)


def assert_same(ours, theirs):
    """The same keys, shapes, types and bits."""
    assert ours.keys() == theirs.keys()
    for key, value in theirs.items():
        assert ours[key].dtype == value.dtype and ours[key].shape == value.shape, key
        same = ours[key].contiguous().view(torch.uint8) if value.ndim else ours[key]
        wanted = value.contiguous().view(torch.uint8) if value.ndim else value
        assert torch.equal(same, wanted), key


@pytest.fixture(scope="module")
def exported(converted, tmp_path_factory):
    """The recordings' checkpoints, converted and exported."""
    out = tmp_path_factory.mktemp("exported") / "official"
    assert export(converted.directory.path, out) == 0
    return out


# ---------------------------------------------------------------------------------- round trip


@pytest.mark.parametrize("name", NAMES)
def test_every_tensor_of_the_released_files_comes_back_bit_for_bit(exported, name):
    """The recordings' rule gives dead keys and both copies of the denoiser numbers of their own."""
    assert_same(read(exported, name), drawn_state_dict(f"tiny_{name}"))


def test_safetensors_hold_the_same_state_dicts(converted, tmp_path):
    assert export(converted.directory.path, tmp_path / "out", "safetensors") == 0
    for name in NAMES:
        assert_same(read(tmp_path / "out", name), drawn_state_dict(f"tiny_{name}"))
    assert all(path.stat().st_mode & 0o777 == 0o644 for path in (tmp_path / "out").iterdir())


FILLED = Table((), (), {"copy": "alive", "number": 2.0})


@pytest.mark.parametrize(
    ("alive", "dead", "kept"),
    [
        ([1.0, 2.0], {}, []),
        ([1.0, 2.0], {"copy": [1.0, 2.0], "number": 2.0}, []),
        ([1.0, 2.0], {"copy": [1.0, 2.5], "number": 2.5}, ["copy", "number"]),
        ([0.0, 2.0], {"copy": [-0.0, 2.0]}, ["copy"]),
        ([math.nan, 2.0], {"copy": [math.nan, 2.0]}, []),
        ([1.0, 2.0], {"copy": [[1.0, 2.0]]}, []),  # no released file could have it
        ([1.0, 2.0], {"other": [3.0]}, []),
    ],
)
def test_only_what_cannot_be_made_up_is_kept(alive, dead, kept):
    file = {key: np.asarray(value, np.float32) for key, value in dead.items()}
    file["alive"] = np.asarray(alive, np.float32)
    shapes, ticks = {key: value.shape for key, value in file.items()}, []
    found = find_unused(FILLED, shapes, file.__getitem__, lambda: ticks.append(1))
    assert list(found) == kept
    assert all(found[key] is file[key] for key in kept)
    assert len(ticks) == len(FILLED.fills)


def test_what_is_kept_lies_in_memory_as_it_is_written(tmp_path):
    turned = np.arange(6, dtype=np.float32).reshape(2, 3).T
    file = {"alive": np.zeros((3, 2), np.float32), "copy": turned}
    shapes = {key: value.shape for key, value in file.items()}
    write_unused(tmp_path / "unused" / "part", find_unused(FILLED, shapes, file.get, lambda: None))
    read_back = read_unused(tmp_path / "unused" / "part", {"copy": (3, 2)})
    np.testing.assert_array_equal(read_back["copy"], turned)


@pytest.mark.skipif(not CLIP_FILE.is_file(), reason=f"needs CLIP's vocabulary, {CLIP_FILE}")
def test_the_vocabulary_comes_back_as_far_as_it_is_read(tmp_path):
    out = tmp_path / "back.txt.gz"
    write_clip_vocabulary(convert_clip_vocabulary(CLIP_FILE, tmp_path / "clip"), out)
    given, ours = (gzip.decompress(path.read_bytes()).decode().split("\n") for path in
                   (CLIP_FILE, out))  # fmt: skip
    last = 49152 - 256 - 2 + 1  # of the lines that the released tokenizer reads
    assert ours[1:last] == given[1:last]
    assert len(ours) == last


def test_keys_that_share_a_parameter_get_their_parts_back():
    table = Table(tuple(joined("attn", "qkv", ("q", "k", "v"), linear)))
    rng = np.random.default_rng(0)
    file = {entry.source: np.float32(rng.standard_normal((4, 4) if "weight" in entry.source else 4))
            for entry in table.entries}  # fmt: skip
    like = {
        "qkv": {
            "kernel": jax.ShapeDtypeStruct((4, 12), jnp.float32),
            "bias": jax.ShapeDtypeStruct((12,), jnp.float32),
        }
    }
    params, reads = flatten(table.convert(file.__getitem__, like, lambda: None)), []

    def read(name):
        reads.append(name)
        return params[name]

    state = table.export(read, {}, lambda key, x: x)
    assert state.keys() == file.keys() and sorted(reads) == ["qkv/bias", "qkv/kernel"]
    for key, value in file.items():
        np.testing.assert_array_equal(state[key], value)


def test_a_key_that_fills_several_parameters_has_no_way_back():
    table = Table((*linear("one", "denoiser"), *linear("one", "reference_net")))
    with pytest.raises(ValueError, match=r"^one.weight fills several parameters: there is no way"):
        table.export(lambda name: np.zeros((2, 2), np.float32), {}, lambda key, x: x)


# ------------------------------------------------------------------------------ the whole layout


def test_keys_and_shapes_are_those_of_the_released_files():
    """At full size, by the code that exports, from shapes alone."""
    config, shapes = SystemConfig(), {}
    networks = build_system(config).parts()
    for file in FILES:
        state = {}
        for part in file.parts:
            state |= empty_state(TABLES[part](getattr(config, part)), networks[part])
        shapes[file.stem] = {key: list(x.shape) for key, x in state.items()}
    assert shapes == {NAMES[name]: keys for name, keys in layout("official_layout").items()}


def module(shapes):
    """A PyTorch module with such a state dict, built without any of our tables."""
    root = torch.nn.Module()
    for key, shape in shapes.items():
        *path, leaf = key.split(".")
        inner = root
        for step in path:
            if not hasattr(inner, step):
                inner.add_module(step, torch.nn.Module())
            inner = getattr(inner, step)
        inner.register_parameter(leaf, torch.nn.Parameter(torch.full(shape, math.nan)))
    return root


@dataclass(frozen=True)
class RunExport:
    """An exported run, what the command printed, and the parameters that it should hold."""

    out: Path
    said: str
    params: dict


@pytest.fixture(scope="module")
def run_export(converted, tmp_path_factory):
    """A run of the recordings' sizes with two checkpoints; its average is not its parameters."""
    workdir = tmp_path_factory.mktemp("run")
    drawn = {
        name: drawn_parameters(part.shapes, seed=3)
        for name, part in converted.system.parts().items()
    }
    average, frozen = write_run(workdir, converted.directory.config, drawn)
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        assert export(workdir, workdir / "out") == 0
    return RunExport(workdir / "out", said.getvalue(), {**frozen, **average})


def test_a_run_loads_strictly_and_holds_its_newest_average(run_export, converted, tmp_path):
    for name in NAMES:
        net = module(layout(f"tiny_{name}")["state_dict"])
        net.load_state_dict(read(run_export.out, name), strict=True)
        assert all(x.isfinite().all() for x in net.state_dict().values())
    # The very files are converted anew: the parameters must be those of the run.
    files = [f"--{name}={run_export.out / (NAMES[name] + SUFFIXES[name])}" for name in NAMES]
    assert main(["official", *files, *HEADS, f"--out={tmp_path / 'weights'}"]) == 0
    again = WeightsDirectory.open(tmp_path / "weights")
    assert again.config == converted.directory.config
    networks = converted.system.parts()
    for part, params in run_export.params.items():
        read_back = flatten(again.params(part, networks[part]))
        for key, value in flatten(params).items():
            np.testing.assert_array_equal(read_back[key], value, err_msg=f"{part} {key}")
    assert not (tmp_path / "weights" / "unused").exists()


def test_dead_keys_of_a_run_repeat_what_the_released_code_runs(run_export):
    state = read(run_export.out, "unet")
    for key in state:
        root = key.split(".")[0]
        alive = {"ref_middle": "ori_" + key.removeprefix("ref_")}.get(root, f"ori_{key}")
        if root in ("encoder", "middle", "decoder", "ref_middle"):
            assert torch.equal(state[key], state[alive])
            assert state[key].data_ptr() == state[alive].data_ptr()  # and are stored once
    assert not any("self_attn_first" in key for key in state if key.startswith("ref_"))
    assert read(run_export.out, "clip")["log_scale"] == np.float32(math.log(100))


def test_files_take_no_more_than_their_unique_tensors(exported, run_export):
    filled, restored = (folder / "flashface.ckpt" for folder in (run_export.out, exported))
    sizes = {key: math.prod(shape) for key, shape in layout("tiny_unet")["state_dict"].items()}
    dead = "encoder.", "middle.", "decoder.", "ref_middle."
    saved = 4 * sum(size for key, size in sizes.items() if key.startswith(dead))
    difference = restored.stat().st_size - filled.stat().st_size
    assert saved < difference < 1.1 * saved  # the rest is the archive's entries


# ------------------------------------------------------------------------------------- precision


def test_half_precision_is_rounded_as_pytorch_does(converted, tmp_path):
    assert export(converted.directory.path, tmp_path / "out", dtype="float16") == 0
    for name in NAMES:
        wanted = drawn_state_dict(f"tiny_{name}")
        assert_same(read(tmp_path / "out", name), {key: x.half() for key, x in wanted.items()})


@pytest.mark.parametrize("form", ["official", "safetensors"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_both_forms_hold_every_precision(tmp_path, form, dtype):
    x = np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32)
    state = {
        "turned": in_precision("turned", x.T, dtype),
        "zero": in_precision("zero", np.asarray(x[0, 0]), dtype),
    }
    state["again"] = state["turned"]
    writer(form)(state, tmp_path / "file")
    load = torch.load if form == "official" else safetensors.torch.load_file
    wanted = torch.from_numpy(x).to(getattr(torch, dtype))
    turned = wanted.T.contiguous()
    assert_same(load(tmp_path / "file"), {"turned": turned, "zero": wanted[0, 0], "again": turned})


def test_what_float16_cannot_hold_is_refused():
    large = np.float32([1.0, 65_519.0, -65_520.0])  # the first rounds down to the largest
    assert np.isfinite(in_precision("key", large[:2], "float16")).all()
    assert np.isfinite(in_precision("key", large, "bfloat16")).all()
    with pytest.raises(ConversionError, match=r"^key holds 6.55e\+04, which is more than float16"):
        in_precision("key", large, "float16")
    infinite = np.float32([np.inf, np.nan, -np.inf])
    np.testing.assert_array_equal(in_precision("key", infinite, "float16"), infinite)


# --------------------------------------------------------------------------- what the files lack


def denoiser(**changes):
    return FlashFaceConfig(UNetConfig(**changes))


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (FlashFaceConfig(tie_reference_middle=False), "a middle block and time embedding of its"),
        (denoiser(in_channels=9), "takes 9 channels for inpainting"),
        (denoiser(reference_attention="both"), 'attention is "both"'),
        (denoiser(reference_attention="encoder"), 'attention is "encoder"'),
        (denoiser(reference_attention="none"), 'attention is "none"'),
        (denoiser(reference_attention="decoder/level1"), 'attention is "decoder/level1"'),
        (denoiser(norm_groups=16), "have 16 groups"),
    ],
)
def test_models_that_the_released_code_cannot_hold_are_refused(tmp_path, capfd, config, reason):
    assert len(inexpressible(config)) == 1
    (tmp_path / "weights").mkdir()
    write_config(tmp_path / "weights", SystemConfig(flashface=config))
    assert export(tmp_path / "weights", tmp_path / "out") == 1
    assert_error(capfd, tmp_path, f"{tmp_path / 'weights'} cannot be exported: its", reason)


def test_the_released_model_needs_nothing_said():
    released = SystemConfig(autoencoder=AutoencoderKLConfig(misread_attention=True))
    assert inexpressible(released.flashface) == []
    named = "middle,decoder/level0,decoder/level1,decoder/level2"
    assert inexpressible(denoiser(reference_attention=named)) == []
    assert settings_to_tell(released) == []


SMALLER = {"channel_multipliers": (1, 2), "residual_blocks": (1, 1)}
TWO_LEVELS = "dim_mult=[1, 2], num_res_blocks=[1, 1], num_attn_blocks="


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"num_heads": None, "head_channels": 64}, "num_heads=None, head_dim=64"),
        # The released middle is as deep as the last level, unless told otherwise.
        ({**SMALLER, "transformer_depth": (1, 1)}, f"{TWO_LEVELS}[1, 1], attn_scales=[1.0, 0.5]"),
        (
            {**SMALLER, "transformer_depth": (1, 2)},
            f"{TWO_LEVELS}[1, 2], middle_attn_blocks=1, attn_scales=[1.0, 0.5]",
        ),
        (
            {**SMALLER, "transformer_depth": (1, 2), "middle_depth": 2},
            f"{TWO_LEVELS}[1, 2], attn_scales=[1.0, 0.5]",
        ),
        (
            {**SMALLER, "transformer_depth": (0, 1), "middle_depth": 3},
            f"{TWO_LEVELS}[1, 1], middle_attn_blocks=3, attn_scales=[0.5]",
        ),
    ],
)
def test_what_no_file_says_is_told(changes, told):
    config = SystemConfig(
        flashface=denoiser(**changes), autoencoder=AutoencoderKLConfig(misread_attention=True)
    )
    assert settings_to_tell(config) == [f"give the released sd_v1_ref_unet {told}"]


def test_what_is_told_is_printed(run_export):
    said = run_export.said.splitlines()
    for expected in (
        "note: give the released sd_v1_vae dim=32, dim_mult=[1, 2], num_res_blocks=1",
        "note: give the released CLIPTokenizer length=16",
        "note: change the released replace_input_conv, which is written for 5 and 320 channels, "
        "to 5 and 32",
    ):
        assert expected in said
    written = [
        "bpe_simple_vocab_16e6.txt.gz",
        "flashface.ckpt",
        "openai-clip-vit-large-14.pth",
        "sd-v1-vae.pth",
    ]
    assert said[-4:] == [f"wrote {run_export.out / name}" for name in written]
    assert sorted(path.name for path in run_export.out.iterdir()) == written


def test_an_autoencoder_that_is_not_misread_is_said():
    (told,) = settings_to_tell(SystemConfig())
    assert told.startswith("expect other pixels: the released autoencoder misreads its attention")


def partial(converted, path, **changes):
    """The converted directory with another configuration, and without some of its files."""
    shutil.copytree(converted.directory.path, path)
    write_config(path, replace(converted.directory.config, **changes))
    return path


def swap(path, one, other):
    """Exchange the numbers of two tokens."""
    numbers = json.loads(path.read_text())
    numbers[one], numbers[other] = numbers[other], numbers[one]
    path.write_text(json.dumps(numbers))


def test_parts_that_are_not_there_are_left_out_and_named(converted, tmp_path, capfd):
    weights = partial(converted, tmp_path / "weights", image_tower=None)
    shutil.rmtree(weights / "params" / "autoencoder")
    train_tokenizer(["a hat"], weights / "tokenizer", 16, 520)
    swap(weights / "tokenizer" / "vocab.json", "a", "b")
    assert export(weights, tmp_path / "out") == 0
    said = capfd.readouterr().out
    assert f"note: no sd-v1-vae: {weights} has no autoencoder\n" in said
    assert f"note: openai-clip-vit-large-14 has no visual.*: {weights} has no image tower" in said
    assert "note: no bpe_simple_vocab_16e6.txt.gz: the release would give this vocabulary's" in said
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "flashface.ckpt",
        "openai-clip-vit-large-14.pth",
    ]
    clip = drawn_state_dict("tiny_clip")
    textual = {key: value for key, value in clip.items() if not key.startswith("visual.")}
    assert_same(read(tmp_path / "out", "clip"), textual)


def test_cosines_of_patches_are_no_released_autoencoder(converted, tmp_path, capfd):
    weights = partial(converted, tmp_path / "weights", autoencoder=PatchCosinesConfig())
    shutil.rmtree(weights / "params" / "text_tower")
    assert export(weights, tmp_path / "out") == 0
    said = capfd.readouterr().out
    assert "note: no sd-v1-vae: the model works on cosines of patches" in said
    assert f"note: no openai-clip-vit-large-14: {weights} has no text tower\n" in said
    assert f"note: no bpe_simple_vocab_16e6.txt.gz: {weights} has no tokenizer\n" in said
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["flashface.ckpt"]


# ---------------------------------------------------------------------------------- vocabularies


def released_numbers(path):
    """Token numbers as the released tokenizer has them from a file."""
    merges = gzip.decompress(path.read_bytes()).decode().split("\n")[1 : 49152 - 256 - 2 + 1]
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = (byte for byte in range(256) if byte not in printable)
    symbols = [chr(byte) for byte in printable] + [chr(256 + n) for n, _ in enumerate(others)]
    tokens = symbols + [symbol + "</w>" for symbol in symbols]
    tokens += ["".join(merge.split()) for merge in merges] + [START, END]
    return dict(zip(tokens, range(len(tokens)), strict=True))


def test_a_trained_vocabulary_numbers_its_tokens_as_the_release_would(tmp_path):
    captions = ["a young man in a hat", "the hat of a young woman", "many young men"]
    tokenizer = train_tokenizer(captions, tmp_path / "trained", 12, 540)
    write_clip_vocabulary(tokenizer, tmp_path / "vocabulary.txt.gz")
    numbers = released_numbers(tmp_path / "vocabulary.txt.gz")
    assert numbers == json.loads((tmp_path / "trained" / "vocab.json").read_text())
    assert len(numbers) > 520


# ---------------------------------------------------------------------------------------- errors


def assert_error(capfd, tmp_path, *expected):
    """One line on stderr says all of this, and `out` was not made."""
    lines = capfd.readouterr().err.splitlines()
    (line,) = [x for x in lines if x and "tensor/s" not in x]  # but for progress bars
    assert line.startswith("error: ") and "Traceback" not in line
    for text in expected:
        assert str(text) in line
    assert not list(tmp_path.glob("*out*"))


@pytest.mark.parametrize(
    ("name", "reason"), [("nowhere", "does not exist"), ("empty", "is no weights directory")]
)
def test_what_is_no_weights_directory_is_refused(tmp_path, capfd, name, reason):
    (tmp_path / "empty").mkdir()
    assert export(tmp_path / name, tmp_path / "out") == 1
    assert_error(capfd, tmp_path, f"{tmp_path / name} {reason}")


def test_an_existing_directory_is_left_alone(converted, tmp_path, capfd):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "flashface.ckpt").write_text("precious")
    assert export(converted.directory.path, tmp_path / "mine") == 1
    assert_error(capfd, tmp_path, f"{tmp_path / 'mine'} exists already")
    assert (tmp_path / "mine" / "flashface.ckpt").read_text() == "precious"


def test_a_directory_without_the_networks_is_refused(converted, tmp_path, capfd):
    weights = partial(converted, tmp_path / "weights")
    shutil.rmtree(weights / "params" / "flashface")
    assert export(weights, tmp_path / "out") == 1
    assert_error(capfd, tmp_path, f"{weights} has no flashface: convert again")


def test_a_run_without_a_checkpoint_is_refused(converted, tmp_path, capfd):
    write_config(tmp_path, converted.directory.config)
    (tmp_path / "checkpoints").mkdir()
    assert export(tmp_path, tmp_path / "out") == 1
    assert_error(capfd, tmp_path, f"{tmp_path} has no checkpoint yet")


def torn(workdir):
    for path in (workdir / "checkpoints" / "2").rglob("*"):
        if path.is_file() and path.stat().st_size > 1000:
            path.write_bytes(path.read_bytes()[:100])


def other_shapes(workdir):
    config = read_config(workdir)
    denoiser = replace(config.flashface.denoiser, context_channels=40)
    write_config(workdir, replace(config, flashface=replace(config.flashface, denoiser=denoiser)))


@pytest.mark.parametrize("damage", [torn, other_shapes])
def test_a_damaged_run_is_refused(run_export, tmp_path, capfd, damage):
    workdir = tmp_path / "run"
    shutil.copytree(run_export.out.parent, workdir, ignore=shutil.ignore_patterns("out"))
    damage(workdir)
    assert export(workdir, tmp_path / "out") == 1
    reason = "is damaged, or is of other networks than config.json says."
    assert_error(capfd, tmp_path, f"The newest checkpoint of {workdir} {reason}")


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-4]), "is damaged"),
        (lambda path: path.write_bytes(b""), "is damaged"),
        (lambda path: save_file({"d": np.zeros(3, np.float32)}, path), "d does not fit"),
        (lambda path: save_file({"c": np.zeros(2, np.float32)}, path), "c does not fit"),
        (lambda path: save_file({"c": np.zeros(3, np.int32)}, path), "c does not fit"),
    ],
    ids=["cut", "empty", "foreign key", "other shape", "other type"],
)
def test_damaged_unused_tensors_are_refused(tmp_path, damage, reason):
    path = tmp_path / "part.safetensors"
    write_unused(path, {"c": np.zeros(3, np.float32)})
    assert read_unused(path, {"c": (3,)})["c"].shape == (3,)
    damage(path)
    with pytest.raises(WeightsError, match=f"^{path} .*{reason}"):
        read_unused(path, {"c": (3,)})


def test_unused_tensors_of_another_network_are_refused(converted, tmp_path, capfd):
    weights = partial(converted, tmp_path / "weights")
    path = weights / "unused" / "flashface.safetensors"
    save_file({"middle.9": np.zeros(3, np.float32)}, path)
    assert export(weights, tmp_path / "out") == 1
    assert_error(capfd, tmp_path, f"{path} is of another network: middle.9 does not fit")


def test_a_full_disk_is_noticed_first(converted, tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(9, 8, 1))
    assert export(converted.directory.path, tmp_path / "out") == 1
    assert_error(capfd, tmp_path, "out will take 0.02", "but its disk has 1e-09 GB left")


def fail(*arguments, **options):
    raise RuntimeError("PytorchStreamWriter failed writing file data/7\nframe #0: c10::Error")


def test_a_failed_write_leaves_nothing(converted, tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(torch, "save", fail)
    assert export(converted.directory.path, tmp_path / "out") == 1
    assert_error(capfd, tmp_path, "flashface.ckpt could not be written: PytorchStreamWriter failed")
    assert list(tmp_path.iterdir()) == []


RUN = """
import sys
sys.modules["torch"] = None
from flashface_jax.convert.command import main
sys.exit(main(sys.argv[1:]))
"""


def test_only_the_official_form_needs_pytorch(converted, tmp_path):
    directory, environment = converted.directory.path, {**os.environ, "JAX_PLATFORMS": "cpu"}
    ends = {}
    for form in ("official", "safetensors"):
        arguments = ["export", str(directory), f"--to={form}", f"--out={tmp_path / form}"]
        command = [sys.executable, "-c", RUN, *arguments]
        ends[form] = subprocess.run(
            command, check=False, capture_output=True, text=True, env=environment
        )
    assert ends["official"].returncode == 1
    assert "error: this needs PyTorch: pip install" in ends["official"].stderr
    assert ends["safetensors"].returncode == 0, ends["safetensors"].stderr
    assert [path.name for path in tmp_path.iterdir()] == ["safetensors"]
    assert_same(read(tmp_path / "safetensors", "vae"), drawn_state_dict("tiny_vae"))
