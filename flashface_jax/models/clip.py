"""CLIP's text and image towers (ViT-L/14 in the released model).

Diffusion uses the text tower's last hidden states; evaluation also uses the joint embeddings.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from flashface_jax.common.shape_checks import Sizes, checked
from flashface_jax.common.shapes import Image, TextContext, Tokens
from flashface_jax.models.blocks import (
    Compute,
    layer_norm,
    linear,
)


@dataclass(frozen=True)
class TextTowerConfig:
    """Widths of the text tower; the defaults are CLIP ViT-L/14's.

    Attributes:
        vocabulary: number of tokens.
        length: tokens of a prompt, start, end and padding included.
        channels: width.
        num_heads: attention heads.
        layers: transformer layers.
        embedding: width of the joint text-image embedding; None for a tower without, as Stable
            Diffusion's checkpoints hold it.
    """

    vocabulary: int = 49408
    length: int = 77
    channels: int = 768
    num_heads: int = 12
    layers: int = 12
    embedding: int | None = 768


@dataclass(frozen=True)
class ImageTowerConfig:
    """Widths of the image tower; the defaults are CLIP ViT-L/14's.

    Attributes:
        image_size: side of the square input in pixels.
        patch: side of a patch in pixels.
        channels: width.
        num_heads: attention heads.
        layers: transformer layers.
        embedding: width of the joint text-image embedding.
    """

    image_size: int = 224
    patch: int = 14
    channels: int = 1024
    num_heads: int = 16
    layers: int = 24
    embedding: int = 768


class Block(nnx.Module):
    """Pre-norm transformer block with quick-GELU, x·σ(1.702 x)."""

    def __init__(
        self, channels: int, num_heads: int, causal: bool, compute: Compute, keys: nnx.Rngs
    ):
        self.num_heads = num_heads
        self.causal = causal
        self.norm1 = layer_norm(channels, keys)
        self.qkv = linear(channels, 3 * channels, compute, keys)
        self.proj = linear(channels, channels, compute, keys)
        self.norm2 = layer_norm(channels, keys)
        self.mlp_in = linear(channels, 4 * channels, compute, keys)
        self.mlp_out = linear(4 * channels, channels, compute, keys)

    def __call__(self, x: Tokens) -> Tokens:
        """Self-attention, then the position-wise network."""
        batch, length, channels = x.shape
        qkv = self.qkv(self.norm1(x)).reshape(batch, length, 3, self.num_heads, -1)
        query, key, value = (qkv[:, :, i] for i in range(3))
        # At most 257 tokens: the portable attention of jax is never the bottleneck here.
        values = jax.nn.dot_product_attention(query, key, value, is_causal=self.causal)
        x = x + self.proj(values.reshape(batch, length, channels))
        hidden = self.mlp_in(self.norm2(x))
        return x + self.mlp_out(hidden * nnx.sigmoid(1.702 * hidden))


def _text_sizes(tower: "TextTower") -> Sizes:
    return {"words": tower.config.length}


class TextTower(nnx.Module):
    """Tokens -> hidden states and a pooled embedding."""

    def __init__(self, config: TextTowerConfig, compute: Compute, keys: nnx.Rngs):
        self.config, self.run = config, compute.run
        normal = nnx.initializers.normal
        self.token_embedding = nnx.Param(
            normal(0.02)(keys.params(), (config.vocabulary, config.channels))
        )
        self.position_embedding = nnx.Param(
            normal(0.01)(keys.params(), (config.length, config.channels))
        )
        self.blocks = nnx.List(
            Block(config.channels, config.num_heads, True, compute, keys)
            for _ in range(config.layers)
        )
        self.norm = layer_norm(config.channels, keys)
        self.projection = (
            None
            if config.embedding is None
            else nnx.Param(
                normal(config.channels**-0.5)(keys.params(), (config.channels, config.embedding))
            )
        )

    @checked(_text_sizes)
    @jax.named_scope("text_tower")
    def __call__(self, tokens: Int[Array, "batch words"]) -> TextContext:
        """Last hidden states after the final LayerNorm, float32: the denoiser's text context.

        Raises:
            ValueError: the prompts have another number of tokens than the tower's.
            TypeError: tokens are no integers.
        """
        x = self.token_embedding[...][tokens] + self.position_embedding[...]
        for block in self.blocks:
            x = self.run(block, x)
        return self.norm(x).astype(jnp.float32)

    @checked(_text_sizes)
    def embed(self, tokens: Int[Array, "batch words"]) -> Float[Array, "batch embedding"]:
        """Joint embedding, read at the first end token (the largest token id)."""
        if self.projection is None:
            raise ValueError(
                "This text tower has no projection to the joint embedding with images."
            )
        hidden = self(tokens)
        end = jnp.argmax(tokens, axis=-1)
        return hidden[jnp.arange(len(tokens)), end] @ self.projection[...]


class ImageTower(nnx.Module):
    """Image -> pooled embedding."""

    def __init__(self, config: ImageTowerConfig, compute: Compute, keys: nnx.Rngs):
        self.config = config
        normal = nnx.initializers.normal(config.channels**-0.5)
        positions = (config.image_size // config.patch) ** 2 + 1
        patch = (config.patch, config.patch)
        self.patch_embedding = nnx.Conv(
            3,
            config.channels,
            patch,
            strides=patch,
            padding="VALID",
            use_bias=False,
            dtype=compute.dtype,
            rngs=keys,
        )
        self.class_embedding = nnx.Param(normal(keys.params(), (config.channels,)))
        self.position_embedding = nnx.Param(normal(keys.params(), (positions, config.channels)))
        self.pre_norm = layer_norm(config.channels, keys)
        self.blocks = nnx.List(
            Block(config.channels, config.num_heads, False, compute, keys)
            for _ in range(config.layers)
        )
        self.post_norm = layer_norm(config.channels, keys)
        self.projection = nnx.Param(normal(keys.params(), (config.channels, config.embedding)))

    @checked(lambda tower: dict.fromkeys(("H", "W"), tower.config.image_size))
    def embed(self, image: Image) -> Float[Array, "batch embedding"]:
        """Joint embedding of images normalised with CLIP's mean and deviation.

        Raises:
            ValueError: the images have another size than the tower's.
        """
        batch = image.shape[0]
        patches = self.patch_embedding(image).reshape(batch, -1, self.config.channels)
        first = jnp.broadcast_to(
            self.class_embedding[...].astype(patches.dtype), (batch, 1, self.config.channels)
        )
        x = jnp.concatenate([first, patches], axis=1) + self.position_embedding[...]
        x = self.pre_norm(x)
        for block in self.blocks:
            x = block(x)
        return self.post_norm(x[:, 0]).astype(jnp.float32) @ self.projection[...]
