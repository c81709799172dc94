"""Tiles: they cover a map once, and a local function of them is the function of the map."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import jit

from flashface_jax.models.autoencoder.tiles import Axis, Grid
from flashface_jax.models.blocks import upsample_nearest

LENGTHS, SIDES, HALOS = (1, 2, 5, 8, 13), (1, 3, 4, 20), (0, 1, 3)


@pytest.mark.parametrize(("length", "side", "halo"), list(itertools.product(LENGTHS, SIDES, HALOS)))
def test_windows_hold_their_tile_and_its_halo_and_stay_inside(length, side, halo):
    axis = Axis(length, side, halo)
    covered = []
    for index in range(axis.count):
        start, window, repeated = map(int, axis.place(jnp.asarray(index)))
        end, window_end = start + axis.tile, window + axis.window
        assert 0 <= start < end <= length
        assert 0 <= window < window_end <= length
        assert window <= max(0, start - halo)
        assert window_end >= min(length, end + halo)
        covered += range(start + repeated, end)
    assert covered == list(range(length)), "every position is new in one tile"


def double_and_convolve(x):
    """Two 3x3 convolutions at twice the resolution, three channels to two."""
    kernel = jax.random.normal(jax.random.key(1), (3, 3, 3, 3))
    last = jax.random.normal(jax.random.key(2), (3, 3, 3, 2))
    dimensions = ("NHWC", "HWIO", "NHWC")
    y = upsample_nearest(x, 2 * x.shape[1], 2 * x.shape[2])
    y = jax.lax.conv_general_dilated(y, kernel, (1, 1), "SAME", dimension_numbers=dimensions)
    y = jnp.cos(y) + 1  # so that what lies beyond the border is not what zeros would become
    return jax.lax.conv_general_dilated(y, last, (1, 1), "SAME", dimension_numbers=dimensions)


@pytest.mark.parametrize("side", [1, 2, 3, 5, 9])
def test_tiles_put_together_are_the_whole(side):
    x = jax.random.normal(jax.random.key(0), (1, 9, 7, 3))
    whole = jit(double_and_convolve)(x)
    tiled = jit(lambda x: Grid.of(x, side, halo=1).map(double_and_convolve, x))(x)
    np.testing.assert_allclose(tiled, whole, rtol=0, atol=1e-5)
    if side < 7:
        short = jit(lambda x: Grid.of(x, side, halo=0).map(double_and_convolve, x))(x)
        assert float(jnp.abs(short - whole).max()) > 0.1, "without a halo there are seams"


@pytest.mark.parametrize("side", [1, 2, 4, 5, 9])
def test_folding_meets_every_value_once(side):
    x = jax.random.randint(jax.random.key(0), (1, 9, 7, 3), 0, 100).astype(jnp.float32)

    def add(total, tile):
        return total + jnp.sum(tile.values, where=tile.new[:, :, None])

    folded = jit(lambda x: Grid.of(x, side, halo=2).fold(add, jnp.zeros(()), lambda y: y, x))(x)
    assert float(folded) == float(x.sum())
