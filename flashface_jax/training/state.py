"""Everything of a run that changes from step to step."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jaxtyping import Array, Int

from flashface_jax.models.flashface import begin_as_copies
from flashface_jax.models.network import Params
from flashface_jax.system import System


@struct.dataclass
class TrainState:
    """State of training, a pytree.

    Attributes:
        step: optimizer steps taken.
        params: trainable parameters, part -> tree.
        average: moving average of `params`, or None.
        optimizer: optax state.
        frozen: parameters that do not train, part -> tree.
        key: the run's random key; a step uses fold_in(key, step).
    """

    step: Int[Array, ""]
    params: dict[str, Params]
    average: dict[str, Params] | None
    optimizer: Any
    frozen: dict[str, Params]
    key: jax.Array

    @property
    def sampling_params(self) -> dict[str, Params]:
        """Parameters of all parts as samples are drawn with them."""
        return {**self.frozen, **(self.params if self.average is None else self.average)}


def create_state(
    system: System,
    trainable: tuple[str, ...],
    optimizer: optax.GradientTransformation,
    averages: bool,
    seed: int,
) -> TrainState:
    """Fresh parameters for every part, and an optimizer for the trainable ones."""
    init_key, run_key = jax.random.split(jax.random.key(seed))
    parts = system.parts()
    drawn = {
        name: part.init(jax.random.fold_in(init_key, i))
        for i, (name, part) in enumerate(parts.items())
    }
    drawn["flashface"] = begin_as_copies(drawn["flashface"])
    params = {name: drawn[name] for name in trainable}
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        average=jax.tree.map(jnp.copy, params) if averages else None,
        optimizer=optimizer.init(params),
        frozen={name: tree for name, tree in drawn.items() if name not in trainable},
        key=run_key,
    )
