"""What is seen of a run while it trains: a progress bar, metrics, pictures and traces."""

from collections.abc import Mapping
from contextlib import AbstractContextManager, ExitStack, closing
from pathlib import Path
from types import TracebackType

import jax
import jax.numpy as jnp
from PIL import Image
from tqdm import tqdm

from flashface_jax.planning.flops import count_flops
from flashface_jax.planning.hardware import accelerator_of
from flashface_jax.training.computation.program import Program, model_jaxpr
from flashface_jax.training.computation.step import Metrics
from flashface_jax.training.monitoring.metrics import MetricsWriter
from flashface_jax.training.monitoring.profiling import Profiler
from flashface_jax.training.monitoring.telemetry import Speed, Throughput, device_memory, speed_on
from flashface_jax.training.parallel.processes import is_first


class Observer:
    """Watches the steps of a run from one on; only the first process shows and writes.

    Args:
        program: the run.
        workdir: its directory.
        step: the last step that was taken before.
    """

    def __init__(self, program: Program, workdir: Path, step: int):
        with ExitStack() as opened:
            metrics = MetricsWriter(workdir, step, program.config.trackers)
            self._metrics = opened.enter_context(closing(metrics))
            self._profiler = Profiler(workdir, program.config.profile_steps)
            opened.callback(self._profiler.close)
            self._throughput = Throughput(_speed(program))
            self._progress = opened.enter_context(
                tqdm(
                    total=program.config.steps,
                    initial=step,
                    unit="step",
                    desc="training",
                    smoothing=0.05,
                    disable=not is_first(),
                )
            )
            self._cleanup = opened.pop_all()

    def __enter__(self) -> "Observer":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._cleanup.close()

    def waiting(self) -> AbstractContextManager[None]:
        """Within this the loop waits for data."""
        return self._throughput.waiting()

    def before(self, step: int) -> None:
        """A step is about to be taken."""
        self.tell(self._profiler.before(step))

    def after(self, step: int, metrics: Metrics) -> None:
        """A step was taken."""
        self._throughput.add(logged(metrics))
        self.tell(self._profiler.after(step, metrics["loss"]))
        self._progress.update()

    def log(self, step: int, **further: float) -> None:
        """Write and show means since the last time."""
        memory = device_memory([device.memory_stats() for device in jax.local_devices()])
        values = {**self._throughput.read(), **memory, **further}
        self._metrics.scalars(step, values)
        self._progress.set_postfix({name: f"{value:.4g}" for name, value in values.items()})

    def picture(
        self, step: int, name: str, image: Image.Image, scores: Mapping[str, float]
    ) -> None:
        """Write a picture and what is said of it; the time that it took is not training's."""
        if scores:
            self._metrics.scalars(step, scores)
        self.tell(f"wrote {self._metrics.picture(step, name, image)}")
        self._throughput.restart()

    def tell(self, line: str | None) -> None:
        """Print a line above the progress bar."""
        if line and is_first():
            self._progress.write(line)


def logged(metrics: Metrics) -> Metrics:
    """What of a step's metrics is averaged and logged: every number that is of the whole batch.

    What is left out tells of health alone: whether all was finite, and each sample's loss.
    """
    return {
        name: value
        for name, value in metrics.items()
        if value.ndim == 0 and jnp.issubdtype(value.dtype, jnp.number)
    }


def _speed(program: Program) -> Speed:
    """What the run's speed is measured against; only for known devices are operations counted."""
    config, devices = program.config, program.layout.mesh.devices
    kind = devices.flat[0].device_kind
    known = accelerator_of(kind) is not None
    flops = float(count_flops(model_jaxpr(config)).total) if known else None
    return speed_on(kind, devices.size, config.batch_size, flops)
