"""Decoding in tiles: the image of `decode`, whatever the tiles, from less memory."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import jit

from flashface_jax.models.attention.backends import ALL_HEADS
from flashface_jax.models.autoencoder.patch_cosines import PatchCosines, PatchCosinesConfig
from flashface_jax.models.autoencoder.tiled_decoding import (
    Moments,
    decode_in_tiles,
    halo,
    measure,
    merge,
    moments_of,
    run_until,
    stages,
)
from flashface_jax.models.autoencoder.tiles import Grid
from flashface_jax.models.autoencoder.vae import AutoencoderKL, AutoencoderKLConfig
from flashface_jax.models.blocks import Compute
from flashface_jax.models.network import network
from tests.recorded import drawn_parameters, relative_difference

CONFIG = AutoencoderKLConfig(base_channels=32, channel_multipliers=(1, 2), residual_blocks=1)
TOLERANCE = 1e-5  # of the image's standard deviation


def build(config=CONFIG, dtype=jnp.float32):
    net = network(lambda keys: AutoencoderKL(config, Compute(dtype), keys))
    return net, drawn_parameters(net.shapes, seed=7)


def latents(*shape):
    return jax.random.normal(jax.random.key(1), (*shape, CONFIG.latent_channels))


def decode(net, params, latent):
    return np.asarray(jit(lambda params, z: net.bind(params).decode(z))(params, latent))


def tiled(net, params, latent, tile):
    run = jit(lambda params, z: decode_in_tiles(net.bind(params), z, tile))
    return np.asarray(run(params, latent))


@pytest.fixture(scope="module")
def autoencoder():
    return build()


@pytest.mark.parametrize(
    ("height", "width", "tiles"), [(9, 13, (1, 4)), (8, 8, (4,)), (3, 17, (5,))]
)
def test_any_tiles_give_the_whole_image(autoencoder, height, width, tiles):
    latent = latents(1, height, width)
    whole = decode(*autoencoder, latent)
    for tile in tiles:
        difference = relative_difference(tiled(*autoencoder, latent, tile), whole)
        assert difference <= TOLERANCE, f"tile {tile}: {difference:.1e} of the std"


@pytest.mark.parametrize(
    "config",
    [
        replace(CONFIG, misread_attention=True),
        replace(CONFIG, channel_multipliers=(2,)),
        replace(CONFIG, channel_multipliers=(2, 1, 1, 3), residual_blocks=0),
    ],
    ids=["misread", "one level", "four levels of one block"],
)
def test_any_decoder_runs_in_tiles(config):
    net, params = build(config)
    latent = latents(1, 5, 6)
    difference = relative_difference(tiled(net, params, latent, 3), decode(net, params, latent))
    assert difference <= TOLERANCE, f"{difference:.1e} of the std"


@pytest.mark.parametrize("tile", [4, 6])
def test_images_of_a_batch_are_apart(autoencoder, tile):
    latent = latents(2, 5, 6) * jnp.array([1.0, 3.0])[:, None, None, None]
    alone = np.concatenate([decode(*autoencoder, one[None]) for one in latent])
    difference = relative_difference(tiled(*autoencoder, latent, tile), alone)
    assert difference <= TOLERANCE, f"tile {tile}: {difference:.1e} of the std"


def test_bfloat16_tiles_round_as_the_whole_does(autoencoder):
    latent = latents(4, 6, 6)
    exact = decode(*autoencoder, latent)
    net, params = build(dtype=jnp.bfloat16)
    whole, ours = decode(net, params, latent), tiled(net, params, latent, 4)
    assert ours.dtype == np.float32
    # The mean, as the largest error is that of one unlucky pixel.
    rounding, difference = (np.sqrt(np.mean((x - exact) ** 2)) / exact.std() for x in (whole, ours))
    assert 1e-3 < rounding < 0.02
    assert difference < 1.1 * rounding, f"{difference:.1e}, the whole has {rounding:.1e}"


def test_the_halo_suffices_and_a_smaller_one_does_not(autoencoder):
    net, params = autoencoder

    @jit
    def run(params, x):
        found = []
        for layers in stages(net.bind(params).decoder):
            moments = ()
            for _ in range(sum(layer.norms for layer in layers)):
                at_once = Grid.of(x, max(x.shape), 0)
                moments += (measure(partial(run_until, layers, moments), x, at_once),)
            local, needed = partial(run_until, layers, moments), halo(layers)
            whole = local(x)
            found.append((whole, *(Grid.of(x, 3, needed - less).map(local, x) for less in (0, 1))))
            x = whole
        return found

    x = jax.random.normal(jax.random.key(2), (1, 8, 13, CONFIG.level_channels[-1]))
    found = run(params, x)
    assert len(found) == 4
    for stage, (whole, enough, too_small) in enumerate(found):
        difference, seam = (relative_difference(y, whole) for y in (enough, too_small))
        assert difference <= TOLERANCE, f"stage {stage}: {difference:.1e} of the std"
        assert seam > 0.01, f"stage {stage}: a smaller halo leaves only {seam:.1e}"


def test_moments_are_those_of_the_whole_even_far_from_zero():
    rng = np.random.default_rng(0)
    x = (1000 + rng.standard_normal((1, 11, 7, 64))).astype(np.float32)
    found = jit(lambda x: measure(lambda y: y, x, Grid.of(x, 4, 1)))(x)
    groups = x.astype(np.float64).reshape(77, 32, 2)
    assert float(found.size) == 154
    np.testing.assert_allclose(found.mean, groups.mean((0, 2)), rtol=1e-6)
    np.testing.assert_allclose(found.squares / found.size, groups.var((0, 2)), rtol=1e-4)


def test_moments_merge_in_any_order():
    parts = [
        moments_of(i + jax.random.normal(jax.random.key(i), (1, 3, 5, 32)), jnp.ones((3, 5), bool))
        for i in range(3)
    ]
    a, b, c = parts
    nothing = Moments(jnp.zeros(()), jnp.zeros(32), jnp.zeros(32))
    left, right = merge(merge(merge(nothing, a), b), c), merge(a, merge(b, c))
    for one, other in zip(left, right, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


def test_a_batch_in_tiles_takes_a_third_of_the_memory_of_one_image():
    # Wide and deep, so that the maps of the levels outweigh the attention's logits.
    config = replace(CONFIG, base_channels=64, channel_multipliers=(1, 2, 2, 2))
    net = network(lambda keys: AutoencoderKL(config, Compute(), keys))

    def scratch(decode, batch):
        latent = jax.ShapeDtypeStruct((batch, 32, 32, config.latent_channels), jnp.float32)
        run = jit(lambda params, z: decode(net.bind(params), z))
        return run.lower(net.shapes, latent).compile().memory_analysis().temp_size_in_bytes

    whole, in_tiles = scratch(AutoencoderKL.decode, 1), scratch(partial(decode_in_tiles, tile=4), 4)
    assert in_tiles < whole / 3, f"{in_tiles / whole:.2f} of the whole"


def test_the_program_does_not_grow_with_the_number_of_tiles():
    # All heads at once, as the middle's attention would have more blocks.
    net = network(lambda keys: AutoencoderKL(CONFIG, Compute(attend=ALL_HEADS), keys))

    def length(side):
        latent = jax.ShapeDtypeStruct((1, side, side, CONFIG.latent_channels), jnp.float32)
        run = jit(lambda params, z: decode_in_tiles(net.bind(params), z, 4))
        return len(run.lower(net.shapes, latent).as_text().splitlines())

    few, many = length(16), length(64)
    assert many < 1.02 * few, f"{few} lines for 16 tiles, {many} for 256"


@pytest.mark.parametrize("tile", [0, -3])
def test_an_impossible_tile_is_refused(autoencoder, tile):
    with pytest.raises(ValueError, match=f"tile is {tile}; a tile needs at least 1 latent"):
        tiled(*autoencoder, latents(1, 4, 4), tile)


def test_cosines_decode_at_once():
    model = PatchCosines(PatchCosinesConfig(patch=4))
    latent = jax.random.normal(jax.random.key(0), (2, 5, 3, model.config.latent_channels))
    np.testing.assert_array_equal(decode_in_tiles(model, latent, 2), model.decode(latent))
