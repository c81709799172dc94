"""Topologies of TPUs, such as v5e:4x4, by name; light to import."""

import math
import re
from dataclasses import dataclass

from flashface_jax.planning.hardware import TPUS, Accelerator

# Shapes that can be rented; others that the compiler takes can be named too.
KNOWN = {
    "v4": "2x2x1, 2x2x4, 4x4x4, 4x4x8, 8x8x8",
    "v5e": "1x1, 2x2, 2x4, 4x4, 4x8, 8x8, 8x16, 16x16",
    "v5p": "2x2x1, 2x2x4, 4x4x4, 4x4x8, 8x8x8",
    "v6e": "1x1, 2x2, 2x4, 4x4, 4x8, 8x8, 8x16, 16x16",
}


@dataclass(frozen=True)
class Topology:
    """A slice of TPU chips.

    Attributes:
        name: e.g. v5e:4x4.
        accelerator: its chips.
        shape: chips along each dimension of the mesh or torus.
    """

    name: str
    accelerator: Accelerator
    shape: tuple[int, ...]

    @property
    def chips(self) -> int:
        """Number of chips."""
        return math.prod(self.shape)


def parse_topology(name: str) -> Topology:
    """Read a topology's name.

    Raises:
        ValueError: if there is no such TPU, or the shape is not of its number of dimensions.
    """
    tpus = {tpu.name: tpu for tpu in TPUS}
    match = re.fullmatch(r"(\w+):([1-9]\d*(?:x[1-9]\d*)+)", name)
    if match is None or match[1] not in tpus:
        names = "; ".join(f"{tpu}:{shapes}" for tpu, shapes in KNOWN.items())
        raise ValueError(f"{name!r} is no topology: name a TPU and its shape, one of {names}.")
    tpu, shape = tpus[match[1]], tuple(map(int, match[2].split("x")))
    dimensions = tpu.interconnect.dimensions
    if len(shape) != dimensions:
        raise ValueError(
            f"{name!r} has {len(shape)} dimensions, and {tpu.name} has {dimensions}: choose e.g. "
            f"{', '.join(f'{tpu.name}:{known}' for known in KNOWN[tpu.name].split(', '))}."
        )
    return Topology(name, tpu, shape)
