"""Reading widths and depths off the shapes of a state dict."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping

from flashface_jax.convert.table import ConversionError, Shape

Shapes = Mapping[str, Shape]


def common(shapes: Shapes, pattern: str, axis: int) -> int:
    """The size that most matching tensors have on an axis, so that one bad tensor stands out."""
    sizes = Counter(
        shape[axis]
        for key, shape in shapes.items()
        if len(shape) > axis and re.fullmatch(pattern, key)
    )
    if not sizes:
        raise _no_key(pattern)
    return sizes.most_common(1)[0][0]


def count(shapes: Shapes, pattern: str, least: int = 1) -> int:
    """One more than the largest index that the pattern finds."""
    matches: Iterable[re.Match[str] | None] = (re.match(pattern, key) for key in shapes)
    found = max((int(match[1]) + 1 for match in matches if match), default=0)
    if found < least:
        raise _no_key(pattern)
    return found


def multipliers(widths: list[int], base: int) -> tuple[int, ...]:
    """Widths of levels over the base width."""
    if not widths or any(width % base for width in widths):
        raise ConversionError(f"its levels of {widths} channels are no multiples of {base}.")
    return tuple(width // base for width in widths)


def clip_heads(tower: str, channels: int, num_heads: int | None) -> int:
    """Heads of a CLIP tower, by default width / 64."""
    heads = max(1, channels // 64) if num_heads is None else num_heads
    if heads < 1 or channels % heads:
        raise ConversionError(
            f"CLIP's {tower} tower of width {channels} cannot have {heads} heads: "
            f"choose another --clip-{tower}-heads."
        )
    return heads


def _no_key(pattern: str) -> ConversionError:
    readable = pattern.replace("\\.", ".").replace(r"(\d+)", "<n>").rstrip(".")
    return ConversionError(f"it has no key like {readable}; is it the file for this place?")
