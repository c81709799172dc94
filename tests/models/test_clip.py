"""CLIP's towers against transformers' PyTorch implementation with the same weights."""

import jax
import numpy as np
import torch
from jax import jit
from transformers import (
    CLIPTextConfig,
    CLIPTextModelWithProjection,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

from flashface_jax.convert.official import image_tower_table, text_tower_table
from flashface_jax.models.blocks import Compute
from flashface_jax.models.clip import ImageTower, ImageTowerConfig, TextTower, TextTowerConfig
from flashface_jax.models.network import network
from tests.recorded import assert_close, nhwc

IMAGE = ImageTowerConfig(image_size=24, patch=8, channels=32, num_heads=4, layers=3, embedding=12)
TEXT = TextTowerConfig(vocabulary=60, length=9, channels=32, num_heads=2, layers=2, embedding=12)
TOLERANCE = 1e-5


def shared_options(config):
    return {
        "hidden_size": config.channels,
        "intermediate_size": 4 * config.channels,
        "num_attention_heads": config.num_heads,
        "num_hidden_layers": config.layers,
        "projection_dim": config.embedding,
        "hidden_act": "quick_gelu",
    }


def randomised(model):
    """The model with every parameter drawn, so that none can be left out unnoticed."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.2, generator=generator)
    return model.eval()


def released_blocks(theirs, source, target, layers):
    """Transformer layers under the released file's names; q, k and v are one matrix there."""
    names = {
        "self_attn.out_proj": "attn.proj",
        "layer_norm1": "norm1",
        "layer_norm2": "norm2",
        "mlp.fc1": "mlp.0",
        "mlp.fc2": "mlp.2",
    }
    made = {}
    for i in range(layers):
        layer, block = f"{source}.encoder.layers.{i}", f"{target}.transformer.{i}"
        for kind in ("weight", "bias"):
            qkv = [theirs[f"{layer}.self_attn.{x}_proj.{kind}"] for x in "qkv"]
            made[f"{block}.attn.to_qkv.{kind}"] = torch.cat(qkv)
            for old, new in names.items():
                made[f"{block}.{new}.{kind}"] = theirs[f"{layer}.{old}.{kind}"]
    return made


def converted(tower, config, table, state):
    """Our tower with a state dict in the released names."""
    net = network(lambda keys: tower(config, Compute(), keys))
    return net, table(config).convert(lambda key: state[key].numpy(), net.shapes, lambda: None)


def test_image_tower_equals_transformers():
    theirs = randomised(
        CLIPVisionModelWithProjection(
            CLIPVisionConfig(
                image_size=IMAGE.image_size, patch_size=IMAGE.patch, **shared_options(IMAGE)
            )
        )
    )
    old = theirs.state_dict()
    state = released_blocks(old, "vision_model", "visual", IMAGE.layers)
    embeddings = "vision_model.embeddings"
    state["visual.patch_embedding.weight"] = old[f"{embeddings}.patch_embedding.weight"]
    state["visual.cls_embedding"] = old[f"{embeddings}.class_embedding"][None, None]
    state["visual.pos_embedding"] = old[f"{embeddings}.position_embedding.weight"][None]
    state["visual.head"] = old["visual_projection.weight"].T
    for kind in ("weight", "bias"):
        state[f"visual.pre_norm.{kind}"] = old[f"vision_model.pre_layrnorm.{kind}"]
        state[f"visual.post_norm.{kind}"] = old[f"vision_model.post_layernorm.{kind}"]
    net, params = converted(ImageTower, IMAGE, image_tower_table, state)

    image = np.random.default_rng(0).standard_normal((2, 3, 24, 24)).astype(np.float32)
    with torch.no_grad():
        expected = theirs(pixel_values=torch.from_numpy(image)).image_embeds.numpy()
    ours = jit(lambda params, image: net.bind(params).embed(image))(params, nhwc(image))
    assert_close("image embedding", ours, expected, TOLERANCE)


def test_text_tower_equals_transformers():
    end = TEXT.vocabulary - 1
    theirs = randomised(
        CLIPTextModelWithProjection(
            CLIPTextConfig(
                vocab_size=TEXT.vocabulary,
                max_position_embeddings=TEXT.length,
                bos_token_id=end - 1,
                eos_token_id=end,
                **shared_options(TEXT),
            )
        )
    )
    old = theirs.state_dict()
    state = released_blocks(old, "text_model", "textual", TEXT.layers)
    embeddings = "text_model.embeddings"
    state["textual.token_embedding.weight"] = old[f"{embeddings}.token_embedding.weight"]
    state["textual.pos_embedding"] = old[f"{embeddings}.position_embedding.weight"][None]
    state["textual.head"] = old["text_projection.weight"].T
    for kind in ("weight", "bias"):
        state[f"textual.norm.{kind}"] = old[f"text_model.final_layer_norm.{kind}"]
    net, params = converted(TextTower, TEXT, text_tower_table, state)

    tokens = np.array([[58, 3, 4, end, end, end, end, end, end], [58, *range(7), end]], np.int32)
    with torch.no_grad():
        expected = theirs(input_ids=torch.from_numpy(tokens).long())

    @jit
    def run(params, tokens):
        model = net.bind(params)
        return model(tokens), model.embed(tokens)

    context, pooled = run(params, tokens)
    assert_close("context", context, expected.last_hidden_state.numpy(), TOLERANCE)
    assert_close("pooled", pooled, expected.text_embeds.numpy(), TOLERANCE)


def test_later_tokens_do_not_change_earlier_contexts():
    net, rng = network(lambda keys: TextTower(TEXT, Compute(), keys)), np.random.default_rng(0)
    params = net.init(jax.random.key(0))
    tokens = rng.integers(0, 58, (1, TEXT.length)).astype(np.int32)
    changed = tokens.copy()
    changed[:, 5:] = 58 - changed[:, 5:]
    run = jit(lambda params, tokens: net.bind(params)(tokens))
    difference = np.abs(np.asarray(run(params, tokens) - run(params, changed)))
    assert difference[:, :5].max() == 0
    assert difference[:, 5:].max() > 1e-2
