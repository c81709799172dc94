"""Parity where the small recordings are square, even and one block deep.

Recorded from the released code like them, with two transformer blocks in a level and in the
middle, residual blocks that differ by level, heads given by their width, 9x7 latents with 5x5
references and "linspace" timesteps; and an autoencoder for 13x18 pixels.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from jax import jit

from flashface_jax.convert.command import main
from flashface_jax.diffusion.guidance import Guidance
from flashface_jax.diffusion.sampling import (
    Conditioning,
    ReferenceLatents,
    plan_sampling,
    sample,
)
from flashface_jax.diffusion.schedule import noise_levels, visited_levels
from flashface_jax.models.unet import References
from flashface_jax.weights.directory import WeightsDirectory
from flashface_jax.weights.system import build_system
from tests.recorded import arrays, assert_close, block_name, drawn_state_dict, nhwc

NETWORK = 3e-5
SAMPLE = 1e-4
FROZEN = 1e-5


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    folder = tmp_path_factory.mktemp("other-sizes")
    torch.save(drawn_state_dict("deep_unet"), folder / "unet.ckpt")
    torch.save(drawn_state_dict("odd_vae"), folder / "vae.pth")
    files = [f"--unet={folder / 'unet.ckpt'}", f"--vae={folder / 'vae.pth'}"]
    assert main(["official", *files, "--head-channels=8", f"--out={folder / 'weights'}"]) == 0
    return WeightsDirectory.open(folder / "weights")


@pytest.fixture(scope="module")
def system(directory):
    return build_system(directory.config)


@pytest.fixture(scope="module")
def params(directory, system):
    return directory.params("flashface", system.flashface)


def test_depths_and_heads_are_read_off_the_file(directory):
    denoiser = directory.config.flashface.denoiser
    assert denoiser.residual_blocks == (2, 1)
    assert denoiser.transformer_depth == (1, 2)
    assert denoiser.middle_depth == 2
    assert (denoiser.num_heads, denoiser.head_channels) == (None, 8)


def test_denoiser_and_features_equal_the_released_ones(system, params):
    recorded = arrays("deep_unet")

    @jit
    def run(params, references, latents, mask, context):
        model, time = system.flashface.bind(params), jnp.full((3,), recorded["three_t"][0])
        features = model.encode_references(
            references, time[:1], jnp.asarray(recorded["reference_context"])
        )
        strength = jnp.full((1, 1), recorded["three_similarity"])
        references = References(features, jnp.ones((1, 2)), strength)
        return features, model.denoise(latents, mask, time, context, references)

    features, noise = run(
        params,
        nhwc(recorded["reference_latents"])[None],
        np.tile(nhwc(recorded["three_x"]), (3, 1, 1, 1)),
        np.tile(recorded["face_mask"], (3, 1, 1))[..., None],
        recorded["three_context"],
    )
    assert_close("prediction", noise, nhwc(recorded["three_out"]), NETWORK)
    places = [key for key in recorded if key.startswith("three_feature/")]
    assert len(places) == 9
    for place in places:
        name = block_name(place.removeprefix("three_feature/"))
        assert_close(name, features[name][0], recorded[place], NETWORK)


@pytest.mark.slow
def test_guided_run_equals_the_released_one(directory, system, params):
    recorded = arrays("deep_unet")
    count, text, reference, launch, strength, early = map(float, recorded["sample_settings"])
    conditioning = Conditioning(
        prompt=jnp.asarray(recorded["sample_prompt_context"]),
        negative=jnp.asarray(recorded["reference_context"]),
        references=ReferenceLatents(
            jnp.asarray(nhwc(recorded["reference_latents"])[None]),
            jnp.asarray(recorded["reference_context"]),
        ),
        reference_weight=jnp.ones((1, 2)),
        person_share=jnp.ones((1, 1)),
        condition=jnp.asarray(recorded["face_mask"][..., None]),
    )
    levels = noise_levels(directory.config.schedule)
    visited = visited_levels(levels, int(count), "linspace")
    guidance = Guidance(text, reference, strength, early, int(launch))
    ours = jit(lambda params, *rest: sample(system.flashface.bind(params), *rest))(
        params,
        conditioning,
        jnp.asarray(nhwc(recorded["sample_noise"])),
        jax.random.split(jax.random.key(0), 1),  # unused: DDIM draws no noise
        plan_sampling(levels, visited, guidance),
    )
    assert_close("z0", ours, nhwc(recorded["sample_z0"]), SAMPLE)


def test_autoencoder_of_an_odd_image_equals_the_released_one(directory, system):
    recorded = arrays("odd_vae")

    @jit
    def run(params, image, z):
        model = system.autoencoder.bind(params)
        return *model.posterior(image), model.decode(z * model.config.scale)

    params = directory.params("autoencoder", system.autoencoder)
    outputs = run(params, nhwc(recorded["image"]), nhwc(recorded["z"]))
    for name, ours in zip(("mu", "log_var", "decoded"), outputs, strict=True):
        assert_close(name, ours, nhwc(recorded[name]), FROZEN)
