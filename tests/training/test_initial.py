"""A run's starting parameters from weights of networks that differ from its own."""

import itertools
import re
from dataclasses import replace
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from flashface_jax.models.blocks import Compute
from flashface_jax.models.flashface import FlashFace, FlashFaceConfig
from flashface_jax.models.network import flatten, network, unflatten
from flashface_jax.models.unet import References
from flashface_jax.models.unet_topology import UNetConfig
from flashface_jax.training.run.initial import (
    describe,
    plan_start,
    require_same_arithmetic,
    start_from,
    widen_input,
)

DENOISER = UNetConfig(
    base_channels=32,
    channel_multipliers=(1,),
    residual_blocks=(1,),
    transformer_depth=(1,),
    context_channels=12,
    num_heads=4,
    norm_groups=4,
)
INPUT = "denoiser/encoder/0/kernel"
PLACEMENTS = ("none", "encoder", "decoder", "both")
KINDS = list(itertools.product(PLACEMENTS, (True, False), (5, 9)))


@cache
def build(placement="decoder", tied=True, channels=5):
    denoiser = replace(DENOISER, reference_attention=placement, in_channels=channels)
    return network(lambda keys: FlashFace(FlashFaceConfig(denoiser, tied), Compute(), keys))


@cache
def shapes_of(*kind):
    return flatten(build(*kind).shapes)


@cache
def weights_of(*kind):
    """Numbers that differ from name to name and leave no path at zero."""
    rng = np.random.default_rng(0)

    def draw(leaf):
        fan_in = np.prod(leaf.shape[:-1]) if len(leaf.shape) > 1 else 16
        return jnp.asarray(rng.standard_normal(leaf.shape) / np.sqrt(fan_in), jnp.float32)

    return {name: draw(leaf) for name, leaf in shapes_of(*kind).items()}


def inputs():
    """Arguments of `predict`: noisy latents, masks, contexts, faces."""
    keys = jax.random.split(jax.random.key(0), 4)
    return (
        jax.random.normal(keys[0], (2, 6, 5, 4)),
        jax.random.normal(keys[1], (2, 6, 5, 1)),
        jax.random.normal(keys[2], (2, 3, 12)),
        jax.random.normal(keys[3], (2, 2, 4, 4, 4)),
    )


@partial(jax.jit, static_argnums=0)
def predict(graphdef, params, latents, condition, context, faces):
    model, time = nnx.merge(graphdef, params), jnp.array([200, 700])
    features = model.encode_references(faces, time, context[:1])
    seen = References(features, jnp.ones((2, 2)), jnp.full((2, 1), 0.9))
    return model.denoise(latents, condition, time, context, seen), features


def run(kind, weights, x):
    net = build(*kind)
    return predict(net.graphdef, unflatten(weights, net.shapes), *x)


def relative_error(ours, expected):
    return float(jnp.abs(ours - expected).max() / jnp.std(expected))


# ---------------------------------------------------------------------------- every combination


def expected_origin(name, source):
    """The rules of the paper, written once more."""
    if name in source:
        return name
    block = re.fullmatch(r"(denoiser/.*)/reference_attention/([qkvo]/.*)", name)
    if block:
        return f"{block[1]}/self_attention/{block[2]}"
    own = re.fullmatch(r"reference_net/((middle|time_embedding)/.*)", name)
    return f"denoiser/{own[1]}"


def expected_input(kernel, before, after):
    wide = np.zeros((3, 3, after, 32), np.float32)
    wide[:, :, :4] = kernel[:, :, :4]  # the noisy latent
    wide[:, :, -1] = kernel[:, :, -1]  # the mask
    if before == after:
        wide[:] = kernel
    return wide


@pytest.mark.parametrize("target", KINDS, ids=lambda kind: "-".join(map(str, kind)))
def test_any_kind_of_network_starts_from_any_other_that_sees_no_more(target):
    for source in KINDS:
        weights, wanted = weights_of(*source), shapes_of(*target)
        if source[2] > target[2]:
            with pytest.raises(ValueError, match=rf"{INPUT}: \[3, 3, 9, 32\] in the weights"):
                start_from(weights, wanted)
            continue
        made = start_from(weights, wanted)
        assert {n: (v.shape, v.dtype) for n, v in made.items()} == {
            n: (v.shape, v.dtype) for n, v in wanted.items()
        }
        for name, value in made.items():
            expected = weights[expected_origin(name, weights)]
            if name == INPUT:
                expected = expected_input(expected, source[2], target[2])
            np.testing.assert_array_equal(value, expected, err_msg=f"{source}: {name}")
        dropped = {d.name for d in plan_start(weights, wanted) if d.how == "dropped"}
        assert dropped == set(weights) - set(wanted)


def test_weights_that_see_no_mask_start_with_one_that_does_nothing():
    """Stable Diffusion's own input convolution has the latent's 4 channels."""
    plain = {**weights_of(), INPUT: weights_of()[INPUT][:, :, :4]}
    for channels in (5, 9):
        wide = start_from(plain, shapes_of("decoder", True, channels))[INPUT]
        np.testing.assert_array_equal(wide[:, :, :4], plain[INPUT])
        assert wide.shape[2] == channels and not np.any(wide[:, :, 4:])


def test_channels_of_the_image_go_between_latent_and_mask():
    kernel = jnp.arange(1.0, 6.0).reshape(1, 1, 5, 1)
    assert widen_input(kernel, 9, 4).ravel().tolist() == [1, 2, 3, 4, 0, 0, 0, 0, 5]
    assert widen_input(kernel[:, :, :4], 5, 4).ravel().tolist() == [1, 2, 3, 4, 0]


def test_what_is_added_can_be_dropped_again():
    source = weights_of("decoder", True, 5)
    there = start_from(source, shapes_of("both", False, 5))
    back = start_from(there, shapes_of("decoder", True, 5))
    assert set(back) == set(source)
    for name, value in back.items():
        np.testing.assert_array_equal(value, source[name], err_msg=name)


# ----------------------------------------------------------------------------------- predictions


def test_a_network_that_learns_to_inpaint_predicts_as_before():
    """Whatever image it is shown; a wider convolution may round its sums otherwise."""
    narrow, wide = ("decoder", True, 5), ("decoder", True, 9)
    x = inputs()
    begun = start_from(weights_of(*narrow), shapes_of(*wide))
    expected, _ = run(narrow, weights_of(*narrow), x)
    for image in (0.0, 1.0):
        condition = jnp.concatenate([jnp.full((2, 6, 5, 4), image), x[1]], axis=-1)
        made, _ = run(wide, begun, (x[0], condition, *x[2:]))
        error = relative_error(made, expected)
        assert error <= 5e-6, f"{error:.1e}"
    elsewhere = {**begun, INPUT: begun[INPUT][:, :, jnp.array([0, 1, 2, 3, 8, 5, 6, 7, 4])]}
    change = relative_error(run(wide, elsewhere, (x[0], condition, *x[2:]))[0], expected)
    assert change > 1e-2, f"a mask in the wrong place changed the prediction by only {change:.1e}"


def test_a_reference_net_that_is_untied_hands_out_the_same_features():
    tied, untied = ("decoder", True, 5), ("decoder", False, 5)
    x = inputs()
    expected = run(tied, weights_of(*tied), x)
    made = run(untied, start_from(weights_of(*tied), shapes_of(*untied)), x)
    assert set(made[1]) == set(expected[1]) and len(made[1]) == 3
    errors = jax.tree.map(relative_error, made, expected)
    assert max(jax.tree.leaves(errors)) <= 5e-6, errors


@pytest.mark.parametrize("placement", ["encoder", "both"])
def test_new_reference_attention_looks_where_self_attention_does(placement):
    """With no reference to see it adds the block's self-attention once more, at every place."""
    source, kind = ("none", True, 5), (placement, True, 5)
    net = build(*kind)
    model = net.bind(unflatten(start_from(weights_of(*source), shapes_of(*kind)), net.shapes))
    blocks = [
        model.denoiser.encoder[1].transformer.blocks[0],
        model.denoiser.middle.transformer.blocks[0],
    ]
    y = jax.random.normal(jax.random.key(0), (1, 6, 32))
    for block in blocks:
        np.testing.assert_array_equal(block.reference_attention(y, y), block.self_attention(y, y))


def test_places_that_the_run_lacks_are_left_out():
    """From reference attention in the whole decoder to that at one of its levels, and back."""
    levels = {"channel_multipliers": (1, 1), "residual_blocks": (1, 1), "transformer_depth": (1, 1)}

    def shapes(placement):
        config = FlashFaceConfig(replace(DENOISER, **levels, reference_attention=placement))
        return flatten(network(lambda keys: FlashFace(config, Compute(), keys)).shapes)

    whole, one = shapes("decoder"), shapes("decoder/level1")
    source = {name: jnp.full(leaf.shape, float(i)) for i, (name, leaf) in enumerate(whole.items())}
    made = start_from(source, one)
    assert set(made) == set(one) < set(whole)
    for name, value in made.items():
        np.testing.assert_array_equal(value, source[name], err_msg=name)
    others = [
        f"denoiser/{stage}/transformer/blocks/0" for stage in ("decoder/2", "decoder/3", "middle")
    ]
    assert describe(plan_start(whole, one)).splitlines()[1:] == [
        f"reference attention: left out of 3 blocks ({', '.join(others)})"
    ]
    assert describe(plan_start(one, whole)).splitlines()[1:] == [
        f"reference attention: copied from self-attention in 3 blocks ({', '.join(others)})"
    ]


# ------------------------------------------------------------------------------------ under jit


def test_it_may_be_jitted_onto_devices():
    source, wanted = weights_of("decoder", True, 5), shapes_of("both", False, 9)
    place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    jitted = jax.jit(lambda weights: start_from(weights, wanted), out_shardings=place)
    jax.tree.map(np.testing.assert_array_equal, jitted(source), start_from(source, wanted))


@pytest.mark.parametrize("jitted", [False, True])
def test_no_array_stands_for_two_parameters(jitted):
    """A train step donates its state."""
    wanted = shapes_of("both", False, 9)
    make = partial(start_from, target=wanted)
    made = (jax.jit(make) if jitted else make)(weights_of("decoder", True, 5))
    assert len({value.unsafe_buffer_pointer() for value in made.values()}) == len(made)


def test_parameters_take_the_runs_dtype():
    half = {name: value.astype(jnp.bfloat16) for name, value in weights_of().items()}
    made = start_from(half, shapes_of("both", False, 9))
    assert {value.dtype for value in made.values()} == {jnp.dtype(jnp.float32)}


# ------------------------------------------------------------------------------ plans, refusals


def test_a_plan_is_told_in_a_few_lines():
    there = plan_start(shapes_of("decoder", True, 5), shapes_of("both", False, 9))
    # All but the input's kernel and what the target alone has.
    same = len(shapes_of("decoder", True, 5)) - 1
    assert describe(there).splitlines() == [
        f"{same} parameters: as they are",
        "the denoiser's input: widened from 5 to 9 channels, the new ones zero",
        "reference attention: copied from self-attention in 1 block "
        "(denoiser/encoder/1/transformer/blocks/0)",
        "the ReferenceNet's middle and time embedding: copied from the denoiser's",
    ]
    back = plan_start(shapes_of("both", False, 5), shapes_of("none", True, 5))
    assert describe(back).splitlines()[1:] == [
        "reference attention: left out of 4 blocks (denoiser/decoder/0/transformer/blocks/0, "
        "denoiser/decoder/1/transformer/blocks/0, denoiser/encoder/1/transformer/blocks/0, "
        "denoiser/middle/transformer/blocks/0)",
        "the ReferenceNet's middle and time embedding: left out, the denoiser's serve",
    ]
    same_network = plan_start(shapes_of(), shapes_of())
    assert describe(same_network) == f"{len(shapes_of())} parameters: as they are"


def test_other_widths_are_refused_with_both_shapes():
    wider = replace(DENOISER, base_channels=64)
    net = network(lambda keys: FlashFace(FlashFaceConfig(wider), Compute(), keys))
    with pytest.raises(ValueError, match="give the run their widths") as raised:
        plan_start(weights_of(), flatten(net.shapes))
    lines = str(raised.value).splitlines()
    assert "  denoiser/decoder/0/residual/conv1/bias: [32] in the weights, [64] in the run" in lines
    assert len(lines) == 22 and re.fullmatch(r"  and \d+ more", lines[-1])


@pytest.mark.parametrize("deeper_target", [True, False])
def test_other_depths_are_refused(deeper_target):
    deep = replace(DENOISER, transformer_depth=(2,))
    net = network(lambda keys: FlashFace(FlashFaceConfig(deep), Compute(), keys))
    source, target = (shapes_of(), flatten(net.shapes))[:: 1 if deeper_target else -1]
    absent = "absent from the weights" if deeper_target else "absent from the run"
    with pytest.raises(ValueError, match=rf"blocks/1/.*{absent}"):
        plan_start(source, target)


@pytest.mark.parametrize("channels", [3, 6, 8])
def test_inputs_of_another_kind_are_refused(channels):
    source = {**shapes_of(), INPUT: jax.ShapeDtypeStruct((3, 3, channels, 32), jnp.float32)}
    with pytest.raises(ValueError, match=rf"1 problem\n  {INPUT}: \[3, 3, {channels}, 32\] in"):
        plan_start(source, shapes_of("decoder", True, 9))


def test_heads_and_groups_that_no_shape_tells_are_compared():
    elsewhere = replace(DENOISER, reference_attention="both", in_channels=9)
    require_same_arithmetic(DENOISER, elsewhere)
    require_same_arithmetic(DENOISER, replace(DENOISER, num_heads=None, head_channels=8))
    with pytest.raises(ValueError, match=r"have \[4\] attention heads, the run \[2\]"):
        require_same_arithmetic(DENOISER, replace(DENOISER, num_heads=2))
    with pytest.raises(ValueError, match="have 4 norm_groups, the run 8"):
        require_same_arithmetic(DENOISER, replace(DENOISER, norm_groups=8))
