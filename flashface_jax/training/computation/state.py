"""Everything of a run that changes from step to step."""

from typing import Any

from flax import struct

from flashface_jax.models.network import Params

Leaf = Any
"""An array; also its shape, or its place: trees of these have the state's form, too."""


@struct.dataclass
class TrainState:
    """State of training, a pytree.

    Attributes:
        step: optimizer steps taken, an int32 scalar.
        healthy: a boolean scalar, whether every loss and gradient so far was finite; the state
            stays what it was before the first that was not.
        params: trainable parameters, part -> tree.
        average: moving average of `params`, a tree like it, or None.
        optimizer: optax state.
        frozen: parameters that do not train, part -> tree.
        key: the run's random key; a step uses fold_in(key, step).
    """

    step: Leaf
    healthy: Leaf
    params: dict[str, Params]
    average: Leaf
    optimizer: Any
    frozen: dict[str, Params]
    key: Leaf

    @property
    def sampled(self) -> dict[str, Params]:
        """The trainable parameters that samples are drawn with: the average, if there is one."""
        return self.params if self.average is None else self.average
