"""Convolutions as a CPU likes them; XLA's own wherever else."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

Convolve = Callable[..., Array]
"""Called as `lax.conv_general_dilated`."""

WIDE = 256  # channels below which XLA's form is as good
MANY_POSITIONS = 3000  # and positions: with fewer, transforming the kernel costs too much
MOST_VALUES = 1 << 26  # of a feature map; Winograd's form holds 2.25 times as many, three times

TILE = 4  # outputs of a tile a side
# Where polynomials are evaluated, besides infinity. Exact in binary, and rounding errors are half
# those of 1, -1, 2 and -2.
POINTS = (0.0, 3 / 4, -3 / 4, 3 / 2, -3 / 2)


def best_convolution(platform: str | None = None) -> Convolve:
    """Return the form for a platform, "cpu", "gpu" or "tpu"; JAX's default one if None."""
    platform = platform or jax.default_backend()
    return convolve_on_cpu if platform == "cpu" else lax.conv_general_dilated


def convolve_on_cpu(
    x: Float[Array, "batch h w c"],
    kernel: Float[Array, "size size2 c out"],
    strides: Sequence[int],
    padding: Sequence[tuple[int, int]],
    **options: Any,
) -> Float[Array, "batch _ _ out"]:
    """Convolve by Winograd's form where it is the faster one.

    Arguments are those of `lax.conv_general_dilated`, whose result this is up to rounding.
    """
    batch, height, width, channels = x.shape
    positions = batch * height * width
    out = kernel.shape[-1]
    centred = [tuple(side) for side in padding] == [(1, 1), (1, 1)] and set(strides) == {1}
    suits = (
        kernel.shape[:2] == (3, 3)
        and centred
        and height % TILE == width % TILE == 0
        and x.dtype == jnp.float32
        and min(channels, out) >= WIDE
        and positions >= MANY_POSITIONS
        and positions * max(channels, out) <= MOST_VALUES
    )
    if suits:
        return by_winograd(x, kernel)
    return lax.conv_general_dilated(x, kernel, strides, padding, **options)


def by_winograd(
    x: Float[Array, "batch h w c"], kernel: Float[Array, "3 3 c out"]
) -> Float[Array, "batch h w out"]:
    """Winograd's F(4x4, 3x3): 36 products for 16 outputs in place of 144 (arXiv 1509.09308).

    Height and width are multiples of 4. Rounding errors are about four times those of the plain
    form.
    """
    batch, height, width, channels = x.shape
    tall, broad, out = height // TILE, width // TILE, kernel.shape[-1]
    of_input, of_kernel, of_output = (
        jnp.asarray(np.kron(matrix, matrix), x.dtype) for matrix in winograd_matrices(POINTS)
    )
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    reach = range(len(POINTS) + 1)
    tiles = jnp.stack(
        [
            padded[:, i : i + height - TILE + 1 : TILE, j : j + width - TILE + 1 : TILE]
            for i in reach
            for j in reach
        ]
    )
    inputs = (of_input @ tiles.reshape(len(tiles), -1)).reshape(len(tiles), -1, channels)
    kernels = (of_kernel @ kernel.reshape(9, -1)).reshape(len(tiles), channels, out)
    products = jnp.einsum("tnc,tco->tno", inputs, kernels)
    outputs = (of_output @ products.reshape(len(tiles), -1)).reshape(
        TILE, TILE, batch, tall, broad, out
    )
    return outputs.transpose(2, 3, 0, 4, 1, 5).reshape(batch, height, width, out)


class WinogradMatrices(NamedTuple):
    """What transforms one dimension of an input tile, a kernel and a tile of products."""

    of_input: Float[np.ndarray, "n n"]
    of_kernel: Float[np.ndarray, "n 3"]
    of_output: Float[np.ndarray, "m n"]


def winograd_matrices(points: Sequence[float]) -> WinogradMatrices:
    """Return the matrices for tiles of n = len(points) + 1 inputs and m = n - 2 outputs.

    A correlation with 3 taps is the transpose of a product of polynomials, which is found by its
    values at the points and at infinity (Toom and Cook).
    """
    others = [[q for q in points if q != p] for p in points]
    # Lagrange's polynomial of each point but for its divisor, lowest power first; at infinity,
    # the polynomial that is zero at all points.
    basis = [np.poly(zeros)[::-1] for zeros in others]
    of_input = np.stack([*(np.append(b, 0) for b in basis), np.poly(points)[::-1]])
    divisors = [np.prod([p - q for q in rest]) for p, rest in zip(points, others, strict=True)]
    values = np.vander(points, 3, increasing=True) / np.array(divisors)[:, None]
    of_kernel = np.vstack([values, [0, 0, 1]])
    outputs = len(points) - 1
    powers = np.vander(points, outputs, increasing=True).T
    of_output = np.column_stack([powers, np.eye(outputs)[-1]])
    return WinogradMatrices(of_input, of_kernel, of_output)
