"""Converted weights against numbers recorded from the released code, in float32.

Tolerances are fractions of the recording's standard deviation. The figure reached is in the
message of every failure, and in docs/parity.md.
"""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import jit

from flashface_jax.diffusion.guidance import Guidance
from flashface_jax.diffusion.sampling import (
    Conditioning,
    ReferenceLatents,
    plan_sampling,
    sample,
)
from flashface_jax.diffusion.schedule import noise_levels, visited_levels
from flashface_jax.models.unet import References
from tests.recorded import arrays, assert_close, block_name, nhwc

NETWORK = 3e-5
SAMPLE = 1e-4
FROZEN = 1e-5


@pytest.fixture(scope="module")
def recording():
    return arrays("tiny_unet")


@pytest.fixture(scope="module", params=[("two", 4), ("three", 2)], ids=["two-way", "three-way"])
def call(request, converted, recording):
    """One recorded denoiser call: features and prediction, ours and theirs."""
    name, referenced = request.param
    theirs = {
        key.removeprefix(f"{name}_"): value
        for key, value in recording.items()
        if key.startswith(f"{name}_")
    }
    rows = len(theirs["context"])
    branches = rows // len(theirs["x"])

    @jit
    def run(params, references, timestep, context, strength):
        model = converted.bind("flashface", params)
        features = model.encode_references(
            references, timestep[:1], jnp.asarray(recording["reference_context"])
        )
        noise = model.denoise(
            jnp.tile(nhwc(theirs["x"]), (branches, 1, 1, 1)),
            jnp.repeat(recording["face_mask"], branches, axis=0)[..., None],  # their order
            jnp.full((rows,), timestep[0]),
            context,
            References(features, jnp.ones((1, 3)), jnp.full((referenced, 1), strength)),
        )
        return features, noise

    features, noise = run(
        converted.params["flashface"],
        nhwc(recording["reference_latents"])[None],
        theirs["t"].astype(np.int32),
        theirs["context"],
        theirs["similarity"],
    )
    return theirs, features, noise


def test_denoiser_equals_the_released_one(call):
    theirs, _, noise = call
    assert_close("prediction", noise, nhwc(theirs["out"]), NETWORK)


def test_reference_features_equal_the_released_ones(call):
    theirs, features, _ = call
    recorded = {
        block_name(key.removeprefix("feature/")): value
        for key, value in theirs.items()
        if key.startswith("feature/")
    }
    assert len(recorded) == 5
    for name, value in recorded.items():
        assert_close(name, features[name][0], value, NETWORK)


@pytest.fixture(scope="module")
def states(converted, recorded_order, recording):
    """Our states after each of the recorded steps, by our sampler with the recorded settings."""
    count, text, reference, launch, strength, early = map(float, recording["sample_settings"])
    samples = len(recording["sample_noise"])
    conditioning = Conditioning(
        prompt=jnp.tile(recording["sample_prompt_context"], (samples, 1, 1)),
        negative=jnp.tile(recording["reference_context"], (samples, 1, 1)),
        references=ReferenceLatents(
            jnp.asarray(nhwc(recording["reference_latents"])[None]),
            jnp.asarray(recording["reference_context"]),
        ),
        reference_weight=jnp.ones((1, 3)),
        person_share=jnp.ones((1, 1)),
        condition=jnp.asarray(recording["face_mask"][..., None]),
    )
    guidance = Guidance(text, reference, strength, early, int(launch))
    levels = noise_levels(converted.directory.config.schedule)
    plan = plan_sampling(levels, visited_levels(levels, int(count)), guidance)
    run = jit(lambda params, *rest: sample(recorded_order.bind(params), *rest))
    # A plan stopped early: one compiled run gives every intermediate state.
    return [
        run(
            converted.params["flashface"],
            conditioning,
            jnp.asarray(nhwc(recording["sample_noise"])),
            jax.random.split(jax.random.key(0), samples),  # unused: DDIM draws no noise
            replace(plan, count=jnp.asarray(taken)),
        )
        for taken in range(1, int(count) + 1)
    ]


def test_guided_run_equals_the_released_one(states, recording):
    assert_close("z0", states[-1], nhwc(recording["sample_z0"]), SAMPLE)


def test_every_state_of_the_run_equals_the_released_one(states, recording):
    for taken, theirs in enumerate(recording["sample_xt"][1:], start=1):
        assert_close(f"state after step {taken}", states[taken - 1], nhwc(theirs), SAMPLE)


def test_autoencoder_equals_the_released_one(converted):
    recorded = arrays("tiny_vae")

    @jit
    def run(params, image, z):
        model = converted.bind("autoencoder", params)
        return *model.posterior(image), model.decode(z * model.config.scale)

    outputs = run(converted.params["autoencoder"], nhwc(recorded["image"]), nhwc(recorded["z"]))
    for name, ours in zip(("mu", "log_var", "decoded"), outputs, strict=True):
        assert_close(name, ours, nhwc(recorded[name]), FROZEN)


def test_text_tower_equals_the_released_one(converted):
    recorded = arrays("tiny_clip")

    @jit
    def run(params, tokens):
        model = converted.bind("text_tower", params)
        return model(tokens), model.embed(tokens)

    context, pooled = run(converted.params["text_tower"], recorded["tokens"].astype(np.int32))
    assert_close("context", context, recorded["context"], FROZEN)
    assert_close("pooled", pooled, recorded["pooled"], FROZEN)
