"""The train step: one pure function, (state, batch) -> (state, metrics)."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float, Int

from flashface_jax.diffusion.loss import (
    LossNoise,
    SampleValues,
    denoise,
    draw_loss_noise,
    loss_terms,
    total_loss,
)
from flashface_jax.diffusion.schedule import noise_levels
from flashface_jax.models.network import Params
from flashface_jax.training.computation.batch import AnyBatch
from flashface_jax.training.computation.state import TrainState
from flashface_jax.training.config import TrainConfig
from flashface_jax.training.parallel.sharding import EVERY_DEVICE, Layout
from flashface_jax.weights.system import System
from flashface_jax.weights.trainable import merge_trainable

Metrics = dict[str, Array]
"""By name: numbers of the whole batch, all of which are logged, and what tells of its health."""
Terms = dict[str, SampleValues]
LossTerms = Callable[[dict[str, Params], AnyBatch, LossNoise], Terms]


def make_loss_terms(
    system: System, config: TrainConfig, empty_tokens: Int[Array, "1 words"]
) -> LossTerms:
    """Return the terms of each sample's loss, a pure function of all parameters and the data."""
    levels = jnp.asarray(noise_levels(config.system.schedule), jnp.float32)
    inpaints = config.system.flashface.inpaints

    def terms(params: dict[str, Params], batch: AnyBatch, drawn: LossNoise) -> Terms:
        example = batch.example(system, params, drawn, empty_tokens, inpaints)
        model = system.flashface.bind(params["flashface"])
        prediction = config.system.schedule.prediction
        denoised = denoise(model, example, drawn, levels, prediction)
        return loss_terms(denoised, example, drawn, config.loss)

    return terms


def over_devices(terms: LossTerms, layout: Layout) -> LossTerms:
    """The same of a batch that is spread over devices: each computes its own samples' terms.

    Nothing passes between devices but parts of kernels, fetched by each block as it runs, and
    their gradients.
    """

    def spread(params: dict[str, Params], batch: AnyBatch, drawn: LossNoise) -> Terms:
        rows = PartitionSpec(EVERY_DEVICE)
        return jax.shard_map(
            terms,
            mesh=layout.mesh,
            in_specs=(layout.specs(params), rows, rows),
            out_specs=rows,
            check_vma=False,
        )(params, batch, drawn)

    return spread


def make_train_step(
    sample_terms: LossTerms,
    optimizer: optax.GradientTransformation,
    config: TrainConfig,
    layout: Layout,
) -> Callable[[TrainState, AnyBatch], tuple[TrainState, Metrics]]:
    """Close the step over everything that does not change; jit the result, donating the state."""
    shape, timesteps = config.latent_shape, config.system.schedule.timesteps

    def train_step(state: TrainState, batch: AnyBatch) -> tuple[TrainState, Metrics]:
        def mean_loss(
            params: dict[str, Params], rows: tuple[AnyBatch, LossNoise]
        ) -> tuple[Float[Array, ""], tuple[SampleValues, Terms]]:
            terms = sample_terms(merge_trainable(params, state.frozen, config.lora), *rows)
            losses = total_loss(terms, config.loss.weights)
            return losses.mean(), (losses, terms)

        key = jax.random.fold_in(state.key, state.step)
        drawn = draw_loss_noise(key, shape, timesteps, config.loss)
        drawn = jax.lax.with_sharding_constraint(drawn, layout.rows)
        gradient = accumulated(
            jax.value_and_grad(mean_loss, has_aux=True), config.accumulate, layout
        )
        (loss, (losses, terms)), gradients = gradient(state.params, (batch, drawn))
        with jax.named_scope("optimizer"):
            norm = optax.tree.norm(gradients)
            healthy = state.healthy & jnp.isfinite(loss) & jnp.isfinite(norm)
            new = updated(state, gradients, optimizer, config.optimizer.ema_decay)
            # From the first loss that is not finite on, the state stands still.
            new = jax.tree.map(lambda now, was: jnp.where(healthy, now, was), new, moving(state))
        metrics = {
            "loss": loss,
            "gradient_norm": norm,
            "sample_loss": losses,
            "healthy": healthy,
            **{f"loss/{name}": values.mean() for name, values in terms.items()},
        }
        return replace(state, healthy=healthy, **new), metrics

    return train_step


def accumulated(gradient: Callable[..., Any], batches: int, layout: Layout) -> Callable[..., Any]:
    """The gradient of the mean loss of a batch, from as many smaller ones, one after the other."""
    if batches == 1:
        return gradient
    devices = layout.mesh.size

    def divided(x: Array) -> Array:
        """(batch, ...) -> (batches, smaller batch, ...); each row stays on its device."""
        x = x.reshape(devices, batches, -1, *x.shape[1:]).swapaxes(0, 1)
        x = x.reshape(batches, -1, *x.shape[3:])
        return jax.lax.with_sharding_constraint(x, layout.stacked_rows)

    def joined(x: Float[Array, "batches rows"]) -> Float[Array, " batch"]:
        return x.reshape(batches, devices, -1).swapaxes(0, 1).reshape(-1)

    def of_all(params: Any, rows: Any) -> Any:
        leaves, structure = jax.tree.flatten(rows)

        def add(total: Any, some: list[Array]) -> tuple[Any, Any]:
            (loss, samples), gradients = gradient(params, jax.tree.unflatten(structure, some))
            return jax.tree.map(jnp.add, total, (loss, gradients)), samples

        zero = jnp.zeros(()), jax.tree.map(jnp.zeros_like, params)
        total, samples = jax.lax.scan(add, zero, [divided(leaf) for leaf in leaves])
        loss, gradients = jax.tree.map(lambda x: x / batches, total)
        return (loss, jax.tree.map(joined, samples)), gradients

    return of_all


def moving(state: TrainState) -> dict[str, Any]:
    """What of a state an optimizer step changes."""
    return {name: getattr(state, name) for name in ("step", "params", "average", "optimizer")}


def updated(
    state: TrainState,
    gradients: dict[str, Params],
    optimizer: optax.GradientTransformation,
    ema_decay: float,
) -> dict[str, Any]:
    """Take an optimizer step: what it changes."""
    updates, optimizer_state = optimizer.update(gradients, state.optimizer, state.params)
    params = optax.apply_updates(state.params, updates)
    average = state.average
    if average is not None:
        # A plain mean first: a fresh run must not drag its initial values along.
        kept = jnp.minimum(ema_decay, state.step / (state.step + 1))
        average = optax.incremental_update(params, average, 1 - kept)
    return {
        "step": state.step + 1,
        "params": params,
        "average": average,
        "optimizer": optimizer_state,
    }
