"""Autoencoders: released weights' misreading, sampling, sizes, and the one without parameters."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from jax import jit

from flashface_jax.models.autoencoder.autoencoder import encode_crops, from_pixels, to_pixels
from flashface_jax.models.autoencoder.patch_cosines import PatchCosines, PatchCosinesConfig
from flashface_jax.models.autoencoder.vae import (
    AutoencoderKL,
    AutoencoderKLConfig,
    Downsample,
    PositionAttention,
    Upsample,
)
from flashface_jax.models.blocks import Compute
from flashface_jax.models.network import network

CONFIG = AutoencoderKLConfig(base_channels=32, channel_multipliers=(1, 2), residual_blocks=1)


def drawn(net):
    """Parameters with no zero-initialised layer, so that every path matters."""
    rng = np.random.default_rng(0)

    def draw(leaf):
        fan_in = math.prod(leaf.shape[:-1]) if len(leaf.shape) > 1 else 16
        return (rng.standard_normal(leaf.shape) / math.sqrt(fan_in)).astype(np.float32)

    return jax.tree.map(draw, net.shapes)


def normal(*shape, seed=1):
    return jax.random.normal(jax.random.key(seed), shape)


@pytest.mark.parametrize("misread", [False, True])
def test_middle_attention_equals_its_definition(misread):
    net = network(lambda keys: PositionAttention(32, misread, Compute(), keys))
    params, x = drawn(net), np.asarray(normal(2, 3, 4, 32))
    tensor = torch.from_numpy(x.transpose(0, 3, 1, 2).copy())
    scale, bias = (torch.from_numpy(params["norm"][k]) for k in ("scale", "bias"))
    normed = F.group_norm(tensor, 32, scale, bias, 1e-6).flatten(2).transpose(1, 2)
    qkv = normed @ torch.from_numpy(params["qkv"]["kernel"][0, 0])
    qkv = qkv + torch.from_numpy(params["qkv"]["bias"])
    query, key, value = qkv.split(32, dim=-1)
    weights = torch.softmax(query @ key.transpose(1, 2) / math.sqrt(32), dim=-1)
    values = weights @ value  # (batch, position, channel)
    if misread:  # the same numbers in memory, taken for (batch, channel, position)
        values = values.reshape(2, 32, 12).transpose(1, 2)
    projected = values @ torch.from_numpy(params["proj"]["kernel"][0, 0])
    projected = projected + torch.from_numpy(params["proj"]["bias"])
    expected = x + projected.numpy().reshape(x.shape)
    np.testing.assert_allclose(net.bind(params)(jnp.asarray(x)), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("height", "width"), [(8, 6), (7, 5)])
def test_resampling_is_pytorchs(height, width):
    def kernel(params):
        return (
            torch.from_numpy(params["conv"]["kernel"].transpose(3, 2, 0, 1).copy()),
            torch.from_numpy(params["conv"]["bias"]),
        )

    x = np.asarray(normal(2, height, width, 32))
    tensor = torch.from_numpy(x.transpose(0, 3, 1, 2).copy())
    down = network(lambda keys: Downsample(32, Compute(), keys))
    params = drawn(down)
    expected = F.conv2d(F.pad(tensor, (0, 1, 0, 1)), *kernel(params), stride=2)
    ours = np.asarray(down.bind(params)(jnp.asarray(x))).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(ours, expected.numpy(), rtol=0, atol=1e-5)

    up = network(lambda keys: Upsample(32, Compute(), keys))
    expected = F.conv2d(
        F.interpolate(tensor, scale_factor=2.0, mode="nearest"), *kernel(params), padding=1
    )
    ours = np.asarray(up.bind(params)(jnp.asarray(x))).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(ours, expected.numpy(), rtol=0, atol=1e-5)


@pytest.fixture(scope="module")
def autoencoder():
    net = network(lambda keys: AutoencoderKL(CONFIG, Compute(), keys))
    return net, drawn(net)


def test_encoding_gives_the_scaled_mean_or_a_sample(autoencoder):
    net, params = autoencoder
    noise = normal(2, 4, 3, 4)

    @jit
    def run(params, image):
        model = net.bind(params)
        return *model.posterior(image), model.encode(image), model.encode(image, noise)

    mean, log_variance, encoded, sampled = run(params, normal(2, 8, 6, 3))
    assert encoded.shape == (2, 4, 3, 4)
    np.testing.assert_allclose(encoded, mean * 0.18215, rtol=1e-6)
    expected = (mean + jnp.exp(0.5 * log_variance) * noise) * 0.18215
    np.testing.assert_allclose(sampled, expected, rtol=0, atol=1e-6)


def test_decoding_undoes_the_scale_and_the_stride(autoencoder):
    net, params = autoencoder
    decoded = jit(lambda params, z: net.bind(params).decode(z))(params, normal(1, 4, 3, 4))
    assert decoded.shape == (1, 8, 6, 3)
    assert decoded.dtype == jnp.float32
    assert CONFIG.stride == 2


def test_a_width_that_group_norm_cannot_split_is_refused():
    with pytest.raises(ValueError, match="base_channels is 48"):
        AutoencoderKLConfig(base_channels=48)


# ------------------------------------------------------------------------------------- cosines


def test_all_cosines_keep_every_pixel():
    full = tuple(1.5 for _ in range(7))
    model = PatchCosines(PatchCosinesConfig(patch=4, deviations=(full, full, full)))
    image = normal(2, 8, 12, 3)
    latent = model.encode(image)
    assert latent.shape == (2, 2, 3, model.config.latent_channels) == (2, 2, 3, 48)
    np.testing.assert_allclose(model.decode(latent), image, rtol=0, atol=1e-5)


def test_few_cosines_keep_the_smooth_part():
    model = PatchCosines(PatchCosinesConfig(patch=4))
    latent = normal(1, 2, 2, model.config.latent_channels)
    np.testing.assert_allclose(model.encode(model.decode(latent)), latent, rtol=0, atol=1e-5)
    flat = jnp.broadcast_to(jnp.array([0.2, -0.7, 0.5]), (1, 8, 8, 3))
    np.testing.assert_allclose(model.decode(model.encode(flat)), flat, rtol=0, atol=1e-6)


@pytest.mark.parametrize("deviations", [((1.0,), (1.0,)), ((1.0,), (1.0,), ()), ((1.0,) * 4,) * 3])
def test_impossible_deviations_are_refused(deviations):
    with pytest.raises(ValueError, match="deviations must be 3 tuples"):
        PatchCosinesConfig(patch=2, deviations=deviations)


# -------------------------------------------------------------------------------------- pixels


def test_pixels_survive_the_round_trip():
    pixels = jnp.arange(256, dtype=jnp.uint8).reshape(1, 16, 16, 1).repeat(3, axis=-1)
    image = from_pixels(pixels)
    assert (float(image.min()), float(image.max())) == (-1.0, 1.0)
    back = to_pixels(image)
    assert back.dtype == jnp.uint8
    # Cut to whole levels, so that rounding can cost one.
    assert int(jnp.abs(back.astype(int) - pixels.astype(int)).max()) <= 1
    beyond = jnp.array([-9.0, 9.0, 0.0]).reshape(1, 1, 1, 3)
    np.testing.assert_array_equal(to_pixels(beyond)[0, 0, 0], [0, 255, 127])


def test_crops_are_encoded_one_by_one():
    model = PatchCosines(PatchCosinesConfig(patch=4))
    crops = jax.random.randint(jax.random.key(0), (2, 3, 8, 8, 3), 0, 256).astype(jnp.uint8)
    latents = encode_crops(model, crops)
    assert latents.shape == (2, 3, 2, 2, model.config.latent_channels)
    np.testing.assert_allclose(latents[1, 2], model.encode(from_pixels(crops[1, 2:]))[0], atol=1e-6)
