"""Structure and parameters: drawing them, and calling methods as functions of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from flashface_jax.models.blocks import Compute, kernel_init
from flashface_jax.models.flashface import FlashFace, FlashFaceConfig
from flashface_jax.models.network import flatten, network
from tests.small import DENOISER


@pytest.fixture(scope="module")
def net():
    return network(FlashFace, FlashFaceConfig(DENOISER), Compute())


@pytest.fixture(scope="module")
def params(net):
    return net.init(jax.random.key(0))


def test_kernels_are_pytorchs_default_wherever_they_are_drawn():
    key, shape = jax.random.key(3), (3, 3, 5, 7)
    expected = nnx.initializers.variance_scaling(1 / 3, "fan_in", "uniform")(key, shape)
    assert 0.9 < float(jnp.abs(expected).max()) * np.sqrt(3 * 3 * 5) <= 1
    np.testing.assert_array_equal(kernel_init(key, shape), expected)
    np.testing.assert_array_equal(jax.jit(lambda key: kernel_init(key, shape))(key), expected)
    assert kernel_init(key, list(shape), jnp.bfloat16).dtype == jnp.bfloat16


def test_drawing_again_compiles_nothing(net, params, caplog):
    """Kernels of a shape share a program, and a network draws in seconds for it."""
    with jax.log_compiles(), caplog.at_level("WARNING", "jax"):
        jax.random.normal(jax.random.key(0), (3, 1, 4, 1, 5))
        seen = len(caplog.records)
        net.init(jax.random.key(1))
    assert 0 < seen == len(caplog.records)


def test_a_network_is_drawn_from_its_key(net, params):
    assert {n: v.shape for n, v in flatten(params).items()} == {
        n: v.shape for n, v in flatten(net.shapes).items()
    }
    jax.tree.map(np.testing.assert_array_equal, params, net.init(jax.random.key(0)))


def test_a_method_is_a_function_of_parameters(net, params):
    faces, time = jnp.ones((1, 2, 4, 4, 12)), jnp.array([500])
    context = jnp.ones((1, 40, 16))
    encode = net.jit(FlashFace.encode_references)
    features = encode(params, faces, time, context=context)
    assert encode.__name__ == "encode_references"
    bound = jax.jit(lambda params: net.bind(params).encode_references(faces, time, context))
    assert features.keys() == bound(params).keys() != set()
    jax.tree.map(np.testing.assert_array_equal, features, bound(params))


def test_what_is_static_can_be_named(net, params):
    denoise = net.jit(FlashFace.denoise, static_argnames="paired")
    rows = jnp.ones((1, 8, 8, 12)), jnp.zeros((1, 8, 8, 1)), jnp.array([500])
    noise = denoise(params, *rows, jnp.ones((1, 40, 16)), None, paired=1)
    assert noise.shape == (2, 8, 8, 12)
    assert not noise.any(), "the last layer begins at zero"
