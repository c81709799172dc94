"""The autoencoder."""

import re
from collections import Counter
from collections.abc import Iterator

from flashface_jax.convert.sizes import Shapes, common, multipliers
from flashface_jax.convert.stable_diffusion.described import Described
from flashface_jax.convert.stable_diffusion.names import AutoencoderNames, StageNames
from flashface_jax.convert.stable_diffusion.stages import Place, as_stored, encoder_stages, width_of
from flashface_jax.convert.table import Entry, Layer, Table, conv, group, joined, norm
from flashface_jax.models.autoencoder.vae import AutoencoderKLConfig


def autoencoder_table(
    names: AutoencoderNames, config: AutoencoderKLConfig, shapes: Shapes
) -> Table:
    """The autoencoder."""
    halves = (("encoder", names.encoder), ("decoder", names.decoder))
    entries = [
        *conv(f"{names.root}quant_conv", "quant_conv"),
        *conv(f"{names.root}post_quant_conv", "post_quant_conv"),
    ]
    for half, stage in halves:
        source, (first, attention, second) = f"{names.root}{half}", names.middle
        entries += [
            *conv(f"{source}.conv_in", f"{half}/conv_in"),
            *group(f"{source}.{first}", f"{half}/middle/block1", AUTOENCODER_BLOCK),
            *_attention(names, f"{source}.{attention}", f"{half}/middle/attention", shapes),
            *group(f"{source}.{second}", f"{half}/middle/block2", AUTOENCODER_BLOCK),
            *_autoencoder_levels(names, half, stage, config),
            *norm(f"{source}.{names.norm_out}", f"{half}/norm"),
            *conv(f"{source}.conv_out", f"{half}/conv_out"),
        ]
    return Table(tuple(entries), names.dead)


AUTOENCODER_BLOCK: list[tuple[str, str, Layer]] = [
    ("norm1", "norm1", norm),
    ("conv1", "conv1", conv),
    ("norm2", "norm2", norm),
    ("conv2", "conv2", conv),
]


def _autoencoder_levels(
    names: AutoencoderNames, half: str, stage: StageNames, config: AutoencoderKLConfig
) -> Iterator[Entry]:
    levels = list(enumerate(config.level_channels))
    encodes = half == "encoder"
    channels = config.base_channels if encodes else levels[-1][1]
    i = 0
    for rise, (level, width) in enumerate(levels if encodes else levels[::-1]):
        for index in range(config.residual_blocks + (0 if encodes else 1)):
            source = names.root + Place(level, rise, index, i).name(stage.residual)
            yield from group(source, f"{half}/levels/{i}", AUTOENCODER_BLOCK)
            if channels != width:
                yield from conv(f"{source}.{names.shortcut}", f"{half}/levels/{i}/shortcut")
            channels = width
            i += 1
        if rise < len(levels) - 1:
            source = names.root + Place(level, rise, 0, i).name(stage.resample)
            yield from conv(source, f"{half}/levels/{i}/conv")
            i += 1


def _attention(names: AutoencoderNames, source: str, target: str, shapes: Shapes) -> list[Entry]:
    in_use = [some for some in names.attention if f"{source}.{some[1]}.weight" in shapes]
    norm_in, *qkv, proj = (in_use or names.attention)[0]
    return [
        *norm(f"{source}.{norm_in}", f"{target}/norm"),
        *joined(source, f"{target}/qkv", tuple(qkv), as_stored(shapes)),
        *as_stored(shapes)(f"{source}.{proj}", f"{target}/proj"),
    ]


def infer_autoencoder_config(
    names: AutoencoderNames, shapes: Shapes, described: Described
) -> AutoencoderKLConfig:
    """Read the widths off an autoencoder's shapes.

    Raises:
        ValueError: if the keys are not those of such a network, or the sizes are impossible.
    """
    base = common(shapes, re.escape(names.root) + r"encoder\.conv_in\.(weight|bias)", 0)
    layers = ("conv1", "norm2", "conv2")
    stages = encoder_stages(names.root, names.encoder, layers, shapes)
    widths = [width_of(names.root, names.encoder, layers, level, shapes) for level in stages]
    return AutoencoderKLConfig(
        base_channels=base,
        latent_channels=common(
            shapes, re.escape(names.root) + r"post_quant_conv\.(weight|bias)", 0
        ),
        channel_multipliers=multipliers(widths, base),
        residual_blocks=Counter(len(level) for level in stages).most_common(1)[0][0],
        scale=described.scale,
    )
