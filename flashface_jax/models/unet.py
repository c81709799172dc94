"""The U-Net's topology: stages are described once, built from the description, then looped over.

The same class serves as denoiser and as ReferenceNet.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx, struct
from jaxtyping import Array, Float

from flashface_jax.common.shapes import (
    FeatureMap,
    ReferenceWeight,
    Strength,
    TextContext,
    Timestep,
    Tokens,
)
from flashface_jax.models.blocks import (
    BlockReference,
    Compute,
    ResidualBlock,
    SpatialTransformer,
    TimeEmbedding,
    conv,
    group_norm,
    upsample_nearest,
)

PLACEMENTS = {
    "decoder": ("middle", "decoder"),
    "encoder": ("encoder", "middle"),
    "both": ("encoder", "middle", "decoder"),
    "none": (),
}
"""Names of sets of places of reference attention, and the parts that have it whole."""


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
        chosen |= {place for place in known if place == word or place.partition("/")[0] in parts}
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


@struct.dataclass
class References:
    """Reference features of one or more sets, as the denoiser takes them.

    Attributes:
        features: block name ("middle/0", "decoder/3/0", ...) -> (sets, refs, tokens, c).
        weight: how often each reference counts: 1 once, 2 as two copies would, 0 where there is
            none.
        strength: λ_feat of each person for the first `rows` rows of the batch; later rows see no
            reference. With m = sets / people, row r sees the sets from people·(r mod m) on.
    """

    features: Mapping[str, Float[Array, "sets refs _ _"]]
    weight: ReferenceWeight
    strength: Strength

    def at(self, stage: str) -> list[BlockReference]:
        """Return what the blocks of a stage see, in order; empty where there are no features."""
        depth = sum(name.rpartition("/")[0] == stage for name in self.features)
        names = [f"{stage}/{i}" for i in range(depth)]
        return [BlockReference(self.features[n], self.weight, self.strength) for n in names]


class Stage(nnx.Module):
    """Residual block, transformer, upsampling; the latter two where the description has them."""

    def __init__(
        self,
        spec: StageSpec,
        config: UNetConfig,
        reference_attention: bool,
        compute: Compute,
        keys: nnx.Rngs,
    ):
        width = spec.out_channels
        self.run = compute.run
        self.residual = ResidualBlock(
            spec.in_channels, width, 4 * config.base_channels, config.norm_groups, compute, keys
        )
        self.transformer = (
            SpatialTransformer(
                width,
                config.context_channels,
                config.heads(width),
                spec.depth,
                config.norm_groups,
                reference_attention,
                compute,
                keys,
            )
            if spec.depth
            else None
        )
        self.upsample = conv(width, width, compute, keys) if spec.upsample else None

    def __call__(
        self,
        x: FeatureMap,
        time: Float[Array, "batch t"],
        context: TextContext,
        references: list[BlockReference] | None,
    ) -> tuple[FeatureMap, list[Tokens]]:
        """Return the output before upsampling, and the features of the transformer's blocks."""
        x = self.run(self.residual, x, time)
        if self.transformer is None:
            return x, []
        return self.run(self.transformer, x, context, references)


class Middle(nnx.Module):
    """Residual block, transformer, residual block at the lowest resolution."""

    def __init__(self, config: UNetConfig, compute: Compute, keys: nnx.Rngs):
        width, time_width = config.level_channels[-1], 4 * config.base_channels
        groups = config.norm_groups
        self.run = compute.run
        self.residual1 = ResidualBlock(width, width, time_width, groups, compute, keys)
        self.transformer = SpatialTransformer(
            width,
            config.context_channels,
            config.heads(width),
            config.middle_depth,
            groups,
            "middle" in reference_stages(config),
            compute,
            keys,
        )
        self.residual2 = ResidualBlock(width, width, time_width, groups, compute, keys)

    def __call__(
        self,
        x: FeatureMap,
        time: Float[Array, "batch t"],
        context: TextContext,
        references: list[BlockReference] | None,
    ) -> tuple[FeatureMap, list[Tokens]]:
        """Return the output and the features of the transformer's blocks."""
        x = self.run(self.residual1, x, time)
        x, features = self.run(self.transformer, x, context, references)
        return self.run(self.residual2, x, time), features


class Head(nnx.Module):
    """GroupNorm, SiLU, convolution to the prediction."""

    def __init__(self, config: UNetConfig, compute: Compute, keys: nnx.Rngs):
        width = config.level_channels[0]
        self.norm = group_norm(width, keys, config.norm_groups)
        self.conv = conv(width, config.out_channels, compute, keys, zero=True)

    def __call__(self, x: FeatureMap) -> FeatureMap:
        """Predict."""
        return self.conv(nnx.silu(self.norm(x)))


class UNet(nnx.Module):
    """Stable Diffusion's U-Net with optional reference attention.

    `encoder[0]` is the input convolution. `time_embedding` and `middle` may be another U-Net's,
    which ties their weights.
    """

    def __init__(
        self,
        config: UNetConfig,
        compute: Compute,
        keys: nnx.Rngs,
        time_embedding: TimeEmbedding | None = None,
        middle: Middle | None = None,
    ):
        attending = reference_stages(config)

        def stage(spec: StageSpec, name: str) -> Stage:
            return Stage(spec, config, name in attending, compute, keys)

        def encoder_entry(spec: StageSpec | DownsampleSpec, name: str) -> Stage | nnx.Conv:
            if isinstance(spec, StageSpec):
                return stage(spec, name)
            return conv(spec.channels, spec.channels, compute, keys, stride=2)

        self.config = config
        self.dtype, self.run = compute.dtype, compute.run
        self.time_embedding = time_embedding or TimeEmbedding(config.base_channels, compute, keys)
        self.encoder = nnx.List(
            [
                conv(config.in_channels, config.base_channels, compute, keys),
                *(
                    encoder_entry(spec, f"encoder/{i}")
                    for i, spec in enumerate(encoder_specs(config), start=1)
                ),
            ]
        )
        self.middle = middle or Middle(config, compute, keys)
        self.decoder = nnx.List(
            [stage(spec, f"decoder/{i}") for i, spec in enumerate(decoder_specs(config))]
        )
        self.head = Head(config, compute, keys) if config.has_head else None

    def __call__(
        self,
        x: FeatureMap,
        timestep: Timestep,
        context: TextContext,
        references: References | None = None,
        beside: int = 0,
    ) -> Float[Array, "_ _ _ _"]:
        """Predict.

        Args:
            x: input latents, (batch, h, w, in_channels), any h and w.
            timestep: integers in [0, 1000).
            context: text context, (batch, words, context_channels).
            references: what reference attention sees besides the image; None for the image alone.
            beside: the first `beside` rows are also predicted without references. Both share what
                comes before the first reference attention: where that is in the middle, the encoder
                runs once.

        Returns:
            (batch + beside, h, w, out_channels) in the compute dtype: the rows that see
            references, then, if `beside`, all rows without.
        """
        if self.head is None:
            raise ValueError("This U-Net was built without a head: ask it for features().")

        def seen(stage: str) -> list[BlockReference]:
            return [] if references is None else references.at(stage)

        return self.run(self.head, self._through(x, timestep, context, seen, beside)[0])

    def features(
        self, x: FeatureMap, timestep: Timestep, context: TextContext
    ) -> dict[str, Tokens]:
        """Return block name -> `norm1` output (batch, tokens, c) of every transformer block.

        Under `jit` the ones that nobody reads, and what only they need, cost nothing; so a
        ReferenceNet stops after the last feature that the denoiser wants. Reference attention is
        left out, also that of a middle that is the denoiser's own.
        """
        return self._through(x, timestep, context, lambda stage: None, 0)[1]

    def _through(
        self,
        x: FeatureMap,
        timestep: Timestep,
        context: TextContext,
        seen: Callable[[str], list[BlockReference] | None],
        beside: int,
    ) -> tuple[Float[Array, "_ _ _ _"], dict[str, Float[Array, "_ _ _"]]]:
        time = self.run(self.time_embedding, timestep)
        features: dict[str, Tokens] = {}

        def through(stage: Stage | Middle, x: FeatureMap, name: str) -> FeatureMap:
            with jax.named_scope(name):  # what profiles and compiled programs call it
                x, made = stage(x, time, context, seen(name))
            features.update({f"{name}/{i}": feature for i, feature in enumerate(made)})
            return x

        skips: list[FeatureMap] = []
        # Rows with and without references part where the first stage tells them apart.
        parting = next(iter(reference_stages(self.config)), "head")

        def parted(x: FeatureMap, name: str) -> Float[Array, "_ _ _ _"]:
            nonlocal time, context, skips
            if not beside or name != parting:
                return x
            x, time, context, skips = jax.tree.map(
                lambda rows: jnp.concatenate([rows[:beside], rows]), (x, time, context, skips)
            )
            return x

        x = x.astype(self.dtype)
        for i, stage in enumerate(self.encoder):
            name = f"encoder/{i}"
            x = parted(x, name)
            if isinstance(stage, Stage):
                x = through(stage, x, name)
            else:
                with jax.named_scope(name):
                    x = self.run(stage, x)
            skips.append(x)
        x = through(self.middle, parted(x, "middle"), "middle")
        for i, stage in enumerate(self.decoder):
            name = f"decoder/{i}"
            x = parted(x, name)
            x = through(stage, jnp.concatenate([x, skips.pop()], axis=-1), name)
            if stage.upsample is not None:
                with jax.named_scope(name):
                    x = self.run(stage.upsample, upsample_nearest(x, *skips[-1].shape[1:3]))
        return parted(x, "head"), features
