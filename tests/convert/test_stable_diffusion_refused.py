"""What the conversion of Stable Diffusion refuses, each in one clear message."""

import json
import shutil

import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import save_file

from flashface_jax.convert.command import main
from flashface_jax.convert.stable_diffusion.folder import read_description
from flashface_jax.weights.tokenizer import train_tokenizer
from tests.convert import tiny_stable_diffusion as tiny


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny.make(tmp_path_factory.mktemp("stable-diffusion"))


@pytest.fixture(scope="module")
def original(model):
    return tiny.original_layout(model)


@pytest.fixture(scope="module")
def written(model, tmp_path_factory):
    return tiny.write_folder(model, tmp_path_factory.mktemp("diffusers") / "model")


@pytest.fixture
def folder(written, tmp_path):
    return shutil.copytree(written, tmp_path / "model")


@pytest.fixture
def refused(tmp_path, capfd, model):
    """Run the command, which fails with one message that says all of this and writes nothing."""

    def run(source, *expected, options=()):
        out = tmp_path / "out" / "weights"
        tokenizer = [] if source.is_dir() else [f"--tokenizer={model.tokenizer}"]
        capfd.readouterr()
        arguments = [f"--from={source}", f"--out={out}", *tokenizer, *options]
        assert main(["stable-diffusion", *arguments]) == 1
        said = capfd.readouterr().err
        assert said.count("error: ") == 1
        assert "Traceback" not in said
        for text in expected:
            assert str(text) in said
        assert not out.exists()
        assert not list(tmp_path.glob("**/.weights*"))

    return run


# ----------------------------------------------------------------------------------- other models

FOREIGN = {
    "xl": (
        {"addition_embed_type": "text_time", "projection_class_embeddings_input_dim": 32,
         "addition_time_embed_dim": 4},
        "is Stable Diffusion XL",
    ),
    "second": ({"cross_attention_dim": 1024}, "is Stable Diffusion 2, whose text context is 1024"),
    "inpainting": ({"in_channels": 9}, "is an inpainting model, whose U-Net takes 9 channels"),
    "editing": ({"in_channels": 8}, "has a U-Net that takes 8 channels, not the 4"),
}  # fmt: skip


@pytest.mark.parametrize("kind", FOREIGN)
def test_other_models_are_named(folder, refused, kind):
    changes, reason = FOREIGN[kind]
    shutil.rmtree(folder / "unet")
    tiny.unet(**changes).save_pretrained(folder / "unet")
    said = json.loads((folder / "text_encoder/config.json").read_text())
    said["hidden_act"] = "gelu"  # of SD-2; what else is wrong with another model is not told
    (folder / "text_encoder/config.json").write_text(json.dumps(said))
    refused(folder, folder / "unet", reason, "give Stable Diffusion 1.5 or")


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        ("conditioner.embedders.0.transformer.x", "is Stable Diffusion XL"),
        ("cond_stage_model.model.ln_final.weight", "is Stable Diffusion 2, whose text tower"),
        ("model.diffusion_model.joint_blocks.0.x", "is Stable Diffusion 3"),
    ],
)
def test_other_models_in_one_file_are_named(tmp_path, refused, original, key, reason):
    path = tiny.save({**original, key: torch.zeros(2)}, tmp_path / "model.safetensors")
    refused(path, path, reason)


def test_an_inpainting_model_in_one_file_is_named(tmp_path, refused, original):
    key = "model.diffusion_model.input_blocks.0.0.weight"
    path = tiny.save({**original, key: torch.zeros(32, 9, 3, 3)}, tmp_path / "model.ckpt")
    refused(path, path, "is an inpainting model")


# --------------------------------------------------------------------------- incomplete or damaged


@pytest.mark.parametrize(
    ("root", "network"),
    [
        ("model.diffusion_model.", "U-Net"),
        ("first_stage_model.", "autoencoder"),
        ("cond_stage_model.", "text tower"),
    ],
)
def test_a_file_without_a_network_is_refused(tmp_path, refused, original, root, network):
    rest = {key: value for key, value in original.items() if not key.startswith(root)}
    path = tiny.save(rest, tmp_path / "model.safetensors")
    refused(path, f"{path} holds no {network}: it has no key {root}*; give a full checkpoint")


def test_problems_of_all_networks_are_reported_together(tmp_path, refused, original):
    changed = {
        **original,
        "lora.weight": torch.zeros(2),
        "first_stage_model.decoder.conv_in.bias": torch.zeros(7),
    }
    changed["cond_stage_model.transformer.more"] = torch.zeros(1)
    del changed["model.diffusion_model.output_blocks.0.0.in_layers.0.weight"]
    path = tiny.save(changed, tmp_path / "model.safetensors")
    refused(
        path,
        "lora.weight: not a key of this model",
        "output_blocks.0.0.in_layers.0.weight: missing",
        "first_stage_model.decoder.conv_in.bias: shape [7], expected [64]",
        "cond_stage_model.transformer.more: not a key of this model",
        options=[f"--num-heads={tiny.HEADS}", f"--clip-text-heads={tiny.TEXT_HEADS}"],
    )


def truncate(path):
    path.write_bytes(path.read_bytes()[:5000])


def text_file(path):
    path.write_text("<html>not found</html>")


@pytest.mark.parametrize("spoil", [truncate, text_file, lambda path: path.unlink()])
@pytest.mark.parametrize("ending", ["safetensors", "ckpt"])
def test_a_damaged_file_is_refused(tmp_path, refused, original, ending, spoil):
    path = tiny.save(original, tmp_path / f"model.{ending}")
    spoil(path)
    reason = "download it again" if path.exists() else "does not exist"
    refused(path, path, reason)


def test_numbers_of_eight_bits_are_refused(tmp_path, refused, original):
    path = tmp_path / "model.safetensors"
    save_file({key: value.to(torch.float8_e4m3fn) for key, value in original.items()}, path)
    refused(path, "holds F8_E4M3 numbers; take the file with float32")


def test_all_networks_that_a_folder_lacks_are_named(folder, refused):
    shutil.rmtree(folder / "vae")
    (folder / "unet/diffusion_pytorch_model.safetensors").unlink()
    refused(
        folder,
        f"{folder / 'unet'} holds no weights: a diffusers folder has a diffusion_pytorch_model",
        f"{folder / 'vae'} holds no weights",
    )


@pytest.mark.parametrize(
    ("index", "reason"),
    [
        ("no json", "is no index of tensors; download it again"),
        ('{"weight_map": {"conv_in.weight": "../secret"}}', "its weight_map names no files"),
        ('{"weight_map": {"conv_in.weight": "gone.safetensors"}}', "gone.safetensors does not"),
        ('{"weight_map": {"no.key": "a.safetensors"}}', "says that a.safetensors holds no.key"),
    ],
)
def test_a_damaged_index_is_refused(folder, refused, index, reason):
    whole = folder / "unet/diffusion_pytorch_model.safetensors"
    whole.rename(folder / "unet/a.safetensors")
    (folder / "unet/diffusion_pytorch_model.safetensors.index.json").write_text(index)
    refused(folder, reason)


# ---------------------------------------------------------------------------------- configurations


@pytest.mark.parametrize(
    ("name", "changes", "reason"),
    [
        ("unet/config.json", {"act_fn": "gelu"}, "says that act_fn is 'gelu'; here it can only be"),
        ("text_encoder/config.json", {"hidden_act": "gelu"}, "says that hidden_act is 'gelu'"),
        ("scheduler/scheduler_config.json", {"beta_schedule": "linear"}, "beta_schedule is"),
        ("scheduler/scheduler_config.json", {"prediction_type": "x"}, "cannot be read"),
        ("vae/config.json", {"scaling_factor": "much"}, "cannot be read"),
        ("unet/config.json", {"attention_head_dim": [1, 3, 2]}, "cannot be read"),
        ("unet/config.json", {"attention_head_dim": 5}, "cannot be split into heads"),
        ("text_encoder/config.json", {"num_attention_heads": 5}, "another --clip-text-heads"),
    ],
)  # fmt: skip
def test_what_flashface_cannot_compute_is_refused(folder, refused, name, changes, reason):
    said = json.loads((folder / name).read_text())
    (folder / name).write_text(json.dumps({**said, **changes}))
    refused(folder, folder, reason)


def test_a_configuration_that_is_no_json_is_refused(folder, refused):
    (folder / "vae/config.json").write_text("{")
    refused(folder, folder / "vae/config.json", "is no JSON")


def test_networks_of_different_models_are_refused(folder, refused):
    shutil.rmtree(folder / "unet")
    unet = tiny.unet(cross_attention_dim=32)
    unet.save_pretrained(folder / "unet")
    refused(folder, f"The text tower's context is {tiny.TEXT_WIDTH} wide")


# --------------------------------------------------------------------------------------- tokenizer


def test_a_single_file_needs_a_tokenizer(tmp_path, original, capsys):
    path = tiny.save(original, tmp_path / "model.safetensors")
    assert main(["stable-diffusion", f"--from={path}", f"--out={tmp_path / 'out'}"]) == 2
    assert "name one with --tokenizer" in capsys.readouterr().err


def test_a_folder_without_its_tokenizer_is_refused(folder, refused):
    shutil.rmtree(folder / "tokenizer")
    refused(folder, f"{folder} holds no tokenizer: name one with --tokenizer")


def test_another_models_tokenizer_is_refused(folder, refused):
    path = folder / "tokenizer/tokenizer_config.json"
    said = json.loads(path.read_text())
    path.write_text(json.dumps({**said, "model_max_length": 40}))
    refused(folder, "tokens and prompts of 40", "name its own tokenizer with --tokenizer")


def test_a_tokenizer_of_more_tokens_is_refused(folder, tmp_path, refused):
    words = [a + b for a in "abcdefgh" for b in "ijklmnop"]
    more = train_tokenizer(words, tmp_path / "more", tiny.PROMPT, vocab_size=560)
    assert more.vocab_size == 560
    refused(folder, f"has {more.vocab_size} tokens", options=[f"--tokenizer={tmp_path / 'more'}"])


def test_added_tokens_are_refused(folder, refused):
    path = folder / "tokenizer/tokenizer_config.json"
    said = json.loads(path.read_text())
    token = {"content": "<cat-toy>", "lstrip": False, "rstrip": False, "normalized": False,
             "single_word": False, "special": False}  # fmt: skip
    path.write_text(json.dumps({**said, "added_tokens_decoder": {"700": token}}))
    refused(folder, "has 1 added tokens")


def test_an_existing_directory_is_left_alone(folder, tmp_path, capfd):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").write_text("precious")
    assert main(["stable-diffusion", f"--from={folder}", f"--out={tmp_path / 'mine'}"]) == 1
    assert "exists already" in capfd.readouterr().err
    assert (tmp_path / "mine" / "file").read_text() == "precious"


def test_heads_by_width_are_understood(folder):
    """Newer configurations give a number for each level: SD-2's are 64 channels wide everywhere."""
    for heads, expected in (([2, 4, 4], (None, 16)), ([4, 4, 4], (4, None)), (8, (8, None))):
        said = {"attention_head_dim": heads, "block_out_channels": list(tiny.WIDTHS)}
        (folder / "unet/config.json").write_text(json.dumps(said))
        described = read_description(folder)
        assert (described.num_heads, described.head_channels) == expected


def test_a_fine_tune_of_velocity_is_described(folder):
    path = folder / "scheduler/scheduler_config.json"
    path.write_text(json.dumps({"prediction_type": "v_prediction", "beta_end": 0.02}))
    schedule = read_description(folder).schedule
    assert (schedule.prediction, schedule.beta_end, schedule.timesteps) == ("velocity", 0.02, 1000)


def test_diffusers_reads_the_folder_that_the_tests_write(folder):
    assert UNet2DConditionModel.from_pretrained(folder / "unet").config.cross_attention_dim == 24
