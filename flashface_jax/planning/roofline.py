"""The least time that a step can take, and what it is limited by (Williams et al., 2009)."""

from dataclasses import dataclass

from flashface_jax.planning.hardware import Accelerator

SECONDS_A_DAY = 86_400


@dataclass(frozen=True)
class Work:
    """What one step asks of each chip.

    Attributes:
        flops: operations outside of kernels.
        kernel_flops: operations that kernels are asked for.
        padded_kernel_flops: operations that kernels do, padding included.
        bytes: bytes moved from and to HBM.
        compiler_seconds: what the compiler thinks that everything outside of kernels takes at
            best, operation by operation; None if it does not say.
        links_seconds: time of all collectives.
    """

    flops: float
    kernel_flops: float
    padded_kernel_flops: float
    bytes: float
    compiler_seconds: float | None
    links_seconds: float


@dataclass(frozen=True)
class Roofline:
    """Bounds of the time of a step, in seconds.

    Attributes:
        arithmetic: of all operations, padding included, at the chip's peak.
        memory: of moving all bytes.
        links: of all collectives.
        step: the least time of a step.
        limit: which of the three is the largest: arithmetic, memory or links.
    """

    arithmetic: float
    memory: float
    links: float
    step: float
    limit: str


def roofline(work: Work, chip: Accelerator) -> Roofline:
    """Bound the time of a step from below.

    Arithmetic takes (flops + padded kernel flops) / peak, memory bytes / bandwidth. Each would hide
    behind the largest of the three if all overlapped. The compiler's own figure is larger where
    some operations wait for memory and others for arithmetic: it counts instead where there is one,
    and kernels come on top of it. Collectives are thought to hide behind the rest, or the rest
    behind them.
    """
    arithmetic = (work.flops + work.padded_kernel_flops) / chip.flops
    memory = work.bytes / chip.memory_bandwidth
    busy = max(arithmetic, memory)
    if work.compiler_seconds is not None:
        busy = max(busy, work.compiler_seconds + work.padded_kernel_flops / chip.flops)
    terms = {"arithmetic": arithmetic, "memory": memory, "links": work.links_seconds}
    limit = max(terms, key=lambda name: terms[name])
    if limit == "links" and busy > work.links_seconds:
        limit = "arithmetic" if arithmetic > memory else "memory"
    return Roofline(arithmetic, memory, work.links_seconds, max(busy, work.links_seconds), limit)


def model_utilisation(model_flops: float, seconds: float, devices: int, peak_flops: float) -> float:
    """Model FLOPs utilisation (MFU), 0 to 1: what the mathematics asks for against the peak.

    Recomputation and padding do not count (Chowdhery et al., 2022, appendix B).

    Args:
        model_flops: operations of a step, of all devices.
        seconds: time of a step.
        devices: number of devices.
        peak_flops: FLOP/s of one.
    """
    return model_flops / (seconds * devices * peak_flops)


def hardware_utilisation(work: Work, seconds: float, chip: Accelerator) -> float:
    """Share of the peak that is used for operations that are done, recomputed ones included."""
    return (work.flops + work.kernel_flops) / (seconds * chip.flops)


def days(steps: int, seconds: float) -> float:
    """Days that as many steps of so many seconds take."""
    return steps * seconds / SECONDS_A_DAY
