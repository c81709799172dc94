"""Low-rank updates of the denoiser's attention, added to frozen parameters (paper, supplement).

LoRA (arXiv 2106.09685) trains W + s·A·B in place of W, where A has few columns and B few rows.
The paper's LoRA variant adds it to every attention layer of the U-Net, and trains besides only
reference attention and the ReferenceNet.
"""

import re
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from flashface_jax.models.blocks import kernel_init
from flashface_jax.models.network import Params, flatten, unflatten

KERNEL = re.compile(r"/(self|cross)_attention/[qkvo]/kernel$")

Lora = dict[str, dict[str, Float[Array, "_ _"]]]
"""Name of a kernel -> its "down" (in, rank) and "up" (rank, out)."""

LoraShapes = dict[str, dict[str, jax.ShapeDtypeStruct]]


@dataclass(frozen=True)
class LoraConfig:
    """How large the updates are.

    Attributes:
        rank: columns of "down" and rows of "up".
        alpha: an update is multiplied by alpha / rank, so that the learning rate need not follow
            the rank.
    """

    rank: int
    alpha: float

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ValueError(f"The rank of LoRA is {self.rank}; it must be 1 or more.")
        if not self.alpha > 0:
            raise ValueError(f"alpha of LoRA is {self.alpha}; it must be positive.")

    @property
    def scale(self) -> float:
        """What down·up is multiplied by."""
        return self.alpha / self.rank


def has_update(name: str) -> bool:
    """Whether a parameter of FlashFace is a kernel that LoRA adds to.

    Those are q, k, v and o of self- and cross-attention in the denoiser, a middle that the
    ReferenceNet shares included.
    """
    return name.startswith("denoiser/") and KERNEL.search(name) is not None


def trains_beside_lora(name: str) -> bool:
    """Whether a parameter of FlashFace trains as it is: of reference attention or ReferenceNet.

    What is left is frozen, the denoiser's input convolution too: one whose mask channels are zero,
    as from Stable Diffusion, goes on ignoring the mask.
    """
    return name.startswith("reference_net/") or "/reference_attention/" in name


def lora_shapes(shapes: Params, config: LoraConfig) -> LoraShapes:
    """Shapes of the updates of FlashFace's parameters, float32.

    Raises:
        ValueError: if nothing can be updated, or the rank exceeds what a kernel can have.
    """
    kernels = {name: leaf.shape for name, leaf in flatten(shapes).items() if has_update(name)}
    if not kernels:
        raise ValueError("LoRA finds no attention layer to add to: its target is a FlashFace.")
    name, sides = min(kernels.items(), key=lambda kernel: min(kernel[1]))
    if config.rank > min(sides):
        raise ValueError(
            f"The rank of LoRA is {config.rank}, but {name} is {sides[0]} x {sides[1]}: "
            f"choose {min(sides)} or less."
        )
    return {
        name: {
            "down": jax.ShapeDtypeStruct((inputs, config.rank), jnp.float32),
            "up": jax.ShapeDtypeStruct((config.rank, outputs), jnp.float32),
        }
        for name, (inputs, outputs) in kernels.items()
    }


def init_lora(key: jax.Array, shapes: Params, config: LoraConfig) -> Lora:
    """Draw updates that change nothing yet.

    "down" is uniform in ±1/√in, which PEFT and kohya's scripts draw it from, too; "up" is zero
    (arXiv 2106.09685, §4.1).

    Args:
        key: random key.
        shapes: FlashFace's parameters, or their shapes.
        config: rank and scale.
    """
    return {
        name: {
            "down": kernel_init(jax.random.fold_in(key, i), update["down"].shape, jnp.float32),
            "up": jnp.zeros(update["up"].shape, jnp.float32),
        }
        for i, (name, update) in enumerate(lora_shapes(shapes, config).items())
    }


def with_lora(params: Params, lora: Lora, config: LoraConfig) -> Params:
    """FlashFace's parameters with the updates added, W + s·down·up; differentiable in both.

    The sum is made in float32 and rounded to the kernel's dtype.

    Raises:
        ValueError: if an update has no kernel.
    """
    named = flatten(params)
    for name in lora:
        if name not in named:
            raise ValueError(f"LoRA has an update for {name}, which the network lacks.")

    def updated(name: str, value: Array) -> Array:
        if name not in lora:
            return value
        product = jnp.dot(lora[name]["down"], lora[name]["up"], precision="highest")
        return (value.astype(jnp.float32) + config.scale * product).astype(value.dtype)

    return unflatten({name: updated(name, value) for name, value in named.items()}, params)
