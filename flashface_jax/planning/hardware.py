"""What accelerators can do at most: arithmetic, memory, links between chips.

Sources: for TPUs cloud.google.com/tpu/docs/v4, v5e, v5p and v6e, and for the rate of one link "How
to Scale Your Model" (jax-ml.github.io/scaling-book/tpus); for GPUs NVIDIA's data sheets of the SXM
modules, whose rates of arithmetic are halved where they assume sparse matrices. A TPU's memory is
what its compiler leaves to a program, as it says when it refuses one that is too large.
"""

from dataclasses import dataclass

GIB = 1 << 30


@dataclass(frozen=True)
class Interconnect:
    """Direct links between neighbouring chips.

    Attributes:
        bandwidth: bytes/s of one link in one direction.
        dimensions: dimensions of the torus or mesh of chips, with two links a chip in each; 1 for
            GPUs, whose switch gives each a way to and a way from all others.
        wraps_at: chips along a dimension close a ring where their number is a multiple of this.
    """

    bandwidth: float
    dimensions: int
    wraps_at: int


@dataclass(frozen=True)
class Accelerator:
    """The limits of one chip.

    Attributes:
        name: as in the name of a topology, or the maker's.
        device_kinds: what `jax.Device.device_kind` says.
        flops: dense bfloat16 FLOP/s.
        memory: bytes of HBM that a program can have.
        memory_bandwidth: bytes/s of HBM.
        matrix_width: side of the systolic array, which a matmul's dimensions are padded to;
            1 where padding is too fine to matter.
        interconnect: links to other chips.
    """

    name: str
    device_kinds: tuple[str, ...]
    flops: float
    memory: float
    memory_bandwidth: float
    matrix_width: int
    interconnect: Interconnect


# v5e and v6e close a ring along whole pods of 16, v4 and v5p along cubes of 4.
_V4 = Interconnect(45e9, 3, 4)
_V5E = Interconnect(50e9, 2, 16)
_V5P = Interconnect(100e9, 3, 4)
_V6E = Interconnect(100e9, 2, 16)
# Half of what data sheets say, which add up both directions.
_NVLINK3, _NVLINK4 = Interconnect(300e9, 1, 1), Interconnect(450e9, 1, 1)

TPUS = (
    Accelerator("v4", ("TPU v4",), 275e12, 30.75 * GIB, 1.2e12, 128, _V4),
    Accelerator("v5e", ("TPU v5 lite", "TPU v5e"), 197e12, 15.75 * GIB, 0.819e12, 128, _V5E),
    Accelerator("v5p", ("TPU v5", "TPU v5p"), 459e12, 95.74 * GIB, 2.765e12, 128, _V5P),
    Accelerator("v6e", ("TPU v6 lite", "TPU v6e"), 918e12, 31.25 * GIB, 1.64e12, 256, _V6E),
)
GPUS = (
    Accelerator("A100 40GB", ("NVIDIA A100-SXM4-40GB",), 312e12, 40e9, 1.555e12, 1, _NVLINK3),
    Accelerator("A100 80GB", ("NVIDIA A100-SXM4-80GB",), 312e12, 80e9, 2.039e12, 1, _NVLINK3),
    Accelerator("H100", ("NVIDIA H100 80GB HBM3",), 989e12, 80e9, 3.35e12, 1, _NVLINK4),
    Accelerator("H200", ("NVIDIA H200",), 989e12, 141e9, 4.8e12, 1, _NVLINK4),
)

_BY_KIND = {kind: chip for chip in (*TPUS, *GPUS) for kind in chip.device_kinds}


def accelerator_of(device_kind: str) -> Accelerator | None:
    """Return the accelerator of a `jax.Device.device_kind`, or None if it is not in the table."""
    return _BY_KIND.get(device_kind)
