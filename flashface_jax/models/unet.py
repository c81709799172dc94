"""The U-Net: its stages are built from their description (`unet_topology.py`), then looped over.

The same class serves as denoiser and as ReferenceNet.
"""

from collections.abc import Callable, Mapping

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
from flashface_jax.models.unet_topology import (
    DownsampleSpec,
    StageSpec,
    UNetConfig,
    decoder_specs,
    encoder_specs,
    reference_stages,
)


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
        paired: int = 0,
    ) -> Float[Array, "_ _ _ _"]:
        """Predict.

        Args:
            x: input latents, (batch, h, w, in_channels), any h and w.
            timestep: integers in [0, 1000).
            context: text context, (batch, words, context_channels).
            references: what reference attention sees besides the image; None for the image alone.
            paired: the first `paired` rows are also predicted without references. Both share what
                comes before the first reference attention: where that is in the middle, the encoder
                runs once.

        Returns:
            (batch + paired, h, w, out_channels) in the compute dtype: the rows that see
            references, then, if `paired`, all rows without.
        """
        if self.head is None:
            raise ValueError("This U-Net was built without a head: ask it for features().")

        def seen(stage: str) -> list[BlockReference]:
            return [] if references is None else references.at(stage)

        return self.run(self.head, self._through(x, timestep, context, seen, paired)[0])

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
        paired: int,
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
            if not paired or name != parting:
                return x
            x, time, context, skips = jax.tree.map(
                lambda rows: jnp.concatenate([rows[:paired], rows]),
                (x, time, context, skips),
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
