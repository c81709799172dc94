"""Every public function that takes arrays tells of a wrong one by name, wanted and got."""

import copy
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flashface_jax.diffusion.guidance import Guidance
from flashface_jax.diffusion.loss import (
    Example,
    LossConfig,
    LossNoise,
    loss_weight,
)
from flashface_jax.diffusion.loss import denoise as denoise_targets
from flashface_jax.diffusion.sampling import (
    Conditioning,
    ReferenceLatents,
    advance,
    plan_sampling,
    sample,
    start,
    track_references,
)
from flashface_jax.diffusion.schedule import (
    ScheduleConfig,
    add_noise,
    as_noise,
    noise_levels,
    visited_levels,
)
from flashface_jax.models.autoencoder.autoencoder import (
    encode_crops,
    encode_without_face,
    from_pixels,
    to_pixels,
)
from flashface_jax.models.autoencoder.patch_cosines import PatchCosines
from flashface_jax.models.autoencoder.tiled_decoding import decode_in_tiles
from flashface_jax.models.autoencoder.vae import AutoencoderKL, AutoencoderKLConfig
from flashface_jax.models.blocks import Compute
from flashface_jax.models.clip import ImageTower, ImageTowerConfig, TextTower
from flashface_jax.models.flashface import FlashFace
from flashface_jax.models.network import network
from flashface_jax.models.unet import References
from flashface_jax.sampling.pipeline import FlashFacePipeline
from flashface_jax.sampling.program import InpaintingBatch, RequestBatch, Sampler
from flashface_jax.sampling.requests import InpaintingImage, Person
from flashface_jax.weights.system import build_system
from tests.small import CONFIG

SYSTEM = build_system(CONFIG.system)
KL = network(AutoencoderKL, AutoencoderKLConfig(32, channel_multipliers=(1, 2)), Compute())
IMAGES = network(ImageTower, ImageTowerConfig(16, 8, 16, 2, 1, 8), Compute())
COSINES = PatchCosines(CONFIG.system.autoencoder)
LEVELS = jnp.asarray(noise_levels(ScheduleConfig()), jnp.float32)
ALL_LEVELS = noise_levels(ScheduleConfig())
PLAN = plan_sampling(ALL_LEVELS, visited_levels(ALL_LEVELS, 2), Guidance())


def of(*shape, dtype=jnp.float32):
    return jnp.zeros(shape, dtype)


def pixels(*shape):
    return np.zeros(shape, np.uint8)


def ints(*shape):
    return of(*shape, dtype=jnp.int32)


def changed(record, **fields):
    """A copy that its class has not looked at: the suite checks dataclasses when they are made."""
    record = copy.copy(record)
    for name, value in fields.items():
        object.__setattr__(record, name, value)
    return record


TIME = ints(2)
FEATURES = {"middle/0": of(1, 3, 16, 32)}
SEEN = References(FEATURES, of(1, 3), of(2, 1))
EXAMPLE = Example(
    of(2, 8, 8, 12), of(2, 8, 8, 1), of(2, 8, 8, 1), of(2, 40, 16), of(1, 40, 16),
    of(2, 3, 4, 4, 12),
    of(2, 3, dtype=bool),
)  # fmt: skip
DRAWN = LossNoise(TIME, of(2, 8, 8, 12), of(2, 8, 8, 12))
REFERENCES = ReferenceLatents(of(1, 3, 4, 4, 12), of(1, 40, 16))
SHOWN = Conditioning(
    of(2, 40, 16), of(2, 40, 16), REFERENCES, of(1, 3), of(1, 1), of(2, 8, 8, 1)
)  # fmt: skip
KEYS = jax.random.split(jax.random.key(0), 2)
REQUEST = RequestBatch(
    ints(2, 40), ints(1, 40), jnp.asarray(pixels(1, 4, 32, 32, 3)), of(1, 4), of(1, 1),
    of(2, 8, 8, 1), of(2, dtype=jnp.uint32),
)  # fmt: skip
PERSON = Person(pixels(1, 32, 32, 3))
INPAINTING = InpaintingImage(
    pixels(64, 64, 3), np.zeros((64, 64, 1), np.float32), np.zeros((8, 8, 1), np.float32)
)
PAINTED = InpaintingBatch(jnp.asarray(pixels(2, 64, 64, 3)), of(2, 64, 64, 1), of(2, 8, 8, 1))


def flashface(method, **arguments):
    return jax.eval_shape(SYSTEM.flashface.jit(method), SYSTEM.flashface.shapes, **arguments)


def encode(**wrong):
    right = {"latents": of(2, 3, 4, 4, 12), "timestep": TIME, "context": of(1, 40, 16)}
    return flashface(FlashFace.encode_references, **{**right, **wrong})


def denoise(references=None, paired=0, **wrong):
    right = {
        "latents": of(2, 8, 8, 12),
        "condition": of(2, 8, 8, 1),
        "timestep": TIME,
        "context": of(2, 40, 16),
    }

    def method(model, **arrays):
        return model.denoise(**arrays, references=references, paired=paired)

    return flashface(method, **{**right, **wrong})


def called(net, method, *arguments):
    return jax.eval_shape(net.jit(method), net.shapes, *arguments)


def begin(**wrong):
    params = {name: part.shapes for name, part in SYSTEM.parts().items()}
    sampler, request = Sampler(SYSTEM, "noise"), changed(REQUEST, **wrong)
    return jax.eval_shape(lambda params: sampler.begin(params, request).state.x, params)


def loss(example=EXAMPLE, drawn=DRAWN, levels=LEVELS):
    return flashface(lambda model: denoise_targets(model, example, drawn, levels, "noise").noise)


def sampled(shown=SHOWN, noise=DRAWN.noise, keys=KEYS):
    return flashface(lambda model: sample(model, shown, noise, keys, PLAN))


def test_right_arrays_pass():
    assert encode()["middle/0"].shape == (2, 3, 16, 32)
    assert denoise().shape == denoise(context=of(1, 40, 16)).shape == (2, 8, 8, 12)
    assert loss().shape == (2, 8, 8, 12)
    assert sampled().shape == (2, 8, 8, 12)
    assert begin().shape == begin(inpainting=PAINTED).shape == (2, 8, 8, 12)


SHAPES = [
    # the networks
    (lambda: encode(latents=of(2, 3, 4, 4, 3)), "latents", "FlashFace.encode_references",
     "shape (2, 3, 4, 4, 3)", "(sets, refs, ref_h, ref_w, c) with c = 12 (configured)"),
    (lambda: encode(latents=of(3, 4, 4, 12)), "latents", "FlashFace.encode_references",
     "shape (3, 4, 4, 12)", "(sets, refs, ref_h, ref_w, c) with c = 12 (configured)"),
    (lambda: encode(timestep=ints(3)), "timestep", "FlashFace.encode_references",
     "shape (3,)", "(sets,) with sets = 2 (as in `latents`)"),
    (lambda: encode(context=of(1, 40, 12)), "context", "FlashFace.encode_references",
     "shape (1, 40, 12)", "(contexts, words, text) with text = 16 (configured)"),
    (lambda: encode(context=of(3, 40, 16)), "context", "FlashFace.encode_references",
     "3 contexts", "one for all sets, or 2, one for each"),
    (lambda: denoise(latents=of(2, 8, 8, 3)), "latents", "FlashFace.denoise",
     "shape (2, 8, 8, 3)", "(batch, h, w, c) with c = 12 (configured)"),
    (lambda: denoise(condition=of(2, 8, 4, 1)), "condition", "FlashFace.denoise",
     "shape (2, 8, 4, 1)", "(batch, h, w, seen) with seen = 1 (configured), "
     "batch = 2 (as in `latents`), h = 8 (as in `latents`), w = 8 (as in `latents`)"),
    (lambda: denoise(condition=of(2, 8, 8, 13)), "condition", "FlashFace.denoise",
     "shape (2, 8, 8, 13)", "(batch, h, w, seen) with seen = 1 (configured), "
     "batch = 2 (as in `latents`), h = 8 (as in `latents`), w = 8 (as in `latents`)"),
    (lambda: denoise(timestep=ints(4)), "timestep", "FlashFace.denoise",
     "shape (4,)", "(batch,) with batch = 2 (as in `latents`)"),
    (lambda: denoise(context=of(2, 16)), "context", "FlashFace.denoise",
     "shape (2, 16)", "(contexts, words, text) with text = 16 (configured)"),
    (lambda: denoise(context=of(3, 40, 16)), "context", "FlashFace.denoise",
     "3 contexts", "one for all rows, or 2, one for each row"),
    (lambda: denoise(paired=1, context=of(1, 40, 16)), "context", "FlashFace.denoise",
     "1 contexts", "2, one for each row"),
    (lambda: denoise(paired=3), "paired", "FlashFace.denoise", "the value 3", "0 to 2, the rows"),
    (lambda: denoise(references=changed(SEEN, weight=of(1, 2))), "references.weight",
     "FlashFace.denoise", "shape (1, 2)",
     "(sets, refs) with sets = 1 (as in `references.features['middle/0']`), "
     "refs = 3 (as in `references.features['middle/0']`)"),
    (lambda: denoise(references=changed(SEEN, strength=of(2))), "references.strength",
     "FlashFace.denoise", "shape (2,)", "(rows, people)"),
    (lambda: denoise(references=changed(SEEN, strength=of(3, 1))), "references.strength",
     "FlashFace.denoise", "3 rows", "at most 2, which are predicted"),
    (lambda: denoise(references=changed(SEEN, strength=of(2, 0))), "references.strength",
     "FlashFace.denoise", "shape (2, 0) for 1 sets of references",
     "sets that its people divide, and rows that see as many of them each"),
    (lambda: denoise(references=changed(SEEN, strength=of(2, 2))), "references.strength",
     "FlashFace.denoise", "shape (2, 2) for 1 sets of references",
     "sets that its people divide, and rows that see as many of them each"),
    (lambda: called(SYSTEM.text_tower, TextTower.__call__, ints(2, 77)), "tokens",
     "TextTower.__call__", "shape (2, 77)", "(batch, words) with words = 40 (configured)"),
    (lambda: called(SYSTEM.text_tower, TextTower.embed, ints(40)), "tokens",
     "TextTower.embed", "shape (40,)", "(batch, words) with words = 40 (configured)"),
    (lambda: called(IMAGES, ImageTower.embed, of(1, 16, 8, 3)), "image", "ImageTower.embed",
     "shape (1, 16, 8, 3)", "(batch, H, W, 3) with H = 16 (configured), W = 16 (configured)"),
    (lambda: called(KL, AutoencoderKL.encode, of(2, 8, 8, 4)), "image", "AutoencoderKL.encode",
     "shape (2, 8, 8, 4)", "(batch, H, W, 3)"),
    (lambda: called(KL, AutoencoderKL.encode, of(2, 8, 7, 3)), "image", "AutoencoderKL.encode",
     "8x7 pixels", "multiples of 2, the stride"),
    (lambda: called(KL, AutoencoderKL.encode, of(2, 8, 8, 3), of(1, 4, 4, 4)), "noise",
     "AutoencoderKL.encode", "shape (1, 4, 4, 4)",
     "(batch, h, w, c) with c = 4 (configured), batch = 2 (as in `image`)"),
    (lambda: called(KL, AutoencoderKL.encode, of(2, 8, 8, 3), of(2, 8, 8, 4)), "noise",
     "AutoencoderKL.encode", "shape (2, 8, 8, 4)",
     "(batch, h, w, c) with h = 4, w = 4 (as in `image`, over the stride)"),
    (lambda: called(KL, AutoencoderKL.decode, of(2, 8, 8, 3)), "latent", "AutoencoderKL.decode",
     "shape (2, 8, 8, 3)", "(batch, h, w, c) with c = 4 (configured)"),
    (lambda: COSINES.encode(of(2, 12, 8, 3)), "image", "PatchCosines.encode",
     "12x8 pixels", "multiples of 8, the stride"),
    (lambda: COSINES.decode(of(2, 8, 8, 4)), "latent", "PatchCosines.decode",
     "shape (2, 8, 8, 4)", "(batch, h, w, c) with c = 12 (configured)"),
    (lambda: decode_in_tiles(COSINES, of(8, 8, 12)), "latent", "decode_in_tiles",
     "shape (8, 8, 12)", "(batch, h, w, c) with c = 12 (configured)"),
    (lambda: encode_crops(COSINES, jnp.asarray(pixels(3, 32, 32, 3))), "crops", "encode_crops",
     "shape (3, 32, 32, 3)", "(sets, refs, R, R, 3)"),
    (lambda: encode_without_face(COSINES, of(2, 64, 64, 3), of(1, 8, 8, 1)), "face_mask",
     "encode_without_face", "shape (1, 8, 8, 1)",
     "(batch, h, w, 1) with batch = 2 (as in `image`)"),
    (lambda: from_pixels(jnp.asarray(pixels(8, 8, 3))), "pixels", "from_pixels",
     "shape (8, 8, 3)", "(batch, H, W, 3)"),
    (lambda: to_pixels(of(8, 8, 3)), "image", "to_pixels", "shape (8, 8, 3)", "(batch, H, W, 3)"),
    # diffusion
    (lambda: add_noise(of(2, 8, 8, 4), of(2, 8, 8, 3), of(2)), "noise", "add_noise",
     "shape (2, 8, 8, 3)", "(batch, h, w, c) with batch = 2 (as in `x0`), h = 8 (as in `x0`), "
     "w = 8 (as in `x0`), c = 4 (as in `x0`)"),
    (lambda: as_noise(of(2, 8, 8, 4), of(2, 8, 8, 4), of(3), "noise"), "sigma", "as_noise",
     "shape (3,)", "(batch,) with batch = 2 (as in `output`)"),
    (lambda: loss_weight(of(2, 1), LossConfig()), "sigma", "loss_weight", "shape (2, 1)",
     "(batch,)"),
    (lambda: loss(changed(EXAMPLE, context=of(3, 40, 16))), "example.context",
     "denoise", "shape (3, 40, 16)",
     "(batch, words, text) with batch = 2 (as in `example.target`)"),
    (lambda: loss(changed(EXAMPLE, references=of(4, 3, 4, 4, 12))), "example.references",
     "denoise", "shape (4, 3, 4, 4, 12)", "(batch, refs, ref_h, ref_w, c) with "
     "batch = 2 (as in `example.target`), c = 12 (as in `example.target`)"),
    (lambda: loss(drawn=changed(DRAWN, noise=of(2, 4, 4, 12))), "drawn.noise",
     "denoise", "shape (2, 4, 4, 12)", "(batch, h, w, c) with "
     "batch = 2 (as in `example.target`), h = 8 (as in `example.target`), "
     "w = 8 (as in `example.target`), c = 12 (as in `example.target`)"),
    (lambda: loss(levels=LEVELS[None]), "levels", "denoise",
     "shape (1, 1000)", "(timesteps,)"),
    (lambda: sampled(changed(SHOWN, negative=of(1, 40, 16))), "conditioning.negative", "sample",
     "shape (1, 40, 16)", "(batch, words, text) with batch = 2 (as in `conditioning.prompt`), "
     "words = 40 (as in `conditioning.prompt`), text = 16 (as in `conditioning.prompt`)"),
    (lambda: sampled(keys=KEYS[:1]), "keys", "sample", "shape (1,)",
     "(batch,) with batch = 2 (as in `conditioning.prompt`)"),
    (lambda: sampled(noise=of(2, 8, 6, 12)), "noise", "sample", "shape (2, 8, 6, 12)",
     "(batch, h, w, c) with batch = 2 (as in `conditioning.prompt`), "
     "c = 12 (as in `conditioning.references.latents`), h = 8 (as in `conditioning.condition`), "
     "w = 8 (as in `conditioning.condition`)"),
    (lambda: start(of(2, 8, 8, 12), KEYS[:1]), "keys", "start", "shape (1,)",
     "(batch,) with batch = 2 (as in `noise`)"),
    (lambda: flashface(lambda model: advance(
        model, SHOWN, start(of(3, 8, 8, 12), jnp.resize(KEYS, 3)), PLAN, PLAN.count)),
     "state.x", "advance", "shape (3, 8, 8, 12)",
     "(batch, h, w, c) with batch = 2 (as in `conditioning.prompt`), "
     "c = 12 (as in `conditioning.references.latents`), h = 8 (as in `conditioning.condition`), "
     "w = 8 (as in `conditioning.condition`)"),
    (lambda: flashface(lambda model: track_references(model, REFERENCES, ints(2, 1))),
     "timestep", "track_references", "shape (2, 1)", "(evaluations,)"),
    # sampling
    (lambda: begin(seeds=of(3, dtype=jnp.uint32)), "request.seeds", "Sampler.begin",
     "shape (3,)", "(batch,) with batch = 2 (as in `request.tokens`)"),
    (lambda: begin(references=jnp.asarray(pixels(1, 4, 32, 24, 3))), "request.references",
     "Sampler.begin", "shape (1, 4, 32, 24, 3)", "(sets, refs, R, R, 3)"),
    (lambda: begin(reference_weight=of(1, 3)), "request.reference_weight", "Sampler.begin",
     "shape (1, 3)", "(sets, refs) with sets = 1 (as in `request.references`), "
     "refs = 4 (as in `request.references`)"),
    (lambda: begin(person_share=of(1, 2)), "request.references", "Sampler.begin", "1 sets",
     "2, one for each entry of `request.person_share`"),
    (lambda: begin(person_share=of(3, 1)), "request.person_share", "Sampler.begin", "3 rows",
     "one for all images, or 2, one for each"),
    (lambda: begin(inpainting=changed(PAINTED, repaint=of(2, 4, 8, 1))),
     "request.inpainting.repaint", "Sampler.begin", "shape (2, 4, 8, 1)",
     "(batch, h, w, 1) with batch = 2 (as in `request.tokens`), h = 8 (as in `request.face_mask`), "
     "w = 8 (as in `request.face_mask`)"),
    (lambda: begin(inpainting=InpaintingBatch(
        jnp.asarray(pixels(2, 32, 64, 3)), of(2, 32, 64, 1), of(2, 8, 8, 1))),
     "request.inpainting.images", "Sampler.begin", "32x64 pixels",
     "64x64, 8 for each position of `request.face_mask`"),
    (lambda: begin(tokens=ints(2, 77), negative_tokens=ints(1, 77)), "tokens",
     "TextTower.__call__", "shape (1, 77)", "(batch, words) with words = 40 (configured)"),
    (lambda: changed(PERSON, faces=pixels(32, 32, 3)).__post_init__(), "faces", "Person",
     "shape (32, 32, 3)", "(refs, R, R, 3)"),
    (lambda: changed(INPAINTING, repaint_pixels=np.zeros((64, 32, 1), np.float32)).__post_init__(),
     "repaint_pixels", "InpaintingImage", "shape (64, 32, 1)",
     "(H, W, 1) with H = 64 (as in `image`), W = 64 (as in `image`)"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("call", "argument", "function", "got", "wanted"),
    SHAPES,
    ids=[f"{function}-{argument}-{i}" for i, (_, argument, function, *_) in enumerate(SHAPES)],
)
def test_a_wrong_shape(call, argument, function, got, wanted):
    with pytest.raises(ValueError) as raised:
        call()
    assert str(raised.value) == f"argument `{argument}` of {function} has {got}; wanted {wanted}."


DTYPES = [
    (lambda: encode(latents=ints(2, 3, 4, 4, 12)), "latents", "FlashFace.encode_references",
     "dtype int32", "float, (sets, refs, ref_h, ref_w, c)"),
    (lambda: denoise(timestep=of(2)), "timestep", "FlashFace.denoise", "dtype float32",
     "int, (batch,)"),
    (lambda: denoise(latents=None), "latents", "FlashFace.denoise", "type NoneType",
     "float, (batch, h, w, c)"),
    (lambda: called(SYSTEM.text_tower, TextTower.__call__, of(2, 40)), "tokens",
     "TextTower.__call__", "dtype float32", "int, (batch, words)"),
    (lambda: COSINES.encode(jnp.asarray(pixels(1, 8, 8, 3))), "image", "PatchCosines.encode",
     "dtype uint8", "float, (batch, H, W, 3)"),
    (lambda: called(KL, AutoencoderKL.decode, ints(1, 4, 4, 4)), "latent",
     "AutoencoderKL.decode", "dtype int32", "float, (batch, h, w, c)"),
    (lambda: loss(changed(EXAMPLE, reference_valid=of(2, 3))), "example.reference_valid",
     "denoise", "dtype float32", "bool, (batch, refs)"),
    (lambda: sampled(keys=of(2, dtype=jnp.uint32)), "keys", "sample", "dtype uint32",
     "key, (batch,)"),
    (lambda: begin(seeds=ints(2)), "request.seeds", "Sampler.begin", "dtype int32",
     "uint32, (batch,)"),
    (lambda: changed(PERSON, faces=np.zeros((1, 32, 32, 3))).__post_init__(), "faces", "Person",
     "dtype float64", "uint8, (refs, R, R, 3)"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("call", "argument", "function", "got", "wanted"),
    DTYPES,
    ids=[f"{function}-{argument}" for _, argument, function, *_ in DTYPES],
)
def test_a_wrong_dtype(call, argument, function, got, wanted):
    with pytest.raises(TypeError) as raised:
        call()
    expected = f"argument `{argument}` of {function} has {got}; wanted an array of {wanted}."
    assert str(raised.value) == expected


WITHOUT_A_TYPE_CHECKER = """
import sys
sys.modules["beartype"] = None
import jax.numpy as jnp, numpy as np
from flashface_jax.diffusion.schedule import add_noise
from flashface_jax.sampling.requests import Person
x, flat = jnp.zeros((2, 8, 8, 4)), np.zeros((32, 32, 3), np.uint8)
for call in (lambda: add_noise(x, x, jnp.zeros(3)), lambda: Person(flat)):
    try:
        call()
    except ValueError as error:
        print(error)
"""


def test_users_need_no_type_checker():
    """Theirs are the same sentences; the suite's own checks of dataclasses precede them here."""
    said = subprocess.run(
        [sys.executable, "-c", WITHOUT_A_TYPE_CHECKER],
        cwd=Path(__file__).parents[1],
        check=True,
        capture_output=True,
        text=True,
    )
    assert said.stdout.splitlines() == [
        "argument `sigma` of add_noise has shape (3,); wanted (batch,) with batch = 2 "
        "(as in `x0`).",
        "argument `faces` of Person has shape (32, 32, 3); wanted (refs, R, R, 3).",
    ]


@pytest.mark.parametrize(
    ("faces", "error", "message"),
    [
        (
            pixels(2, 48, 48, 3),
            ValueError,
            "has shape (2, 48, 48, 3); wanted (refs, R, R, 3) with R = 32 (configured).",
        ),
        (
            np.zeros((2, 32, 32, 3), np.float32),
            TypeError,
            "has dtype float32; wanted an array of uint8, (refs, R, R, 3).",
        ),
    ],
)
def test_the_pipeline_names_its_references(faces, error, message):
    # Nothing of a pipeline but its configuration is asked before arrays are checked.
    pipeline = SimpleNamespace(config=CONFIG.system)
    with pytest.raises(error) as raised:
        FlashFacePipeline.__call__(pipeline, ["a child"], faces, seeds=[1])
    assert str(raised.value) == f"argument `references` of FlashFacePipeline.__call__ {message}"
