"""CLIP's text tower, as `transformers` calls its parts; both layouts hold it so.

Stable Diffusion needs the tower's hidden states only, so most of its checkpoints lack the
projection to the joint embedding with images. Then the converted tower lacks it, too.
"""

import re

from flashface_jax.convert.sizes import Shapes, clip_heads, common, count
from flashface_jax.convert.stable_diffusion.described import Described
from flashface_jax.convert.table import (
    AS_IS,
    LINEAR,
    Dead,
    Entry,
    Layer,
    Table,
    group,
    joined,
    linear,
    norm,
)
from flashface_jax.models.clip import TextTowerConfig


def text_tower_table(root: str, config: TextTowerConfig, shapes: Shapes) -> Table:
    """`transformers`' CLIPTextModel, with its projection if it has one."""
    model = root + _below(root, shapes)
    entries = [
        Entry(f"{model}embeddings.token_embedding.weight", "token_embedding", AS_IS),
        Entry(f"{model}embeddings.position_embedding.weight", "position_embedding", AS_IS),
        *norm(f"{model}final_layer_norm", "norm"),
    ]
    for i in range(config.layers):
        layer, to = f"{model}encoder.layers.{i}", f"blocks/{i}"
        entries += [
            *group(layer, to, CLIP_BLOCK),
            *joined(f"{layer}.self_attn", f"{to}/qkv", ("q_proj", "k_proj", "v_proj"), linear),
        ]
    if config.embedding is not None:
        entries.append(Entry(f"{root}text_projection.weight", "projection", LINEAR))
    dead = [Dead(f"{model}embeddings.position_ids", "the numbers of the positions, counted up")]
    dead += [
        Dead(f"{root}{name}", "of CLIP's image tower, which Stable Diffusion does not run")
        for name in ("vision_model.", "visual_projection.", "logit_scale")
    ]
    return Table(tuple(entries), tuple(dead))


CLIP_BLOCK: list[tuple[str, str, Layer]] = [
    ("layer_norm1", "norm1", norm),
    ("self_attn.out_proj", "proj", linear),
    ("layer_norm2", "norm2", norm),
    ("mlp.fc1", "mlp_in", linear),
    ("mlp.fc2", "mlp_out", linear),
]


def _below(root: str, shapes: Shapes) -> str:
    """Some versions of `transformers`, 5 among them, leave this name out."""
    return "text_model." if any(key.startswith(f"{root}text_model.") for key in shapes) else ""


def infer_text_tower_config(root: str, shapes: Shapes, described: Described) -> TextTowerConfig:
    """Read the widths off a text tower's shapes.

    Raises:
        ValueError: if the keys are not those of such a network, or the heads are impossible.
    """
    model = re.escape(root + _below(root, shapes))
    channels = common(shapes, rf"{model}final_layer_norm\.(weight|bias)", 0)
    projection = shapes.get(f"{root}text_projection.weight")
    return TextTowerConfig(
        vocabulary=common(shapes, rf"{model}embeddings\.token_embedding\.weight", 0),
        length=common(shapes, rf"{model}embeddings\.position_embedding\.weight", 0),
        channels=channels,
        num_heads=clip_heads("text", channels, described.text_heads),
        layers=count(shapes, rf"{model}encoder\.layers\.(\d+)\."),
        embedding=projection[0] if projection else None,
    )
