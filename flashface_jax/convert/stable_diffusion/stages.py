"""What U-Net and autoencoder have in common: levels of residual blocks, and 1x1 convolutions."""

import re
from dataclasses import dataclass

from flashface_jax.convert.sizes import Shapes, common
from flashface_jax.convert.stable_diffusion.names import StageNames
from flashface_jax.convert.table import Entry, Layer, conv, point


@dataclass(frozen=True)
class Place:
    """The numbers by which a layout can call an entry of an encoder or decoder."""

    level: int
    rise: int
    index: int
    position: int

    def name(self, pattern: str, depth: int = 0) -> str:
        """Fill the numbers into a name; `depth` is of the transformer at this place."""
        return pattern.format(**vars(self), after=2 if depth else 1)


def encoder_stages(
    root: str, names: StageNames, layers: tuple[str, ...], shapes: Shapes
) -> list[list[Place]]:
    """Where an encoder has residual blocks, level by level."""

    def exists(layer: str) -> bool:
        return any(f"{root}{layer}.{kind}" in shapes for kind in ("weight", "bias"))

    levels: list[list[Place]] = [[]]
    for position in range(1, len(shapes) + 1):
        place = Place(len(levels) - 1, 0, len(levels[-1]), position)
        block = place.name(names.residual)
        if any(exists(f"{block}.{layer}") for layer in layers):
            levels[-1].append(place)
        elif exists(place.name(names.resample)):
            levels.append([])
        else:
            break
    return [level for level in levels if level]


def width_of(
    root: str, names: StageNames, layers: tuple[str, ...], level: list[Place], shapes: Shapes
) -> int:
    """Width of a level, as most layers of its residual blocks have it."""
    blocks = "|".join(re.escape(root + place.name(names.residual)) for place in level)
    inner = "|".join(map(re.escape, layers))
    return common(shapes, rf"({blocks})\.({inner})\.(weight|bias)", 0)


def as_stored(shapes: Shapes) -> Layer:
    """A 1x1 convolution, which some checkpoints hold as a dense layer."""

    def layer(source: str, target: str) -> list[Entry]:
        dense = len(shapes.get(f"{source}.weight", ())) == 2
        return (point if dense else conv)(source, target)

    return layer
