"""Convolutions as a CPU likes them; XLA's own wherever else.

XLA's CPU convolution reaches two thirds to nine tenths of a matmul's speed on large feature maps,
and a third on the smallest. Three forms beat it there, in plain XLA and with gradients.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

Convolve = Callable[..., Array]
"""Called as `lax.conv_general_dilated`."""

WIDE = 256  # channels below which XLA's form is as good
FEW_POSITIONS = 1024
MANY_POSITIONS = 3000
MOST_VALUES = 1 << 26  # of a feature map; Winograd's form holds four times as many, twice


def best_convolution() -> Convolve:
    """Return the form for JAX's default device."""
    return convolve_on_cpu if jax.default_backend() == "cpu" else lax.conv_general_dilated


def convolve_on_cpu(
    x: Float[Array, "batch h w c"],
    kernel: Float[Array, "size size2 c out"],
    strides: Sequence[int],
    padding: Sequence[tuple[int, int]],
    **options: Any,
) -> Float[Array, "batch _ _ out"]:
    """Convolve by the form that is fastest at these sizes.

    Arguments are those of `lax.conv_general_dilated`, whose result this is up to rounding.
    """
    batch, height, width, channels = x.shape
    positions = batch * height * width
    same = [tuple(side) for side in padding] == [
        (size // 2, size // 2) for size in kernel.shape[:2]
    ]
    wide = min(channels, kernel.shape[-1]) >= WIDE and x.dtype == jnp.float32
    if not (wide and same and set(strides) == {1}):
        return lax.conv_general_dilated(x, kernel, strides, padding, **options)
    if kernel.shape[:2] == (1, 1):
        return x @ kernel[0, 0]
    if kernel.shape[:2] == (3, 3) and positions <= FEW_POSITIONS:
        return by_patches(x, kernel)
    even = height % 2 == width % 2 == 0
    fits = positions * max(channels, kernel.shape[-1]) <= MOST_VALUES
    if kernel.shape[:2] == (3, 3) and positions >= MANY_POSITIONS and even and fits:
        return by_winograd(x, kernel)
    return lax.conv_general_dilated(x, kernel, strides, padding, **options)


def by_patches(
    x: Float[Array, "batch h w c"], kernel: Float[Array, "3 3 c out"]
) -> Float[Array, "batch h w out"]:
    """One matmul over the nine neighbours of every position."""
    _, height, width, channels = x.shape
    padded = _pad(x)
    shifted = [padded[:, i : i + height, j : j + width] for i in range(3) for j in range(3)]
    return jnp.concatenate(shifted, axis=-1) @ kernel.reshape(9 * channels, -1)


def by_winograd(
    x: Float[Array, "batch h w c"], kernel: Float[Array, "3 3 c out"]
) -> Float[Array, "batch h w out"]:
    """Winograd's F(2x2, 3x3): 16 products for 4 outputs in place of 36 (arXiv 1509.09308).

    Height and width are even. Rounding errors are about four times those of the plain form.
    """
    batch, height, width, channels = x.shape
    tall, broad = height // 2, width // 2
    padded = _pad(x)
    tiles = [[padded[:, i : i + height : 2, j : j + width : 2] for j in range(4)] for i in range(4)]
    by_column = [_input_transform(row) for row in tiles]
    by_row = [_input_transform([by_column[i][j] for i in range(4)]) for j in range(4)]
    inputs = jnp.stack([by_row[j][i] for i in range(4) for j in range(4)])
    products = jnp.einsum(
        "tnc,tco->tno", inputs.reshape(16, -1, channels), _winograd_kernel(kernel)
    ).reshape(4, 4, batch, tall, broad, -1)
    halves = [_output_transform([products[i, j] for i in range(4)]) for j in range(4)]
    outputs = [_output_transform([halves[j][a] for j in range(4)]) for a in range(2)]
    rows = [jnp.stack(pair, axis=3) for pair in outputs]  # (batch, tall, broad, 2, out)
    return jnp.stack(rows, axis=2).reshape(batch, height, width, -1)


def _pad(x: Array) -> Array:
    return jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))


def _input_transform(d: list[Array]) -> list[Array]:
    return [d[0] - d[2], d[1] + d[2], d[2] - d[1], d[1] - d[3]]


def _output_transform(m: list[Array]) -> list[Array]:
    return [m[0] + m[1] + m[2], m[1] - m[2] - m[3]]


def _winograd_kernel(
    kernel: Float[Array, "3 3 c out"],
) -> Float[Array, "16 c out"]:
    def transform(g: list[Array]) -> list[Array]:
        ends = (g[0] + g[2]) / 2
        return [g[0], ends + g[1] / 2, ends - g[1] / 2, g[2]]

    by_row = [transform([kernel[i, j] for i in range(3)]) for j in range(3)]
    by_column = [transform([by_row[j][a] for j in range(3)]) for a in range(4)]
    return jnp.stack([by_column[a][b] for a in range(4) for b in range(4)])
