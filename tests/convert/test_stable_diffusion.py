"""Stable Diffusion as FlashFace's start: the same numbers as diffusers, from either layout."""

import copy
import json
import math
import re
from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from diffusers.loaders.single_file_utils import (
    convert_ldm_clip_checkpoint,
    convert_ldm_unet_checkpoint,
    convert_ldm_vae_checkpoint,
)
from jax import jit

from flashface_jax.convert import official
from flashface_jax.convert.command import main
from flashface_jax.convert.files.torch_file import TorchFile
from flashface_jax.convert.stable_diffusion.autoencoder import (
    autoencoder_table,
    infer_autoencoder_config,
)
from flashface_jax.convert.stable_diffusion.described import Described
from flashface_jax.convert.stable_diffusion.names import DIFFUSERS, LDM
from flashface_jax.convert.stable_diffusion.text_tower import (
    infer_text_tower_config,
    text_tower_table,
)
from flashface_jax.convert.stable_diffusion.unet import flashface_table, infer_flashface_config
from flashface_jax.convert.table import WHOLE, Table, joined, linear_without_bias
from flashface_jax.data.config import DataConfig, WorldConfig
from flashface_jax.diffusion.schedule import ScheduleConfig
from flashface_jax.models.autoencoder.vae import AutoencoderKLConfig
from flashface_jax.models.blocks import Compute
from flashface_jax.models.clip import TextTower, TextTowerConfig
from flashface_jax.models.flashface import FlashFaceConfig, begin_as_copies
from flashface_jax.models.network import flatten, network, unflatten
from flashface_jax.models.unet import References, UNet
from flashface_jax.training.computation.program import Program
from flashface_jax.training.config import TrainConfig
from flashface_jax.training.run.loop import train
from flashface_jax.training.run.start import initial_weights, starting_state
from flashface_jax.weights.directory import WeightsDirectory
from flashface_jax.weights.run_directory import open_weights
from flashface_jax.weights.system import SystemConfig, build_system
from tests.convert import tiny_stable_diffusion as tiny
from tests.recorded import assert_close, nhwc, relative_difference

# Largest absolute difference over the standard deviation of diffusers' result.
NETWORK = 3e-5
FROZEN = 1e-5
OTHER_EPSILON = 2e-4  # what 1e-6 for 1e-5 inside residual blocks may make


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    return tiny.make(tmp_path_factory.mktemp("stable-diffusion"))


@pytest.fixture(scope="session")
def folder(model, tmp_path_factory):
    return tiny.write_folder(model, tmp_path_factory.mktemp("diffusers") / "model")


@pytest.fixture(scope="session")
def original(model):
    return tiny.original_layout(model)


def convert(source, out, *options):
    """Run the command."""
    return main(["stable-diffusion", f"--from={source}", f"--out={out}", *map(str, options)])


class Opened:
    """A converted directory with all its parameters; `like` is one of the same networks."""

    def __init__(self, path, like=None):
        self.directory = WeightsDirectory.open(path)
        self.config = self.directory.config
        assert like is None or like.config == self.config
        self.system = build_system(self.config) if like is None else like.system
        self.params = {
            name: self.directory.params(name, part) for name, part in self.system.parts().items()
        }


@pytest.fixture(scope="session")
def converted(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("from-diffusers") / "weights"
    assert convert(folder, out) == 0
    return Opened(out)


# ---------------------------------------------------------------------------------------- export


def test_it_goes_into_the_released_layout_and_back(converted, tmp_path, capfd):
    """But for CLIP's image tower and projection, which Stable Diffusion does not have."""
    weights, out = converted.directory.path, tmp_path / "out"
    assert main(["export", str(weights), "--to=official", f"--out={out}"]) == 0
    said = capfd.readouterr().out
    for key, what in (("visual.*", "image tower"), ("textual.head", "projection to the joint")):
        assert f"openai-clip-vit-large-14 has no {key}: {weights} has no {what}" in said
    assert "embed_dim" not in said
    clip = torch.load(out / "openai-clip-vit-large-14.pth", weights_only=True)
    assert "textual.head" not in clip and "textual.norm.weight" in clip
    read = {"flashface": "flashface.ckpt", "autoencoder": "sd-v1-vae.pth"}
    tables = {"flashface": official.flashface_table, "autoencoder": official.autoencoder_table}
    for part, file in read.items():
        state = TorchFile(out / file)
        back = tables[part](getattr(converted.config, part)).convert(
            state.read, vars(converted.system)[part].shapes, lambda: None
        )
        for name, value in flatten(converted.params[part]).items():
            np.testing.assert_array_equal(flatten(back)[name], value, err_msg=name)


# -------------------------------------------------------------------------------------- training


def run_from(converted):
    """The shortest run that starts from the converted weights."""
    return TrainConfig(
        steps=1,
        batch_size=2,
        system=replace(converted.config, image_size=32, reference_size=32),
        initial=str(converted.directory.path),
        data=DataConfig(world=WorldConfig(identities=3, held_out=1, photos_per_identity=3)),
        log_every=1,
        checkpoint_every=1,
        grid_people=0,
    )


def test_the_state_before_the_first_step_is_what_was_converted(converted):
    config = run_from(converted)
    state = starting_state(Program.over(config), initial_weights(config))
    held = {**flatten(state.frozen), **flatten(state.params)}
    expected = flatten(converted.params)
    assert set(held) == {name for name in expected if not name.startswith("image_tower")}
    for name, value in held.items():
        np.testing.assert_array_equal(value, expected[name], err_msg=name)


@pytest.mark.slow
def test_it_trains(converted, tmp_path, capsys):
    train(run_from(converted), tmp_path / "run")
    assert f"starting from {converted.directory.path}" in capsys.readouterr().out
    logged = json.loads((tmp_path / "run/metrics.jsonl").read_text().splitlines()[0])
    assert math.isfinite(logged["loss"]) and logged["gradient_norm"] > 0
    ours, theirs = open_weights(tmp_path / "run").tokenizer(), converted.directory.tokenizer()
    assert ours.sha256 == theirs.sha256


# ---------------------------------------------------------------------------------------- parity

NOISY = np.random.default_rng(0).standard_normal((2, 4, 9, 7)).astype(np.float32)
WORDS = np.random.default_rng(1).standard_normal((2, tiny.PROMPT, tiny.TEXT_WIDTH)).astype("f4")
TIMES = np.array([3, 801], np.int32)


def without_reference_attention(params):
    """Parameters with reference attention's output at zero."""
    return unflatten(
        {
            name: jnp.zeros_like(x) if "reference_attention/o/" in name else x
            for name, x in flatten(params).items()
        },
        params,
    )


@pytest.fixture(scope="module")
def predictions(converted):
    """(parameters, mask's value) -> predictions alone, and with references of no strength."""

    @jit
    def run(params, noisy, mask, times, words):
        bound = converted.system.flashface.bind(params)
        seen = bound.encode_references(noisy[None], times[:1], words[:1])
        zero = References(seen, jnp.ones((1, 2)), jnp.zeros((2, 1)))
        return [bound.denoise(noisy, mask, times, words, some) for some in (None, zero)]

    return lambda params, mask=0.0: run(
        params, nhwc(NOISY), np.full((2, 9, 7, 1), mask, np.float32), TIMES, WORDS
    )


def theirs(unet):
    with torch.no_grad():
        made = unet(*map(torch.from_numpy, (NOISY, TIMES, WORDS))).sample
    return nhwc(made.numpy())


@pytest.fixture(scope="module")
def same_epsilon(model):
    """The model's U-Net with FlashFace's epsilon in every GroupNorm."""
    unet = tiny.unet(norm_eps=1e-6)
    unet.load_state_dict(model.unet.state_dict())
    return unet


def test_first_prediction_equals_diffusers(converted, predictions, same_epsilon):
    params = without_reference_attention(converted.params["flashface"])
    for ours in predictions(params):
        assert_close("prediction", ours, theirs(same_epsilon), NETWORK)


def test_plain_unet_equals_diffusers(converted, same_epsilon):
    """The denoiser's own parameters in a U-Net that has no reference attention."""
    config = replace(converted.config.flashface.denoiser, reference_attention="none")
    plain = network(lambda keys: UNet(config, Compute(), keys))
    named = flatten(converted.params["flashface"])
    params = unflatten(
        {name: named[f"denoiser/{name}"] for name in flatten(plain.shapes)}, plain.shapes
    )
    x = np.concatenate([nhwc(NOISY), np.ones((2, 9, 7, 1), np.float32)], axis=-1)
    ours = jit(lambda params, *rest: plain.bind(params)(*rest))(params, x, TIMES, WORDS)
    assert_close("prediction", ours, theirs(same_epsilon), NETWORK)


def test_stable_diffusions_epsilon_moves_the_first_prediction_little(converted, predictions, model):
    params = without_reference_attention(converted.params["flashface"])
    (ours, _) = predictions(params)
    difference = relative_difference(ours, theirs(model.unet))
    assert NETWORK < difference < OTHER_EPSILON


def test_autoencoder_equals_diffusers(converted, model):
    image = np.random.default_rng(2).uniform(-1, 1, (2, 3, 18, 14)).astype(np.float32)
    latent = np.random.default_rng(3).standard_normal((2, 4, 9, 7)).astype(np.float32)
    with torch.no_grad():
        posterior = model.vae.encode(torch.from_numpy(image)).latent_dist
        decoded = model.vae.decode(torch.from_numpy(latent)).sample

    @jit
    def run(params, image, latent):
        bound = converted.system.autoencoder.bind(params)
        return *bound.posterior(image), bound.decode(latent * bound.config.scale)

    ours = run(converted.params["autoencoder"], nhwc(image), nhwc(latent))
    for name, made, wanted in zip(
        ("mean", "log-variance", "image"),
        ours,
        (posterior.mean, posterior.logvar, decoded),
        strict=True,
    ):
        assert_close(name, made, nhwc(wanted.numpy()), FROZEN)


def test_text_tower_and_tokenizer_equal_transformers(converted, model):
    tokens = converted.directory.tokenizer()(["an old man", "a child in a red hat at night"])
    with torch.no_grad():
        context = model.text_encoder(torch.from_numpy(tokens).long()).last_hidden_state

    run = jit(lambda params, tokens: converted.system.text_tower.bind(params)(tokens))
    ours = run(converted.params["text_tower"], tokens)
    assert_close("context", ours, context.numpy(), FROZEN)


# ------------------------------------------------------------------------- what FlashFace adds


def test_second_networks_are_the_copies_that_training_starts_from(converted):
    """What is written stays as it is when the paper's rule is applied to it."""
    params = converted.params["flashface"]
    named = flatten(params)
    for name, begun in flatten(begin_as_copies(params)).items():
        np.testing.assert_array_equal(named[name], begun, name)
    copies = [name for name in named if name.startswith("reference_net/")]
    assert len(copies) > 100
    assert sum("reference_attention" in name for name in named) == 5 * 5  # q, k, v, o and its bias


def test_mask_channel_is_zero_and_the_others_are_not(converted, model):
    params = flatten(converted.params["flashface"])
    kernel = params["denoiser/encoder/0/kernel"]
    assert kernel.shape == (3, 3, 5, 32)
    np.testing.assert_array_equal(kernel[:, :, 4], 0)
    theirs = model.unet.conv_in.weight.numpy().transpose(2, 3, 1, 0)
    np.testing.assert_array_equal(kernel[:, :, :4], theirs)
    np.testing.assert_array_equal(params["reference_net/encoder/0/kernel"], theirs)


def test_a_mask_changes_no_prediction_before_training(converted, predictions):
    params = converted.params["flashface"]
    for without, with_mask in zip(predictions(params), predictions(params, 1.0), strict=True):
        np.testing.assert_array_equal(without, with_mask)


def test_configuration_is_read_off_the_folder(converted, model):
    config = converted.config
    assert config.flashface.denoiser.channel_multipliers == (1, 2, 2)
    assert config.flashface.denoiser.transformer_depth == (1, 1, 0)
    assert config.flashface.denoiser.num_heads == tiny.HEADS
    assert config.autoencoder == AutoencoderKLConfig(32, 4, (1, 2), 1)
    assert (config.text_tower.num_heads, config.text_tower.embedding) == (tiny.TEXT_HEADS, None)
    assert config.image_tower is None
    assert config.schedule == ScheduleConfig()


def test_a_tower_without_projection_says_so(converted):
    tower = converted.system.text_tower.bind(converted.params["text_tower"])
    with pytest.raises(ValueError, match="has no projection"):
        tower.embed(jnp.zeros((1, tiny.PROMPT), jnp.int32))


# -------------------------------------------------------------------- forms of the same checkpoint


def assert_same(out, converted, stored=lambda x: x):
    """Two directories hold the same bits, where tensors went through `stored` on the way."""
    other, path = Opened(out, like=converted), converted.directory.path
    assert (out / "config.json").read_bytes() == (path / "config.json").read_bytes()
    files = sorted(file.name for file in (path / "tokenizer").iterdir())
    assert files == sorted(file.name for file in (out / "tokenizer").iterdir())
    for name in files:
        assert (out / "tokenizer" / name).read_bytes() == (path / "tokenizer" / name).read_bytes()
    for part, params in converted.params.items():
        ours = flatten(other.params[part])
        for name, value in flatten(params).items():
            wanted = stored(np.asarray(value)).astype(np.float32)
            np.testing.assert_array_equal(ours[name], wanted, f"{part}/{name}")


def test_the_tests_original_layout_is_the_one_that_diffusers_reads(model, original):
    read = {
        "unet": convert_ldm_unet_checkpoint(dict(original), model.unet.config),
        "vae": convert_ldm_vae_checkpoint(dict(original), model.vae.config),
        "text_encoder": convert_ldm_clip_checkpoint(dict(original)),
    }
    for name, state in read.items():
        own = vars(model)[name].state_dict()
        found = {key.removeprefix("text_model."): value for key, value in state.items()}
        assert {key for key in found if "position_ids" not in key} == own.keys()
        for key, value in own.items():
            np.testing.assert_array_equal(found[key].reshape(value.shape), value, key)


SINGLE = ["--num-heads", tiny.HEADS, "--clip-text-heads", tiny.TEXT_HEADS]


def test_original_layout_converts_to_the_same_directory(
    tmp_path, model, original, converted, capsys
):
    """From a trainer's checkpoint, without the trainer."""
    path = tiny.save(original, tmp_path / "v1-5-pruned.ckpt")
    assert convert(path, tmp_path / "out", *SINGLE, "--tokenizer", model.tokenizer) == 0
    assert_same(tmp_path / "out", converted)
    said = capsys.readouterr().out
    assert "flashface: left out model_ema.*: a moving average" in said
    assert "text_tower: the checkpoint holds no projection" in said
    assert f"wrote {tmp_path / 'out'}" in said


def test_bfloat16_becomes_float32_exactly(tmp_path, model, original, converted):
    halves = {k: v.bfloat16() if v.is_floating_point() else v for k, v in original.items()}
    path = tiny.save(halves, tmp_path / "model.safetensors")
    assert convert(path, tmp_path / "out", *SINGLE, "--tokenizer", model.tokenizer) == 0
    assert_same(tmp_path / "out", converted, lambda x: x.astype(jnp.bfloat16))


def test_a_folder_of_float16_alone_becomes_float32_exactly(tmp_path, model, converted):
    halves = [copy.deepcopy(part).half() for part in (model.unet, model.vae, model.text_encoder)]
    half = tiny.StableDiffusion(*halves, model.tokenizer)
    tiny.write_folder(half, tmp_path / "folder", variant="fp16")
    assert (tmp_path / "folder/unet/diffusion_pytorch_model.fp16.safetensors").exists()
    assert convert(tmp_path / "folder", tmp_path / "out") == 0
    assert_same(tmp_path / "out", converted, lambda x: x.astype(np.float16))


def renamed_attention(state):
    """An autoencoder as diffusers before 0.15 wrote it."""
    old = {"to_q": "query", "to_k": "key", "to_v": "value", r"to_out\.0": "proj_attn"}
    for new, name in old.items():
        state = {re.sub(rf"(attentions\.0)\.{new}", rf"\1.{name}", k): v for k, v in state.items()}
    return state


def test_older_names_and_pickled_files_convert_to_the_same_directory(
    tmp_path, model, folder, converted
):
    other = tmp_path / "folder"
    tiny.write_folder(model, other)
    for name, stem in (("unet", "diffusion_pytorch_model"), ("vae", "diffusion_pytorch_model")):
        (other / name / f"{stem}.safetensors").unlink()
    # Dense layers for the transformers' 1x1 convolutions, as later models have them.
    unet = {
        key: value[:, :, 0, 0] if re.search(r"proj_(in|out)\.weight", key) else value
        for key, value in model.unet.state_dict().items()
    }
    torch.save(unet, other / "unet" / "diffusion_pytorch_model.bin")
    vae = renamed_attention(model.vae.state_dict())
    assert sum("proj_attn" in key for key in vae) == 4
    torch.save(vae, other / "vae" / "diffusion_pytorch_model.bin")
    (other / "text_encoder" / "model.safetensors").unlink()
    text = {f"text_model.{k}": v for k, v in model.text_encoder.state_dict().items()}
    text["text_model.embeddings.position_ids"] = torch.arange(tiny.PROMPT)[None].float()
    torch.save(text, other / "text_encoder" / "pytorch_model.bin")
    assert convert(other, tmp_path / "out") == 0
    assert_same(tmp_path / "out", converted)


def test_shards_convert_to_the_same_directory(tmp_path, model, converted):
    tiny.write_folder(model, tmp_path / "folder", max_shard_size="200KB")
    assert len(list((tmp_path / "folder" / "unet").glob("*-of-*.safetensors"))) > 2
    assert convert(tmp_path / "folder", tmp_path / "out") == 0
    assert_same(tmp_path / "out", converted)


def test_a_projection_is_kept(original):
    projection = torch.randn(20, tiny.TEXT_WIDTH)
    root = LDM.text_root
    state = {k: v for k, v in original.items() if k.startswith(root)}
    state[f"{root}text_projection.weight"] = projection
    shapes = {key: tuple(value.shape) for key, value in state.items()}
    config = infer_text_tower_config(root, shapes, Described(text_heads=tiny.TEXT_HEADS))
    assert config.embedding == 20
    tower = network(lambda keys: TextTower(config, Compute(), keys))
    table = text_tower_table(root, config, shapes)
    sizes = {name: leaf.shape for name, leaf in flatten(tower.shapes).items()}
    assert table.problems(shapes, sizes) == []
    params = table.convert(lambda key: state[key].numpy(), tower.shapes, lambda: None)
    np.testing.assert_array_equal(params["projection"], projection.numpy().T)


# ------------------------------------------------------------------------------------ full size


@pytest.mark.parametrize("layout", [DIFFUSERS, LDM], ids=["diffusers", "original"])
def test_stable_diffusions_own_sizes_fill_every_parameter_once(layout):
    states = tiny.full_size() if layout is DIFFUSERS else tiny.original_full_size()
    unet, vae, text = ({k: tuple(v.shape) for k, v in state.items()} for state in states)
    assert sum(map(math.prod, unet.values())) == 859_520_964
    said = Described()
    config = SystemConfig(
        flashface=infer_flashface_config(layout.unet, unet, said),
        autoencoder=infer_autoencoder_config(layout.autoencoder, vae, said),
        text_tower=infer_text_tower_config(layout.text_root, text, said),
        image_tower=None,
    )
    assert config.flashface == FlashFaceConfig()
    assert config.autoencoder == AutoencoderKLConfig()
    assert config.text_tower == TextTowerConfig(embedding=None)
    targets = {
        part: {name: leaf.shape for name, leaf in flatten(built.shapes).items()}
        for part, built in build_system(config).parts().items()
    }
    tables = {
        "flashface": flashface_table(layout.unet, config.flashface, unet, targets["flashface"]),
        "autoencoder": autoencoder_table(layout.autoencoder, config.autoencoder, vae),
        "text_tower": text_tower_table(layout.text_root, config.text_tower, text),
    }
    for (part, table), shapes in zip(tables.items(), (unet, vae, text), strict=True):
        assert table.problems(shapes, targets[part]) == []


# ---------------------------------------------------------------------------------- the engine


def test_missing_and_doubled_parts_are_problems():
    q, k, v = joined("attn", "qkv", ("q", "k", "v"), linear_without_bias)
    source, target = {f"attn.{x}.weight": (4, 5) for x in "qkv"}, {"qkv/kernel": (5, 12)}
    assert Table((q, k, v)).problems(source, target) == []
    missing = {"attn.q.weight": (4, 5), "attn.k.weight": (4, 5)}
    assert Table((q, k)).problems(missing, target) == [
        "qkv/kernel: only 2 of its 3 parts are filled"
    ]
    assert Table((q, k, v, v)).problems(source, target) == ["qkv/kernel: filled 2 times"]
    whole = replace(v, share=WHOLE)
    assert "qkv/kernel: filled 2 times" in Table((q, k, whole)).problems(source, target)


def test_joined_layers_are_readable_both_ways():
    entries = joined("attn", "qkv", ("q", "k", "v"), linear_without_bias)
    rng = np.random.default_rng(0)
    tensors = {entry.source: rng.standard_normal((4, 5)).astype("f4") for entry in entries}
    kernel = np.zeros((5, 12), np.float32)
    for entry in entries:
        entry.fill(kernel, tensors[entry.source])
    stacked = np.concatenate([tensors[f"attn.{x}.weight"] for x in "qkv"])
    np.testing.assert_array_equal(kernel, stacked.T)
    for entry in entries:
        np.testing.assert_array_equal(entry.to_torch(kernel), tensors[entry.source])
