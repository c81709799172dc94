"""The training loop, in sections: data, networks and state, steps."""

from collections import deque
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from flashface_jax.data.dataset import TRAIN, IdClusters
from flashface_jax.data.loader import BatchLoader
from flashface_jax.data.pipeline import (
    Order,
    describe_pool,
    describe_samples,
    photo_pool,
    training_batches,
)
from flashface_jax.data.samples import PhotoPool
from flashface_jax.tokenizer import Tokenizer
from flashface_jax.training import claim
from flashface_jax.training.checkpoint import Checkpoints
from flashface_jax.training.config import TrainConfig
from flashface_jax.training.data import open_dataset, open_tokenizer, sample_shape
from flashface_jax.training.feed import feed
from flashface_jax.training.metrics import Meter, MetricsWriter
from flashface_jax.training.preview import make_preview
from flashface_jax.training.processes import StopRequest, is_first, say
from flashface_jax.training.program import Program
from flashface_jax.training.start import starting_state
from flashface_jax.training.state import TrainState
from flashface_jax.training.step import Metrics

UNREAD = 2
"""Newest steps whose outcome is not looked at yet: devices would wait for whoever looks."""


class DivergedError(ValueError):
    """A run whose loss or gradient is no finite number any more; the message names the batch."""


def train(config: TrainConfig, workdir: Path) -> TrainState:
    """Train, or go on training, in `workdir`; returns the final state.

    Every process of a run calls this with the same arguments and sees the same `workdir`. Told to
    stop by SIGTERM, they save, say so, and return the state so far.

    Raises:
        ValueError: if `workdir` holds a run of another configuration, or the data or the devices
            do not fit.
        DivergedError: if a loss or gradient is not finite; the state before it is saved.
    """
    program = Program.over(config)
    claim.check(workdir, config)
    workdir.mkdir(parents=True, exist_ok=True)

    say(f"training {program.layout.description}")
    data = _open_data(config, workdir)

    with ExitStack() as cleanup:
        batches = cleanup.enter_context(closing(data.batches))

        # State, fresh or resumed.
        checkpoints = cleanup.enter_context(closing(Checkpoints(workdir, config.keep_checkpoints)))
        restored = checkpoints.restore(program.shapes, program.shardings)
        if restored is None:
            state = starting_state(program)
        else:
            state = restored.state
            batches.set_state(restored.data)
            say(f"resumed {workdir} at step {int(state.step)}")
        del restored  # the step takes the state's memory

        # What a step does, and what is shown of it.
        train_step = program.step(data.tokenizer([""]))
        preview = make_preview(program, data.dataset, data.tokenizer)
        if is_first():
            claim.claim(workdir, config)
        metrics = cleanup.enter_context(closing(MetricsWriter(workdir, int(state.step))))
        stop = cleanup.enter_context(StopRequest().listening())
        progress = cleanup.enter_context(_progress(config, int(state.step)))
        meter, health = Meter(config.batch_size), Health()

        for step, fed in zip(
            range(int(state.step) + 1, config.steps + 1),
            meter.timed(feed(batches, program.layout)),
            strict=False,
        ):
            state, taken = train_step(state, fed.batch)
            meter.add(taken)
            health.add(step, taken, fed.data_state)
            progress.update()
            stopped = stop.heard(step)
            last = step == config.steps or stopped
            logs, saves = (
                step % every == 0 or last for every in (config.log_every, config.checkpoint_every)
            )
            bad = health.bad(unread=0 if logs or saves else UNREAD)
            if bad is not None:
                _keep_last_good(checkpoints, state, bad)
                raise DivergedError(_what_diverged(bad, data, config))
            if logs:
                values = {**meter.read(), "undecodable_photos": float(batches.replaced)}
                metrics.scalars(step, values)
                progress.set_postfix({name: f"{value:.4g}" for name, value in values.items()})
            if saves:
                checkpoints.save(state, step, fed.data_state)
            if stopped:
                say(f"told to stop: saved {workdir} at step {step}; the same command goes on.")
                break
            if preview is not None and (step % config.grid_every == 0 or last):
                path = metrics.picture(step, "held_out", preview.sheet(preview.generate(state)))
                progress.write(f"wrote {path}")
                meter.restart()
    return state


@dataclass(frozen=True)
class Data:
    """What a run is trained on.

    Attributes:
        dataset: photos of people.
        tokenizer: of their captions.
        pool: the photos to train on.
        order: what decides which of them follow each other.
        batches: this process's part of the batches.
    """

    dataset: IdClusters
    tokenizer: Tokenizer
    pool: PhotoPool
    order: Order
    batches: BatchLoader


def _open_data(config: TrainConfig, workdir: Path) -> Data:
    dataset = open_dataset(workdir, config.data)
    tokenizer = open_tokenizer(workdir, config, dataset)
    shape, order = sample_shape(config), Order(config.seed, config.data.draws)
    pool = photo_pool(dataset, TRAIN, shape.reference_size)
    batches = training_batches(
        dataset, tokenizer, shape, order, config.batch_size, config.data.loader
    )
    say(f"training on {describe_pool(pool)}")
    return Data(dataset, tokenizer, pool, order, batches)


def _progress(config: TrainConfig, step: int) -> Any:
    return tqdm(
        total=config.steps,
        initial=step,
        unit="step",
        desc="training",
        smoothing=0.05,
        disable=not is_first(),
    )


@dataclass(frozen=True)
class Taken:
    """A step that was taken.

    Attributes:
        step: its number, from 1.
        metrics: what it returned; still on the device.
        before: where the data iterator stood before its batch; None of the first one here.
    """

    step: int
    metrics: Metrics
    before: dict[str, Any] | None


class Health:
    """Looks whether losses and gradients are finite, a few steps late."""

    def __init__(self) -> None:
        self._unread: deque[Taken] = deque()
        self._data_state: dict[str, Any] | None = None

    def add(self, step: int, metrics: Metrics, data_state: dict[str, Any]) -> None:
        """Take note of a step, and of where the data iterator stands after its batch."""
        self._unread.append(Taken(step, metrics, self._data_state))
        self._data_state = data_state

    def bad(self, unread: int) -> Taken | None:
        """The first step that was not finite, if any, leaving the `unread` newest ones."""
        while len(self._unread) > unread:
            taken = self._unread.popleft()
            if not taken.metrics["healthy"]:
                return taken
        return None


def _keep_last_good(checkpoints: Checkpoints, state: TrainState, bad: Taken) -> None:
    """Save the state, which stands still since before the bad step."""
    good = bad.step - 1
    if bad.before is None or checkpoints.latest_step == good:
        return  # nothing was learnt since what the run started from
    checkpoints.save(replace(state, healthy=jnp.ones_like(state.healthy)), good, bad.before)


def _what_diverged(bad: Taken, data: Data, config: TrainConfig) -> str:
    """Say which step, why, and on which photos."""
    loss, norm = float(bad.metrics["loss"]), float(bad.metrics["gradient_norm"])
    losses = np.asarray(bad.metrics["sample_loss"])
    rows = np.flatnonzero(~np.isfinite(losses))
    first = (bad.step - 1) * config.batch_size
    named = describe_samples(data.pool, data.order, [int(first + row) for row in rows[:4]])
    of = f" of {len(rows)} samples ({'; '.join(named)})" if named else " of the whole batch"
    return (
        f"Step {bad.step} has a loss of {loss:g} and a gradient of norm {norm:g}{of}. The state "
        f"after step {bad.step - 1} is kept. Begin another run from it (--config.initial) with a "
        "lower learning rate, gradient clipping or another seed."
    )
