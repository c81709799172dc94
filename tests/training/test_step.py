"""The train step and its loss: gradients reach everything that trains, drops are independent."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flashface_jax.diffusion.loss import DropRates, Example, drop_conditions
from flashface_jax.diffusion.schedule import noise_levels
from flashface_jax.system import build_system
from flashface_jax.training.optimizer import (
    OptimizerConfig,
    build_optimizer,
    learning_rate_schedule,
)
from flashface_jax.training.state import create_state
from flashface_jax.training.step import Batch, make_train_step
from tests.small import CONFIG, with_changes


@pytest.fixture(scope="module")
def system():
    return build_system(CONFIG.system)


def batch(valid=True, seed=0):
    rng = np.random.default_rng(seed)
    return Batch(
        target=jnp.asarray(rng.integers(0, 256, (4, 64, 64, 3), dtype=np.uint8)),
        face_mask=jnp.asarray(rng.random((4, 8, 8, 1)) > 0.5, jnp.float32),
        tokens=jnp.asarray(rng.integers(0, 600, (4, 40)), jnp.int32),
        references=jnp.asarray(rng.integers(0, 256, (4, 3, 32, 32, 3), dtype=np.uint8)),
        reference_valid=jnp.full((4, 3), valid),
    )


EMPTY = jnp.zeros((1, 40), jnp.int32)


def run_steps(system, config, batches):
    optimizer = build_optimizer(config.optimizer, config.steps)
    state = create_state(system, config.trainable, optimizer, True, config.seed)
    first = jax.tree.map(jnp.copy, state.params)
    step = jax.jit(make_train_step(system, optimizer, config, EMPTY))
    for each in batches:
        state, metrics = step(state, each)
    assert step._cache_size() == 1
    return first, state, metrics


def changed(before, after):
    """Names of parameters that moved."""
    flat = jax.tree_util.tree_flatten_with_path(
        jax.tree.map(lambda a, b: jnp.any(a != b), before, after)
    )[0]
    return {jax.tree_util.keystr(path, simple=True, separator="/"): bool(v) for path, v in flat}


def test_everything_trains_except_what_nobody_reads(system):
    config = with_changes(drop=DropRates(0.0, 0.0, 0.0))
    first, state, _ = run_steps(system, config, [batch(seed=i) for i in range(3)])
    still = {name for name, moved in changed(first, state.params).items() if not moved}
    # The ReferenceNet ends at the last block's norm1: what lies behind it has no gradient.
    behind = "flashface/reference_net/decoder/1/transformer/"
    assert still
    for name in still:
        assert name.startswith(behind) or name == "text_tower/projection", name


def test_without_references_the_reference_net_gets_no_gradient(system):
    config = with_changes(drop=DropRates(0.0, 0.0, 1.0), trainable=("flashface",))
    first, state, _ = run_steps(system, config, [batch(), batch(seed=1)])
    moved = {name for name, m in changed(first, state.params).items() if m}
    assert not any(name.startswith("flashface/reference_net") for name in moved)
    assert any("reference_attention" in name for name in moved), "RefAttn over [y] still trains"


def test_frozen_parts_stay(system):
    config = with_changes(trainable=("flashface",))
    _, state, _ = run_steps(system, config, [batch()])
    assert set(state.params) == {"flashface"} and "text_tower" in state.frozen
    assert set(state.sampling_params) == {"flashface", "text_tower", "autoencoder"}


def test_the_average_is_a_plain_mean_at_first(system):
    config = with_changes(optimizer=OptimizerConfig(learning_rate=1e-2, ema_decay=0.999))
    _, one, _ = run_steps(system, config, [batch()])
    _, two, _ = run_steps(system, config, [batch(), batch(seed=1)])
    mean = jax.tree.map(lambda a, b: (a + b) / 2, one.params, two.params)
    worst = max(
        jax.tree.leaves(jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), mean, two.average))
    )
    assert worst <= 1e-6, f"{worst:.1e}"


def test_the_loss_is_one_for_a_net_that_predicts_nothing(system):
    # A fresh head is zero, so the loss is the mean square of the noise.
    _, _, metrics = run_steps(system, CONFIG, [batch()])
    assert abs(float(metrics["loss"]) - 1) < 0.05, float(metrics["loss"])


def example(rows):
    return Example(
        target=jnp.zeros((rows, 2, 2, 1)),
        face_mask=jnp.ones((rows, 2, 2, 1)),
        context=jnp.ones((rows, 3, 2)),
        empty_context=jnp.full((1, 3, 2), 7.0),
        references=jnp.zeros((rows, 2, 1, 1, 1)),
        reference_valid=jnp.ones((rows, 2), bool),
    )


def test_drops_are_independent_and_as_frequent_as_asked():
    rows, rates = 40_000, DropRates(0.1, 0.2, 0.3)
    dropped = drop_conditions(example(rows), rates, jax.random.key(0))
    text = np.asarray(dropped.context[:, 0, 0] == 7)
    mask = np.asarray(dropped.face_mask[:, 0, 0, 0] == 0)
    references = ~np.asarray(dropped.reference_valid[:, 0])
    for found, rate in ((text, 0.1), (mask, 0.2), (references, 0.3)):
        assert abs(found.mean() - rate) < 5 * (rate * (1 - rate) / rows) ** 0.5, found.mean()
    correlation = np.corrcoef([text, mask, references])
    assert np.abs(correlation - np.eye(3)).max() < 5 / rows**0.5, correlation


def test_no_drops_change_nothing():
    kept = drop_conditions(example(8), DropRates(0.0, 0.0, 0.0), jax.random.key(0))
    for name, value in vars(example(8)).items():
        np.testing.assert_array_equal(getattr(kept, name), value, err_msg=name)


def test_learning_rate_warms_up_and_decays():
    config = OptimizerConfig(learning_rate=1.0, warmup_steps=10, cosine_decay=True)
    rate = learning_rate_schedule(config, 110)
    assert [float(rate(i)) for i in (0, 5, 10, 60, 110)] == pytest.approx([0, 0.5, 1, 0.5, 0])
    assert float(learning_rate_schedule(OptimizerConfig(), 10)(0)) == pytest.approx(2e-5)


def test_schedule_levels_reach_the_loss():
    levels = noise_levels(CONFIG.system.schedule)
    assert len(levels) == 1000 and 0.029 < levels[0] < 0.03 and 0.997 < levels[-1] < 0.998
