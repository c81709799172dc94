"""Guidance: each form against its formula in float64, and which form and strength a step gets."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flashface_jax.diffusion.guidance import (
    REFERENCED_TEXT,
    TEXT_AND_REFERENCES,
    TEXT_ONLY,
    Guidance,
    rescaled,
    text_only,
    three_way,
    two_way,
)

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

    def __call__(self, contexts, referenced=0, paired=0):
        self.asked.append((contexts, referenced, paired))
        return jnp.asarray(self.noise[: len(contexts) + paired], jnp.float32)


def one_step(guidance, timestep=0):
    """What guides a step at a timestep."""
    return jax.tree.map(lambda values: jnp.asarray(values[0]), over(guidance, [timestep]))


def over(guidance, timesteps):
    """What guides a run that asks the network once a step."""
    return guidance.over(np.asarray(timesteps, np.int32), np.linspace(0, 1, len(timesteps)))


def expected_rescale(guided, like, amount):
    axes = (1, 2, 3)
    ratio = like.std(axes, ddof=1, keepdims=True) / guided.std(axes, ddof=1, keepdims=True)
    return guided * (amount * ratio + 1 - amount)


@pytest.mark.parametrize("rescale", [0.0, 0.5, 1.0])
@pytest.mark.parametrize(("form", "seeing"), [(two_way, 2), (text_only, 0)])
def test_guided_by_text(form, seeing, rescale):
    predict = Recorder()
    ours = form(predict, PROMPT, NEGATIVE, one_step(Guidance(text_guidance=7.0, rescale=rescale)))
    text, none = predict.noise[:2]
    expected = expected_rescale(none + 7.0 * (text - none), text, rescale)
    np.testing.assert_allclose(ours, expected, rtol=0, atol=2e-5)
    ((contexts, referenced, paired),) = predict.asked
    np.testing.assert_array_equal(contexts, jnp.stack([PROMPT, NEGATIVE]))
    assert (referenced, paired) == (
        seeing,
        0,
    )  # both branches see the references, or neither


@pytest.mark.parametrize("rescale", [0.0, 0.5, 1.0])
def test_three_way(rescale):
    predict = Recorder()
    guidance = Guidance(text_guidance=7.0, reference_guidance=3.2, rescale=rescale)
    ours = three_way(predict, PROMPT, NEGATIVE, one_step(guidance))
    both, text, none = predict.noise
    guided = none + 7.0 * (text - none) + 3.2 * (both - text)
    np.testing.assert_allclose(ours, expected_rescale(guided, text, rescale), rtol=0, atol=5e-5)
    ((contexts, referenced, paired),) = predict.asked
    np.testing.assert_array_equal(contexts, jnp.stack([PROMPT, NEGATIVE]))
    assert (referenced, paired) == (0, 1)  # the prompt alone, with references and without


def test_references_that_change_nothing_leave_guidance_by_text():
    """At strength 0 both branches of the prompt are equal: exactly the result without them."""

    def predict(contexts, referenced=0, paired=0):
        contexts = jnp.concatenate([contexts[:paired], contexts])
        ramp = jnp.sin(jnp.arange(72.0).reshape(SHAPE) * 3)
        return ramp * (2 + contexts[..., None])

    step = one_step(Guidance(text_guidance=7.3, reference_guidance=3.2, rescale=0.4))
    forms = [form(predict, PROMPT, NEGATIVE, step) for form in (text_only, two_way, three_way)]
    np.testing.assert_array_equal(forms[1], forms[0])
    np.testing.assert_array_equal(forms[2], forms[0])


def test_no_rescaling_is_the_identity():
    guided, like = Recorder().noise[:2].astype(np.float32)
    zero = jnp.zeros(())
    np.testing.assert_array_equal(rescaled(jnp.asarray(guided), jnp.asarray(like), zero), guided)


def test_full_rescaling_takes_over_the_deviation():
    guided, like = Recorder().noise[:2].astype(np.float32)
    ours = np.asarray(rescaled(jnp.asarray(guided), jnp.asarray(like), jnp.ones(())))
    for row, other, before in zip(ours, like, guided, strict=True):
        np.testing.assert_allclose(row.std(ddof=1), other.std(ddof=1), rtol=1e-5)
        np.testing.assert_allclose(row / row.std(), before / before.std(), rtol=1e-4)


def test_a_constant_prediction_does_not_divide_by_zero():
    zero = jnp.zeros(SHAPE)
    assert np.isfinite(rescaled(zero, zero, jnp.asarray(0.5))).all()


STRENGTHS = {
    "reference_guidance": 3.0,
    "reference_strength": 1.2,
    "early_reference_strength": 0.4,
    "launch_timestep": 750,
}


@pytest.mark.parametrize(
    ("timestep", "changes", "form", "strength"),
    [
        (751, {}, REFERENCED_TEXT, 0.4),
        (750, {}, TEXT_AND_REFERENCES, 1.2),
        (0, {}, TEXT_AND_REFERENCES, 1.2),
        (751, {"reference_guidance": 0.0}, REFERENCED_TEXT, 0.4),
        (750, {"reference_guidance": 0.0}, REFERENCED_TEXT, 1.2),
        (999, {"launch_timestep": 999}, TEXT_AND_REFERENCES, 1.2),
        (0, {"launch_timestep": -1}, REFERENCED_TEXT, 0.4),
        (750, {"reference_strength": 0.0}, TEXT_ONLY, 0.0),
        (751, {"reference_strength": 0.0}, REFERENCED_TEXT, 0.4),
        (751, {"early_reference_strength": 0.0}, TEXT_ONLY, 0.0),
        (750, {"early_reference_strength": 0.0}, TEXT_AND_REFERENCES, 1.2),
        (999, {"reference_strength": ((0.0, 0.9),)}, REFERENCED_TEXT, 0.9),
    ],
)
def test_the_timestep_chooses_form_and_strength(timestep, changes, form, strength):
    step = one_step(Guidance(7.0, rescale=0.3, **{**STRENGTHS, **changes}), timestep)
    assert int(step.form) == form
    assert float(step.reference_strength) == np.float32(strength)
    assert float(step.text_guidance) == 7.0 and float(step.rescale) == np.float32(0.3)
    assert float(step.reference_guidance) == changes.get("reference_guidance", 3.0)


TIMESTEPS = [999, 900, 760, 750, 500, 250, 100, 50, 10, 0, 0]  # 11 steps, progress 0, 0.1, ... 1


def test_constant_strengths_over_a_run():
    steps = over(Guidance(**STRENGTHS), TIMESTEPS)
    assert steps.form.tolist() == [REFERENCED_TEXT] * 3 + [TEXT_AND_REFERENCES] * 8
    np.testing.assert_array_equal(steps.reference_strength, np.float32([0.4] * 3 + [1.2] * 8))


def test_strength_over_time_holds_before_the_launch_too():
    """Straight lines between points over progress, which counts steps and not timesteps."""
    points = ((0.1, 0.0), (0.2, 0.0), (0.6, 1.2), (0.9, 0.3))
    steps = over(Guidance(**{**STRENGTHS, "reference_strength": points}), TIMESTEPS)
    expected = [0, 0, 0, 0.3, 0.6, 0.9, 1.2, 0.9, 0.6, 0.3, 0.3]
    np.testing.assert_allclose(steps.reference_strength, expected, rtol=0, atol=1e-6)
    assert steps.form.tolist() == [TEXT_ONLY] * 3 + [TEXT_AND_REFERENCES] * 8
    held = over(Guidance(**{**STRENGTHS, "reference_strength": ((0.5, 0.7),)}), TIMESTEPS)
    np.testing.assert_array_equal(held.reference_strength, np.full(11, 0.7, np.float32))
    assert held.form.tolist() == [REFERENCED_TEXT] * 3 + [TEXT_AND_REFERENCES] * 8


def test_a_run_of_one_step_begins_its_strength_over_time():
    points = ((0.0, 0.8), (1.0, 0.2))
    steps = over(Guidance(**{**STRENGTHS, "reference_strength": points}), [999])
    np.testing.assert_array_equal(steps.reference_strength, np.float32([0.8]))
