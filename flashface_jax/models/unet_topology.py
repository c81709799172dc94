"""The U-Net's topology: its stages and where reference attention sits, as data."""

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import NamedTuple

PLACEMENTS = {
    "decoder": ("middle", "decoder"),
    "encoder": ("encoder", "middle"),
    "both": ("encoder", "middle", "decoder"),
    "none": (),
}
"""Names of sets of places of reference attention: whole parts, or places."""


@dataclass(frozen=True)
class UNetConfig:
    """Widths and depths; the defaults are the denoiser of the released model.

    Attributes:
        in_channels: channels of the input, masks included.
        out_channels: channels of the prediction.
        base_channels: width of the first level, a multiple of `norm_groups`.
        channel_multipliers: width of each level over `base_channels`.
        residual_blocks: residual blocks of each encoder level; the decoder has one more.
        transformer_depth: transformer blocks after each residual block of a level; 0 for none.
        middle_depth: transformer blocks of the middle.
        context_channels: width of the text context.
        num_heads: attention heads everywhere, or None if `head_channels` is given.
        head_channels: channels of a head everywhere, or None if `num_heads` is given.
        reference_attention: which transformer blocks have reference attention: "decoder", "encoder"
            or "both", each with the middle; "none"; or places joined with commas, such as
            "middle,decoder/level1". Levels count from 0, the finest, as in `channel_multipliers`;
            `stage_places` says which blocks a place has.
        norm_groups: groups of every GroupNorm. 32 as released needs several times 32 channels: a
            group of one channel loses that channel's mean over the image.
        has_head: whether there is a prediction; a ReferenceNet only hands out features.
    """

    in_channels: int = 5
    out_channels: int = 4
    base_channels: int = 320
    channel_multipliers: tuple[int, ...] = (1, 2, 4, 4)
    residual_blocks: tuple[int, ...] = (2, 2, 2, 2)
    transformer_depth: tuple[int, ...] = (1, 1, 1, 0)
    middle_depth: int = 1
    context_channels: int = 768
    num_heads: int | None = 8
    head_channels: int | None = None
    reference_attention: str = "decoder"
    norm_groups: int = 32
    has_head: bool = True

    def __post_init__(self) -> None:
        levels = {
            len(self.channel_multipliers),
            len(self.residual_blocks),
            len(self.transformer_depth),
        }
        if len(levels) != 1:
            raise ValueError(
                "channel_multipliers, residual_blocks and transformer_depth name different "
                f"numbers of levels: {self.channel_multipliers}, {self.residual_blocks}, "
                f"{self.transformer_depth}."
            )
        if self.base_channels % self.norm_groups:
            raise ValueError(
                f"base_channels is {self.base_channels}; it must be a multiple of norm_groups, "
                f"which is {self.norm_groups}."
            )
        if (self.num_heads is None) == (self.head_channels is None):
            raise ValueError("Give exactly one of num_heads and head_channels.")
        split = self.num_heads if self.head_channels is None else self.head_channels
        for channels in self.level_channels:
            if split is None or split < 1 or channels % split:
                raise ValueError(
                    f"A level of {channels} channels cannot be split into heads: num_heads is "
                    f"{self.num_heads}, head_channels is {self.head_channels}."
                )
        reference_stages(self)

    @property
    def level_channels(self) -> tuple[int, ...]:
        """Width of each level."""
        return tuple(self.base_channels * m for m in self.channel_multipliers)

    def heads(self, channels: int) -> int:
        """Attention heads at a width."""
        return self.num_heads or channels // (self.head_channels or 1)


class StageSpec(NamedTuple):
    """One residual block, the transformer after it, and the resampling after that."""

    in_channels: int
    out_channels: int
    depth: int
    level: int
    upsample: bool = False


class DownsampleSpec(NamedTuple):
    """A stride-2 convolution; it makes a skip connection of its own."""

    channels: int


def encoder_specs(config: UNetConfig) -> list[StageSpec | DownsampleSpec]:
    """Describe the encoder after its input convolution, in order; every entry makes one skip."""
    specs: list[StageSpec | DownsampleSpec] = []
    channels = config.base_channels
    for level, width in enumerate(config.level_channels):
        for _ in range(config.residual_blocks[level]):
            specs.append(StageSpec(channels, width, config.transformer_depth[level], level))
            channels = width
        if level < len(config.level_channels) - 1:
            specs.append(DownsampleSpec(channels))
    return specs


def decoder_specs(config: UNetConfig) -> list[StageSpec]:
    """Describe the decoder, in order; every entry takes one skip, the newest first."""
    skips = [config.base_channels]
    for spec in encoder_specs(config):
        skips.append(spec.channels if isinstance(spec, DownsampleSpec) else spec.out_channels)
    specs = []
    channels = config.level_channels[-1]
    for level, width in reversed(list(enumerate(config.level_channels))):
        for j in range(config.residual_blocks[level] + 1):
            last = j == config.residual_blocks[level]
            depth = config.transformer_depth[level]
            specs.append(StageSpec(channels + skips.pop(), width, depth, level, last and level > 0))
            channels = width
    return specs


def stage_places(config: UNetConfig) -> dict[str, str]:
    """Return the place of each stage that has transformer blocks, in the order that they run.

    A stage is an entry of encoder or decoder, or the middle, and is named by its index, as its
    parameters, features and scopes are ("decoder/3"). A place is all such stages of one level.
    Indices of the decoder rise while its levels fall: of the released model "decoder/3" to
    "decoder/5" are "decoder/level2", "decoder/6" to "decoder/8" are "decoder/level1", and
    "decoder/9" to "decoder/11" are "decoder/level0"; its level 3 has no transformer blocks.
    """
    encoder = {
        f"encoder/{i}": f"encoder/level{spec.level}"
        for i, spec in enumerate(encoder_specs(config), start=1)
        if isinstance(spec, StageSpec) and spec.depth
    }
    middle = {"middle": "middle"} if config.middle_depth else {}
    decoder = {
        f"decoder/{i}": f"decoder/level{spec.level}"
        for i, spec in enumerate(decoder_specs(config))
        if spec.depth
    }
    return encoder | middle | decoder


def reference_stages(config: UNetConfig) -> list[str]:
    """Return the stages whose blocks have reference attention, in the order that they run.

    Whoever wants to know where reference attention is asks this.

    Raises:
        ValueError: naming what there is to choose from, if the configuration names anything else.
    """
    places = stage_places(config)
    known = dict.fromkeys(places.values())
    chosen: set[str] = set()
    for word in map(str.strip, config.reference_attention.split(",")):
        if word not in known and word not in PLACEMENTS:
            raise ValueError(
                f"There is no place {word!r} for reference attention: choose one of "
                f"{', '.join(PLACEMENTS)}, or some of {', '.join(known)}, joined with commas."
            )
        parts = PLACEMENTS.get(word, ())
        chosen |= {place for place in known if {place, place.partition("/")[0]} & {word, *parts}}
    return [stage for stage, place in places.items() if place in chosen]


def placement_of(config: UNetConfig, stages: Collection[str]) -> str:
    """Return the `reference_attention` of a network that has it in some blocks of these stages."""
    places = {place: None for stage, place in stage_places(config).items() if stage in stages}
    listed = ",".join(places) or "none"
    wanted = reference_stages(replace(config, reference_attention=listed))
    for name in PLACEMENTS:
        if reference_stages(replace(config, reference_attention=name)) == wanted:
            return name
    return listed
