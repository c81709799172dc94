"""A run's computation laid out over devices: networks, optimizer, state and step."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.extend.core import ClosedJaxpr

from flashface_jax.diffusion.loss import draw_loss_noise, total_loss
from flashface_jax.models.attention.attend import BlockedAttention
from flashface_jax.models.attention.backends import best_attention
from flashface_jax.models.blocks import Compute
from flashface_jax.models.convolution import best_convolution
from flashface_jax.models.flashface import begin_as_copies
from flashface_jax.models.lora import init_lora, lora_shapes
from flashface_jax.models.network import Params
from flashface_jax.training.computation.batch import AnyBatch, batch_class
from flashface_jax.training.computation.state import TrainState
from flashface_jax.training.computation.step import (
    make_loss_terms,
    make_train_step,
    over_devices,
)
from flashface_jax.training.config import TrainConfig
from flashface_jax.training.optimizer import build_optimizer
from flashface_jax.training.parallel.blocks import TrainingBlocks, split_as
from flashface_jax.training.parallel.sharding import Layout, ShardingConfig
from flashface_jax.weights.system import System, build_system
from flashface_jax.weights.trainable import FLASHFACE, LORA, merge_trainable, split_trainable

PLAIN_ATTENTION = BlockedAttention(max_logits=1 << 62, head_by_head=False)
"""Without blocks, whose number would depend on the machine."""


@dataclass(frozen=True)
class Program:
    """What a run computes, and where.

    Attributes:
        config: the run.
        system: networks whose blocks fetch their kernels; to be called within `shard_map`.
        optimizer: of the trainable parameters.
        layout: where parameters and samples lie.
    """

    config: TrainConfig
    system: System
    optimizer: optax.GradientTransformation
    layout: Layout

    @classmethod
    def over(cls, config: TrainConfig, devices: Sequence[jax.Device] | None = None) -> "Program":
        """Lay a run out over devices; all that JAX knows of by default.

        Raises:
            ValueError: if they cannot share parameters or the batch as configured.
        """
        devices = jax.devices() if devices is None else devices
        _require_host()
        _check_batch(config, len(devices))
        layout = Layout.over(devices, config.sharding)
        platform, dtype = devices[0].platform, jnp.dtype(config.compute_dtype)
        compute = Compute(
            dtype,
            best_attention(platform),
            best_convolution(platform),
            TrainingBlocks(dtype, config.recompute),
        )
        system = build_system(config.system, compute)
        split = {name: split_as(name, part, layout) for name, part in system.parts().items()}
        optimizer = build_optimizer(config.optimizer, config.steps)
        return cls(config, replace(system, **split), optimizer, layout)

    @cached_property
    def shapes(self) -> TrainState:
        """Shapes and dtypes of the state."""
        return jax.eval_shape(self._state, self._drawn_shapes())

    @cached_property
    def shardings(self) -> TrainState:
        """Where each leaf of the state lies."""
        return self.layout.shardings(self.shapes)

    def fresh_state(self) -> TrainState:
        """A state with newly drawn parameters, the same on any devices."""
        return self.state_of(self.layout.place({**self._drawn(), **self._drawn_updates()}))

    def fresh_updates(self) -> dict[str, Params]:
        """Newly drawn low-rank updates, if the run has any."""
        return self.layout.place(self._drawn_updates())

    def state_of(self, drawn: dict[str, Params]) -> TrainState:
        """The state before the first step, of all networks' parameters, which it takes."""
        # The state takes the memory of what it is made of.
        return jax.jit(self._state, out_shardings=self.shardings, donate_argnums=0)(drawn)

    def step(self, empty_tokens: Any) -> Any:
        """The compiled train step, (state, batch) -> (state, metrics); it takes the state."""
        terms = over_devices(
            make_loss_terms(self.system, self.config, jnp.asarray(empty_tokens)), self.layout
        )
        step = make_train_step(terms, self.optimizer, self.config, self.layout)
        return jax.jit(
            step,
            donate_argnums=0,
            in_shardings=(self.shardings, self.layout.rows),
            out_shardings=(self.shardings, self.layout.everywhere),
        )

    def batch_shapes(self) -> AnyBatch:
        """Shapes, dtypes and places of a global batch."""
        return batch_class(self.config).shapes(self.config, self.layout.rows)

    def _drawn(self) -> dict[str, Params]:
        """Fresh parameters of every network, on the host."""
        with jax.default_device(jax.local_devices(backend="cpu")[0]):
            key = _keys(self.config.seed)["parameters"]
            drawn = {
                name: part.init(jax.random.fold_in(key, i))
                for i, (name, part) in enumerate(self.system.parts().items())
            }
            drawn[FLASHFACE] = begin_as_copies(drawn[FLASHFACE])
        return drawn

    def _drawn_updates(self) -> dict[str, Params]:
        lora, shapes = self.config.lora, self.system.flashface.shapes
        if lora is None:
            return {}
        with jax.default_device(jax.local_devices(backend="cpu")[0]):
            return {LORA: init_lora(_keys(self.config.seed)["lora"], shapes, lora)}

    def _drawn_shapes(self) -> dict[str, Params]:
        shapes = {name: part.shapes for name, part in self.system.parts().items()}
        if self.config.lora is not None:
            shapes[LORA] = lora_shapes(self.system.flashface.shapes, self.config.lora)
        return shapes

    def _state(self, drawn: dict[str, Params]) -> TrainState:
        config = self.config
        params, frozen = split_trainable(drawn, config.trainable, config.lora)
        return TrainState(
            step=jnp.zeros((), jnp.int32),
            healthy=jnp.ones((), jnp.bool_),
            params=params,
            average=jax.tree.map(jnp.copy, params) if config.optimizer.ema_decay > 0 else None,
            optimizer=self.optimizer.init(params),
            frozen=frozen,
            key=_keys(config.seed)["steps"],
        )


def _keys(seed: int) -> dict[str, jax.Array]:
    names = ("parameters", "steps", "lora")
    return dict(zip(names, jax.random.split(jax.random.key(seed), len(names)), strict=True))


def _require_host() -> None:
    """Refuse a JAX that was told to leave the CPU alone: parameters are drawn there."""
    try:
        jax.local_devices(backend="cpu")
    except RuntimeError as error:
        raise ValueError(
            "JAX was told not to use the CPU: add it, as in JAX_PLATFORMS=tpu,cpu, or leave "
            "JAX_PLATFORMS unset."
        ) from error


def _check_batch(config: TrainConfig, devices: int) -> None:
    each = devices * config.accumulate
    if config.batch_size % each:
        raise ValueError(
            f"batch_size {config.batch_size} does not divide by {each}, the number of devices "
            f"({devices}) times accumulate ({config.accumulate}): choose a multiple of it."
        )


def lower_train_step(config: TrainConfig, devices: Sequence[Any]) -> jax.stages.Lowered:
    """Lower the train step for devices, which need not exist: those of a topology will do."""
    program = Program.over(config, devices)
    state = jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        program.shapes,
        program.shardings,
    )
    step = program.step(np.zeros((1, config.system.text_tower.length), np.int32))
    with jax.set_mesh(program.layout.mesh):
        return step.lower(state, program.batch_shapes())


def model_jaxpr(config: TrainConfig) -> ClosedJaxpr:
    """Trace loss and gradient of a whole batch with plain attention and nothing made again.

    Its operations are those that the mathematics asks for, on whatever devices.
    """
    dtype = jnp.dtype(config.compute_dtype)
    compute = Compute(dtype, PLAIN_ATTENTION, jax.lax.conv_general_dilated)
    program = Program.over(
        replace(config, accumulate=1, sharding=ShardingConfig()), jax.devices()[:1]
    )
    terms = make_loss_terms(
        build_system(config.system, compute),
        config,
        jnp.zeros((1, config.system.text_tower.length), jnp.int32),
    )

    def loss(params: dict[str, Params], frozen: dict[str, Params], batch: AnyBatch) -> jax.Array:
        timesteps = config.system.schedule.timesteps
        drawn = draw_loss_noise(jax.random.key(0), config.latent_shape, timesteps, config.loss)
        of_samples = terms(merge_trainable(params, frozen, config.lora), batch, drawn)
        return total_loss(of_samples, config.loss.weights).mean()

    state = program.shapes
    return jax.make_jaxpr(jax.value_and_grad(loss))(
        state.params, state.frozen, program.batch_shapes()
    )
