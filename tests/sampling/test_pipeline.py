"""FlashFacePipeline with random weights: what images depend on, and what they do not."""

import os
import subprocess
import sys
from collections.abc import Hashable
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flashface_jax.diffusion.sampling import (
    Conditioning,
    ReferenceLatents,
    ReferenceTrack,
    sample,
)
from flashface_jax.models.autoencoder.autoencoder import encode_crops, from_pixels, to_pixels
from flashface_jax.models.network import flatten
from flashface_jax.models.unet_topology import reference_stages
from flashface_jax.sampling.pipeline import FlashFacePipeline
from flashface_jax.sampling.reference_cache import ReferenceCache
from flashface_jax.sampling.requests import ImageRequest, InpaintingImage, Person
from flashface_jax.weights.system import build_system, sampling_plan
from tests.random_weights import small_system, write_random_weights

SYSTEM = small_system()
SAMPLING = SYSTEM.sampling
HEUN = replace(SAMPLING, solver="heun")


def faces(count, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)


FACES = faces(4)
ALICE, BOB, CAROL = Person(FACES[:3]), Person(faces(2, seed=1)), Person(faces(3, seed=2))


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return write_random_weights(tmp_path_factory.mktemp("pipeline") / "weights", SYSTEM)


@pytest.fixture(scope="module")
def pipeline(weights):
    return open_on_one_device(weights)


def open_on_one_device(path, **options):
    return FlashFacePipeline.from_directory(path, devices=jax.devices()[:1], **options)


def make(pipeline, *requests, **changes):
    """The images of requests, as signed numbers."""
    made = pipeline.make(requests, **changes)
    assert len(made.images) == len(requests)
    return made.images.astype(int)


def image_request(people=(ALICE,), prompt="a child, smiling", seed=5, **fields):
    return ImageRequest(prompt, people, seed, **fields)


@pytest.fixture(scope="module")
def base(pipeline):
    return make(pipeline, image_request())[0]


def levels(a, b):
    return int(np.abs(np.asarray(a, int) - np.asarray(b, int)).max())


def assert_same(ours, expected, most=1):
    assert levels(ours, expected) <= most, f"{levels(ours, expected)} levels, allowed {most}"


def assert_differs(ours, other, least=10):
    assert levels(ours, other) > least, f"only {levels(ours, other)} levels"


def test_images_are_no_constant(base):
    assert base.shape == (64, 64, 3) and base.std() > 10
    assert ((base > 0) & (base < 255)).mean() > 0.95, "images of random weights are not clipped"


# References: weights, order, places.


def test_weights_are_copies(pipeline):
    once, twice = (Person(FACES[:2], weights) for weights in [None, (2.0, 2.0)])
    copies = make(pipeline, image_request((Person(FACES[[0, 1, 0, 1]]),)))
    weighted = make(pipeline, image_request((twice,)))
    assert_same(weighted, copies)
    assert_differs(make(pipeline, image_request((once,))), copies)


def test_order_of_references_does_not_matter(pipeline, base):
    assert_same(make(pipeline, image_request((Person(FACES[[2, 0, 1]]),)))[0], base)
    assert_differs(make(pipeline, image_request((Person(FACES[1:4]),)))[0], base)


def test_references_that_count_nothing_are_absent(pipeline, base):
    """Also when they need more places: five references are padded to eight."""
    assert_same(make(pipeline, image_request((Person(FACES, (1.0, 1.0, 1.0, 0.0)),)))[0], base)
    five = Person(np.concatenate([FACES[:3], faces(2, seed=3)]), (1.0, 1.0, 1.0, 0.0, 0.0))
    assert_same(make(pipeline, image_request((five,)))[0], base)


@pytest.fixture(scope="module")
def latents(pipeline):
    """Final latents of a request, before pixels are cut to whole levels."""
    system = build_system(SYSTEM)

    @jax.jit
    def run(params, request, plan):
        autoencoder = system.autoencoder.bind(params["autoencoder"])
        text_tower = system.text_tower.bind(params["text_tower"])
        negative = text_tower(request.negative_tokens)
        shown = Conditioning(
            prompt=text_tower(request.tokens),
            negative=negative,
            references=ReferenceLatents(encode_crops(autoencoder, request.references), negative),
            reference_weight=request.reference_weight,
            person_share=request.person_share,
            condition=request.face_mask,
        )
        keys = jax.vmap(jax.random.key)(request.seeds)
        noise = jax.vmap(lambda key: jax.random.normal(key, (8, 8, 12)))(keys)
        model = system.flashface.bind(params["flashface"])
        return sample(model, shown, noise, keys, plan, SYSTEM.schedule.prediction)

    def of(person):
        request = pipeline.collate([image_request((person,))], SAMPLING, (64, 64))
        return np.asarray(run(pipeline.params, request, sampling_plan(SAMPLING, SYSTEM.schedule)))

    return of


def test_weights_and_order_in_latents(latents):
    for one, other in (
        (Person(FACES[:2], (2.0, 2.0)), Person(FACES[[0, 1, 0, 1]])),
        (Person(FACES[:2], (2.0, 2.0)), Person(FACES[[1, 0, 0, 1]])),
        (Person(FACES[:3], (2.0, 1.0, 0.0)), Person(FACES[[0, 1, 0]])),
        (Person(FACES), Person(FACES[[3, 1, 0, 2]])),
    ):
        ours, expected = latents(one), latents(other)
        difference = np.abs(ours - expected).max() / expected.std()
        assert difference <= 1e-5, f"{difference:.1e} of the standard deviation"


# What compiles.


def test_no_value_compiles_anything(pipeline, base):
    compiled = pipeline.generate._cache_size()
    images = [base]
    for fields in (
        {"prompt": "sad, at night"},
        {"seed": 2**32 - 1},
        {"negative_prompt": "a red hat"},
        {"people": (Person(FACES[:1]),)},
        {"people": (Person(FACES, (0.5, 2.0, 0.0, 1.0)),)},
        {"people": (BOB,)},
        {"face_box": (0.3, 0.2, 0.6, 0.5)},
    ):
        images.append(make(pipeline, image_request(**fields))[0])
    for changes in (
        {"steps": 1},
        {"steps": 7},
        {"solver": "dpm++2m"},
        {"solver": "euler", "steps": 4},
        {"solver": "euler-ancestral"},
        {"solver": "heun"},
        {"eta": 0.7},
        {"spacing": "karras"},
        {"spacing": "leading"},
        {"spacing": "linspace"},
        {"text_guidance": 4.0},
        {"reference_guidance": 0.0},
        {"reference_guidance": 3.0},
        {"reference_strength": 0.5},
        {"reference_strength": ((0.0, 0.0), (1.0, 1.0))},
        {"early_reference_strength": 0.0},
        {"launch_timestep": -1},
        {"rescale": 0.0},
        {"prompt_suffix": "an old man"},
        {"negative_suffix": "at night"},
    ):
        images.append(make(pipeline, image_request(), sampling=replace(SAMPLING, **changes))[0])
    assert pipeline.generate._cache_size() == compiled
    same = [
        (i, j) for i, a in enumerate(images) for j, b in enumerate(images[:i]) if levels(a, b) == 0
    ]
    assert not same, f"Changes without effect: {same}"


@pytest.mark.parametrize("guidance", [0.0, 1.5])
def test_strength_zero_is_the_limit_of_small_strengths(pipeline, base, guidance):
    """Though its steps run other branches, without the ReferenceNet."""
    none, hardly = (
        make(
            pipeline,
            image_request(),
            sampling=replace(
                SAMPLING,
                reference_strength=strength,
                early_reference_strength=strength,
                reference_guidance=guidance,
            ),
        )[0]
        for strength in (0.0, 1e-6)
    )
    assert_same(none, hardly)
    assert_differs(none, base)


def test_reference_attention_at_one_place_carries_references(tmp_path):
    """At a level of the decoder alone: neither the middle nor anything else looks at them."""
    system = small_system(reference_attention="decoder/level0")
    one = open_on_one_device(write_random_weights(tmp_path / "weights", system))
    image, without, hardly = (
        make(
            one,
            image_request(),
            sampling=replace(
                SAMPLING, reference_strength=strength, early_reference_strength=strength
            ),
        )[0]
        for strength in (1.2, 0.0, 1e-6)
    )
    assert_differs(image, without, least=2)
    assert_differs(image, make(one, image_request((BOB,)))[0], least=2)
    assert_same(without, hardly)
    kept = ReferenceCache()
    assert_same(make(one, image_request(), cache=kept)[0], make(one, image_request())[0])
    (track,) = kept._tracks.values()
    assert {name.rpartition("/")[0] for name in track.by_evaluation} == set(
        reference_stages(system.flashface.denoiser)
    )


# Batches.


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_an_image_depends_on_its_own_seed_and_prompt(pipeline, eta):
    sampling = replace(SAMPLING, eta=eta)
    requests = [
        image_request(),
        image_request(prompt="sad", seed=6),
        image_request(seed=6, face_box=(0.2, 0.2, 0.7, 0.7)),
    ]
    alone = np.concatenate([make(pipeline, one, sampling=sampling) for one in requests])
    together = make(pipeline, *requests, sampling=sampling)
    turned = make(pipeline, *requests[::-1], sampling=sampling)
    assert_same(together, alone)
    assert_same(turned[::-1], alone)
    for i in range(3):
        assert_differs(alone[i], alone[i - 1])


def test_images_of_several_people(pipeline, base):
    """Other people in each image, one of them a mix, and each as if it were alone."""
    mix = (replace(BOB, share=1.0), replace(CAROL, share=3.0))
    together = make(pipeline, image_request(), image_request(mix, seed=8))
    assert_same(together[0], base)
    alone = make(pipeline, image_request(mix, seed=8))[0]
    assert_same(together[1], alone)
    assert_differs(together[1], make(pipeline, image_request((BOB,), seed=8))[0])
    assert_differs(together[1], make(pipeline, image_request((CAROL,), seed=8))[0])
    other = (replace(BOB, share=3.0), replace(CAROL, share=1.0))
    assert_differs(alone, make(pipeline, image_request(other, seed=8))[0])
    # Shares are relative, and the order of people is free.
    tenfold = (replace(CAROL, share=30.0), replace(BOB, share=10.0))
    assert_same(make(pipeline, image_request(tenfold, seed=8))[0], alone)


def test_two_identical_people_are_one(pipeline, base):
    halves = (replace(ALICE, share=0.5), Person(FACES[:3], share=0.5))
    assert_same(make(pipeline, image_request(halves))[0], base)


# Features kept between calls.


class Counted:
    """A pipeline whose reference features are counted as they are computed."""

    def __init__(self, pipeline):
        self.count = 0

        def track(*arguments):
            self.count += 1
            return pipeline.track(*arguments)

        self.pipeline = replace(pipeline, track=track)


def test_kept_features_make_the_same_images(pipeline, base):
    cache, counted = ReferenceCache(), Counted(pipeline)

    def cached(*requests, **changes):
        return make(counted.pipeline, *requests, cache=cache, **changes)[0]

    assert_same(cached(image_request()), base)
    assert_same(cached(image_request()), base)
    assert (counted.count, len(cache)) == (1, 1)
    other = image_request(prompt="sad", seed=9, face_box=(0.3, 0.2, 0.6, 0.5))
    assert_same(cached(other), make(pipeline, other)[0])
    stronger = replace(SAMPLING, reference_strength=0.6, text_guidance=3.0)
    assert_same(
        cached(image_request(), sampling=stronger),
        make(pipeline, image_request(), sampling=stronger)[0],
    )
    assert counted.count == 1, "prompts, seeds, boxes and strengths are not in the features"
    compiled = pipeline.generate._cache_size()
    for count, (fields, changes) in enumerate(
        [
            ({"negative_prompt": "a hat"}, {}),
            ({}, {"spacing": "karras"}),
            ({"people": (BOB,)}, {}),
            ({}, {"solver": "heun"}),
        ],
        start=2,
    ):
        sampling = replace(SAMPLING, **changes)
        direct = make(pipeline, image_request(**fields), sampling=sampling)[0]
        assert_same(cached(image_request(**fields), sampling=sampling), direct)
        assert_differs(direct, base, least=2)
        assert (counted.count, len(cache)) == (count, count), fields or changes
        assert (pipeline.generate._cache_size() > compiled) == ("solver" in changes), (
            "features of more evaluations are another shape"
        )


def test_features_of_another_run_are_refused(pipeline):
    """Whatever a cache hands out: one of a fork may keep features under fewer words."""
    cache = ReferenceCache()
    make(pipeline, image_request(), cache=cache)

    class Forgetful(ReferenceCache):
        def get(self, key, compute):
            return next(iter(cache._tracks.values()))

    asked, there = 2 * SAMPLING.steps - 1, SAMPLING.steps
    said = rf"are those of {there} evaluations, but the run asks the network {asked} times"
    with pytest.raises(ValueError, match=said):
        pipeline.make([image_request()], sampling=HEUN, cache=Forgetful())


def test_features_are_kept_for_one_group_of_people(pipeline):
    with pytest.raises(ValueError, match="all images are of the same people"):
        pipeline.make([image_request((ALICE,)), image_request((BOB,))], cache=ReferenceCache())


def features(kilobytes):
    return ReferenceTrack({"middle/0": jnp.zeros((1, 1, 1, kilobytes, 256))})


def kept(cache: ReferenceCache, key: Hashable) -> bool:
    """Whether a key need not be computed; it is not added."""
    return key in cache._tracks


def test_the_cache_drops_the_least_recently_used():
    cache = ReferenceCache(most_bytes=3 * 1024)
    for key in "abc":
        cache.get(key, lambda: features(1))
    assert cache.bytes == 3 * 1024 and len(cache) == 3
    cache.get("a", lambda: pytest.fail("a is kept"))
    cache.get("d", lambda: features(1))
    assert [kept(cache, key) for key in "abcd"] == [True, False, True, True]
    cache.get("large", lambda: features(2))
    assert [kept(cache, key) for key in ("a", "c", "d", "large")] == [False, False, True, True]
    cache.get("huge", lambda: features(9))
    assert len(cache) == 1 and kept(cache, "huge"), "the newest always stay"
    cache.get("small", lambda: features(1))
    assert len(cache) == 1 and kept(cache, "small")


# Sizes.


@pytest.mark.parametrize("size", [(64, 96), (96, 64)])
def test_other_sizes(pipeline, base, size):
    box = (0.25, 0.25, 0.75, 0.75)
    image, boxed = (
        make(pipeline, image_request(face_box=b), size=size)[0] for b in ((0.0,) * 4, box)
    )
    assert image.shape == (*size, 3)
    assert_differs(image, boxed, least=2)
    assert_differs(image[:64, :64], base)


def test_what_comes_back_makes_it_again(pipeline, base):
    asked = image_request((BOB,), negative_prompt="a hat", face_box=(0.1, 0.2, 0.6, 0.7))
    made = pipeline.make([asked], sampling=replace(SAMPLING, steps=2, eta=0.5), size=(64, 64))
    again = pipeline.make(made.requests, sampling=made.sampling, size=made.size)
    np.testing.assert_array_equal(again.images, made.images)
    assert_differs(made.images[0], base)


# Several devices.

ON_FOUR_DEVICES = """
import sys
from pathlib import Path
import jax, numpy as np
jax.config.update("jax_default_matmul_precision", "float32")
from tests.sampling.test_pipeline import FlashFacePipeline, batches, make
pipeline = FlashFacePipeline.from_directory(Path(sys.argv[1]))
assert pipeline.mesh.size == 4
made = {name: make(pipeline, *requests) for name, requests in batches().items()}
stepwise = FlashFacePipeline.from_directory(Path(sys.argv[1]), on_step=lambda: None)
made["stepwise"] = make(stepwise, *batches()["others"])
np.savez(sys.argv[2], **made)
"""


def batches():
    """Batches of four and of three of one person, and one of other people in each image."""
    requests = [image_request(seed=20 + i, prompt=["sad", "a child"][i % 2]) for i in range(4)]
    people = BOB, CAROL, ALICE, BOB
    others = [replace(one, people=(who,)) for one, who in zip(requests, people, strict=True)]
    return {"four": requests, "three": requests[:3], "others": others}


def test_four_devices_make_what_one_makes(pipeline, weights, tmp_path):
    flags = os.environ["XLA_FLAGS"] + " --xla_force_host_platform_device_count=4"
    out = tmp_path / "images.npz"
    subprocess.run(
        [sys.executable, "-c", ON_FOUR_DEVICES, str(weights), str(out)],
        env={**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
        cwd=Path(__file__).parents[2],
        check=True,
        timeout=300,
    )
    with np.load(out) as made:
        several = dict(made)
    for name, requests in batches().items():
        alone = np.concatenate([make(pipeline, one) for one in requests])
        assert several[name].shape == alone.shape
        assert_same(several[name], alone)
        assert_differs(alone[0], alone[2])
    assert_same(several["stepwise"], several["others"])


# Steps that are reported, and programs that are kept.

STEPWISE = """
import sys
from pathlib import Path
import jax, numpy as np
jax.config.update("jax_default_matmul_precision", "float32")
jax.config.update("jax_compilation_cache_dir", sys.argv[3])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
hits = []
jax.monitoring.register_event_listener(lambda event, **_: hits.append(event))
from tests.sampling.test_pipeline import FlashFacePipeline, HEUN, make, image_request
steps = []
pipeline = FlashFacePipeline.from_directory(Path(sys.argv[1]), on_step=lambda: steps.append(None))
image = make(pipeline, image_request())
once = len(steps)
heun = make(pipeline, image_request(), sampling=HEUN)
missed = hits.count("/jax/compilation_cache/cache_misses")
np.savez(sys.argv[2], image=image, heun=heun, once=once, both=len(steps), missed=missed)
"""


def test_steps_are_reported_and_programs_kept(pipeline, base, weights, tmp_path):
    """A second process finds every program in the cache, and makes the same image.

    What is reported is how often the network was asked, which some solvers do twice a step.
    """
    made, by_heun = [], make(pipeline, image_request(), sampling=HEUN)[0]
    for out in (tmp_path / "first.npz", tmp_path / "second.npz"):
        command = [sys.executable, "-c", STEPWISE, str(weights), str(out), str(tmp_path / "kept")]
        subprocess.run(command, cwd=Path(__file__).parents[2], check=True, timeout=300)
        with np.load(out) as file:
            made.append(dict(file))
    for one in made:
        assert_same(one["image"][0], base)
        assert_same(one["heun"][0], by_heun)
        assert one["once"] == SAMPLING.steps
        assert one["both"] == SAMPLING.steps + 2 * SAMPLING.steps - 1
    assert made[0]["missed"] > 0
    assert made[1]["missed"] == 0, f"{made[1]['missed']} programs were compiled again"


# Painting into an image.

INSIDE = np.s_[16:48, 24:56]


def picture(seed=0):
    """A picture whose middle is painted anew: a mask of whole latent positions."""
    pixels, grid = np.zeros((64, 64, 1), np.float32), np.zeros((8, 8, 1), np.float32)
    pixels[INSIDE] = 1
    grid[2:6, 3:7] = 1
    image = np.random.default_rng(seed).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    return InpaintingImage(image, pixels, grid)


def outside(image):
    image = np.array(image, int)
    image[INSIDE] = 0
    return image


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_latent_blending_keeps_the_rest_of_the_image(pipeline, eta):
    """Outside the mask an image is what the autoencoder gives back: equal but for rounding."""
    into = picture()
    sampling = replace(SAMPLING, eta=eta)
    image = make(pipeline, image_request(inpainting=into), sampling=sampling)[0]
    autoencoder = build_system(SYSTEM).autoencoder.bind({})
    kept = to_pixels(
        autoencoder.decode(autoencoder.encode(from_pixels(jnp.asarray(into.image[None]))))
    )[0]
    assert_same(outside(image), outside(kept))
    assert_differs(image[INSIDE], np.asarray(kept)[INSIDE])
    other = make(pipeline, image_request(inpainting=into, people=(BOB,)), sampling=sampling)[0]
    assert_same(outside(other), outside(kept))
    assert_differs(image[INSIDE], other[INSIDE])


@pytest.fixture(scope="module")
def inpainting(tmp_path_factory):
    """A model that sees the image around the face."""
    directory = tmp_path_factory.mktemp("inpainting") / "weights"
    return open_on_one_device(write_random_weights(directory, small_system(in_channels=25)))


def test_an_inpainting_model_sees_what_is_outside_the_mask_alone(inpainting):
    into = picture()
    image = make(inpainting, image_request(inpainting=into))[0]
    other = picture(seed=1).image
    inside, around = into.image.copy(), other.copy()
    inside[INSIDE], around[INSIDE] = other[INSIDE], into.image[INSIDE]
    hidden = make(inpainting, image_request(inpainting=replace(into, image=inside)))[0]
    np.testing.assert_array_equal(hidden, image)
    assert_differs(
        make(inpainting, image_request(inpainting=replace(into, image=around)))[0], image
    )


def test_an_inpainting_model_needs_an_image(inpainting):
    with pytest.raises(ValueError, match=r"^This is an inpainting model: give it images to paint"):
        make(inpainting, image_request())


# Precision.


def test_bfloat16_is_near_float32(weights, base):
    half = open_on_one_device(weights, precision="bfloat16")
    held = flatten(half.params)
    assert held and half.precision == "bfloat16"
    for name, leaf in held.items():
        assert leaf.dtype == (jnp.bfloat16 if leaf.ndim > 1 else jnp.float32), name
    image = make(half, image_request())[0]
    error = np.sqrt(np.mean((image - base) ** 2)) / base.std()
    assert error <= 0.06, f"{error:.3f} of the standard deviation"
    assert not np.array_equal(image, base)


# Bad input.


def unknown(**names):
    """A sampling configuration that the checker of types has not seen, as in use."""
    sampling = replace(SAMPLING)
    vars(sampling).update(names)
    sampling.__post_init__()


def bad_requests(**fields):
    return lambda pipeline: pipeline.make([image_request(**fields)])


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (
            lambda _: image_request(seed=-1),
            "Seed -1 is out of range: choose one from 0 to 2\\^32 - 1",
        ),
        (lambda _: image_request(seed=2**32), "Seed 4294967296 is out of range"),
        (lambda _: image_request(people=()), "needs at least one person"),
        (lambda _: Person(FACES[:0]), "needs at least one reference face"),
        (lambda _: Person(FACES[:2], (1.0,)), "2 references have 1 weights: give one for each"),
        (lambda _: Person(FACES[:2], (1.0, -1.0)), "must be 0 or more, and not all of them 0"),
        (lambda _: Person(FACES[:2], (0.0, 0.0)), "must be 0 or more, and not all of them 0"),
        (lambda _: Person(FACES[:2], (1.0, float("nan"))), "must be 0 or more"),
        (lambda _: Person(FACES[:2], (1.0, float("inf"))), "must be 0 or more"),
        (lambda _: Person(FACES, share=0.0), "share is 0.0; it must be above 0"),
        (lambda _: Person(FACES, share=float("nan")), "share is nan; it must be above 0"),
        (lambda p: p.make([]), "no image to make: give at least one request"),
        (lambda p: p(["a", "b"], FACES, seeds=[1]), "2 prompts have 1 seeds: give one for each"),
        (
            lambda p: p.make([image_request()], size=(60, 64)),
            "image size 60x64 is no multiple of 8",
        ),
        (lambda p: p.make([image_request()], size=(0, 64)), "image size 0x64 is no multiple of 8"),
        (
            lambda p: p.make([image_request(), image_request(negative_prompt="a hat")]),
            "images of a batch must have one negative prompt",
        ),
        (
            bad_requests(people=(Person(np.zeros((1, 48, 48, 3), np.uint8)),)),
            "Reference faces are 48x48 pixels; this model takes 32x32",
        ),
        (bad_requests(face_box=(0.5, 0.0, 0.4, 1.0)), "face position .* is no box"),
        (lambda p: p.make([image_request(), image_request(inpainting=picture())]), "split it"),
        (
            lambda p: p.make([image_request(inpainting=picture())], size=(64, 96)),
            "An image to paint into is 64x64 pixels; it must be 64x96",
        ),
        (
            lambda p: p.make([image_request()], sampling=replace(SAMPLING, steps=1001)),
            "1001 sampling steps: choose between 1 and 1000",
        ),
        (
            lambda p: p.make(
                [image_request()], sampling=replace(SAMPLING, steps=600, solver="heun")
            ),
            "600 steps of heun ask the network 1199 times; choose fewer steps",
        ),
        (lambda _: replace(SAMPLING, steps=0), "0 sampling steps: choose 1 or more"),
        (lambda _: replace(SAMPLING, eta=1.1), "eta is 1.1; choose between 0 and 1"),
        (lambda _: unknown(solver="rk4"), "There is no solver 'rk4': choose ddim"),
        (lambda _: unknown(spacing="even"), "There is no spacing 'even': choose trailing"),
        (
            lambda _: replace(SAMPLING, reference_strength=((0.5, 1.0), (0.2, 1.0))),
            "is no schedule: give points",
        ),
        (lambda _: replace(SAMPLING, reference_strength=()), "is no schedule: give points"),
        (lambda _: replace(SAMPLING, reference_strength=-1.0), "reference_strength is -1.0"),
    ],
)
def test_bad_input_is_refused_in_one_sentence(pipeline, bad, message):
    with pytest.raises(ValueError, match=message) as raised:
        bad(pipeline)
    assert "\n" not in str(raised.value) and str(raised.value).endswith(".")
