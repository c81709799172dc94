"""Low-rank updates: where they are, what they add, and what trains with them."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from flashface_jax.models.blocks import Compute
from flashface_jax.models.flashface import FlashFace, FlashFaceConfig
from flashface_jax.models.lora import (
    LoraConfig,
    has_update,
    init_lora,
    lora_shapes,
    trains_beside_lora,
    with_lora,
)
from flashface_jax.models.network import flatten, network, unflatten
from flashface_jax.models.unet import References
from flashface_jax.models.unet_topology import UNetConfig

TINY = UNetConfig(
    base_channels=32,
    channel_multipliers=(1, 2),
    residual_blocks=(1, 1),
    transformer_depth=(1, 2),
    context_channels=12,
    num_heads=4,
)
ONE_LEVEL = UNetConfig(
    base_channels=32,
    channel_multipliers=(1,),
    residual_blocks=(1,),
    transformer_depth=(1,),
    context_channels=12,
    num_heads=4,
)
CONFIG = LoraConfig(rank=4, alpha=6.0)


@cache
def build(config=TINY, tied=True):
    return network(lambda keys: FlashFace(FlashFaceConfig(config, tied), Compute(), keys))


def drawn(shapes, seed=0):
    """Numbers with nothing at zero, so that every path matters."""
    rng = np.random.default_rng(seed)

    def draw(leaf):
        fan_in = np.prod(leaf.shape[:-1]) if len(leaf.shape) > 1 else 16
        return jnp.asarray(rng.standard_normal(leaf.shape) / np.sqrt(fan_in), jnp.float32)

    return jax.tree.map(draw, shapes)


def loss(net, params):
    keys = jax.random.split(jax.random.key(3), 4)
    model, time = net.bind(params), jnp.array([200, 700])
    context = jax.random.normal(keys[2], (2, 5, 12))
    faces = jax.random.normal(keys[3], (2, 2, 6, 6, 4))
    features = model.encode_references(faces, time, context[:1])
    made = model.denoise(
        jax.random.normal(keys[0], (2, 8, 8, 4)),
        jax.random.normal(keys[1], (2, 8, 8, 1)),
        time,
        context,
        References(features, jnp.ones((2, 2)), jnp.ones((2, 1))),
    )
    return jnp.mean(made**2)


# ------------------------------------------------------------------------------------- targets


def test_targets_of_stable_diffusion_are_every_attention_layer_of_the_denoiser():
    """16 blocks: 2 a level in the encoder's first three, the middle, 3 a level in the decoder."""
    shapes = lora_shapes(build(UNetConfig()).shapes, LoraConfig(rank=8, alpha=8.0))
    blocks = {
        320: ["encoder/1", "encoder/2", "decoder/9", "decoder/10", "decoder/11"],
        640: ["encoder/4", "encoder/5", "decoder/6", "decoder/7", "decoder/8"],
        1280: ["encoder/7", "encoder/8", "middle", "decoder/3", "decoder/4", "decoder/5"],
    }
    expected = {}
    for width, places in blocks.items():
        for place in places:
            for attention, context in (("self", width), ("cross", 768)):
                for layer, inputs in zip("qkvo", (width, context, context, width), strict=True):
                    name = f"denoiser/{place}/transformer/blocks/0/{attention}_attention/{layer}"
                    expected[f"{name}/kernel"] = ((inputs, 8), (8, width))
    assert len(expected) == 16 * 8 == 128
    assert {n: (s["down"].shape, s["up"].shape) for n, s in shapes.items()} == expected
    # Self-attention has 8·8·c numbers a block, cross-attention 8·(6·c + 2·768).
    count = sum(leaf.size for leaf in jax.tree.leaves(shapes))
    widths = 5 * 320 + 5 * 640 + 6 * 1280
    assert count == 8 * (8 * widths + 6 * widths + 16 * 2 * 768)


@pytest.mark.parametrize("tied", [True, False])
def test_every_parameter_is_updated_trained_or_frozen(tied):
    named = flatten(build(tied=tied).shapes)
    for name in named:
        assert not (has_update(name) and trains_beside_lora(name)), name
    frozen = {n for n in named if not has_update(n) and not trains_beside_lora(n)}
    assert "denoiser/encoder/0/kernel" in frozen and "denoiser/head/conv/kernel" in frozen
    assert "denoiser/middle/transformer/blocks/0/self_attention/o/bias" in frozen
    assert not any("reference" in name for name in frozen)


def test_a_tree_without_attention_has_no_targets():
    with pytest.raises(ValueError, match="finds no attention layer"):
        lora_shapes({"denoiser": {"head": jax.ShapeDtypeStruct((3, 3), jnp.float32)}}, CONFIG)


def test_a_rank_above_the_narrowest_side_is_refused():
    lora_shapes(build().shapes, LoraConfig(rank=12, alpha=1.0))
    with pytest.raises(ValueError, match=r"rank of LoRA is 13, .* is 12 x 64: choose 12 or less"):
        lora_shapes(build().shapes, LoraConfig(rank=13, alpha=1.0))


@pytest.mark.parametrize(
    ("rank", "alpha", "message"),
    [(0, 1.0, "rank of LoRA is 0"), (4, 0.0, "alpha"), (4, float("nan"), "alpha")],
)
def test_impossible_configurations_are_refused(rank, alpha, message):
    with pytest.raises(ValueError, match=message):
        LoraConfig(rank, alpha)


# -------------------------------------------------------------------------------------- values


def test_fresh_updates_change_nothing():
    net = build()
    params = drawn(net.shapes)
    lora = jax.jit(lambda key: init_lora(key, net.shapes, CONFIG))(jax.random.key(0))
    assert jax.tree.map(lambda x: x.shape, lora) == jax.tree.map(
        lambda x: x.shape, lora_shapes(net.shapes, CONFIG)
    )
    updated = with_lora(params, lora, CONFIG)
    jax.tree.map(np.testing.assert_array_equal, updated, params)


def test_down_is_drawn_uniformly_by_its_inputs():
    lora = init_lora(jax.random.key(0), build().shapes, CONFIG)
    for name, update in lora.items():
        within = np.abs(update["down"]) * np.sqrt(update["down"].shape[0])
        assert within.max() <= 1 and within.max() > 0.9, name
    everything = np.concatenate(
        [np.ravel(x["down"]) * np.sqrt(x["down"].shape[0]) for x in lora.values()]
    )
    # U(-1, 1): standard errors of mean and variance are 0.58 and 0.30 over √n.
    error = 1 / np.sqrt(everything.size)
    assert abs(everything.mean()) < 3 * 0.58 * error
    assert abs(everything.var() - 1 / 3) < 3 * 0.30 * error
    assert len({bytes(np.asarray(x["down"])) for x in lora.values()}) == len(lora)


def test_an_updated_kernel_is_the_sum_of_both_ways_through_the_layer():
    net = build()
    params = drawn(net.shapes)
    lora = drawn(lora_shapes(net.shapes, CONFIG), seed=1)
    before, after = flatten(params), flatten(with_lora(params, lora, CONFIG))
    for i, (name, update) in enumerate(lora.items()):
        x = jax.random.normal(jax.random.key(i), (7, update["down"].shape[0]))
        apart = x @ before[name] + CONFIG.scale * ((x @ update["down"]) @ update["up"])
        merged = x @ after[name]
        error = float(jnp.linalg.norm(merged - apart) / jnp.linalg.norm(apart))
        assert error <= 1e-6, f"{name}: {error:.1e}"
        change = float(jnp.linalg.norm(merged - x @ before[name]) / jnp.linalg.norm(apart))
        assert change > 0.1, f"{name} changed by only {change:.1e}"
    for name in set(before) - set(lora):
        assert after[name] is before[name], name


def test_kernels_keep_their_shape_and_dtype():
    net = build()
    params = jax.tree.map(lambda x: x.astype(jnp.bfloat16), drawn(net.shapes))
    lora = drawn(lora_shapes(net.shapes, CONFIG), seed=1)
    after = with_lora(params, lora, CONFIG)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), after) == jax.tree.map(
        lambda x: (x.shape, x.dtype), params
    )
    name, update = next(iter(lora.items()))
    exact = flatten(params)[name].astype(jnp.float32) + CONFIG.scale * update["down"] @ update["up"]
    np.testing.assert_array_equal(flatten(after)[name], exact.astype(jnp.bfloat16))


def test_updates_of_another_network_are_refused():
    net = build()
    lora = {"denoiser/decoder/9/q/kernel": {"down": jnp.ones((4, 2)), "up": jnp.ones((2, 4))}}
    with pytest.raises(ValueError, match="denoiser/decoder/9/q/kernel, which the network lacks"):
        with_lora(drawn(net.shapes), lora, CONFIG)


# ------------------------------------------------------------------------------------ training


def test_only_updates_and_what_trains_beside_them_move():
    """The first step moves "up" alone, as "up" starts at zero; the second "down" as well."""
    net = build(ONE_LEVEL)
    start = flatten(drawn(net.shapes))
    beside = {name: leaf for name, leaf in start.items() if trains_beside_lora(name)}
    trained = {"lora": init_lora(jax.random.key(0), net.shapes, CONFIG), "beside": beside}
    optimizer = optax.adam(1e-3)

    def everything(trained):
        params = unflatten({**start, **trained["beside"]}, net.shapes)
        return with_lora(params, trained["lora"], CONFIG)

    @jax.jit
    def step(trained, state):
        gradient = jax.grad(lambda trained: loss(net, everything(trained)))(trained)
        updates, state = optimizer.update(gradient, state)
        return optax.apply_updates(trained, updates), state

    one, state = step(trained, optimizer.init(trained))
    two, _ = step(one, state)
    for name in trained["lora"]:
        places = [x["lora"][name] for x in (trained, one, two)]
        np.testing.assert_array_equal(places[0]["down"], places[1]["down"])
        assert np.any(places[0]["up"] != places[1]["up"]), name
        assert np.any(places[1]["down"] != places[2]["down"]), name
    first, last = flatten(everything(trained)), flatten(everything(two))
    moved = {name for name in first if np.any(first[name] != last[name])}
    updated = {name for name in first if has_update(name)}
    assert updated <= moved <= updated | set(beside)
    assert any("/reference_attention/" in name for name in moved)
    assert any(name.startswith("reference_net/") for name in moved)
