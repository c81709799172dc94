"""The train step and its loss: gradients reach everything that trains, drops are independent."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from flashface_jax.diffusion.loss import (
    LossConfig,
    LossWeights,
    loss_weight,
    stratified_timesteps,
)
from flashface_jax.diffusion.schedule import add_noise, as_noise, noise_levels
from flashface_jax.models.network import flatten
from flashface_jax.planning.breakdown import part_of
from flashface_jax.training.computation.batch import Batch
from flashface_jax.training.computation.program import Program
from flashface_jax.training.optimizer import (
    OptimizerConfig,
    build_optimizer,
    learning_rate_schedule,
)
from tests.small import CONFIG, with_changes

WHOLE = with_changes(
    optimizer=OptimizerConfig(learning_rate=1e-2, ema_decay=0.999),
)

HALVES = ("encoder", "middle", "decoder")


def batch(valid=True, seed=0):
    rng = np.random.default_rng(seed)
    return Batch(
        target=jnp.asarray(rng.integers(0, 256, (4, 64, 64, 3), dtype=np.uint8)),
        face_mask=jnp.asarray(rng.random((4, 8, 8, 1)) > 0.5, jnp.uint8),
        target_face=jnp.zeros((4, 8, 8, 1), jnp.uint8).at[:, 2:6, 3:7].set(1),
        tokens=jnp.asarray(rng.integers(0, 600, (4, 40)), jnp.int32),
        references=jnp.asarray(rng.integers(0, 256, (4, 3, 32, 32, 3), dtype=np.uint8)),
        reference_valid=jnp.full((4, 3), valid),
    )


@pytest.fixture(scope="module")
def compiled():
    """What makes the first state, and the step."""
    program = Program.over(WHOLE, jax.devices()[:1])
    return program.fresh_state, program.step(np.zeros((1, 40), np.int32))


def run_steps(compiled, *batches):
    """States after each step, the first one included, and the last metrics."""
    fresh_state, step = compiled
    state = fresh_state()
    states, metrics = [copied(state)], {}
    for each in batches:
        state, metrics = step(state, each)
        states.append(copied(state))
    return states, metrics


def copied(state):
    """The state, which the step takes, on the host."""
    return dataclasses.replace(
        state, **{name: jax.device_get(getattr(state, name)) for name in ("params", "average")}
    )


def moved(before, after):
    """Names of parameters, split into those that moved and those that did not."""
    before, after = flatten(before.params), flatten(after.params)
    names = {name for name in before if not np.array_equal(before[name], after[name])}
    return names, set(before) - names


def test_everything_trains_except_what_nobody_reads(compiled):
    # Layers that start at zero pass no gradient on until they have moved, one after another.
    states, _ = run_steps(compiled, *(batch(seed=i) for i in range(8)))
    _, still = moved(states[0], states[-1])
    # The ReferenceNet ends at the last block's norm1: what lies behind it has no gradient.
    behind = "flashface/reference_net/decoder/1/transformer/"
    assert still
    for name in still:
        assert name.startswith(behind) or name == "text_tower/projection", name


def test_without_references_the_reference_net_gets_no_gradient(compiled):
    states, _ = run_steps(compiled, *(batch(valid=False, seed=i) for i in range(5)))
    names, _ = moved(states[0], states[-1])
    assert not any(name.startswith("flashface/reference_net") for name in names)
    assert any("reference_attention" in name for name in names), "RefAttn over [y] still trains"


def test_the_average_is_a_plain_mean_at_first(compiled):
    states, _ = run_steps(compiled, batch(), batch(seed=1))
    one, two, average = (
        flatten(t) for t in (states[1].params, states[2].params, states[2].average)
    )
    worst = max(float(jnp.abs((one[n] + two[n]) / 2 - average[n]).max()) for n in one)
    assert worst <= 1e-6, f"{worst:.1e}"


def test_the_loss_is_one_for_a_net_that_predicts_nothing(compiled):
    # A fresh head is zero, so the loss is the mean square of the noise.
    _, metrics = run_steps(compiled, batch())
    assert abs(float(metrics["loss"]) - 1) < 0.1, float(metrics["loss"])


def test_each_term_is_logged_before_its_weight(compiled):
    _, metrics = run_steps(compiled, batch())
    assert metrics.keys() == {"loss", "gradient_norm", "sample_loss", "healthy", "loss/noise"}
    assert metrics["loss"] == metrics["loss/noise"]
    assert float(metrics["sample_loss"].mean()) == pytest.approx(float(metrics["loss"]), rel=1e-6)


@pytest.mark.parametrize("accumulate", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_terms_are_added_up_with_their_weights(compiled, accumulate):
    loss = LossConfig(weights=LossWeights(noise=0.5, face=2.0))
    program = Program.over(with_changes(loss=loss, accumulate=accumulate), jax.devices()[:1])
    step = program.step(np.zeros((1, 40), np.int32))
    _, metrics = step(program.fresh_state(), batch())
    noise, face, total = (float(metrics[name]) for name in ("loss/noise", "loss/face", "loss"))
    assert total == pytest.approx(0.5 * noise + 2 * face, rel=1e-6) and face != noise
    alone = run_steps(compiled, batch())[1]["loss"]
    assert noise == pytest.approx(float(alone), rel=1e-6), "another term does not change this one"


def test_the_same_step_and_batch_give_the_same_loss(compiled):
    first, again = (run_steps(compiled, batch())[1] for _ in range(2))
    assert first["loss"] == again["loss"]
    other = run_steps(compiled, batch(), batch())[1]
    assert other["loss"] != first["loss"], "noise and timesteps follow the step"


def test_frozen_parts_stay_out_of_the_optimizer():
    config = with_changes(trainable=("flashface",), optimizer=OptimizerConfig())
    state = Program.over(config, jax.devices()[:1]).shapes
    assert set(state.params) == {"flashface"} and set(state.frozen) == {"text_tower", "autoencoder"}
    assert state.average is None
    moments = [leaf for leaf in jax.tree.leaves(state.optimizer) if leaf.ndim]
    assert len(moments) == 2 * len(jax.tree.leaves(state.params))


@pytest.mark.parametrize("prediction", ["noise", "velocity", "sample"])
def test_a_perfect_network_has_no_loss(prediction):
    key = jax.random.key(0)
    x0, noise = (jax.random.normal(k, (3, 4, 4, 2)) for k in jax.random.split(key))
    sigma = jnp.array([0.03, 0.7, 0.997])
    alpha = jnp.sqrt(1 - sigma**2)[:, None, None, None]
    velocity = alpha * noise - sigma[:, None, None, None] * x0
    output = {"noise": noise, "velocity": velocity, "sample": x0}[prediction]
    x = add_noise(x0, noise, sigma)
    difference = float(jnp.abs(as_noise(output, x, sigma, prediction) - noise).max())
    # From x_0 the rounding of x is divided by σ.
    bound = 1e-5 if prediction == "sample" else 1e-6
    assert difference <= bound, f"{difference:.1e}"


def test_timesteps_are_uniform_and_spread_over_the_batch():
    draws = np.stack([stratified_timesteps(jax.random.key(i), 10, 1000) for i in range(400)])
    np.testing.assert_array_equal(np.sort(draws // 100, axis=1), np.tile(np.arange(10), (400, 1)))
    # Every row of the batch sees every level: 400 uniform draws have this mean within 4 errors.
    deviation = np.abs(draws.mean(axis=0) - 499.5).max()
    assert deviation < 4 * 289 / np.sqrt(400), deviation


def test_velocity_weighting_is_the_error_on_velocity():
    sigma = jnp.array([0.1, 0.9])
    noise_error = 0.3 * jnp.sqrt(1 - sigma**2)  # what an error of 0.3 on the velocity makes of ε
    weighted = loss_weight(sigma, LossConfig("velocity")) * noise_error**2
    np.testing.assert_allclose(weighted, 0.09, rtol=1e-6)
    np.testing.assert_array_equal(loss_weight(sigma, LossConfig()), 1)


def test_a_limited_snr_limits_the_weight_of_the_error_on_the_sample():
    sigma = jnp.array([0.1, 0.5, 0.9])
    snr = (1 - sigma**2) / sigma**2
    sample_error = 0.3
    noise_error = sample_error * jnp.sqrt(snr)
    for weighting, more in (("noise", 0), ("velocity", 1)):
        weighted = loss_weight(sigma, LossConfig(weighting, max_snr=5.0)) * noise_error**2
        expected = (np.minimum(snr, 5) + more) * sample_error**2
        np.testing.assert_allclose(weighted, expected, rtol=1e-6)


def test_muon_moves_matrices_all_ways_alike_and_the_rest_as_adam_with_nesterov_does():
    params = {"matrix": jnp.zeros((6, 3)), "bias": jnp.zeros(5)}
    rng = np.random.default_rng(0)
    gradients = jax.tree.map(lambda p: jnp.asarray(rng.normal(size=p.shape), jnp.float32), params)
    moves = {}
    for method in ("adam", "muon"):
        config = OptimizerConfig(method=method, learning_rate=0.1, matrix_learning_rate=0.1)
        optimizer = build_optimizer(config, total_steps=10)
        moves[method], _ = optimizer.update(gradients, optimizer.init(params), params)
    nesterov = optax.nadam(0.1)
    expected, _ = nesterov.update(gradients, nesterov.init(params), params)
    np.testing.assert_allclose(moves["muon"]["bias"], expected["bias"], rtol=1e-6)
    sizes = {name: np.linalg.svd(move["matrix"])[1] for name, move in moves.items()}
    # Newton-Schulz stops at singular values between about 0.7 and 1.2.
    assert sizes["muon"].max() / sizes["muon"].min() < 1.8, sizes
    assert sizes["adam"].max() / sizes["adam"].min() > 1.8, sizes


def test_learning_rate_warms_up_and_decays():
    config = OptimizerConfig(learning_rate=1.0, warmup_steps=10, cosine_decay=True)
    rate = learning_rate_schedule(config, 110, config.learning_rate)
    assert [float(rate(i)) for i in (0, 5, 10, 60, 110)] == pytest.approx([0, 0.5, 1, 0.5, 0])
    assert float(learning_rate_schedule(OptimizerConfig(), 10, 2e-5)(0)) == pytest.approx(2e-5)


def test_schedule_levels_reach_the_loss():
    levels = noise_levels(CONFIG.system.schedule)
    assert len(levels) == 1000 and 0.029 < levels[0] < 0.03 and 0.997 < levels[-1] < 0.998


def test_operations_bear_the_names_of_the_models_parts():
    """As profiles and plans show them, also of what is made again, or done in smaller batches."""
    config = with_changes(recompute="all but attention", accumulate=2)
    program = Program.over(config, jax.devices()[:1])
    step = program.step(np.zeros((1, 40), np.int32))
    leaves, tree = jax.tree.flatten((program.shapes, program.batch_shapes()))
    lowered = jax.jit(lambda *leaves: step(*jax.tree.unflatten(tree, leaves))).lower(*leaves)
    names = re.findall(r'loc\("([^"/][^"]*)"\(', lowered.as_text(debug_info=True))
    parts = {part_of(f'op_name="{name}"') for name in names}
    halves = {f"{net}/{half}" for net in ("denoiser", "reference_net") for half in HALVES}
    assert halves | {"text_tower", "optimizer"} <= parts, parts
    assert parts <= halves | {
        "denoiser",
        "reference_net",
        "text_tower",
        "optimizer",
        "draw",
        "other",
    }
