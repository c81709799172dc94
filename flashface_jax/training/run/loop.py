"""The training loop, in sections: data, state, steps."""

from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path

import jax.numpy as jnp

from flashface_jax.data.dataset import TRAIN, IdClusters
from flashface_jax.data.loading.loader import BatchLoader
from flashface_jax.data.loading.pipeline import (
    Order,
    describe_pool,
    describe_samples,
    photo_pool,
    training_batches,
)
from flashface_jax.data.loading.samples import PhotoPool
from flashface_jax.training.computation.batch import batch_class
from flashface_jax.training.computation.program import Program
from flashface_jax.training.computation.state import TrainState
from flashface_jax.training.config import TrainConfig
from flashface_jax.training.monitoring.observer import Observer
from flashface_jax.training.monitoring.preview import make_preview
from flashface_jax.training.monitoring.trackers.registry import check_trackers
from flashface_jax.training.parallel.processes import StopRequest, is_first, say, total
from flashface_jax.training.run import run_lock as claim
from flashface_jax.training.run.checkpoint import Checkpoints
from flashface_jax.training.run.data import open_dataset, open_tokenizer
from flashface_jax.training.run.divergence import UNREAD, Health, Taken
from flashface_jax.training.run.precomputed import precomputed_batches, require_same_weights
from flashface_jax.training.run.prefetch import feed
from flashface_jax.training.run.start import fitting_weights, starting_state
from flashface_jax.weights.run_files import has_checkpoints
from flashface_jax.weights.tokenizer import Tokenizer


class DivergedError(ValueError):
    """A run whose loss or gradient is no finite number any more; the message names the batch."""


def train(config: TrainConfig, workdir: Path) -> TrainState:
    """Train, or go on training, in `workdir`; returns the final state.

    Every process of a run calls this with the same arguments and sees the same `workdir`. Told to
    stop by SIGTERM, they save, say so, and return the state so far.

    Raises:
        ValueError: if `workdir` holds a run of another configuration, the data or the devices do
            not fit, or a tracker cannot be opened.
        DivergedError: if a loss or gradient is not finite; the state before it is saved.
    """
    check_trackers(config.trackers)
    program = Program.over(config)
    claim.check(workdir, config)
    if not has_checkpoints(workdir):
        fitting_weights(config)  # before the data, which may take long to open
    workdir.mkdir(parents=True, exist_ok=True)
    say(f"training {program.layout.description}")
    data = _open_data(program, workdir)
    with ExitStack() as cleanup:
        cleanup.enter_context(closing(data.batches))
        checkpoints = cleanup.enter_context(closing(Checkpoints(workdir, config.keep_checkpoints)))
        state = _first_state(program, checkpoints, data)
        require_same_weights(config, state.frozen)
        if is_first():
            claim.claim(workdir, config)
        observer = cleanup.enter_context(Observer(program, workdir, int(state.step)))
        stop = cleanup.enter_context(StopRequest().listening())
        return _take_steps(program, state, data, checkpoints, observer, stop)


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

    def names(self, indices: list[int]) -> list[str]:
        """What samples show, by their global indices."""
        return describe_samples(self.pool, self.order, indices)


def _open_data(program: Program, workdir: Path) -> Data:
    config, rows = program.config, program.layout.own_rows(program.config.batch_size)
    dataset = open_dataset(workdir, config.data)
    tokenizer = open_tokenizer(workdir, config, dataset)
    shape, order = config.sample_shape, Order(config.seed, config.data.draws)
    pool = photo_pool(dataset, TRAIN, shape.reference_size)
    if config.data.precomputed:
        batches = precomputed_batches(config, dataset, tokenizer, order, rows)
    else:
        batches = training_batches(
            dataset, tokenizer, shape, order, config.batch_size, config.data.loader, rows
        )
    say(f"{describe_pool(pool)}")
    return Data(dataset, tokenizer, pool, order, batches)


def _first_state(program: Program, checkpoints: Checkpoints, data: Data) -> TrainState:
    """The state to go on from, resumed or fresh; the batches go on with it."""
    restored = checkpoints.restore(program.shapes, program.shardings)
    if restored is None:
        return starting_state(program)
    data.batches.set_state(restored.data)
    say(f"resumed {checkpoints.place} at step {int(restored.state.step)}")
    return restored.state


def _take_steps(
    program: Program,
    state: TrainState,
    data: Data,
    checkpoints: Checkpoints,
    observer: Observer,
    stop: StopRequest,
) -> TrainState:
    config, health = program.config, Health()
    train_step = program.step(data.tokenizer([""]))
    preview = make_preview(program, data.dataset, data.tokenizer)
    batches = feed(data.batches, batch_class(config), program.layout)
    for step in range(int(state.step) + 1, config.steps + 1):
        with observer.waiting():
            fed = next(batches)
        observer.before(step)
        state, metrics = train_step(state, fed.batch)
        observer.after(step, metrics)
        health.add(step, metrics, fed.data_state)

        stopped = stop.heard(step)
        last = step == config.steps or stopped
        logs, saves = (
            step % every == 0 or last for every in (config.log_every, config.checkpoint_every)
        )
        bad = health.first_bad(unread=0 if logs or saves else UNREAD)
        if bad is not None:
            _keep_last_good(checkpoints, state, bad)
            first = (bad.step - 1) * config.batch_size
            raise DivergedError(bad.in_words(data.names([first + r for r in bad.bad_rows[:4]])))
        if logs:
            observer.log(step, undecodable_photos=float(total(data.batches.replaced)))
        if saves:
            checkpoints.save(state, step, fed.data_state)
        if stopped:
            observer.tell(f"told to stop: saving step {step}; the same command goes on from it")
            break
        if preview is not None and (step % config.grid_every == 0 or last):
            images = preview.generate(state)
            observer.picture(step, "held_out", preview.sheet(images), preview.scores(images))
    return state


def _keep_last_good(checkpoints: Checkpoints, state: TrainState, bad: Taken) -> None:
    """Save the state, which stands still since before the bad step."""
    good = bad.step - 1
    if bad.before is None or checkpoints.latest_step == good:
        return  # nothing was learnt since what the run started from
    checkpoints.save(replace(state, healthy=jnp.ones_like(state.healthy)), good, bad.before)
