"""The released files: what is in them, and where it goes, both ways.

Widths and depths are read off the shapes in a file; head counts are not in any shape and come
from the caller. Nothing here reads a file.
"""

import math
import re
from collections import Counter
from dataclasses import replace

from flashface_jax.convert.sizes import Shapes, clip_heads, common, count, multipliers
from flashface_jax.convert.table import (
    AS_IS,
    CONV,
    ROW,
    VECTOR,
    Dead,
    Entry,
    Table,
    conv,
    group,
    linear,
    linear_without_bias,
    norm,
)
from flashface_jax.models.autoencoder.vae import AutoencoderKLConfig
from flashface_jax.models.clip import ImageTowerConfig, TextTowerConfig
from flashface_jax.models.flashface import FlashFaceConfig
from flashface_jax.models.unet_topology import (
    StageSpec,
    UNetConfig,
    decoder_specs,
    encoder_specs,
    placement_of,
    reference_stages,
)

RESIDUAL = [
    ("layer1.0", "norm1", norm),
    ("layer1.2", "conv1", conv),
    ("embedding.1", "time", linear),
    ("layer2.0", "norm2", norm),
    ("layer2.3", "conv2", conv),
]

ATTENTION = [
    ("q", "q", linear_without_bias),
    ("k", "k", linear_without_bias),
    ("v", "v", linear_without_bias),
    ("o", "o", linear),
]

VAE_BLOCK = [
    ("residual.0", "norm1", norm),
    ("residual.2", "conv1", conv),
    ("residual.3", "norm2", norm),
    ("residual.6", "conv2", conv),
]

CLIP_BLOCK = [
    ("norm1", "norm1", norm),
    ("attn.to_qkv", "qkv", linear),
    ("attn.proj", "proj", linear),
    ("norm2", "norm2", norm),
    ("mlp.0", "mlp_in", linear),
    ("mlp.2", "mlp_out", linear),
]


# ---------------------------------------------------------------------------- flashface.ckpt


def flashface_table(config: FlashFaceConfig) -> Table:
    """`flashface.ckpt`: the denoiser twice over, and the ReferenceNet.

    The released loader fills the same modules first from `encoder|middle|decoder.*` and then from
    `ori_*`, so the latter are the model.
    """
    denoiser, reference = config.denoiser, config.reference_net
    entries = [
        *linear("time_embedding.0", "denoiser/time_embedding/linear1"),
        *linear("time_embedding.2", "denoiser/time_embedding/linear2"),
        *_unet_half_tables(denoiser, "ori_", "denoiser"),
        *_middle("ori_middle", "denoiser/middle", denoiser),
        *norm("head.0", "denoiser/head/norm"),
        *conv("head.2", "denoiser/head/conv"),
        *_unet_half_tables(reference, "ref_", "reference_net"),
    ]
    dead = [
        Dead(f"{half}.", f"overwritten by ori_{half}.* when the released code loads the file")
        for half in ("encoder", "middle", "decoder")
    ]
    dead.append(Dead("ref_middle.", "the ReferenceNet runs the denoiser's middle block"))
    return Table(tuple(entries), tuple(dead), _repeated(entries, reference))


def _repeated(entries: list[Entry], reference: UNetConfig) -> dict[str, str]:
    """Dead key of a `flashface.ckpt` -> the key whose tensor it repeats.

    The ReferenceNet's unused middle began as a copy of the denoiser's, without the reference
    attention, which came later.
    """
    copies = {
        entry.source.removeprefix("ori_"): entry.source
        for entry in entries
        if entry.source.startswith("ori_")
    }
    middle = {entry.source for entry in _middle("middle", "", reference)}
    return copies | {f"ref_{key}": f"ori_{key}" for key in sorted(middle)}


def _unet_half_tables(config: UNetConfig, prefix: str, target: str) -> list[Entry]:
    """Encoder and decoder; their lists have the same indices on both sides."""
    entries = conv(f"{prefix}encoder.0", f"{target}/encoder/0")
    attending = reference_stages(config)
    for i, spec in enumerate(encoder_specs(config), start=1):
        place = f"{prefix}encoder.{i}", f"{target}/encoder/{i}"
        if isinstance(spec, StageSpec):
            entries += _stage(*place, spec, f"encoder/{i}" in attending)
        else:
            entries += conv(*place)
    for i, spec in enumerate(decoder_specs(config)):
        place = f"{prefix}decoder.{i}", f"{target}/decoder/{i}"
        entries += _stage(*place, spec, f"decoder/{i}" in attending)
    return entries


def _stage(source: str, target: str, spec: StageSpec, attends: bool) -> list[Entry]:
    entries = group(f"{source}.0", f"{target}/residual", RESIDUAL)
    if spec.in_channels != spec.out_channels:
        entries += conv(f"{source}.0.shortcut", f"{target}/residual/shortcut")
    if spec.depth:
        entries += _transformer(f"{source}.1", f"{target}/transformer", spec.depth, attends)
    if spec.upsample:
        entries += conv(f"{source}.{2 if spec.depth else 1}.1", f"{target}/upsample")
    return entries


def _middle(source: str, target: str, config: UNetConfig) -> list[Entry]:
    attends = "middle" in reference_stages(config)
    return [
        *group(f"{source}.0", f"{target}/residual1", RESIDUAL),
        *_transformer(f"{source}.1", f"{target}/transformer", config.middle_depth, attends),
        *group(f"{source}.2", f"{target}/residual2", RESIDUAL),
    ]


def _transformer(source: str, target: str, depth: int, attends: bool) -> list[Entry]:
    entries = [
        *norm(f"{source}.norm1", f"{target}/norm"),
        *conv(f"{source}.conv1", f"{target}/conv_in"),
        *conv(f"{source}.conv2", f"{target}/conv_out"),
    ]
    for i in range(depth):
        block, to = f"{source}.blocks.{i}", f"{target}/blocks/{i}"
        entries += [
            *norm(f"{block}.norm1", f"{to}/norm1"),
            *group(f"{block}.self_attn", f"{to}/self_attention", ATTENTION),
            *norm(f"{block}.norm2", f"{to}/norm2"),
            *group(f"{block}.cross_attn", f"{to}/cross_attention", ATTENTION),
            *norm(f"{block}.norm3", f"{to}/norm3"),
            *linear(f"{block}.ffn.0.proj", f"{to}/feed_forward/proj"),
            *linear(f"{block}.ffn.2", f"{to}/feed_forward/out"),
        ]
        if attends:
            first = f"{block}.self_attn.self_attn_first"
            entries += group(first, f"{to}/reference_attention", ATTENTION)
    return entries


def infer_flashface_config(
    shapes: Shapes, num_heads: int | None, head_channels: int | None
) -> FlashFaceConfig:
    """Read widths, depths and places of reference attention off the shapes of a `flashface.ckpt`.

    A file without any reference attention lacks the released model's, in the decoder.

    Raises:
        ValueError: if the keys are not those of such a file, or the sizes are impossible.
    """
    widths, blocks, depths = _encoder_levels(shapes)
    base = common(shapes, r"ori_encoder\.0\.(weight|bias)", 0)
    denoiser = UNetConfig(
        in_channels=common(shapes, r"ori_encoder\.0\.weight", 1),
        out_channels=common(shapes, r"head\.2\.(weight|bias)", 0),
        base_channels=base,
        channel_multipliers=multipliers(widths, base),
        residual_blocks=tuple(blocks),
        transformer_depth=tuple(depths),
        middle_depth=count(shapes, r"ori_middle\.1\.blocks\.(\d+)\.", least=0),
        context_channels=common(shapes, r"ori_.*\.cross_attn\.[kv]\.weight", 1),
        num_heads=num_heads,
        head_channels=head_channels,
    )
    attending = _attending(shapes)
    if attending:
        denoiser = replace(denoiser, reference_attention=placement_of(denoiser, attending))
    return FlashFaceConfig(denoiser)


def _attending(shapes: Shapes) -> set[str]:
    """Stages ("decoder/3", "middle") of which a `flashface.ckpt` has reference attention."""
    key = re.compile(r"ori_(?:((?:en|de)coder)\.(\d+)|(middle)\.1)\.(?:.+\.)?self_attn_first\.")
    found = filter(None, map(key.match, shapes))
    return {match[3] or f"{match[1]}/{match[2]}" for match in found}


def _encoder_levels(shapes: Shapes) -> tuple[list[int], list[int], list[int]]:
    """Width, residual blocks and transformer depth of each level, from `ori_encoder.*`."""
    widths, blocks, depths = [], [], []
    new_level = True
    for i in range(1, count(shapes, r"ori_encoder\.(\d+)\.")):
        stage = rf"ori_encoder\.{i}\.0\.(layer1\.2|embedding\.1|layer2\.[03])\.(weight|bias)"
        if not any(re.fullmatch(stage, key) for key in shapes):  # a downsampling convolution
            new_level = True
            continue
        if new_level:
            widths.append(common(shapes, stage, 0))
            depths.append(count(shapes, rf"ori_encoder\.{i}\.1\.blocks\.(\d+)\.", least=0))
            blocks.append(0)
            new_level = False
        blocks[-1] += 1
    return widths, blocks, depths


# ----------------------------------------------------------------------------- sd-v1-vae.pth


def autoencoder_table(config: AutoencoderKLConfig) -> Table:
    """`sd-v1-vae.pth`."""
    entries = [
        *conv("conv1", "quant_conv"),
        *conv("conv2", "post_quant_conv"),
        *_vae_half("encoder", "downsamples", config),
        *_vae_half("decoder", "upsamples", config),
    ]
    return Table(tuple(entries))


def _vae_half(half: str, levels: str, config: AutoencoderKLConfig) -> list[Entry]:
    entries = [
        *conv(f"{half}.conv1", f"{half}/conv_in"),
        *group(f"{half}.middle.0", f"{half}/middle/block1", VAE_BLOCK),
        *norm(f"{half}.middle.1.norm", f"{half}/middle/attention/norm"),
        *conv(f"{half}.middle.1.to_qkv", f"{half}/middle/attention/qkv"),
        *conv(f"{half}.middle.1.proj", f"{half}/middle/attention/proj"),
        *group(f"{half}.middle.2", f"{half}/middle/block2", VAE_BLOCK),
        *norm(f"{half}.head.0", f"{half}/norm"),
        *conv(f"{half}.head.2", f"{half}/conv_out"),
    ]
    encodes = half == "encoder"
    widths = config.level_channels if encodes else config.level_channels[::-1]
    channels = config.base_channels if encodes else widths[0]
    i = 0
    for level, width in enumerate(widths):
        for _ in range(config.residual_blocks + (0 if encodes else 1)):
            place = f"{half}.{levels}.{i}", f"{half}/levels/{i}"
            entries += group(*place, VAE_BLOCK)
            if channels != width:
                entries += conv(f"{place[0]}.shortcut", f"{place[1]}/shortcut")
            channels = width
            i += 1
        if level < len(widths) - 1:
            entries += conv(f"{half}.{levels}.{i}.resample.1", f"{half}/levels/{i}/conv")
            i += 1
    return entries


def infer_autoencoder_config(shapes: Shapes) -> AutoencoderKLConfig:
    """Read the widths off the shapes of a `sd-v1-vae.pth`."""
    base = common(shapes, r"encoder\.conv1\.(weight|bias)", 0)
    widths, blocks = [], []
    new_level = True
    for i in range(count(shapes, r"encoder\.downsamples\.(\d+)\.")):
        if any(key.startswith(f"encoder.downsamples.{i}.resample.") for key in shapes):
            new_level = True
            continue
        if new_level:
            block = rf"encoder\.downsamples\.{i}\.residual\.[236]\.(weight|bias)"
            widths.append(common(shapes, block, 0))
            blocks.append(0)
            new_level = False
        blocks[-1] += 1
    return AutoencoderKLConfig(
        base_channels=base,
        latent_channels=common(shapes, r"conv2\.(weight|bias)", 0),
        channel_multipliers=multipliers(widths, base),
        residual_blocks=Counter(blocks).most_common(1)[0][0],
        misread_attention=True,  # what the released networks and images were made with
    )


# ----------------------------------------------------------------- openai-clip-vit-large-14.pth


LOG_SCALE = Dead("log_scale", "the temperature of CLIP's training loss")
LARGEST_LOG_SCALE = math.log(100)
"""CLIP's training clips the temperature there, and every CLIP of OpenAI ended there."""


def text_tower_table(config: TextTowerConfig) -> Table:
    """`openai-clip-vit-large-14.pth`, text tower."""
    entries = [
        Entry("textual.token_embedding.weight", "token_embedding", AS_IS),
        Entry("textual.pos_embedding", "position_embedding", ROW),
        *norm("textual.norm", "norm"),
    ]
    if config.embedding is not None:
        entries.append(Entry("textual.head", "projection", AS_IS))
    for i in range(config.layers):
        entries += group(f"textual.transformer.{i}", f"blocks/{i}", CLIP_BLOCK)
    dead = LOG_SCALE, Dead("visual.", "it is the image tower's")
    return Table(tuple(entries), dead, {LOG_SCALE.prefix: LARGEST_LOG_SCALE})


def image_tower_table(config: ImageTowerConfig) -> Table:
    """`openai-clip-vit-large-14.pth`, image tower."""
    entries = [
        Entry("visual.patch_embedding.weight", "patch_embedding/kernel", CONV),
        Entry("visual.cls_embedding", "class_embedding", VECTOR),
        Entry("visual.pos_embedding", "position_embedding", ROW),
        Entry("visual.head", "projection", AS_IS),
        *norm("visual.pre_norm", "pre_norm"),
        *norm("visual.post_norm", "post_norm"),
    ]
    for i in range(config.layers):
        entries += group(f"visual.transformer.{i}", f"blocks/{i}", CLIP_BLOCK)
    return Table(tuple(entries), (LOG_SCALE, Dead("textual.", "it is the text tower's")))


def infer_text_tower_config(shapes: Shapes, num_heads: int | None) -> TextTowerConfig:
    """Read the text tower's widths off a CLIP file; heads default to width / 64, CLIP's rule."""
    channels = common(shapes, r"textual\.norm\.(weight|bias)", 0)
    return TextTowerConfig(
        vocabulary=common(shapes, r"textual\.token_embedding\.weight", 0),
        length=common(shapes, r"textual\.pos_embedding", 1),
        channels=channels,
        num_heads=clip_heads("text", channels, num_heads),
        layers=count(shapes, r"textual\.transformer\.(\d+)\."),
        embedding=common(shapes, r"textual\.head", 1),
    )


def infer_image_tower_config(shapes: Shapes, num_heads: int | None) -> ImageTowerConfig:
    """Read the image tower's widths off a CLIP file; heads default to width / 64."""
    channels = common(shapes, r"visual\.(pre|post)_norm\.(weight|bias)", 0)
    patch = common(shapes, r"visual\.patch_embedding\.weight", 2)
    positions = common(shapes, r"visual\.pos_embedding", 1)
    return ImageTowerConfig(
        image_size=round((positions - 1) ** 0.5) * patch,
        patch=patch,
        channels=channels,
        num_heads=clip_heads("image", channels, num_heads),
        layers=count(shapes, r"visual\.transformer\.(\d+)\."),
        embedding=common(shapes, r"visual\.head", 1),
    )
