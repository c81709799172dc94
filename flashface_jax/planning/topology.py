"""Topologies of TPUs, such as v5e:4x4, whose devices programs can be compiled for without them."""

import importlib.util
import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.experimental import topologies

from flashface_jax.planning.hardware import TPUS, Accelerator

# Shapes that can be rented; others that the compiler takes can be named too.
KNOWN = {
    "v4": "2x2x1, 2x2x4, 4x4x4, 4x4x8, 8x8x8",
    "v5e": "1x1, 2x2, 2x4, 4x4, 4x8, 8x8, 8x16, 16x16",
    "v5p": "2x2x1, 2x2x4, 4x4x4, 4x4x8, 8x8x8",
    "v6e": "1x1, 2x2, 2x4, 4x4, 4x8, 8x8, 8x16, 16x16",
}
# libtpu reads these when it is loaded: it should ask no cloud what this machine is, nor complain
# that it does not know, and let other processes compile at the same time.
LIBTPU_ENVIRONMENT = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_HOST_BOUNDS": "1,1,1",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}
NO_LIBTPU = (
    "Compiling for TPUs needs libtpu, which needs no TPU: pip install 'flashface-jax[plan]' "
    "(Linux only)."
)


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


def devices_of(topology: Topology) -> Sequence[jax.Device]:
    """Return one device a chip, for which programs can be compiled but not run.

    Raises:
        ValueError: if libtpu is not installed, is in use, or knows no such topology.
    """
    if importlib.util.find_spec("libtpu") is None:
        raise ValueError(NO_LIBTPU)
    for name, value in LIBTPU_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    options: dict[str, Any] = {}
    if topology.accelerator.name == "v4":
        options["chip_config_name"] = "megacore"  # otherwise each chip is two devices
    if topology.chips == 1:
        options["chips_per_host_bounds"] = (1, 1, 1)
    try:
        described = topologies.get_topology_desc(topology.name, platform="tpu", **options)
    except (jax.errors.JaxRuntimeError, NotImplementedError) as error:
        known = KNOWN[topology.accelerator.name]
        raise ValueError(
            f"The TPU compiler does not take {topology.name} ({error}); "
            f"{topology.accelerator.name} comes as {known}."
        ) from error
    return described.devices


def places_of(devices: Sequence[Any], topology: Topology) -> np.ndarray:
    """Return where devices are in their topology, (devices, dimensions)."""
    return np.array([device.coords[: len(topology.shape)] for device in devices])
