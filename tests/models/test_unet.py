"""The U-Net's topology and its pieces against PyTorch's own operators."""

import math
from dataclasses import replace
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from flax import nnx

from flashface_jax.models.blocks import (
    Compute,
    ResidualBlock,
    conv,
    sinusoidal_embedding,
    upsample_nearest,
)
from flashface_jax.models.flashface import FlashFace, FlashFaceConfig, begin_as_copies
from flashface_jax.models.network import flatten, network
from flashface_jax.models.unet import References
from flashface_jax.models.unet_topology import (
    PLACEMENTS,
    DownsampleSpec,
    UNetConfig,
    decoder_specs,
    encoder_specs,
    placement_of,
    reference_stages,
    stage_places,
)

TINY = UNetConfig(
    base_channels=32,
    channel_multipliers=(1, 2),
    residual_blocks=(1, 1),
    transformer_depth=(1, 1),
    context_channels=12,
    num_heads=4,
)
DEEPER = replace(TINY, transformer_depth=(1, 2))
# DEEPER has two levels: encoder/1 and decoder/2, decoder/3 at level 0, which is the finer one,
# encoder/3 and decoder/0, decoder/1 at level 1.
PLACED = {
    "none": [],
    "decoder": ["middle", "decoder/0", "decoder/1", "decoder/2", "decoder/3"],
    "encoder": ["encoder/1", "encoder/3", "middle"],
    "both": ["encoder/1", "encoder/3", "middle", *(f"decoder/{i}" for i in range(4))],
    "middle": ["middle"],
    "decoder/level1": ["decoder/0", "decoder/1"],
    "decoder/level0": ["decoder/2", "decoder/3"],
    "encoder/level1,decoder/level0": ["encoder/3", "decoder/2", "decoder/3"],
    "encoder/level0, middle": ["encoder/1", "middle"],
}


@cache
def build(config=TINY, **options):
    return network(lambda keys: FlashFace(FlashFaceConfig(config, **options), Compute(), keys))


def inputs(height, width, batch=2, refs=3, size=6):
    keys = jax.random.split(jax.random.key(3), 5)
    return {
        "latents": jax.random.normal(keys[0], (batch, height, width, 4)),
        "mask": (jax.random.uniform(keys[1], (batch, height, width, 1)) > 0.5).astype(jnp.float32),
        "context": jax.random.normal(keys[2], (batch, 5, 12)),
        "references": jax.random.normal(keys[3], (batch, refs, size, size, 4)),
    }


def randomised(net):
    """Parameters with no zero-initialised layer, so that every path matters."""
    rng = np.random.default_rng(0)

    def draw(leaf):
        fan_in = math.prod(leaf.shape[:-1]) if len(leaf.shape) > 1 else 16
        return (rng.standard_normal(leaf.shape) / math.sqrt(fan_in)).astype(np.float32)

    return jax.tree.map(draw, net.shapes)


def run(net, params, x, *, strength, weight=None, timestep=500):
    """One denoiser call with a reference set for each row."""
    weight = jnp.ones(x["references"].shape[:2]) if weight is None else weight
    return call(net.graphdef, params, x, weight, strength, timestep)


# Compiled once for each network and size, not for each test.
@partial(jax.jit, static_argnums=0)
def call(graphdef, params, x, weight, strength, timestep):
    batch = len(x["latents"])
    model, time = nnx.merge(graphdef, params), jnp.full((batch,), timestep)
    features = model.encode_references(x["references"], time, x["context"])
    references = References(features, weight, jnp.full((batch, 1), strength))
    return model.denoise(x["latents"], x["mask"], time, x["context"], references)


def test_released_widths_have_the_released_number_of_parameters():
    shapes = build(UNetConfig()).shapes
    sizes = {part: sum(x.size for x in jax.tree.leaves(shapes[part])) for part in shapes}
    # SD-1.5's U-Net has 859,520,964; the mask channel adds 320·9, and 10 blocks of reference
    # attention add 4·c² + c each.
    widths = [320] * 3 + [640] * 3 + [1280] * 4
    expected = 859_520_964 + 320 * 9 + sum(4 * c * c + c for c in widths)
    assert sizes["denoiser"] == expected


def test_specs_of_the_released_model():
    encoder, decoder = encoder_specs(UNetConfig()), decoder_specs(UNetConfig())
    assert sum(isinstance(spec, DownsampleSpec) for spec in encoder) == 3
    assert len(encoder) + 1 == len(decoder) == 12
    assert [spec.in_channels for spec in decoder] == [
        2560, 2560, 2560, 2560, 2560, 1920, 1920, 1280, 960, 960, 640, 640,
    ]  # fmt: skip
    assert [spec.upsample for spec in decoder] == [False, False, True] * 3 + [False] * 3


@pytest.mark.parametrize("placement", PLACED)
def test_parameters_are_where_reference_attention_is(placement):
    config, stages = replace(DEEPER, reference_attention=placement), PLACED[placement]
    assert reference_stages(config) == stages
    names = [name for name in flatten(build(config).shapes) if "reference_attention" in name]
    assert {name.partition("/transformer/")[0] for name in names} == {
        f"denoiser/{stage}" for stage in stages
    }


@pytest.mark.parametrize("placement", PLACED)
def test_features_are_handed_out_where_reference_attention_is(placement):
    config, x = replace(DEEPER, reference_attention=placement), inputs(8, 8)

    def features(params):
        model = build(config).bind(params)
        return model.encode_references(x["references"], jnp.array([1, 2]), x["context"])

    made = jax.eval_shape(features, build(config).shapes)
    places = stage_places(DEEPER)
    depth = {stage: 1 + places[stage].endswith("level1") for stage in PLACED[placement]}
    assert set(made) == {f"{stage}/{i}" for stage in depth for i in range(depth[stage])}


@pytest.mark.parametrize(
    "placement", ["none", pytest.param("encoder", marks=pytest.mark.slow), "decoder/level0"]
)
def test_references_act_where_they_are_placed(placement):
    net, x = build(replace(DEEPER, reference_attention=placement)), inputs(8, 8)
    params = randomised(net)
    half, whole = (run(net, params, x, strength=strength) for strength in (0.5, 1.0))
    change = float(jnp.abs(whole - half).max())
    assert (change > 1e-4) == (placement != "none"), f"strength changed the output by {change:.1e}"

    @jax.jit
    def without(params, x):
        time = jnp.full((2,), 500)
        return net.bind(params).denoise(x["latents"], x["mask"], time, x["context"], None)

    assert_same(run(net, params, x, strength=0.0), without(params, x))


def test_places_of_the_released_model():
    places = stage_places(UNetConfig())
    assert next(iter(places)) == "encoder/1" and "decoder/11" in places
    assert [places.get(f"decoder/{i}", "")[-6:] for i in range(12)] == [
        *[""] * 3, *["level2"] * 3, *["level1"] * 3, *["level0"] * 3,
    ]  # fmt: skip
    assert len(reference_stages(UNetConfig())) == 10


@pytest.mark.parametrize("placement", PLACED)
def test_a_placement_is_found_from_its_stages(placement):
    found = placement_of(DEEPER, PLACED[placement])
    assert found == placement.replace(" ", "")
    assert placement_of(DEEPER, PLACED[placement][:1]).count(",") == 0, "one place of one stage"


@pytest.mark.parametrize("word", ["decoder/level2", "decoder/1", "head", "", "Both"])
def test_unknown_places_are_refused_by_those_that_there_are(word):
    said = (
        f"There is no place '{word}' for reference attention: choose one of "
        f"{', '.join(PLACEMENTS)}, or some of encoder/level0, encoder/level1, middle, "
        "decoder/level1, decoder/level0, joined with commas."
    )
    with pytest.raises(ValueError, match=f"^{said}$"):
        replace(DEEPER, reference_attention=f"middle,{word}")


def test_levels_without_transformers_have_no_place():
    with pytest.raises(ValueError, match="no place 'decoder/level3'"):
        UNetConfig(reference_attention="decoder/level3")


def test_reference_net_is_tied_or_has_its_own_middle():
    tied, free = (flatten(build(tie_reference_middle=tie).shapes) for tie in (True, False))
    own = {name for name in free if name not in tied}
    assert own and all(
        name.startswith(("reference_net/middle", "reference_net/time_embedding")) for name in own
    )


@pytest.mark.parametrize("size", [(7, 5), (1, 3), (12, 9)])
def test_any_size_of_latent(size):
    net, x = build(), inputs(*size)
    assert run(net, randomised(net), x, strength=1.0).shape == (2, *size, 4)


def assert_same(ours, expected):
    difference = float(jnp.abs(ours - expected).max() / jnp.std(expected))
    assert difference <= 1e-5, f"{difference:.1e} of the standard deviation"


def test_missing_references_equal_fewer_references():
    net, x = build(), inputs(8, 8)
    params = randomised(net)
    masked = run(net, params, x, strength=1.1, weight=jnp.array([[1.0, 1.0, 0.0]] * 2))
    fewer = run(net, params, {**x, "references": x["references"][:, :2]}, strength=1.1)
    difference = float(jnp.abs(masked - fewer).max())
    assert difference <= 2e-5, f"{difference:.1e}"


def test_weights_equal_copies_in_any_order():
    """[a, b, c] counted 2, 1 and 0 times is [b, a, a]."""
    net, x = build(), inputs(8, 8)
    params = randomised(net)
    weighted = run(net, params, x, strength=1.1, weight=jnp.array([[2.0, 1.0, 0.0]] * 2))
    copies = {**x, "references": x["references"][:, jnp.array([1, 0, 0])]}
    assert_same(weighted, run(net, params, copies, strength=1.1))
    once = run(net, params, x, strength=1.1, weight=jnp.array([[1.0, 1.0, 0.0]] * 2))
    change = float(jnp.abs(weighted - once).max())
    assert change > 1e-3, f"counting a reference twice changed the output by only {change:.1e}"


@pytest.mark.parametrize(
    ("placement", "least"),
    [
        pytest.param("encoder", 1e-2, marks=pytest.mark.slow),
        ("decoder", 1e-2),
        ("both", 1e-2),
        ("decoder/level0", 1e-3),
    ],
)
def test_paired_rows_equal_rows_of_their_own(placement, least):
    """Predicted with and without references from one encoder pass, or from two."""
    net = build(replace(TINY, reference_attention=placement))
    params, x = randomised(net), inputs(6, 5)

    @jax.jit
    def predict(params, weight, strength):
        model, time = net.bind(params), jnp.full((2,), 400)
        features = model.encode_references(x["references"][:1], time[:1], x["context"][:1])
        seen = References(features, weight, strength)
        arguments = x["latents"], x["mask"], time, x["context"]
        apart = [model.denoise(*(rows[:1] for rows in arguments), seen)]
        apart.append(model.denoise(*arguments, None))
        return model.denoise(*arguments, seen, paired=1), jnp.concatenate(apart)

    together, apart = predict(
        params, jnp.ones((1, x["references"].shape[1])), jnp.full((1, 1), 1.2)
    )
    assert_same(together, apart)
    change = float(jnp.abs(apart[0] - apart[1]).max())
    assert change > least, f"references changed the output by only {change:.1e}"


@pytest.mark.parametrize(
    ("placement", "shared"),
    [("both", 0), ("decoder", 2), ("decoder/level1", 4), ("decoder/level0", 6), ("none", 8)],
)
def test_branches_share_the_blocks_before_the_first_reference_attention(placement, shared):
    """Of the 8 residual blocks (2 in each half of the U-Net's levels, and 2 in the middle)."""
    rows = []

    def counting(block, *arguments):
        if isinstance(block, ResidualBlock):
            rows.append(len(arguments[0]))
        return block(*arguments)

    config = FlashFaceConfig(replace(DEEPER, reference_attention=placement))
    net = network(lambda keys: FlashFace(config, Compute(run=counting), keys))
    x, arrays = inputs(8, 8), jax.ShapeDtypeStruct

    def predict(params):
        arguments = x["latents"], x["mask"], jnp.full((2,), 400), x["context"]
        return net.bind(params).denoise(*arguments, None, paired=1)

    assert jax.eval_shape(predict, net.shapes) == arrays((3, 8, 8, 4), jnp.float32)
    assert rows == [2] * shared + [3] * (8 - shared)


def test_strength_zero_is_no_reference():
    net, x = build(), inputs(8, 8)
    params = randomised(net)

    @jax.jit
    def without(params, x):
        time = jnp.full((2,), 500)
        return net.bind(params).denoise(x["latents"], x["mask"], time, x["context"], None)

    assert_same(run(net, params, x, strength=0.0), without(params, x))


def test_people_of_rows_and_branches():
    """Two branches of two samples, two people each: row by row as if it were alone."""
    net, x = build(), inputs(8, 8)
    params = randomised(net)
    faces = jnp.stack([x["references"], x["references"][::-1] * 0.7], axis=1)  # sample, person
    weight = jnp.array([[[1.0, 2.0, 0.0], [1.0, 1.0, 1.0]], [[0.0, 1.0, 0.5], [2.0, 1.0, 0.0]]])
    strength = jnp.array([[0.9, 0.2], [0.5, 0.6], [0.1, 1.1], [0.0, 0.7]])
    row = jnp.array([0, 1, 0, 1])

    @jax.jit
    def call(params, latents, mask, context, faces, weight, strength):
        model, sets = net.bind(params), len(faces) * 2
        flat = faces.reshape(sets, *faces.shape[2:])
        features = model.encode_references(flat, jnp.full((sets,), 400), x["context"][:1])
        references = References(features, weight.reshape(sets, 3), strength)
        return model.denoise(latents, mask, jnp.full((len(latents),), 400), context, references)

    together = call(
        params, x["latents"][row], x["mask"][row], x["context"][row], faces, weight, strength
    )
    for i, of in enumerate(row):
        one = slice(int(of), int(of) + 1)
        alone = call(
            params,
            x["latents"][one],
            x["mask"][one],
            x["context"][one],
            faces[one],
            weight[one],
            strength[i : i + 1],
        )
        assert_same(together[i : i + 1], alone)


def test_a_shared_set_equals_a_copy_for_each_row():
    net, x = build(), inputs(8, 8)
    params = randomised(net)

    @jax.jit
    def call(params, x, copied):
        model, time = net.bind(params), jnp.full((2,), 300)
        features = model.encode_references(x["references"][:1], time[:1], x["context"][:1])
        features = jax.tree.map(lambda f: jnp.repeat(f, len(copied), axis=0), features)
        references = References(features, jnp.ones((len(copied), 3)), jnp.array([[0.9], [1.2]]))
        return model.denoise(x["latents"], x["mask"], time, x["context"], references)

    difference = float(jnp.abs(call(params, x, jnp.zeros(1)) - call(params, x, jnp.zeros(2))).max())
    assert difference <= 2e-5, f"{difference:.1e}"


def test_one_text_context_for_all_sets_equals_a_copy_for_each():
    net, x = build(), inputs(8, 8)
    params = randomised(net)

    @jax.jit
    def features(params, x, context):
        return net.bind(params).encode_references(x["references"], jnp.array([300, 700]), context)

    one = x["context"][:1]
    shared, copied = features(params, x, one), features(params, x, jnp.repeat(one, 2, axis=0))
    worst = max(float(jnp.abs(shared[name] - copied[name]).max()) for name in copied)
    assert worst <= 2e-5, f"{worst:.1e}"
    own = features(params, x, x["context"])
    change = float(jnp.abs(own["middle/0"] - copied["middle/0"])[1].max())
    assert change > 1e-2, f"another context changed the second set by only {change:.1e}"


@pytest.mark.parametrize("tied", [True, False])
def test_a_fresh_pair_begins_as_copies(tied):
    net = build(tie_reference_middle=tied)
    drawn = net.init(jax.random.key(0))
    begun = begin_as_copies(drawn)
    before, after = flatten(drawn), flatten(begun)
    assert {n: v.shape for n, v in after.items()} == {n: v.shape for n, v in before.items()}
    seconds = {n for n in after if "/reference_attention/" in n or n.startswith("reference_net/")}
    assert seconds
    for name, value in after.items():
        source = name.replace("reference_attention", "self_attention")
        source = source.replace("reference_net/", "denoiser/")
        assert (name in seconds) == (source != name)
        expected = before[source]
        if name == "reference_net/encoder/0/kernel":
            expected = expected[:, :, :4]
        np.testing.assert_array_equal(value, expected, err_msg=name)
    # A train step donates its state: no array may stand for two parameters.
    assert len({v.unsafe_buffer_pointer() for v in after.values()}) == len(after)


def test_rows_do_not_mix():
    net, x = build(), inputs(8, 8)
    params = randomised(net)
    both = run(net, params, x, strength=1.0)
    alone = run(net, params, jax.tree.map(lambda v: v[1:], x), strength=1.0)
    difference = float(jnp.abs(both[1:] - alone).max())
    assert difference <= 2e-5, f"{difference:.1e}"


def test_reference_features_follow_the_timestep():
    net, x = build(), inputs(8, 8)
    params = randomised(net)

    @jax.jit
    def middle(params, x, timestep):
        model, time = net.bind(params), jnp.full((2,), timestep)
        return model.encode_references(x["references"], time, x["context"])["middle/0"]

    change = float(jnp.abs(middle(params, x, 900) - middle(params, x, 100)).max())
    assert change > 1e-2, f"changed by only {change:.1e}"


def test_bfloat16_is_close_to_float32():
    half = network(lambda keys: FlashFace(FlashFaceConfig(TINY), Compute(jnp.bfloat16), keys))
    net, x = build(), inputs(8, 8)
    params = randomised(net)
    exact, rounded = run(net, params, x, strength=1.0), run(half, params, x, strength=1.0)
    assert rounded.dtype == jnp.float32
    error = float(jnp.sqrt(jnp.mean((exact - rounded) ** 2)) / jnp.std(exact))
    assert error <= 2e-2, f"relative error {error:.1e}"


@pytest.mark.parametrize("size", [(4, 7), (4, 8), (1, 1), (1, 2), (13, 25)])
def test_upsampling_is_pytorchs_nearest(size):
    small, large = size
    x = np.random.default_rng(0).normal(size=(1, 3, small, small)).astype(np.float32)
    expected = F.interpolate(torch.from_numpy(x), size=(large, large), mode="nearest").numpy()
    ours = upsample_nearest(jnp.asarray(x.transpose(0, 2, 3, 1)), large, large)
    np.testing.assert_array_equal(np.asarray(ours).transpose(0, 3, 1, 2), expected)


@pytest.mark.parametrize("size", [7, 8])
def test_downsampling_is_pytorchs_padding_one(size):
    net = network(lambda keys: conv(3, 5, Compute(), keys, stride=2))
    params = net.init(jax.random.key(0))
    x = np.random.default_rng(0).normal(size=(2, size, size, 3)).astype(np.float32)
    expected = F.conv2d(
        torch.from_numpy(x.transpose(0, 3, 1, 2)),
        torch.from_numpy(np.array(params["kernel"].transpose(3, 2, 0, 1))),
        stride=2,
        padding=1,
    ).numpy()
    ours = np.asarray(net.bind(params)(jnp.asarray(x))).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(ours, expected, rtol=0, atol=2e-6)


def test_timestep_embedding_is_cosine_first():
    embedded = np.asarray(sinusoidal_embedding(jnp.array([0, 7, 999]), 8), np.float64)
    phase = np.array([0, 7, 999])[:, None] * 10000.0 ** (-np.arange(4) / 4)
    expected = np.concatenate([np.cos(phase), np.sin(phase)], axis=1)
    np.testing.assert_allclose(embedded, expected, rtol=0, atol=1e-4)
    np.testing.assert_array_equal(embedded[0], [1, 1, 1, 1, 0, 0, 0, 0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"base_channels": 48}, "base_channels is 48"),
        ({"residual_blocks": (1,)}, "different numbers of levels"),
        ({"num_heads": None}, "exactly one of num_heads and head_channels"),
        ({"head_channels": 8}, "exactly one of num_heads and head_channels"),
        ({"num_heads": 5}, "cannot be split into heads"),
    ],
)
def test_impossible_configurations_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        UNetConfig(**{**vars(TINY), **change})


def test_an_inpainting_denoiser_sees_the_image_beside_its_latent():
    config = UNetConfig(**{**vars(TINY), "in_channels": 9})
    assert FlashFaceConfig(config).inpaints and not FlashFaceConfig(TINY).inpaints
    assert FlashFaceConfig(config).reference_net.in_channels == 4
    net, x = build(config), inputs(8, 8)
    params = randomised(net)
    image = jax.random.normal(jax.random.key(8), (2, 8, 8, 4))
    shown = {**x, "mask": jnp.concatenate([image, x["mask"]], axis=-1)}
    made = run(net, params, shown, strength=1.0)
    assert made.shape == (2, 8, 8, 4)
    other = {**x, "mask": jnp.concatenate([image[::-1], x["mask"]], axis=-1)}
    change = float(jnp.abs(run(net, params, other, strength=1.0) - made).max())
    assert change > 1e-2, f"another image changed the output by only {change:.1e}"


@pytest.mark.parametrize("channels", [4, 6, 8, 10])
def test_other_numbers_of_input_channels_are_refused(channels):
    config = UNetConfig(**{**vars(TINY), "in_channels": channels})
    with pytest.raises(ValueError, match=f"takes {channels} channels; it must take 5 .* 9"):
        FlashFaceConfig(config)


def test_a_net_without_head_does_not_predict():
    net = build()
    model = net.bind(net.init(jax.random.key(0)))
    with pytest.raises(ValueError, match="without a head"):
        model.reference_net(jnp.zeros((1, 8, 8, 4)), jnp.zeros(1, int), jnp.zeros((1, 5, 12)))
