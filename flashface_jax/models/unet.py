"""The U-Net's topology: stages are described once, built from the description, then looped over.

The same class serves as denoiser and as ReferenceNet.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

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

ReferencePlacement = Literal["none", "encoder", "decoder", "both"]


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
        reference_attention: which half has reference attention; the middle has it unless "none".
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
    reference_attention: ReferencePlacement = "decoder"
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
            specs.append(StageSpec(channels, width, config.transformer_depth[level]))
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
            specs.append(StageSpec(channels + skips.pop(), width, depth, last and level > 0))
            channels = width
    return specs


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
            config.reference_attention != "none",
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
        def stage(spec: StageSpec, half: ReferencePlacement) -> Stage:
            return Stage(spec, config, config.reference_attention in (half, "both"), compute, keys)

        def encoder_entry(spec: StageSpec | DownsampleSpec) -> Stage | nnx.Conv:
            if isinstance(spec, StageSpec):
                return stage(spec, "encoder")
            return conv(spec.channels, spec.channels, compute, keys, stride=2)

        self.config = config
        self.dtype, self.run = compute.dtype, compute.run
        self.time_embedding = time_embedding or TimeEmbedding(config.base_channels, compute, keys)
        self.encoder = nnx.List(
            [
                conv(config.in_channels, config.base_channels, compute, keys),
                *(encoder_entry(spec) for spec in encoder_specs(config)),
            ]
        )
        self.middle = middle or Middle(config, compute, keys)
        self.decoder = nnx.List([stage(spec, "decoder") for spec in decoder_specs(config)])
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
                comes before the first reference attention, so that the encoder runs once.

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

        def fork(rows: Array) -> Array:
            return jnp.concatenate([rows[:beside], rows])

        x = x.astype(self.dtype)
        late = self.config.reference_attention in ("none", "decoder")
        if beside and not late:
            x, time, context = fork(x), fork(time), fork(context)
        skips = []
        for i, stage in enumerate(self.encoder):
            if isinstance(stage, Stage):
                x = through(stage, x, f"encoder/{i}")
            else:
                with jax.named_scope(f"encoder/{i}"):
                    x = self.run(stage, x)
            skips.append(x)
        if late and beside:
            x, time, context = fork(x), fork(time), fork(context)
            skips = [fork(skip) for skip in skips]
        x = through(self.middle, x, "middle")
        for i, stage in enumerate(self.decoder):
            x = through(stage, jnp.concatenate([x, skips.pop()], axis=-1), f"decoder/{i}")
            if stage.upsample is not None:
                with jax.named_scope(f"decoder/{i}"):
                    x = self.run(stage.upsample, upsample_nearest(x, *skips[-1].shape[1:3]))
        return x, features
