"""What the tables say of the released files: layouts, inferred sizes, dead keys, problems."""

import math
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from flashface_jax.convert.official import (
    autoencoder_table,
    flashface_table,
    image_tower_table,
    infer_autoencoder_config,
    infer_flashface_config,
    infer_image_tower_config,
    infer_text_tower_config,
    text_tower_table,
)
from flashface_jax.convert.table import AS_IS, ConversionError, Entry, Table, summary
from flashface_jax.models.autoencoder.patch_cosines import PatchCosinesConfig
from flashface_jax.models.autoencoder.vae import AutoencoderKLConfig
from flashface_jax.models.clip import ImageTowerConfig, TextTowerConfig
from flashface_jax.models.flashface import FlashFaceConfig
from flashface_jax.models.network import flatten
from flashface_jax.models.unet_topology import UNetConfig
from flashface_jax.weights.system import SystemConfig, build_system
from tests.recorded import drawn_state_dict, layout

TINY_UNET = UNetConfig(
    base_channels=32,
    channel_multipliers=(1, 2),
    residual_blocks=(1, 1),
    transformer_depth=(1, 1),
    context_channels=12,
    num_heads=4,
)


SMALL = SystemConfig(
    flashface=FlashFaceConfig(TINY_UNET),
    autoencoder=PatchCosinesConfig(),
    text_tower=TextTowerConfig(90, 12, 32, 1, 1, 24),
    image_tower=None,
)


def recorded_shapes(name):
    return {key: tuple(shape) for key, shape in layout(name)["state_dict"].items()}


@pytest.fixture(scope="module")
def official():
    """Shapes of the released files: `unet`, `vae`, `clip`."""
    return {
        name: {key: tuple(shape) for key, shape in keys.items()}
        for name, keys in layout("official_layout").items()
    }


@cache
def target_shapes(part, config):
    """Shapes of one network's parameters, without allocating them."""
    networks = build_system(replace(SMALL, **{part: config})).parts()
    return {name: leaf.shape for name, leaf in flatten(networks[part].shapes).items()}


def size(shapes):
    return sum(math.prod(shape) for shape in shapes)


# ------------------------------------------------------------------- the released files, full size


def test_released_sizes_are_the_defaults(official):
    assert infer_flashface_config(official["unet"], 8, None) == FlashFaceConfig()
    vae = infer_autoencoder_config(official["vae"])
    assert vae == AutoencoderKLConfig(misread_attention=True)
    assert infer_text_tower_config(official["clip"], None) == TextTowerConfig()
    assert infer_image_tower_config(official["clip"], None) == ImageTowerConfig()


@pytest.mark.parametrize(
    ("part", "file", "config", "table"),
    [
        ("flashface", "unet", FlashFaceConfig(), flashface_table),
        ("autoencoder", "vae", AutoencoderKLConfig(misread_attention=True), autoencoder_table),
        ("text_tower", "clip", TextTowerConfig(), text_tower_table),
        ("image_tower", "clip", ImageTowerConfig(), image_tower_table),
    ],
)
def test_released_keys_fill_every_parameter_once(official, part, file, config, table):
    table, source, target = table(config), official[file], target_shapes(part, config)
    assert table.problems(source, target) == []
    # The same, counted: every number in the file is a parameter or known to be dead.
    dead = [key for key in source if any(key.startswith(d.prefix) for d in table.dead)]
    alive = [shape for key, shape in source.items() if key not in dead]
    assert size(alive) == size(target.values())
    assert len(alive) == len(target)


def test_parameter_numbers_are_those_of_the_published_models():
    vae = target_shapes("autoencoder", AutoencoderKLConfig(misread_attention=True))
    assert size(vae.values()) == 83_653_863  # Stable Diffusion's autoencoder
    clip = [
        *target_shapes("text_tower", TextTowerConfig()).values(),
        *target_shapes("image_tower", ImageTowerConfig()).values(),
    ]
    assert size(clip) + 1 == 427_616_513  # CLIP ViT-L/14 with its temperature
    flashface = target_shapes("flashface", FlashFaceConfig())
    by_net = {
        net: size(shape for name, shape in flashface.items() if name.startswith(net))
        for net in ("denoiser", "reference_net")
    }
    attending = [1280] * 4 + [640] * 3 + [320] * 3  # the middle and the decoder
    reference_attention = sum(4 * c * c + c for c in attending)
    mask_channel = 320 * 3 * 3
    stable_diffusion = 859_520_964
    assert by_net["denoiser"] == stable_diffusion + mask_channel + reference_attention
    shared = [
        shape
        for name, shape in flashface.items()
        if name.startswith(("denoiser/middle", "denoiser/time_embedding", "denoiser/head"))
        and "reference_attention" not in name
    ]
    assert by_net["reference_net"] == stable_diffusion - size(shared)


def test_every_dead_key_has_a_reason(official):
    tables = {
        "unet": [flashface_table(FlashFaceConfig())],
        "vae": [autoencoder_table(AutoencoderKLConfig())],
        "clip": [text_tower_table(TextTowerConfig()), image_tower_table(ImageTowerConfig())],
    }
    for file, readers in tables.items():
        for table in readers:
            assert all(len(dead.reason) > 10 for dead in table.dead)
        unread = [
            key
            for key in official[file]
            if not any(key == entry.source for table in readers for entry in table.entries)
        ]
        roots = {key.split(".")[0] for key in unread}
        expected = {
            "unet": {"encoder", "middle", "decoder", "ref_middle"},
            "vae": set(),
            "clip": {"log_scale"},
        }
        assert roots == expected[file]


# ----------------------------------------------------------------------------- sizes read off


def released_shapes(table, target):
    """The layout that the released code would give such networks."""
    return {
        entry.source: entry.transform.to_torch(np.broadcast_to(0, target[entry.target])).shape
        for entry in table.entries
    }


@pytest.mark.parametrize(
    "change",
    [
        {"num_heads": None, "head_channels": 16},
        {"channel_multipliers": (2,), "residual_blocks": (2,), "transformer_depth": (2,)},
        {"residual_blocks": (3, 1), "transformer_depth": (0, 2), "middle_depth": 3},
        {
            "channel_multipliers": (1, 1, 3, 2),
            "residual_blocks": (1, 2, 1, 1),
            "transformer_depth": (1, 0, 2, 0),
        },
        {"in_channels": 7, "out_channels": 3, "base_channels": 64, "context_channels": 20},
        {"reference_attention": "both"},
        {"reference_attention": "encoder"},
        {"reference_attention": "decoder/level1"},
        {"reference_attention": "encoder/level0,middle"},
    ],
    ids="-".join,
)
def test_unet_sizes_are_inferred(change):
    config = FlashFaceConfig(replace(TINY_UNET, **change))
    source = released_shapes(flashface_table(config), target_shapes("flashface", config))
    heads = config.denoiser.num_heads, config.denoiser.head_channels
    assert infer_flashface_config(source, *heads) == config


def test_a_file_without_any_reference_attention_lacks_the_released_models():
    config = FlashFaceConfig(replace(TINY_UNET, reference_attention="none"))
    source = released_shapes(flashface_table(config), target_shapes("flashface", config))
    inferred = infer_flashface_config(source, 4, None)
    assert inferred.denoiser.reference_attention == "decoder"
    problems = flashface_table(inferred).problems(source, target_shapes("flashface", inferred))
    assert problems and all("self_attn_first" in problem for problem in problems)


@pytest.mark.parametrize(
    "config",
    [
        AutoencoderKLConfig(32, 3, (1,), 1, misread_attention=True),
        AutoencoderKLConfig(64, 8, (1, 3, 2), 3, misread_attention=True),
    ],
)
def test_autoencoder_sizes_are_inferred(config):
    source = released_shapes(autoencoder_table(config), target_shapes("autoencoder", config))
    assert infer_autoencoder_config(source) == config


@pytest.mark.parametrize(("channels", "heads"), [(32, 1), (64, 1), (192, 3)])
def test_clip_heads_are_64_wide(channels, heads):
    text = TextTowerConfig(90, 12, channels, heads, 2, 24)
    source = released_shapes(text_tower_table(text), target_shapes("text_tower", text))
    assert infer_text_tower_config(source, None) == text
    image = ImageTowerConfig(56, 8, channels, heads, 3, 24)
    source = released_shapes(image_tower_table(image), target_shapes("image_tower", image))
    assert infer_image_tower_config(source, None) == image


@pytest.mark.parametrize("heads", [0, -4, 5])
def test_impossible_heads_are_refused(heads):
    with pytest.raises(ValueError, match="cannot be split into heads"):
        infer_flashface_config(recorded_shapes("tiny_unet"), heads, None)
    with pytest.raises(ConversionError, match=f"cannot have {heads} heads.*--clip-text-heads"):
        infer_text_tower_config(recorded_shapes("tiny_clip"), heads)


# ---------------------------------------------------------------------------------- problems


def spoilt(shapes, changes):
    """Shapes with some keys replaced, or left out where the change is None."""
    return {key: shape for key, shape in {**shapes, **changes}.items() if shape is not None}


def unet_problems(changes, extra_entries=()):
    shapes = recorded_shapes("tiny_unet")
    config = infer_flashface_config(shapes, 4, None)
    table = flashface_table(config)
    table = Table((*table.entries, *extra_entries), table.dead)
    return table.problems(spoilt(shapes, changes), target_shapes("flashface", config))


def test_all_kinds_of_problems_are_reported_together():
    planted = Entry("ref_encoder.1.0.layer1.0.bias", "denoiser/head/conv/bias", AS_IS)
    problems = unet_problems(
        {
            "extra.weight": (3, 3),
            "head.0.bias": None,
            "ori_decoder.0.0.layer1.2.weight": (64, 128, 3, 1),
        },
        [planted],
    )
    message = summary(problems)
    for expected in (
        "extra.weight: not a key of this model",
        "head.0.bias: missing",
        "ori_decoder.0.0.layer1.2.weight: shape [64, 128, 3, 1], expected [64, 128, 3, 3]",
        "denoiser/head/conv/bias: filled 2 times",
    ):
        assert expected in message
    assert len(problems) == 5  # the planted entry's shape is wrong, too


def test_unfilled_parameters_are_problems():
    config = infer_flashface_config(recorded_shapes("tiny_unet"), 4, None)
    table = flashface_table(config)
    shorter = Table(table.entries[1:], table.dead)
    problems = shorter.problems(recorded_shapes("tiny_unet"), target_shapes("flashface", config))
    assert problems == [
        f"{table.entries[0].source}: not a key of this model",
        f"{table.entries[0].target}: filled by no key",
    ]


@pytest.mark.parametrize("leading", [0, 2])
def test_rows_that_a_transform_would_drop_are_problems(leading):
    shapes = recorded_shapes("tiny_clip")
    config = infer_text_tower_config(shapes, 4)
    changed = spoilt(shapes, {"textual.pos_embedding": (leading, 16, 32)})
    problems = text_tower_table(config).problems(changed, target_shapes("text_tower", config))
    assert problems == [f"textual.pos_embedding: shape [{leading}, 16, 32], expected [1, 16, 32]"]


def test_long_reports_are_cut():
    assert summary(["a"]) == "1 problem\n  a"
    lines = summary(map(str, range(50))).splitlines()
    assert lines[0] == "50 problems"
    assert lines[-1] == "  and 30 more"


INFERRED = {"ori_encoder.0.weight", "head.2.weight"}  # sizes of their own are read off them


def test_no_key_can_be_missing_or_misshapen_unnoticed():
    shapes = recorded_shapes("tiny_unet")
    config = infer_flashface_config(shapes, 4, None)
    table, target = flashface_table(config), target_shapes("flashface", config)
    entries = [entry for entry in table.entries if entry.source not in INFERRED]
    for entry in entries[:: len(entries) // 30]:
        for change in (None, (*shapes[entry.source], 1), (1 + shapes[entry.source][0],)):
            changed = spoilt(shapes, {entry.source: change})
            assert infer_flashface_config(changed, 4, None) == config
            (problem,) = table.problems(changed, target)
            assert problem.startswith(entry.source)


# ------------------------------------------------------------------------------------- values


def test_the_second_copy_of_the_denoiser_wins(converted):
    """The recordings' rule gives `encoder.*` and `ori_encoder.*` different numbers."""
    state = drawn_state_dict("tiny_unet")
    params = flatten(converted.params["flashface"])
    places = [
        ("encoder.1.0.layer1.2.weight", "denoiser/encoder/1/residual/conv1/kernel"),
        ("middle.0.layer1.2.weight", "denoiser/middle/residual1/conv1/kernel"),
        ("decoder.0.0.layer1.2.weight", "denoiser/decoder/0/residual/conv1/kernel"),
    ]
    for key, name in places:
        ours = np.asarray(params[name]).transpose(3, 2, 0, 1)
        np.testing.assert_array_equal(ours, state[f"ori_{key}"].numpy())
        assert np.abs(ours - state[key].numpy()).max() > 0.1


def test_every_converted_number_is_the_files(converted):
    state = drawn_state_dict("tiny_unet")
    params = flatten(converted.params["flashface"])
    for entry in flashface_table(converted.directory.config.flashface).entries:
        ours = entry.transform.to_torch(np.asarray(params[entry.target]))
        np.testing.assert_array_equal(ours, state[entry.source].numpy(), err_msg=entry.source)
