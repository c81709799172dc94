"""Both guidance forms against their formulas in float64."""

import jax.numpy as jnp
import numpy as np
import pytest

from flashface_jax.diffusion.guidance import Guidance, guided_noise, rescaled, three_way, two_way

BATCH, SHAPE = 2, (2, 3, 3, 4)
PROMPT, NEGATIVE = jnp.full((BATCH, 1, 1), 1.0), jnp.full((BATCH, 1, 1), -1.0)


class Recorder:
    """Predicts fixed noise and remembers what it was asked."""

    def __init__(self):
        rng = np.random.default_rng(0)
        self.noise = rng.standard_normal((3, *SHAPE)).astype(np.float32) * [
            [[[[1]]]],
            [[[[2]]]],
            [[[[3]]]],
        ]
        self.asked = []

    def __call__(self, contexts, strength):
        self.asked.append((contexts, strength))
        return jnp.asarray(self.noise[: len(contexts)], jnp.float32)


def expected_rescale(guided, like, amount):
    axes = (1, 2, 3)
    ratio = like.std(axes, ddof=1, keepdims=True) / guided.std(axes, ddof=1, keepdims=True)
    return guided * (amount * ratio + 1 - amount)


@pytest.mark.parametrize("rescale", [0.0, 0.5, 1.0])
def test_two_way(rescale):
    predict = Recorder()
    guidance = Guidance(text_guidance=7.0, rescale=rescale)
    ours = two_way(predict, PROMPT, NEGATIVE, guidance, jnp.asarray(0.85))
    text, none = predict.noise[:2]
    expected = expected_rescale(none + 7.0 * (text - none), text, rescale)
    np.testing.assert_allclose(ours, expected, rtol=0, atol=2e-5)
    ((contexts, strength),) = predict.asked
    np.testing.assert_array_equal(contexts, jnp.stack([PROMPT, NEGATIVE]))
    np.testing.assert_array_equal(strength, np.float32([0.85] * 4))  # both branches see them


@pytest.mark.parametrize("rescale", [0.0, 0.5, 1.0])
def test_three_way(rescale):
    predict = Recorder()
    guidance = Guidance(text_guidance=7.0, reference_guidance=3.2, rescale=rescale)
    ours = three_way(predict, PROMPT, NEGATIVE, guidance, jnp.asarray(1.2))
    both, text, none = predict.noise
    guided = none + 7.0 * (text - none) + 3.2 * (both - text)
    np.testing.assert_allclose(ours, expected_rescale(guided, text, rescale), rtol=0, atol=5e-5)
    ((contexts, strength),) = predict.asked
    np.testing.assert_array_equal(contexts, jnp.stack([PROMPT, PROMPT, NEGATIVE]))
    np.testing.assert_array_equal(strength, np.float32([1.2] * 2))  # only the first branch does


def test_no_rescaling_is_the_identity():
    guided, like = Recorder().noise[:2].astype(np.float32)
    np.testing.assert_array_equal(rescaled(jnp.asarray(guided), jnp.asarray(like), 0.0), guided)


def test_full_rescaling_takes_over_the_deviation():
    guided, like = Recorder().noise[:2].astype(np.float32)
    ours = np.asarray(rescaled(jnp.asarray(guided), jnp.asarray(like), 1.0))
    for row, other, before in zip(ours, like, guided, strict=True):
        np.testing.assert_allclose(row.std(ddof=1), other.std(ddof=1), rtol=1e-5)
        np.testing.assert_allclose(row / row.std(), before / before.std(), rtol=1e-4)


def test_a_constant_prediction_does_not_divide_by_zero():
    zero = jnp.zeros(SHAPE)
    assert np.isfinite(rescaled(zero, zero, 0.5)).all()


GUIDANCE = Guidance(
    reference_guidance=3.0,
    reference_strength=1.2,
    early_reference_strength=0.4,
    launch_timestep=750,
)


@pytest.mark.parametrize(
    ("timestep", "guidance", "form", "strength"),
    [
        (751, GUIDANCE, two_way, 0.4),
        (750, GUIDANCE, three_way, 1.2),
        (0, GUIDANCE, three_way, 1.2),
        (751, GUIDANCE.replace(reference_guidance=0.0), two_way, 0.4),
        (750, GUIDANCE.replace(reference_guidance=0.0), two_way, 1.2),
        (999, GUIDANCE.replace(launch_timestep=999), three_way, 1.2),
        (0, GUIDANCE.replace(launch_timestep=-1), two_way, 0.4),
    ],
)
def test_the_timestep_chooses_the_form(timestep, guidance, form, strength):
    def predict(contexts, strength):
        # The number and strengths of referenced rows show in the result.
        seen = jnp.pad(strength, (0, contexts.shape[0] * BATCH - len(strength)))
        rows = seen.reshape(-1, BATCH, 1, 1, 1)
        ramp = jnp.arange(36.0).reshape(3, 3, 4) * (1 + contexts[..., None])
        return jnp.broadcast_to(rows * jnp.sin(ramp) + ramp, (len(contexts), *SHAPE))

    ours = guided_noise(predict, PROMPT, NEGATIVE, guidance, jnp.asarray(timestep))
    expected = form(predict, PROMPT, NEGATIVE, guidance, jnp.asarray(strength))
    np.testing.assert_allclose(ours, expected, rtol=1e-6)
    other = three_way if form is two_way else two_way
    for changed in (
        other(predict, PROMPT, NEGATIVE, guidance, jnp.asarray(strength)),
        form(predict, PROMPT, NEGATIVE, guidance, jnp.asarray(1.6 - strength)),
    ):
        assert float(jnp.abs(changed - expected).max()) > 1e-2
