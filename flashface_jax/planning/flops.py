"""Floating-point operations of a traced function's matmuls and convolutions.

Counted before compilation, so that no compiler's choices matter, and by the same rules as XLA's own
analysis: a multiplication and an addition are two operations, and a convolution's taps on padding
or between dilated elements are none. Operations by elements are left out; they are bounded by
memory, not by arithmetic.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn

# Kernels behind a call that tells nothing of the arithmetic in it.
OPAQUE = "dot_product_attention"


@dataclass(frozen=True)
class Flops:
    """Operations by where they come from.

    Attributes:
        matmul: of `dot_general`.
        convolution: of `conv_general_dilated`.
        kernel: of matmuls within Pallas kernels.
    """

    matmul: int = 0
    convolution: int = 0
    kernel: int = 0

    @property
    def total(self) -> int:
        """All of them."""
        return self.matmul + self.convolution + self.kernel

    def __add__(self, other: "Flops") -> "Flops":
        return Flops(
            self.matmul + other.matmul,
            self.convolution + other.convolution,
            self.kernel + other.kernel,
        )

    def times(self, count: int) -> "Flops":
        """The operations of as many repetitions."""
        return Flops(count * self.matmul, count * self.convolution, count * self.kernel)


def count_flops(jaxpr: ClosedJaxpr | Jaxpr) -> Flops:
    """Count the operations of one call.

    Of all devices together: the body of a `shard_map` counts once for each of its devices, also
    where they do the same. A branch counts as the largest of its `cond`. What is recomputed
    (`jax.checkpoint`) counts as often as it is traced.

    Args:
        jaxpr: e.g. of `jax.make_jaxpr(function)(*abstract_arguments)`.

    Raises:
        ValueError: if there is arithmetic in a loop without a fixed number of turns, or in cuDNN's
            attention, whose operations cannot be seen.
    """
    plain = jaxpr.jaxpr if isinstance(jaxpr, ClosedJaxpr) else jaxpr
    return sum(map(_of_equation, plain.eqns), Flops())


def _of_equation(equation: JaxprEqn) -> Flops:
    name, params = equation.primitive.name, equation.params
    if name in _RULES:
        return _RULES[name](equation)
    if OPAQUE in name:
        raise ValueError(
            f"The operations of {name} cannot be counted: trace the function with plain attention."
        )
    return sum(map(count_flops, _inner(params)), Flops())


def _inner(params: dict[str, Any]) -> Iterator[ClosedJaxpr | Jaxpr]:
    """The functions that an equation calls once each."""
    for value in params.values():
        for one in value if isinstance(value, (tuple, list)) else (value,):
            if isinstance(one, (ClosedJaxpr, Jaxpr)):
                yield one


def _shape(variable: Any) -> tuple[int, ...]:
    shape: tuple[int, ...] = variable.aval.shape
    return shape


def _dot(equation: JaxprEqn) -> Flops:
    left, right = map(_shape, equation.invars[:2])
    (contracted, right_contracted), (_, right_batch) = equation.params["dimension_numbers"]
    own = [n for i, n in enumerate(right) if i not in (*right_contracted, *right_batch)]
    assert [left[i] for i in contracted] == [right[i] for i in right_contracted]
    return Flops(matmul=2 * math.prod(left) * math.prod(own))


def _convolution(equation: JaxprEqn) -> Flops:
    params = equation.params
    numbers = params["dimension_numbers"]
    image, kernel = map(_shape, equation.invars)
    out = _shape(equation.outvars[0])
    taps = 1
    for axis, (low, _) in enumerate(params["padding"]):
        taps *= valid_taps(
            image[numbers.lhs_spec[2 + axis]],
            kernel[numbers.rhs_spec[2 + axis]],
            out[numbers.out_spec[2 + axis]],
            low,
            params["window_strides"][axis],
            params["lhs_dilation"][axis],
            params["rhs_dilation"][axis],
        )
    samples = image[numbers.lhs_spec[0]] // params["batch_group_count"]
    channels = kernel[numbers.rhs_spec[0]] * kernel[numbers.rhs_spec[1]]
    return Flops(convolution=2 * taps * samples * channels)


def valid_taps(
    size: int, kernel: int, out: int, low: int, stride: int, dilation: int, kernel_dilation: int
) -> int:
    """Pairs, along one dimension, of an output and a tap that falls on an element of the image."""
    places = np.add.outer(np.arange(out) * stride - low, np.arange(kernel) * kernel_dilation)
    within = (places >= 0) & (places <= (size - 1) * dilation) & (places % dilation == 0)
    return int(within.sum())


def _scan(equation: JaxprEqn) -> Flops:
    return count_flops(equation.params["jaxpr"]).times(equation.params["length"])


def _while(equation: JaxprEqn) -> Flops:
    one_turn = sum(map(count_flops, _inner(equation.params)), Flops())
    if one_turn.total:
        raise ValueError(
            "There is arithmetic in a loop that takes an unknown number of turns: write it as a "
            "scan, or a fori_loop between fixed numbers that is differentiable in reverse."
        )
    return one_turn


def _cond(equation: JaxprEqn) -> Flops:
    branches = map(count_flops, equation.params["branches"])
    return max(branches, key=lambda branch: branch.total)


def _shard_map(equation: JaxprEqn) -> Flops:
    sizes, manual = equation.params["mesh"].shape, equation.params["newly_manual_axes"]
    devices = math.prod(sizes[axis] for axis in manual)
    return count_flops(equation.params["jaxpr"]).times(devices)


def _pallas(equation: JaxprEqn) -> Flops:
    turns = math.prod(equation.params["grid_mapping"].grid)
    return Flops(kernel=turns * count_flops(equation.params["jaxpr"]).total)


_RULES: dict[str, Callable[[JaxprEqn], Flops]] = {
    "dot_general": _dot,
    "conv_general_dilated": _convolution,
    "scan": _scan,
    "while": _while,
    "cond": _cond,
    "shard_map": _shard_map,
    "pallas_call": _pallas,
}
