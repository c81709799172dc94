"""The devices of a topology, which programs can be compiled for without having them."""

import importlib.util
import os
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import topologies

from flashface_jax.planning.topology import KNOWN, Topology

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
