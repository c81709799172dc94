"""FlashFace: the denoiser and the Face ReferenceNet whose features it attends to (paper, §3)."""

from dataclasses import dataclass, field, replace

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from flashface_jax.common.shape_checks import Sizes, checked, require
from flashface_jax.common.shapes import (
    ImageCondition,
    Latent,
    ReferenceLatent,
    TextContext,
    Timestep,
)
from flashface_jax.models.blocks import Compute
from flashface_jax.models.network import Params, flatten, unflatten
from flashface_jax.models.unet import References, UNet
from flashface_jax.models.unet_topology import UNetConfig, reference_stages

ReferenceFeatures = dict[str, Float[Array, "sets refs _ _"]]


@dataclass(frozen=True)
class FlashFaceConfig:
    """Both networks.

    Attributes:
        denoiser: the denoiser. Its input is the noisy latent and the face position mask; for
            inpainting, the noisy latent, the latent of the image without its face, and the mask.
        tie_reference_middle: the ReferenceNet runs the denoiser's own time embedding and middle
            block, as the released model does. False gives it its own.
    """

    denoiser: UNetConfig = field(default_factory=UNetConfig)
    tie_reference_middle: bool = True

    def __post_init__(self) -> None:
        latent = self.denoiser.out_channels
        if self.denoiser.in_channels not in (latent + 1, 2 * latent + 1):
            raise ValueError(
                f"The denoiser takes {self.denoiser.in_channels} channels; it must take "
                f"{latent + 1} (latent and face mask) or, for inpainting, {2 * latent + 1}."
            )

    @property
    def inpaints(self) -> bool:
        """Whether the denoiser sees the image around the face."""
        return self.denoiser.in_channels > self.denoiser.out_channels + 1

    @property
    def reference_net(self) -> UNetConfig:
        """The denoiser's architecture on clean latents, without head or reference attention."""
        return replace(
            self.denoiser,
            in_channels=self.denoiser.out_channels,
            reference_attention="none",
            has_head=False,
        )


def _sizes(model: "FlashFace") -> Sizes:
    denoiser = model.config.denoiser
    return {
        "c": denoiser.out_channels,
        "text": denoiser.context_channels,
        "seen": denoiser.in_channels - denoiser.out_channels,
    }


class FlashFace(nnx.Module):
    """The trainable networks of the method.

    Freshly drawn, the denoiser predicts exactly 0: its last convolution begins at zero, as do the
    last one of every residual block and transformer. Trained weights, or a step of training,
    change that.
    """

    def __init__(self, config: FlashFaceConfig, compute: Compute, keys: nnx.Rngs):
        self.config = config
        self.denoiser = UNet(config.denoiser, compute, keys)
        tied = config.tie_reference_middle
        self.reference_net = UNet(
            config.reference_net,
            compute,
            keys,
            time_embedding=self.denoiser.time_embedding if tied else None,
            middle=self.denoiser.middle if tied else None,
        )

    @checked(_sizes)
    @jax.named_scope("reference_net")
    def encode_references(
        self,
        latents: ReferenceLatent,
        timestep: Int[Array, " sets"],
        context: Float[Array, "contexts words text"],
    ) -> ReferenceFeatures:
        """Run the ReferenceNet on clean face latents.

        Args:
            latents: posterior means of the face crops, scaled as latents are.
            timestep: the denoiser's timestep of each set.
            context: the fixed text context, one for all sets or one a set: the negative prompt
                when sampling, the empty prompt in training.

        Returns:
            Block name -> (sets, refs, tokens, c), for every block that has reference attention.

        Raises:
            ValueError: an array has a shape that does not fit the others or the configuration.
            TypeError: an array has another dtype.
        """
        sets, refs = latents.shape[:2]
        require(
            len(context) in (1, sets),
            "context",
            "FlashFace.encode_references",
            f"{len(context)} contexts",
            f"one for all sets, or {sets}, one for each",
        )
        features = self.reference_net.features(
            latents.reshape(sets * refs, *latents.shape[2:]),
            jnp.repeat(timestep, refs),
            context,
        )
        attending = reference_stages(self.config.denoiser)
        return {
            name: feature.reshape(sets, refs, *feature.shape[1:])
            for name, feature in features.items()
            if name.rpartition("/")[0] in attending
        }

    @checked(_sizes)
    @jax.named_scope("denoiser")
    def denoise(
        self,
        latents: Latent,
        condition: ImageCondition,
        timestep: Timestep,
        context: TextContext,
        references: References | None,
        paired: int = 0,
    ) -> Float[Array, "_ h w c"]:
        """Predict the noise in float32; exactly 0 with freshly drawn parameters (see the class).

        Args:
            latents: noisy latents.
            condition: what the input convolution sees besides: the face mask, 1 inside the face
                box and all zero for no constraint; for inpainting, the latent of the image
                without its face before it.
            timestep: integers in [0, 1000), one a row.
            context: text context of each row, or one of all.
            references: features, how often each counts, and λ_feat; None leaves reference
                attention to the image alone, as λ_feat = 0 does.
            paired: the first `paired` rows are predicted with references and, after those, all
                rows without.

        Raises:
            ValueError: an array has a shape that does not fit the others or the configuration.
            TypeError: an array has another dtype.
        """
        _check_rows(len(latents), len(context), references, paired)
        x = jnp.concatenate([latents, condition.astype(latents.dtype)], axis=-1)
        return self.denoiser(x, timestep, context, references, paired).astype(jnp.float32)


def _check_rows(batch: int, contexts: int, references: References | None, paired: int) -> None:
    """Refuse what the rows of `denoise` cannot share evenly."""
    where = "FlashFace.denoise"
    each = f"{batch}, one for each row"
    require(
        contexts == batch or (contexts == 1 and not paired),
        "context",
        where,
        f"{contexts} contexts",
        each if paired else f"one for all rows, or {each}",
    )
    require(
        0 <= paired <= batch,
        "paired",
        where,
        f"the value {paired}",
        f"0 to {batch}, the rows",
    )
    if references is None:
        return
    (rows, people), sets = references.strength.shape, len(references.weight)
    require(
        rows <= batch + paired,
        "references.strength",
        where,
        f"{rows} rows",
        f"at most {batch + paired}, which are predicted",
    )
    require(
        0 < people <= sets and sets % people == 0 and rows % (sets // people) == 0,
        "references.strength",
        where,
        f"shape {(rows, people)} for {sets} sets of references",
        "sets that its people divide, and rows that see as many of them each",
    )


def begin_as_copies(params: Params) -> Params:
    """Fresh parameters as the paper starts them: every second network is a copy of a first.

    The ReferenceNet starts as the denoiser, so that the features of the two can be compared from
    the first step, and each reference attention as its block's self-attention (paper, §3).
    """
    named = flatten(params)

    def start(name: str, drawn: Array) -> Array:
        source = copied_from(name)
        # The ReferenceNet's input has no mask channels, which come last.
        return jnp.copy(
            named[source][..., : drawn.shape[-2], :] if drawn.ndim == 4 else named[source]
        )

    return unflatten({name: start(name, drawn) for name, drawn in named.items()}, params)


def copied_from(name: str) -> str:
    """Name of the denoiser's parameter that a parameter starts as: for most, its own."""
    source = name.replace("/reference_attention/", "/self_attention/")
    return source.replace("reference_net/", "denoiser/", 1)
