"""Memory that a compiled program needs on each device, against what the device has."""

from dataclasses import dataclass
from typing import Any

ENOUGH_SPARE = 0.1
"""Share of HBM to leave free, for batches that wait and what other compilers choose."""


@dataclass(frozen=True)
class Memory:
    """Bytes on one device.

    Attributes:
        arguments: what the program is given, e.g. state and batch.
        outputs: what it returns in new memory, not in that of its arguments.
        temporary: what it needs while it runs.
        available: what the device has.
    """

    arguments: int
    outputs: int
    temporary: int
    available: int

    @property
    def needed(self) -> int:
        """Bytes that the program needs; what the compiler refuses by."""
        return self.arguments + self.outputs + self.temporary

    @property
    def spare(self) -> float:
        """Share of the memory that is left; negative if it does not suffice."""
        return 1 - self.needed / self.available

    @property
    def fits(self) -> bool:
        """Whether the program fits, with enough to spare."""
        return self.needed <= (1 - ENOUGH_SPARE) * self.available


def memory_of(analysis: Any, available: float) -> Memory:
    """Read what a compiler says.

    Args:
        analysis: `jax.stages.Compiled.memory_analysis()`.
        available: bytes of the device.
    """
    return Memory(
        arguments=int(analysis.argument_size_in_bytes),
        outputs=int(analysis.output_size_in_bytes - analysis.alias_size_in_bytes),
        temporary=int(analysis.temp_size_in_bytes),
        available=int(available),
    )
