"""How a run lies on its devices: rules over paths and shapes, and one mesh of two axes.

Each device has its own samples. Parameters, and all that the optimizer keeps of them, are split
over "fsdp"; groups of that many devices, which "data" counts, hold the same.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from flashface_jax.models.network import path_name

DATA, FSDP = "data", "fsdp"
EVERY_DEVICE = (DATA, FSDP)

# Devices that share one set of parameters unless told otherwise: enough for the paper's networks to
# take 1.3 GiB of each with Adam's moments, and few enough that their sums stay among neighbours.
MOST_SHARING = 16


@dataclass(frozen=True)
class ShardingConfig:
    """How parameters are spread.

    Attributes:
        fsdp: devices that share one set of parameters, which must divide their number; 0 for the
            most that do, up to 16.
        smallest: numbers of a kernel below which it is whole everywhere.
        split: path of a leaf, or the end of one -> the dimension to split it along, -1 for whole;
            other leaves follow the general rule.
    """

    fsdp: int = 0
    smallest: int = 1 << 14
    split: tuple[tuple[str, int], ...] = ()

    def __post_init__(self) -> None:
        if self.fsdp < 0:
            raise ValueError(f"sharding.fsdp is {self.fsdp}; it must be 1 or more, or 0 for auto.")


def split_dimension(
    name: str, shape: tuple[int, ...], parts: int, config: ShardingConfig
) -> int | None:
    """Dimension along which a leaf is split into `parts`, or None if it stays whole.

    Kernels are split along their largest dimension that divides evenly, of equal ones the last;
    small ones, and all that is no kernel, stay whole: layers' biases and scales, and tables, are
    read where no block is fetched.

    Args:
        name: path of the leaf, "params/flashface/denoiser/encoder/0/kernel".
        shape: of the leaf.
        parts: devices that share it.
        config: which are small, and which do not follow the rule.

    Raises:
        ValueError: naming the leaf, if an exception cannot be followed.
    """
    for ending, dimension in config.split:
        if name == ending or name.endswith(f"/{ending}"):
            if dimension == -1:
                return None
            if not 0 <= dimension < len(shape) or shape[dimension] % parts:
                raise ValueError(
                    f"{name} of shape {list(shape)} cannot be split into {parts} along dimension "
                    f"{dimension}: correct sharding.split, or choose another sharding.fsdp."
                )
            return dimension
    if parts == 1 or not name.endswith("kernel") or math.prod(shape) < config.smallest:
        return None
    fitting = [i for i, size in enumerate(shape) if size % parts == 0]
    return max(fitting, key=lambda i: (shape[i], i), default=None)


def partition_specs(tree: Any, parts: int, config: ShardingConfig) -> Any:
    """Partition specs of a tree of arrays or shapes, leaf by leaf; see `split_dimension`."""

    def spec(path: tuple[Any, ...], leaf: Any) -> PartitionSpec:
        dimension = split_dimension(path_name(path), leaf.shape, parts, config)
        return PartitionSpec() if dimension is None else PartitionSpec(*[None] * dimension, FSDP)

    return jax.tree_util.tree_map_with_path(spec, tree)


@dataclass(frozen=True)
class Layout:
    """A mesh, and where things lie on it.

    Attributes:
        mesh: devices by data and fsdp.
        config: how parameters are spread over it.
    """

    mesh: Mesh
    config: ShardingConfig

    @classmethod
    def over(cls, devices: Sequence[Any], config: ShardingConfig) -> "Layout":
        """Arrange devices.

        Raises:
            ValueError: if they do not divide into groups of `config.fsdp`, or their network has no
                such groups.
        """
        count = len(devices)
        sharing = config.fsdp or max(n for n in range(1, MOST_SHARING + 1) if count % n == 0)
        if count % sharing:
            raise ValueError(
                f"Devices, of which there are {count}, do not divide into groups of {sharing}: "
                "choose a sharding.fsdp "
                f"among {[n for n in range(1, count + 1) if count % n == 0]}."
            )
        try:
            mesh = jax.make_mesh(
                (count // sharing, sharing),
                EVERY_DEVICE,
                axis_types=(AxisType.Auto,) * 2,
                devices=list(devices),
            )
        except NotImplementedError as error:
            raise ValueError(
                f"These {count} devices have no neighbourhoods of {sharing}: choose another "
                f"sharding.fsdp, such as {max(1, sharing // 2)}."
            ) from error
        return cls(mesh, config)

    @property
    def sharing(self) -> int:
        """Devices that share one set of parameters."""
        return self.mesh.shape[FSDP]

    @property
    def description(self) -> str:
        """In a line."""
        groups, kind = self.mesh.shape[DATA], self.mesh.devices.flat[0].device_kind
        of = f"{self.mesh.size} devices" if self.mesh.size > 1 else "one device"
        shared = f", parameters shared by {self.sharing}" if self.sharing > 1 else ""
        return f"on {of} ({kind}){shared}" + (f", {groups} copies" if groups > 1 else "")

    def dimension(self, name: str, shape: tuple[int, ...]) -> int | None:
        """Dimension along which a leaf is split, or None."""
        return split_dimension(name, shape, self.sharing, self.config)

    def specs(self, tree: Any) -> Any:
        """Partition specs of a tree of arrays or shapes, leaf by leaf."""
        return partition_specs(tree, self.sharing, self.config)

    def shardings(self, tree: Any) -> Any:
        """Shardings of a tree of arrays or shapes, leaf by leaf."""
        return jax.tree.map(lambda spec: NamedSharding(self.mesh, spec), self.specs(tree))

    @property
    def rows(self) -> NamedSharding:
        """Of what each sample has its own of."""
        return NamedSharding(self.mesh, PartitionSpec(EVERY_DEVICE))

    @property
    def stacked_rows(self) -> NamedSharding:
        """Of batches put one behind the other on a first axis of their own."""
        return NamedSharding(self.mesh, PartitionSpec(None, EVERY_DEVICE))

    @property
    def everywhere(self) -> NamedSharding:
        """Of what every device has whole."""
        return NamedSharding(self.mesh, PartitionSpec())

    def own_rows(self, batch: int) -> list[int]:
        """Rows of a global batch that this process' devices have, in the order of the batch.

        Not always a block: neighbours in the mesh need not be neighbours in a host.
        """
        places = self.rows.addressable_devices_indices_map((batch,)).values()
        parts = [place[0] for place in places if place is not None]
        return sorted({row for part in parts for row in range(*part.indices(batch))})

    def place(self, tree: Any) -> Any:
        """Put a tree of arrays that every process has alike where it belongs."""

        def put(leaf: Any, sharding: NamedSharding) -> jax.Array:
            if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
                data = put(jax.random.key_data(leaf), sharding)
                return jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaf))
            values = np.asarray(leaf)
            return jax.make_array_from_callback(values.shape, sharding, values.__getitem__)

        return jax.tree.map(put, tree, self.shardings(tree))

    def place_rows(self, tree: Any) -> Any:
        """Put this process's rows of a batch on its devices, as part of the global batch."""
        return jax.tree.map(
            lambda rows: jax.make_array_from_process_local_data(self.rows, rows), tree
        )
