"""Winograd's form of convolution against the definition in float64, and when it is chosen."""

from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from jax import lax

from flashface_jax.models import convolution
from flashface_jax.models.convolution import (
    POINTS,
    by_winograd,
    convolve_on_cpu,
    winograd_matrices,
)

LAYOUT = ("NHWC", "HWIO", "NHWC")


def draw(batch, height, width, channels, out, size=3, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((batch, height, width, channels)).astype(np.float32)
    kernel = rng.standard_normal((size, size, channels, out)) / np.sqrt(size**2 * channels)
    return x, kernel.astype(np.float32)


def in_float64(x, kernel, stride=1, padding=None):
    """PyTorch's convolution."""
    padding = kernel.shape[0] // 2 if padding is None else padding
    theirs = torch.nn.functional.conv2d(
        torch.from_numpy(np.moveaxis(x, -1, 1).astype(np.float64)),
        torch.from_numpy(kernel.transpose(3, 2, 0, 1).astype(np.float64)),
        stride=stride,
        padding=padding,
    )
    return np.moveaxis(theirs.numpy(), 1, -1)


def xla(x, kernel, strides=(1, 1), padding=((1, 1), (1, 1)), **options):
    return lax.conv_general_dilated(x, kernel, strides, padding, **options)


def assert_close(ours, expected, tolerance):
    difference = np.abs(np.asarray(ours) - expected).max() / expected.std()
    assert difference <= tolerance, f"{difference:.1e} of the std, allowed {tolerance:.0e}"


@pytest.mark.parametrize("shape", [(1, 4, 4, 7, 5), (2, 8, 4, 64, 48), (3, 8, 12, 320, 32)])
def test_winograds_form_equals_the_definition(shape):
    x, kernel = draw(*shape)
    # XLA's own form is 2e-6 off.
    assert_close(jax.jit(by_winograd)(x, kernel), in_float64(x, kernel), 2e-5)


def test_winograds_form_is_exact_but_for_rounding():
    rng = np.random.default_rng(0)
    signal, taps = rng.standard_normal(6), rng.standard_normal(3)
    of_input, of_kernel, of_output = winograd_matrices(POINTS)
    ours = of_output @ ((of_input @ signal) * (of_kernel @ taps))
    np.testing.assert_allclose(ours, np.correlate(signal, taps, "valid"), rtol=0, atol=1e-14)


def test_gradients_equal_those_of_the_definition():
    x, kernel = draw(2, 8, 4, 16, 12)

    def gradients(convolve):
        def loss(x, kernel):
            y = convolve(x, kernel, (1, 1), [(1, 1)] * 2, dimension_numbers=LAYOUT)
            return jnp.sum(jnp.sin(y))

        return jax.jit(jax.grad(loss, (0, 1)))(x, kernel)

    ours = gradients(lambda x, kernel, *_, **options: by_winograd(x, kernel))
    for one, expected in zip(ours, gradients(lax.conv_general_dilated), strict=True):
        assert_close(one, np.asarray(expected), 2e-5)


CASES = {
    "many positions": ((1, 56, 56, 256, 256), {}, True),
    "few": ((1, 40, 40, 256, 256), {}, False),
    "no multiple of 4": ((1, 58, 56, 256, 256), {}, False),
    "narrow": ((1, 56, 56, 255, 256), {}, False),
    "narrow output": ((1, 56, 56, 256, 4), {}, False),
    "stride": ((1, 56, 56, 256, 256), {"strides": (2, 2)}, False),
    "padded behind": ((1, 56, 56, 256, 256), {"padding": [(0, 1), (0, 1)]}, False),
    "one by one": ((1, 56, 56, 256, 256, 1), {"padding": [(0, 0), (0, 0)]}, False),
}


@pytest.mark.parametrize("case", CASES)
def test_the_form_is_chosen_by_size(case, monkeypatch):
    shape, changes, wanted = CASES[case]
    x, kernel = map(jnp.asarray, draw(*shape))
    called = mock.Mock(side_effect=by_winograd)
    monkeypatch.setattr(convolution, "by_winograd", called)
    options = {"strides": (1, 1), "padding": [(1, 1), (1, 1)], **changes}
    ours = convolve_on_cpu(x, kernel, dimension_numbers=LAYOUT, **options)
    assert called.called == wanted
    expected = xla(x, kernel, dimension_numbers=LAYOUT, **options)
    assert_close(ours, np.asarray(expected), 3e-5)


def test_maps_whose_transform_would_not_fit_are_left_to_xla(monkeypatch):
    x, kernel = map(jnp.asarray, draw(1, 56, 56, 256, 256))
    options = {"strides": (1, 1), "padding": [(1, 1)] * 2, "dimension_numbers": LAYOUT}
    monkeypatch.setattr(convolution, "MOST_VALUES", x.size - 1)
    monkeypatch.setattr(convolution, "by_winograd", None)
    ours = convolve_on_cpu(x, kernel, **options)
    np.testing.assert_array_equal(ours, xla(x, kernel, **options))


def test_other_dtypes_are_left_to_xla():
    x, kernel = (jnp.asarray(values, jnp.bfloat16) for values in draw(1, 56, 56, 256, 256))
    options = {"strides": (1, 1), "padding": [(1, 1)] * 2, "dimension_numbers": LAYOUT}
    ours = convolve_on_cpu(x, kernel, **options)
    np.testing.assert_array_equal(ours, xla(x, kernel, **options))
