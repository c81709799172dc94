"""The train step: one pure function, (state, batch) -> (state, metrics)."""

from collections.abc import Callable
from dataclasses import replace

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jaxtyping import Array, Bool, Float, Int, UInt8

from flashface_jax.diffusion.loss import Example, noise_prediction_loss
from flashface_jax.diffusion.schedule import noise_levels
from flashface_jax.models.network import Params
from flashface_jax.models.vae import encode_crops, from_pixels
from flashface_jax.system import System
from flashface_jax.training.config import TrainConfig
from flashface_jax.training.state import TrainState

Metrics = dict[str, Float[Array, ""]]


@struct.dataclass
class Batch:
    """What the input pipeline delivers; dropped conditions are empty in it.

    Attributes:
        target: target images.
        face_mask: 1 inside the face box, at the latents' resolution.
        tokens: tokens of the captions.
        references: upright face crops, black where there is none.
        reference_valid: which references exist.
    """

    target: UInt8[Array, "batch H W 3"]
    face_mask: UInt8[Array, "batch h w 1"]
    tokens: Int[Array, "batch words"]
    references: UInt8[Array, "batch refs R R 3"]
    reference_valid: Bool[Array, "batch refs"]


def encode(
    system: System,
    params: dict[str, Params],
    batch: Batch,
    empty_tokens: Int[Array, "1 words"],
    key: jax.Array,
) -> Example:
    """Run autoencoder and text tower; the target's posterior is sampled, the references' not."""
    autoencoder = system.autoencoder.bind(params["autoencoder"])
    text_tower = system.text_tower.bind(params["text_tower"])
    return Example(
        target=autoencoder.encode(from_pixels(batch.target), key),
        face_mask=batch.face_mask.astype(jnp.float32),
        context=text_tower(batch.tokens),
        empty_context=text_tower(empty_tokens),
        references=encode_crops(autoencoder, batch.references),
        reference_valid=batch.reference_valid,
    )


def make_train_step(
    system: System,
    optimizer: optax.GradientTransformation,
    config: TrainConfig,
    empty_tokens: Int[Array, "1 words"],
) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
    """Close the step over everything that does not change; jit the result, donating the state."""
    levels = jnp.asarray(noise_levels(config.system.schedule), jnp.float32)

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        encode_key, loss_key = jax.random.split(jax.random.fold_in(state.key, state.step))

        def loss(params: dict[str, Params]) -> Float[Array, ""]:
            everything = {**state.frozen, **params}
            example = encode(system, everything, batch, empty_tokens, encode_key)
            model = system.flashface.bind(everything["flashface"])
            return noise_prediction_loss(
                model,
                example,
                levels,
                config.system.schedule.prediction,
                config.loss,
                loss_key,
            ).mean()

        value, gradients = jax.value_and_grad(loss)(state.params)
        updates, optimizer_state = optimizer.update(gradients, state.optimizer, state.params)
        params = optax.apply_updates(state.params, updates)
        step = state.step + 1
        average = state.average
        if average is not None:
            # A plain mean first: a fresh run must not drag its initial values along.
            kept = jnp.minimum(config.optimizer.ema_decay, state.step / (state.step + 1))
            average = optax.incremental_update(params, average, 1 - kept)
        metrics = {"loss": value, "gradient_norm": optax.tree.norm(gradients)}
        state = replace(state, step=step, params=params, average=average, optimizer=optimizer_state)
        return state, metrics

    return train_step
