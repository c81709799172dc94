"""The noise that training adds has the covariance that it says."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flashface_jax.diffusion.noise import draw_noise

SAMPLES = 100_000


@pytest.mark.parametrize("offset", [0.0, 0.1, 0.7])
def test_positions_of_a_channel_share_the_offset(offset):
    noise = np.asarray(draw_noise(jax.random.key(0), (SAMPLES, 2, 2, 3), offset))
    found = np.cov(noise.reshape(SAMPLES, -1), rowvar=False)
    same_channel = np.kron(np.ones((4, 4)), np.eye(3))  # channels come last
    expected = np.eye(12) + offset**2 * same_channel
    variance = 1 + offset**2
    error = np.sqrt((variance**2 + expected**2) / SAMPLES)  # of a normal's sample covariance
    assert np.abs((found - expected) / error).max() < 4
    assert np.abs(noise.mean(axis=0)).max() < 4 * np.sqrt(variance / SAMPLES)


def test_samples_are_independent():
    noise = np.asarray(draw_noise(jax.random.key(1), (SAMPLES, 1, 2, 2), 0.7)).reshape(SAMPLES, -1)
    between = np.mean(noise[1:] * noise[:-1], axis=0)
    assert np.abs(between).max() < 4 * (1 + 0.7**2) / np.sqrt(SAMPLES)


def test_without_an_offset_it_is_jaxs_normal():
    key = jax.random.key(2)
    np.testing.assert_array_equal(
        draw_noise(key, (2, 3, 4, 5)), jax.random.normal(key, (2, 3, 4, 5))
    )
    assert draw_noise(key, (2, 3, 4, 5), 0.1).dtype == jnp.float32
