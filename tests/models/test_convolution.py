"""Each form of convolution against XLA's own in float64, and when each is chosen."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from jax import lax

from flashface_jax.models import convolution
from flashface_jax.models.convolution import by_patches, by_winograd, convolve_on_cpu

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


@pytest.mark.parametrize(("form", "tolerance"), [(by_patches, 4e-6), (by_winograd, 1e-5)])
@pytest.mark.parametrize("shape", [(1, 2, 2, 7, 5), (2, 6, 4, 64, 48), (3, 8, 10, 320, 32)])
def test_forms_equal_the_definition(form, tolerance, shape):
    x, kernel = draw(*shape)
    assert_close(jax.jit(form)(x, kernel), in_float64(x, kernel), tolerance)


@pytest.mark.parametrize("form", [by_patches, by_winograd])
def test_gradients_equal_those_of_the_definition(form):
    x, kernel = draw(2, 6, 4, 16, 12)

    def plain(x, kernel):
        return lax.conv_general_dilated(x, kernel, (1, 1), [(1, 1)] * 2, dimension_numbers=LAYOUT)

    def gradients(convolve):
        loss = lambda x, kernel: jnp.sum(jnp.sin(convolve(x, kernel)))  # noqa: E731
        return jax.jit(jax.grad(loss, (0, 1)))(x, kernel)

    for ours, expected in zip(gradients(form), gradients(plain), strict=True):
        assert_close(ours, np.asarray(expected), 1e-5)


CASES = {
    "few positions": ((2, 7, 5, 256, 256), {}, "by_patches"),
    "many positions": ((1, 56, 54, 256, 256), {}, "by_winograd"),
    "between": ((1, 40, 40, 256, 256), {}, None),
    "odd": ((1, 57, 54, 256, 256), {}, None),
    "narrow": ((2, 7, 5, 255, 256), {}, None),
    "narrow output": ((2, 7, 5, 256, 4), {}, None),
    "stride": ((2, 8, 6, 256, 256), {"strides": (2, 2)}, None),
    "padded behind": ((2, 8, 6, 256, 256), {"padding": [(0, 1), (0, 1)]}, None),
    "one by one": ((2, 8, 6, 256, 300, 1), {"padding": [(0, 0), (0, 0)]}, None),
}


@pytest.mark.parametrize("case", CASES)
def test_the_form_is_chosen_by_size(case, monkeypatch):
    shape, changes, form = CASES[case]
    x, kernel = map(jnp.asarray, draw(*shape))
    called = []
    for name in ("by_patches", "by_winograd"):
        original = getattr(convolution, name)

        def recorded(*arguments, name=name, original=original):
            called.append(name)
            return original(*arguments)

        monkeypatch.setattr(convolution, name, recorded)
    options = {"strides": (1, 1), "padding": [(1, 1), (1, 1)], **changes}
    ours = convolve_on_cpu(x, kernel, dimension_numbers=LAYOUT, **options)
    assert called == ([] if form is None else [form])
    expected = xla(x, kernel, dimension_numbers=LAYOUT, **options)
    assert_close(ours, np.asarray(expected), 1e-5)


def test_maps_whose_transform_would_not_fit_are_left_to_xla(monkeypatch):
    x, kernel = map(jnp.asarray, draw(1, 56, 54, 256, 256))
    options = {"strides": (1, 1), "padding": [(1, 1)] * 2, "dimension_numbers": LAYOUT}
    monkeypatch.setattr(convolution, "MOST_VALUES", x.size - 1)
    monkeypatch.setattr(convolution, "by_winograd", None)
    ours = convolve_on_cpu(x, kernel, **options)
    np.testing.assert_array_equal(ours, xla(x, kernel, **options))


def test_other_dtypes_are_left_to_xla():
    x, kernel = (jnp.asarray(values, jnp.bfloat16) for values in draw(2, 7, 5, 256, 256))
    options = {"strides": (1, 1), "padding": [(1, 1)] * 2, "dimension_numbers": LAYOUT}
    ours = convolve_on_cpu(x, kernel, **options)
    np.testing.assert_array_equal(ours, xla(x, kernel, **options))
