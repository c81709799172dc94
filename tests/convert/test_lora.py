"""Low-rank updates in the layout of Stable Diffusion's tools."""

from dataclasses import replace
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from flashface_jax.convert.lora import export_lora, kernel_names, lora_state_dict
from flashface_jax.convert.table import ConversionError
from flashface_jax.models.blocks import Compute
from flashface_jax.models.flashface import FlashFace, FlashFaceConfig
from flashface_jax.models.lora import LoraConfig, lora_shapes
from flashface_jax.models.network import network
from flashface_jax.models.unet_topology import UNetConfig

SD = UNetConfig()
TINY = UNetConfig(
    base_channels=32,
    channel_multipliers=(1, 2),
    residual_blocks=(1, 1),
    transformer_depth=(1, 2),
    context_channels=12,
    num_heads=4,
)
CONFIG = LoraConfig(rank=4, alpha=6.0)


@cache
def shapes_of(config):
    return network(lambda keys: FlashFace(FlashFaceConfig(config), Compute(), keys)).shapes


@cache
def drawn(config=TINY):
    rng = np.random.default_rng(0)
    return jax.tree.map(
        lambda leaf: jnp.asarray(rng.standard_normal(leaf.shape), jnp.float32),
        lora_shapes(shapes_of(config), CONFIG),
    )


def test_stable_diffusions_blocks_have_diffusers_names():
    """The blocks of runwayml/stable-diffusion-v1-5, each placed by hand."""
    places = {
        "encoder/1": "down_blocks_0_attentions_0",
        "encoder/2": "down_blocks_0_attentions_1",
        "encoder/4": "down_blocks_1_attentions_0",
        "encoder/5": "down_blocks_1_attentions_1",
        "encoder/7": "down_blocks_2_attentions_0",
        "encoder/8": "down_blocks_2_attentions_1",
        "middle": "mid_block_attentions_0",
        "decoder/3": "up_blocks_1_attentions_0",
        "decoder/4": "up_blocks_1_attentions_1",
        "decoder/5": "up_blocks_1_attentions_2",
        "decoder/6": "up_blocks_2_attentions_0",
        "decoder/7": "up_blocks_2_attentions_1",
        "decoder/8": "up_blocks_2_attentions_2",
        "decoder/9": "up_blocks_3_attentions_0",
        "decoder/10": "up_blocks_3_attentions_1",
        "decoder/11": "up_blocks_3_attentions_2",
    }
    layers = {"q": "to_q", "k": "to_k", "v": "to_v", "o": "to_out_0"}
    attentions = {"self_attention": "attn1", "cross_attention": "attn2"}
    assert kernel_names(SD) == {
        f"denoiser/{ours}/transformer/blocks/0/{attention}/{layer}/kernel": (
            f"lora_unet_{theirs}_transformer_blocks_0_{attentions[attention]}_{layers[layer]}"
        )
        for ours, theirs in places.items()
        for attention in attentions
        for layer in layers
    }


@pytest.mark.parametrize("config", [SD, TINY, replace(TINY, transformer_depth=(0, 3))])
def test_every_update_has_a_name_and_every_name_an_update(config):
    assert set(kernel_names(config)) == set(lora_shapes(shapes_of(config), CONFIG))
    assert len(set(kernel_names(config).values())) == len(kernel_names(config))


def test_a_file_holds_the_layers_of_the_layout(tmp_path):
    """What a tool makes of a layer, W·x + alpha/rank·up·(down·x), is what training made of it."""
    out = tmp_path / "new" / "updates.safetensors"
    export_lora(drawn(), CONFIG, TINY, out, "float32")
    tensors = load_file(out)
    with safe_open(out, "np") as file:
        assert file.metadata()["ss_network_dim"] == "4"
    assert list(tmp_path.rglob("*.*")) == [out]
    assert len(tensors) == 3 * len(drawn())
    for name, layer in kernel_names(TINY).items():
        down, up = (tensors.pop(f"{layer}.lora_{part}.weight") for part in ("down", "up"))
        alpha = tensors.pop(f"{layer}.alpha")
        assert alpha.shape == () and down.shape[0] == up.shape[1] == CONFIG.rank
        x = torch.randn(down.shape[1], generator=torch.Generator().manual_seed(0))
        theirs = (alpha / down.shape[0] * (up @ (down @ x))).numpy()
        update = drawn()[name]
        ours = CONFIG.scale * ((x.numpy() @ update["down"]) @ update["up"])
        np.testing.assert_allclose(theirs, ours, rtol=0, atol=1e-5 * np.abs(ours).max())
        np.testing.assert_array_equal(down.numpy().T, update["down"])
        np.testing.assert_array_equal(up.numpy().T, update["up"])
    assert not tensors


def test_updates_of_another_network_are_refused():
    with pytest.raises(ConversionError, match=r"update for denoiser/.*, which the U-Net lacks"):
        lora_state_dict(drawn(), CONFIG, replace(TINY, transformer_depth=(0, 1)))


def test_a_file_is_new_and_called_what_it_is(tmp_path):
    out = tmp_path / "updates.safetensors"
    out.write_text("mine")
    with pytest.raises(FileExistsError, match="exists already"):
        export_lora(drawn(), CONFIG, TINY, out, "float32")
    assert out.read_text() == "mine"
    with pytest.raises(ConversionError, match=r"updates\.ckpt must end in .safetensors"):
        export_lora(drawn(), CONFIG, TINY, tmp_path / "updates.ckpt", "float32")
    assert list(tmp_path.iterdir()) == [out]
