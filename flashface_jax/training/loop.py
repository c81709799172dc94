"""The training loop, in sections: data, networks, state, steps."""

import dataclasses
import json
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image
from tqdm import tqdm

from flashface_jax.data.dataset import TRAIN, VALIDATION, IdClusters
from flashface_jax.data.pipeline import Order, describe_pool, photo_pool, training_batches
from flashface_jax.data.samples import SampleShape
from flashface_jax.files import whole_file
from flashface_jax.generation import Sampler, make_generate
from flashface_jax.models.blocks import Compute
from flashface_jax.system import System, build_system
from flashface_jax.tokenizer import Tokenizer
from flashface_jax.training.checkpoint import Checkpoints
from flashface_jax.training.config import TrainConfig
from flashface_jax.training.data import open_dataset, open_tokenizer
from flashface_jax.training.held_out import held_out_requests, held_out_sheet
from flashface_jax.training.metrics import MetricsWriter
from flashface_jax.training.optimizer import build_optimizer
from flashface_jax.training.state import TrainState, create_state
from flashface_jax.training.step import Batch, Metrics, make_train_step
from flashface_jax.weights import write_config

# What may change between the beginning of a run and its resumption.
RESUMABLE_CHANGES = {
    "system.sampling",
    "data.loader",
    "data.dataset",  # the batches' fingerprint holds what matters of it
    "steps",
    "log_every",
    "checkpoint_every",
    "grid_every",
    "grid_people",
    "keep_checkpoints",
}


def train(config: TrainConfig, workdir: Path) -> TrainState:
    """Train, or go on training, in `workdir`; returns the final state.

    Raises:
        ValueError: if `workdir` holds a run of another configuration, the data do not fit, or JAX
            was told of several processes.
    """
    _require_one_process()
    workdir.mkdir(parents=True, exist_ok=True)
    _claim(workdir, config)

    # Data.
    dataset = open_dataset(workdir, config.data)
    tokenizer = open_tokenizer(workdir, config, dataset)
    shape, order = sample_shape(config), Order(config.seed, config.data.draws)
    print(f"training on {describe_pool(photo_pool(dataset, TRAIN, shape.reference_size))}")
    batches = training_batches(
        dataset, tokenizer, shape, order, config.batch_size, config.data.loader
    )

    # Networks and their state, fresh or resumed.
    system = build_system(config.system, Compute(jnp.dtype(config.compute_dtype)))
    optimizer = build_optimizer(config.optimizer, config.steps)
    averages = config.optimizer.ema_decay > 0
    state = create_state(system, config.trainable, optimizer, averages, config.seed)
    checkpoints = Checkpoints(workdir, config.keep_checkpoints)
    if checkpoints.latest_step is not None:
        state, data_state = checkpoints.restore(state)
        batches.set_state(data_state)
        print(f"resumed {workdir} at step {int(state.step)}")

    # What a step does, and what is shown of it.
    empty_tokens = jnp.asarray(tokenizer([""]))
    train_step = jax.jit(make_train_step(system, optimizer, config, empty_tokens), donate_argnums=0)
    draw_grid = _grid_drawer(system, config, dataset, tokenizer)
    metrics = MetricsWriter(workdir, int(state.step))
    meter = Meter(config.batch_size)

    with (
        closing(batches),
        closing(metrics),
        closing(checkpoints),
        tqdm(
            total=config.steps,
            initial=int(state.step),
            unit="step",
            desc="training",
            smoothing=0.05,
        ) as progress,
    ):
        for step in range(int(state.step) + 1, config.steps + 1):
            state, step_metrics = train_step(state, Batch(**jax.device_put(next(batches))))
            meter.add(step_metrics)
            progress.update()
            last = step == config.steps
            if step % config.log_every == 0 or last:
                values = {**meter.read(), "undecodable_photos": float(batches.replaced)}
                metrics.scalars(step, values)
                progress.set_postfix({name: f"{value:.4g}" for name, value in values.items()})
            # Before the next batch is drawn: only now does the iterator stand where `state` does.
            if step % config.checkpoint_every == 0 or last:
                checkpoints.save(state, batches.get_state())
            if draw_grid is not None and (step % config.grid_every == 0 or last):
                path = metrics.picture(step, "held_out", draw_grid(state))
                progress.write(f"wrote {path}")
                meter.restart()
    return state


class Meter:
    """Means of metrics, and samples per second, since the last reading."""

    def __init__(self, batch_size: int):
        self._batch_size = batch_size
        self._values: list[Metrics] = []
        self.restart()

    def restart(self) -> None:
        """Start the clock, after something that was not training."""
        self._timed, self._began = 0, time.perf_counter()

    def add(self, values: Metrics) -> None:
        """Take one step's metrics; they stay on the device until read."""
        self._values.append(values)
        self._timed += 1

    def read(self) -> dict[str, float]:
        """Return the means and the rate, and start anew."""
        values = jax.device_get(self._values)
        means = {name: float(np.mean([v[name] for v in values])) for name in values[0]}
        seconds = time.perf_counter() - self._began
        means["samples_per_second"] = self._timed * self._batch_size / seconds
        self._values = []
        self.restart()
        return means


def _grid_drawer(
    system: System, config: TrainConfig, dataset: IdClusters, tokenizer: Tokenizer
) -> Callable[[TrainState], Image.Image] | None:
    """Return a function that draws held-out people with the current parameters, if any."""
    if not config.grid_people or VALIDATION not in dataset.splits:
        return None
    photos, shape = dataset.photos(VALIDATION), sample_shape(config)
    references = config.data.draws.max_references
    asked = held_out_requests(photos, config.grid_people, tokenizer, shape, references, config.seed)
    generate = make_generate(Sampler(system, config.system.schedule.prediction))
    plan = config.system.sampling.plan(config.system.schedule)

    def draw(state: TrainState) -> Image.Image:
        images = generate(state.sampling_params, asked.request, plan)
        return held_out_sheet(asked, {"generated": np.asarray(images)}, cell=2 * shape.image_size)

    return draw


def sample_shape(config: TrainConfig) -> SampleShape:
    """The sizes that the configured networks want."""
    system = config.system
    return SampleShape(system.image_size, system.reference_size, system.autoencoder.stride)


def _require_one_process() -> None:
    """Refuse several processes: nothing adds up their gradients, each would train on its own."""
    if jax.process_count() > 1:
        raise ValueError(
            f"Training runs in one process, and there are {jax.process_count()}: start it on one."
        )


def _claim(workdir: Path, config: TrainConfig) -> None:
    """Write the configuration, or check that it is the one that the run began with."""
    path = workdir / "train.json"
    described = json.loads(json.dumps(dataclasses.asdict(config)))
    if path.exists():
        began, now = _by_path(json.loads(path.read_text())), _by_path(described)
        changed = [
            f"{name}: {began.get(name)} -> {now.get(name)}"
            for name in sorted(began.keys() | now.keys())
            if began.get(name) != now.get(name)
        ]
        if changed:
            raise ValueError(
                f"{workdir} holds a run with another configuration ({'; '.join(changed)}): choose "
                "another workdir, remove this one, or take the configuration that it began with."
            )
    with whole_file(path) as draft:
        draft.write_text(json.dumps(described, indent=2) + "\n")
    write_config(workdir, config.system)


def _by_path(values: dict[str, Any], parent: str = "") -> dict[str, Any]:
    """Values of a nested configuration by dotted path, but for those that may change."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        path = f"{parent}{key}"
        if path in RESUMABLE_CHANGES:
            continue
        found.update(_by_path(value, f"{path}.") if isinstance(value, dict) else {path: value})
    return found
