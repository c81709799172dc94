"""How fast a run trains, and what it waits for: metrics, times of steps, memory of devices."""

import contextlib
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import jax
import numpy as np
from jaxtyping import Array, Float

from flashface_jax.planning.hardware import accelerator_of
from flashface_jax.planning.roofline import model_utilisation

GIB = 1 << 30


@dataclass(frozen=True)
class Speed:
    """What a step's time is measured against.

    Attributes:
        batch_size: images a step, on all devices.
        model_flops: operations that the mathematics of a step asks for, on all devices; None if
            they were not counted.
        devices: number of devices.
        peak_flops: FLOP/s of one; None if it is not known, as of a CPU.
    """

    batch_size: int
    model_flops: float | None
    devices: int
    peak_flops: float | None


def speed_on(
    device_kind: str, devices: int, batch_size: int, model_flops: float | None = None
) -> Speed:
    """Measure against the peak of as many devices of a `jax.Device.device_kind`."""
    chip = accelerator_of(device_kind)
    return Speed(batch_size, model_flops, devices, chip.flops if chip else None)


class Throughput:
    """Means of metrics and times of steps since the last reading.

        for step in steps:
            with throughput.waiting():
                batch = next(batches)
            state, metrics = train_step(state, batch)
            throughput.add(metrics)
            if step % log_every == 0:
                values = throughput.read()

    A step runs while the next batch is drawn and the next step is called; only then is it waited
    for, so that the device is never idle and each step's time is true. Metrics stay on the device
    until they are read.
    """

    def __init__(self, speed: Speed):
        self._speed = speed
        self._values: list[Mapping[str, Float[Array, ""]]] = []
        self.restart()

    def restart(self) -> None:
        """Start the clock, after something that was not training; metrics are kept."""
        self._running: Mapping[str, Float[Array, ""]] | None = None
        self._last = time.perf_counter()
        self._waited = 0.0
        self._steps: list[float] = []

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Take the time of drawing the next batch."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self._waited += time.perf_counter() - began

    def add(self, values: Mapping[str, Float[Array, ""]]) -> None:
        """Take the metrics of the step that was just called, and wait for the one before it."""
        self._finish()
        self._running = values
        self._values.append(values)

    def read(self) -> dict[str, float]:
        """Return means, times and rates, and start anew.

        Returns:
            The metrics' means; `step_seconds`, the mean, and `step_seconds_median`;
            `images_per_second`; `data_wait`, the share of the time in which the loop waited for
            batches, 0 to 1, while the step before may have run; `mfu`, the model FLOPs
            utilisation, 0 to 1, where it is known. Only the metrics if there was no step since the
            last restart; nothing without metrics.
        """
        self._finish()
        values = jax.device_get(self._values)
        names = values[0] if values else ()
        means = {name: float(np.mean([one[name] for one in values])) for name in names}
        means |= rates(self._speed, self._steps, self._waited)
        self._values = []
        self.restart()
        return means

    def _finish(self) -> None:
        """Wait for the step that runs, and take its time."""
        if self._running is None:
            return
        jax.block_until_ready(self._running)
        self._running, now = None, time.perf_counter()
        self._steps.append(now - self._last)
        self._last = now


def rates(speed: Speed, steps: Sequence[float], waited: float) -> dict[str, float]:
    """Work out times and rates; see `Throughput.read`.

    Args:
        speed: what the time is measured against.
        steps: seconds from the end of one step to the end of the next.
        waited: seconds of these in which the loop waited for data.
    """
    if not steps:
        return {}
    seconds = statistics.mean(steps)
    found = {
        "step_seconds": seconds,
        "step_seconds_median": statistics.median(steps),
        "images_per_second": speed.batch_size / seconds,
        "data_wait": waited / sum(steps),
    }
    if speed.model_flops is not None and speed.peak_flops is not None:
        found["mfu"] = model_utilisation(
            speed.model_flops, seconds, speed.devices, speed.peak_flops
        )
    return found


def device_memory(stats: Sequence[Mapping[str, int] | None]) -> dict[str, float]:
    """Return the memory, in GiB, of the fullest device.

    Args:
        stats: `jax.Device.memory_stats()` of each of this process's devices.

    Returns:
        `memory_gib`, what is in use now, and `memory_peak_gib`, the most there has been; empty for
        devices that do not count, such as CPUs.
    """
    found = {}
    for name, key in (("memory_gib", "bytes_in_use"), ("memory_peak_gib", "peak_bytes_in_use")):
        sizes = [one[key] for one in stats if one and key in one]
        if sizes:
            found[name] = max(sizes) / GIB
    return found
