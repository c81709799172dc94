"""Terms of the loss: what each is of, and how they are added up."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flashface_jax.diffusion.loss import (
    TERMS,
    Denoised,
    Example,
    LossConfig,
    LossNoise,
    LossWeights,
    face_error,
    loss_terms,
    loss_weight,
    noise_error,
    total_loss,
)
from flashface_jax.diffusion.schedule import add_noise
from flashface_jax.training.config import from_mapping
from tests.small import CONFIG

SHAPE = (3, 4, 4, 2)
SIGMA = jnp.array([0.1, 0.6, 0.9])


@pytest.fixture(scope="module")
def case():
    """Targets of which the second has its face in one corner, and the third none to be seen."""
    keys = jax.random.split(jax.random.key(0), 3)
    target, noise, error = (jax.random.normal(key, SHAPE) for key in keys)
    face = jnp.zeros((*SHAPE[:3], 1)).at[0].set(1).at[1, :2, :2].set(1)
    drawn = LossNoise(jnp.zeros(3, jnp.int32), noise, jnp.zeros(SHAPE))
    example = Example(
        target=target,
        condition=jnp.zeros_like(face),  # the mask is dropped: the term must not need it
        face=face,
        context=jnp.zeros((3, 2, 8)),
        empty_context=jnp.zeros((1, 2, 8)),
        references=jnp.zeros((3, 1, 2, 2, 2)),
        reference_valid=jnp.ones((3, 1), bool),
    )
    x = add_noise(target, noise, SIGMA)
    return Denoised(x, SIGMA, noise + error), example, drawn, np.asarray(error)


def test_every_term_has_a_weight_and_every_weight_a_term():
    assert {field.name for field in dataclasses.fields(LossWeights)} == TERMS.keys()


def test_the_paper_has_one_term_and_no_other_is_computed(case):
    denoised, example, drawn, error = case
    terms = loss_terms(denoised, example, drawn, LossConfig())
    assert terms.keys() == {"noise"}
    np.testing.assert_allclose(terms["noise"], (error**2).mean((1, 2, 3)), rtol=1e-6)
    np.testing.assert_array_equal(total_loss(terms, LossWeights()), terms["noise"])


def test_the_error_of_the_face_is_that_inside_its_box_though_the_mask_is_dropped(case):
    denoised, example, drawn, error = case
    found = face_error(denoised, example, drawn, LossConfig())
    expected = [(error[0] ** 2).mean(), (error[1, :2, :2] ** 2).mean(), 0]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_terms_are_weighted_by_noise_level_alike(case):
    denoised, example, drawn, _ = case
    config = LossConfig("velocity", max_snr=3.0)
    for term in (noise_error, face_error):
        plain, weighted = (term(denoised, example, drawn, c) for c in (LossConfig(), config))
        np.testing.assert_allclose(weighted, loss_weight(SIGMA, config) * plain, rtol=1e-6)


def test_terms_add_up_with_their_weights(case):
    denoised, example, drawn, _ = case
    weights = LossWeights(noise=0.25, face=3.0)
    terms = loss_terms(denoised, example, drawn, LossConfig(weights=weights))
    expected = 0.25 * terms["noise"] + 3 * terms["face"]
    np.testing.assert_allclose(total_loss(terms, weights), expected, rtol=1e-6)


def test_a_perfect_model_takes_a_target_for_itself(case):
    denoised, example, drawn, _ = case
    perfect = dataclasses.replace(denoised, noise=drawn.noise)
    np.testing.assert_allclose(perfect.target, example.target, atol=1e-5)


@pytest.mark.parametrize("name", TERMS)
def test_a_perfect_model_has_no_loss(case, name):
    denoised, example, drawn, _ = case
    perfect = dataclasses.replace(denoised, noise=drawn.noise)
    losses = TERMS[name](perfect, example, drawn, LossConfig())
    assert losses.shape == (3,) and float(jnp.abs(losses).max()) <= 1e-5, losses


@pytest.mark.parametrize("name", TERMS)
def test_a_fresh_network_which_predicts_0_has_a_finite_loss_and_gradient(case, name):
    denoised, example, drawn, _ = case

    def loss(noise):
        fresh = dataclasses.replace(denoised, noise=noise)
        return TERMS[name](fresh, example, drawn, LossConfig()).sum()

    value, gradient = jax.value_and_grad(loss)(jnp.zeros(SHAPE))
    assert jnp.isfinite(value) and jnp.isfinite(gradient).all()


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"noise": -1.0}, r"loss.weights.noise is -1.0; it must be 0 or more"),
        ({"noise": 0.0}, r"loss.weights are all 0"),
        ({"nose": 1.0}, r"weights has no 'nose': choose among noise, face"),
    ],
)
def test_weights_that_cannot_be_are_refused(weights, message):
    values = dataclasses.asdict(CONFIG)
    values["loss"]["weights"] = weights
    with pytest.raises(ValueError, match=message):
        from_mapping(values)
