"""The training loop: open, build, resume or start, and take steps."""

from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path

import jax.numpy as jnp

from flashface_jax.training.computation.batch import batch_class
from flashface_jax.training.computation.program import Program
from flashface_jax.training.computation.state import TrainState
from flashface_jax.training.config import TrainConfig
from flashface_jax.training.monitoring.observer import Observer
from flashface_jax.training.monitoring.preview import make_preview
from flashface_jax.training.monitoring.trackers.registry import check_trackers
from flashface_jax.training.parallel.processes import StopRequest, is_first, say, total
from flashface_jax.training.run.checkpoint import Checkpoints
from flashface_jax.training.run.data import TrainingData, open_data
from flashface_jax.training.run.divergence import UNREAD, DivergenceCheck, StepTaken
from flashface_jax.training.run.precomputed import require_same_weights
from flashface_jax.training.run.prefetch import prefetch
from flashface_jax.training.run.run_config import require_same_run, write_run_config
from flashface_jax.training.run.start import initial_weights, starting_state
from flashface_jax.weights.run_files import newest_checkpoint


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
    if is_first():  # who alone opens them
        check_trackers(config.trackers)
    require_same_run(workdir, config)
    if newest_checkpoint(workdir) is None:
        initial_weights(config)  # refused before the data are opened, which may take long
    program = Program.over(config)
    workdir.mkdir(parents=True, exist_ok=True)
    say(f"training {program.layout.description}")
    data = open_data(config, workdir, program.layout.own_rows(config.batch_size))
    with ExitStack() as cleanup:
        cleanup.enter_context(closing(data.batches))
        checkpoints = cleanup.enter_context(closing(Checkpoints(workdir, config.keep_checkpoints)))
        state = _first_state(program, checkpoints, data)
        require_same_weights(config, state.frozen)
        if is_first():
            write_run_config(workdir, config)
        observer = cleanup.enter_context(Observer(program, workdir, int(state.step)))
        stop = cleanup.enter_context(StopRequest().listening())
        return _take_steps(program, state, data, checkpoints, observer, stop)


def _first_state(program: Program, checkpoints: Checkpoints, data: TrainingData) -> TrainState:
    """The state to go on from, resumed or fresh; the batches go on with it."""
    restored = checkpoints.restore(program.shapes, program.shardings)
    if restored is None:
        return starting_state(program, initial_weights(program.config))
    data.batches.set_state(restored.data)
    say(f"resumed {checkpoints.place} at step {int(restored.state.step)}")
    return restored.state


def _take_steps(
    program: Program,
    state: TrainState,
    data: TrainingData,
    checkpoints: Checkpoints,
    observer: Observer,
    stop: StopRequest,
) -> TrainState:
    config, health = program.config, DivergenceCheck()
    train_step = program.step(data.tokenizer([""]))
    preview = make_preview(program, data.dataset, data.tokenizer)
    batches = prefetch(data.batches, batch_class(config), program.layout)
    for step in range(int(state.step) + 1, config.steps + 1):
        with observer.waiting():
            prefetched = next(batches)
        observer.before(step)
        state, metrics = train_step(state, prefetched.batch)
        observer.after(step, metrics)
        health.add(step, metrics, prefetched.data_state)

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
            checkpoints.save(state, step, prefetched.data_state)
        if stopped:
            observer.tell(f"told to stop: saving step {step}; the same command goes on from it")
            break
        if preview is not None and (step % config.grid_every == 0 or last):
            images = preview.generate(state)
            observer.picture(step, "held_out", preview.sheet(images), preview.scores(images))
    return state


def _keep_last_good(checkpoints: Checkpoints, state: TrainState, bad: StepTaken) -> None:
    """Save the state, which stands still since before the bad step."""
    good = bad.step - 1
    if bad.before is None or checkpoints.latest_step == good:
        return  # nothing was learnt since what the run started from
    checkpoints.save(replace(state, healthy=jnp.ones_like(state.healthy)), good, bad.before)
