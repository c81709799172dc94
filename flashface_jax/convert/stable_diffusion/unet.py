"""The U-Net as denoiser, ReferenceNet and reference attention (paper, §3).

Each block's reference attention starts as its self-attention, and the face mask's input channel at
zero. The released FlashFace has 1e-6 for the epsilon of every GroupNorm, where Stable Diffusion has
1e-5 inside residual blocks and before the last convolution, and so has what is made here: before
any training its predictions differ by that from Stable Diffusion's.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np

from flashface_jax.convert.files.tensors import Tensors
from flashface_jax.convert.sizes import Shapes, common, count, multipliers
from flashface_jax.convert.stable_diffusion.described import Described
from flashface_jax.convert.stable_diffusion.names import StageNames, UNetNames
from flashface_jax.convert.stable_diffusion.stages import Place, as_stored, encoder_stages, width_of
from flashface_jax.convert.table import (
    CONV,
    ConversionError,
    Entry,
    Layer,
    Table,
    Transform,
    conv,
    group,
    linear,
    linear_without_bias,
    norm,
)
from flashface_jax.models.flashface import FlashFaceConfig, copied_from
from flashface_jax.models.unet_topology import StageSpec, UNetConfig, decoder_specs, encoder_specs


def flashface_table(
    names: UNetNames, config: FlashFaceConfig, shapes: Shapes, parameters: Iterable[str]
) -> Table:
    """The U-Net as denoiser and ReferenceNet; every parameter that is a copy has its own entry.

    Args:
        names: the layout's names.
        config: FlashFace's sizes.
        shapes: the U-Net's, which tell how 1x1 convolutions are stored.
        parameters: names of all of FlashFace's parameters.
    """
    plain = {entry.target: entry for entry in _unet(names, config.denoiser, shapes)}
    entries = {
        name: replace(plain[copied_from(name)], target=name)
        for name in parameters
        if copied_from(name) in plain
    }
    masks = config.denoiser.in_channels - config.reference_net.in_channels
    conv_in = "denoiser/encoder/0/kernel"
    entries[conv_in] = replace(plain[conv_in], transform=_conv_with_masks(masks))
    return Table(tuple(entries.values()), names.dead)


def _conv_with_masks(channels: int) -> Transform:
    """A convolution that ignores its last `channels` input channels until it is trained."""
    behind = ((0, 0), (0, 0), (0, channels), (0, 0))
    return Transform(
        lambda x: np.pad(CONV.to_jax(x), behind),
        lambda x: CONV.to_torch(x[:, :, : x.shape[2] - channels]),
    )


def _unet(names: UNetNames, config: UNetConfig, shapes: Shapes) -> list[Entry]:
    root, to = names.root, "denoiser"
    middle = f"{to}/middle"
    first, transformer, second = (f"{root}{name}" for name in names.middle)
    return [
        *linear(f"{root}{names.time[0]}", f"{to}/time_embedding/linear1"),
        *linear(f"{root}{names.time[1]}", f"{to}/time_embedding/linear2"),
        *conv(f"{root}{names.conv_in}", f"{to}/encoder/0"),
        *_unet_encoder(names, config, shapes),
        *_residual(names, first, f"{middle}/residual1"),
        *_transformer(transformer, f"{middle}/transformer", config.middle_depth, shapes),
        *_residual(names, second, f"{middle}/residual2"),
        *_unet_decoder(names, config, shapes),
        *norm(f"{root}{names.head[0]}", f"{to}/head/norm"),
        *conv(f"{root}{names.head[1]}", f"{to}/head/conv"),
    ]


def _unet_encoder(names: UNetNames, config: UNetConfig, shapes: Shapes) -> Iterator[Entry]:
    level = index = 0
    for position, spec in enumerate(encoder_specs(config), start=1):
        place, target = Place(level, 0, index, position), f"denoiser/encoder/{position}"
        if isinstance(spec, StageSpec):
            yield from _stage(names, names.encoder, place, target, spec, shapes)
            index += 1
        else:
            yield from conv(names.root + place.name(names.encoder.resample), target)
            level, index = level + 1, 0


def _unet_decoder(names: UNetNames, config: UNetConfig, shapes: Shapes) -> Iterator[Entry]:
    level, index = len(config.channel_multipliers) - 1, 0
    rise = 0
    for position, spec in enumerate(decoder_specs(config)):
        place, target = Place(level, rise, index, position), f"denoiser/decoder/{position}"
        yield from _stage(names, names.decoder, place, target, spec, shapes)
        index += 1
        if spec.upsample:
            yield from conv(
                names.root + place.name(names.decoder.resample, spec.depth), f"{target}/upsample"
            )
            level, rise, index = level - 1, rise + 1, 0


def _stage(
    names: UNetNames, half: StageNames, place: Place, target: str, spec: StageSpec, shapes: Shapes
) -> list[Entry]:
    source = names.root + place.name(half.residual)
    entries = _residual(names, source, f"{target}/residual")
    if spec.in_channels != spec.out_channels:
        entries += conv(f"{source}.{names.shortcut}", f"{target}/residual/shortcut")
    if spec.depth:
        transformer = names.root + place.name(half.transformer)
        entries += _transformer(transformer, f"{target}/transformer", spec.depth, shapes)
    return entries


def _residual(names: UNetNames, source: str, target: str) -> list[Entry]:
    norm1, conv1, time, norm2, conv2 = names.residual
    return group(
        source,
        target,
        [
            (norm1, "norm1", norm),
            (conv1, "conv1", conv),
            (time, "time", linear),
            (norm2, "norm2", norm),
            (conv2, "conv2", conv),
        ],
    )


TRANSFORMER_BLOCK: list[tuple[str, str, Layer]] = [
    ("norm1", "norm1", norm),
    *(
        (f"{theirs}.{layer}", f"{ours}/{to}", kind)
        for theirs, ours in (("attn1", "self_attention"), ("attn2", "cross_attention"))
        for layer, to, kind in (
            ("to_q", "q", linear_without_bias),
            ("to_k", "k", linear_without_bias),
            ("to_v", "v", linear_without_bias),
            ("to_out.0", "o", linear),
        )
    ),
    ("norm2", "norm2", norm),
    ("norm3", "norm3", norm),
    ("ff.net.0.proj", "feed_forward/proj", linear),
    ("ff.net.2", "feed_forward/out", linear),
]


def _transformer(source: str, target: str, depth: int, shapes: Shapes) -> list[Entry]:
    """A transformer, whose names both layouts share."""
    flat = as_stored(shapes)
    entries = group(
        source,
        target,
        [("norm", "norm", norm), ("proj_in", "conv_in", flat), ("proj_out", "conv_out", flat)],
    )
    for i in range(depth):
        block = f"{source}.transformer_blocks.{i}", f"{target}/blocks/{i}"
        entries += group(*block, TRANSFORMER_BLOCK)
    return entries


def infer_flashface_config(
    names: UNetNames, shapes: Shapes, described: Described
) -> FlashFaceConfig:
    """Read widths and depths off a U-Net's shapes; the denoiser takes a face mask besides.

    Raises:
        ValueError: if the keys are not those of such a U-Net, or the sizes are impossible.
    """
    root = re.escape(names.root)
    conv_in = root + re.escape(names.conv_in)
    base = common(shapes, rf"{conv_in}\.(weight|bias)", 0)
    stages = encoder_stages(names.root, names.encoder, names.residual[1:], shapes)
    transformers = [names.root + level[0].name(names.encoder.transformer) for level in stages]
    widths = [
        width_of(names.root, names.encoder, names.residual[1:], level, shapes) for level in stages
    ]
    latent = common(shapes, rf"{conv_in}\.weight", 1)
    return FlashFaceConfig(
        UNetConfig(
            in_channels=latent + 1,
            out_channels=latent,
            base_channels=base,
            channel_multipliers=multipliers(widths, base),
            residual_blocks=tuple(len(level) for level in stages),
            transformer_depth=tuple(_depth(name, shapes) for name in transformers),
            middle_depth=_depth(names.root + names.middle[1], shapes),
            context_channels=common(shapes, CONTEXT, 1),
            num_heads=described.num_heads,
            head_channels=described.head_channels,
        )
    )


CONTEXT = r".*\.attn2\.to_[kv]\.weight"


def require_stable_diffusion_1(names: UNetNames, unet: Tensors) -> None:
    """Raise a ConversionError that says what a U-Net is, if it is no text-to-image one of SD-1.x.

    Asked first: of another model much else does not fit, either.
    """
    shapes = unet.shapes
    try:
        context = common(shapes, CONTEXT, 1)
        channels = common(shapes, re.escape(f"{names.root}{names.conv_in}.weight"), 1)
        latent = common(shapes, re.escape(names.root + names.head[1]) + r"\.(weight|bias)", 0)
    except ConversionError as error:
        raise ConversionError(f"{unet.path} cannot be converted: {error}") from error
    of_sizes = tuple(names.root + name for name in ("label_emb.", "add_embedding."))
    if any(key.startswith(of_sizes) for key in shapes):
        found = "is Stable Diffusion XL"
    elif context == 1024:
        found = "is Stable Diffusion 2, whose text context is 1024 wide"
    elif channels == 2 * latent + 1:
        found = f"is an inpainting model, whose U-Net takes {channels} channels, not {latent}"
    elif channels != latent:
        found = f"has a U-Net that takes {channels} channels, not the {latent} that it predicts"
    else:
        return
    raise ConversionError(
        f"{unet.path} {found}; give Stable Diffusion 1.5 or a text-to-image fine-tune of it."
    )


def _depth(transformer: str, shapes: Shapes) -> int:
    return count(shapes, re.escape(transformer) + r"\.transformer_blocks\.(\d+)\.", least=0)
