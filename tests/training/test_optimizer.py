"""Each option of the optimizer against steps that are worked out by hand, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from flashface_jax.training.optimizer import OptimizerConfig, build_optimizer

STEPS = 4


def tree(seed, scale=1.0):
    """One of each kind of parameter: dense, convolution, bias, scale of a norm."""
    rng = np.random.default_rng(seed)
    shapes = {
        "dense/kernel": (3, 2),
        "conv/kernel": (2, 2, 3, 2),
        "dense/bias": (2,),
        "scale": (5,),
    }
    return {name: scale * rng.standard_normal(shape) for name, shape in shapes.items()}


PARAMS, GRADIENTS = tree(0), [tree(1 + i, scale=0.3) for i in range(STEPS)]


def on_device(values):
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), values)


def run(config, gradients=GRADIENTS):
    """Parameters after each step."""
    optimizer = build_optimizer(config, STEPS)
    params = on_device(PARAMS)
    state, seen = optimizer.init(params), []
    for gradient in gradients:
        updates, state = jax.jit(optimizer.update)(on_device(gradient), state, params)
        params = optax.apply_updates(params, updates)
        seen.append(params)
    return seen


def adam_by_hand(rates, *, b2=0.999, epsilon=1e-8, decay=0.0, largest=np.inf):
    """AdamW (arXiv 1711.05101, algorithm 2) with clipped gradients."""
    params = dict(PARAMS)
    first, second = ({name: 0.0 for name in params} for _ in range(2))
    for t, (rate, gradient) in enumerate(zip(rates, GRADIENTS, strict=True), start=1):
        norm = np.sqrt(sum(np.sum(g**2) for g in gradient.values()))
        for name, old in params.items():
            g = gradient[name] * min(1.0, largest / norm)
            first[name] = 0.9 * first[name] + 0.1 * g
            second[name] = b2 * second[name] + (1 - b2) * g**2
            move = first[name] / (1 - 0.9**t)
            move = move / (np.sqrt(second[name] / (1 - b2**t)) + epsilon)
            decays = decay * (name.endswith("kernel"))
            params[name] = old - rate * (move + decays * old)
        yield params.copy()


def assert_steps(config, expected):
    for i, (ours, theirs) in enumerate(zip(run(config), expected, strict=True)):
        for name, value in theirs.items():
            message = f"{name} after step {i + 1}"
            np.testing.assert_allclose(ours[name], value, rtol=0, atol=2e-6, err_msg=message)


def test_by_default_it_is_adam_at_the_papers_rate():
    config = OptimizerConfig()
    assert (config.learning_rate, config.weight_decay, config.epsilon) == (2e-5, 0, 1e-8)
    assert (config.warmup_steps, config.max_gradient_norm, config.ema_decay) == (0, 0, 0)
    moved = run(config)[0]
    for name, value in next(adam_by_hand([2e-5] * STEPS)).items():
        # A step is 2e-5, and a parameter near 1 is rounded by 6e-8.
        np.testing.assert_allclose(moved[name], value, rtol=0, atol=3e-7)


def test_its_rate_and_moments_follow_the_configuration():
    config = OptimizerConfig(learning_rate=0.1, second_moment_decay=0.9, epsilon=0.05)
    assert_steps(config, adam_by_hand([0.1] * STEPS, b2=0.9, epsilon=0.05))


def test_it_clips_by_the_norm_of_all_gradients_together():
    # With this ε a step follows the gradient's size, which plain Adam forgets.
    norms = [np.sqrt(sum(np.sum(g**2) for g in gradient.values())) for gradient in GRADIENTS]
    largest = float(np.median(norms))  # between: two are clipped, two are not
    assert min(norms) < largest < max(norms)
    config = OptimizerConfig(learning_rate=0.1, max_gradient_norm=largest, epsilon=1.0)
    assert_steps(config, adam_by_hand([0.1] * STEPS, largest=largest, epsilon=1.0))
    apart = list(adam_by_hand([0.1] * STEPS, epsilon=1.0))[-1]
    assert np.abs(run(config)[-1]["conv/kernel"] - apart["conv/kernel"]).max() > 1e-3


def test_it_warms_up_and_falls_along_a_cosine():
    config = OptimizerConfig(learning_rate=0.1, warmup_steps=2, cosine_decay=True)
    # Up over two steps from 0, then half a cosine over the other two.
    assert_steps(config, adam_by_hand([0.0, 0.05, 0.1, 0.05]))


def test_kernels_decay_beside_the_moments_and_nothing_else_does():
    config = OptimizerConfig(learning_rate=0.1, weight_decay=0.3, warmup_steps=2)
    assert_steps(config, adam_by_hand([0.0, 0.05, 0.1, 0.1], decay=0.3))
    plain = run(OptimizerConfig(learning_rate=0.1, warmup_steps=2))
    for name in ("dense/bias", "scale"):
        np.testing.assert_array_equal(run(config)[-1][name], plain[-1][name])


def test_under_muon_every_kernel_decays_by_the_rate_that_it_learns_at():
    config = OptimizerConfig(
        "muon", learning_rate=0.01, matrix_learning_rate=0.2, weight_decay=0.3, warmup_steps=2
    )
    still = jax.tree.map(np.zeros_like, PARAMS)
    moved = run(config, [still] * STEPS)[-1]  # no gradient: nothing but decay
    warmup = np.array([0, 0.5, 1, 1])
    left = {
        "dense/kernel": np.prod(1 - 0.3 * 0.2 * warmup),
        "conv/kernel": np.prod(1 - 0.3 * 0.01 * warmup),
        "dense/bias": 1.0,
        "scale": 1.0,
    }
    for name, share in left.items():
        np.testing.assert_allclose(moved[name], share * PARAMS[name], rtol=1e-6, err_msg=name)
    # With gradients, decay comes on top of what Muon does without.
    with jax.disable_jit():  # compiled as another program, its iteration would round otherwise
        one, plain = (
            run(OptimizerConfig("muon", 0.01, 0.2, weight_decay=decay), GRADIENTS[:1])[0]
            for decay in (0.3, 0.0)
        )
    for name, rate in (("dense/kernel", 0.2), ("conv/kernel", 0.01), ("scale", 0.0)):
        expected = np.asarray(plain[name]) - 0.3 * rate * PARAMS[name]
        np.testing.assert_allclose(one[name], expected, rtol=0, atol=1e-6, err_msg=name)


def test_without_decay_the_state_has_no_place_for_it():
    """Checkpoints of runs that do not decay keep their structure."""
    params = on_device(PARAMS)
    plain = optax.chain(optax.identity(), optax.adam(optax.constant_schedule(1.0)))
    ours = build_optimizer(OptimizerConfig(), STEPS).init(params)
    assert jax.tree.structure(ours) == jax.tree.structure(plain.init(params))


@pytest.mark.parametrize(
    ("name", "value", "range_"),
    [
        ("learning_rate", 0.0, "positive"),
        ("matrix_learning_rate", -1.0, "positive"),
        ("epsilon", 0.0, "positive"),
        ("weight_decay", -0.1, "0 or more"),
        ("weight_decay", float("nan"), "0 or more"),
        ("warmup_steps", -1, "0 or more"),
        ("max_gradient_norm", -1.0, "0 or more"),
        ("second_moment_decay", 1.0, "lie in"),
        ("ema_decay", 1.0, "lie in"),
    ],
)
def test_impossible_options_are_refused(name, value, range_):
    with pytest.raises(ValueError, match=f"{name} is {value}; it must .*{range_}"):
        OptimizerConfig(**{name: value})
