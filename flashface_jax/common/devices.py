"""The devices that share a batch of images, and the precision that suits them."""

from collections.abc import Sequence

import jax
import numpy as np
from jax.sharding import Mesh

from flashface_jax.common.choices import ComputeDtype, Precision

IMAGES = "images"
"""The mesh axis that images are spread over."""


def images_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Return the mesh that images are spread over; all devices of this host by default."""
    return Mesh(np.asarray(devices or jax.local_devices()), (IMAGES,))


def resolve_precision(precision: Precision) -> ComputeDtype:
    """Choose for "auto": float32 on a CPU, bfloat16 on accelerators."""
    if precision == "auto":
        return "float32" if jax.default_backend() == "cpu" else "bfloat16"
    return precision
