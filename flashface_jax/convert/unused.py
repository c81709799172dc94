"""Tensors of a converted file that no network uses, kept so that an export can restore them.

They lie in `unused/<part>.safetensors` of a weights directory, under the released keys. What an
export fills in with the same bits anyway is not kept.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Float32
from safetensors import SafetensorError
from safetensors.numpy import load_file

from flashface_jax.convert.files.state_files import write_safetensors
from flashface_jax.convert.table import Shape, Table
from flashface_jax.weights.directory import WeightsError

Tensor = Float32[np.ndarray, "..."]


def unused_path(directory: Path, part: str) -> Path:
    """Where a weights directory keeps what a part does not use."""
    return directory / "unused" / f"{part}.safetensors"


def find_unused(
    table: Table,
    shapes: Mapping[str, Shape],
    read: Callable[[str], Tensor],
    advance: Callable[[], object],
) -> dict[str, Tensor]:
    """Read the dead tensors that an export would not fill in with the same bits.

    Args:
        table: the part's.
        shapes: shapes of the file's tensors, by key.
        read: gives the file's tensor of a key.
        advance: ticks each dead key that the released layout has.

    Returns:
        Tensors by key. One whose shape is not that of the released layout is not among them: no
        released file could have it.
    """
    found = {}
    for key, fill in table.fills.items():
        if key in shapes:
            value = read(key)
            usual = read(fill) if isinstance(fill, str) else np.asarray(fill, np.float32)
            if value.shape == usual.shape and not _same_bits(value, usual):
                found[key] = np.asarray(value, order="C")  # safetensors writes memory as it lies
        advance()
    return found


def write_unused(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write the file; raises ConversionError if it cannot be written, say on a full disk."""
    path.parent.mkdir(exist_ok=True)
    write_safetensors(tensors, path)


def read_unused(path: Path, layout: Mapping[str, Shape]) -> dict[str, Tensor]:
    """Read the file; nothing if there is none.

    Args:
        path: the file.
        layout: shapes of the part's dead keys.

    Raises:
        WeightsError: if it is damaged or holds anything that is not in `layout`.
    """
    if not path.exists():
        return {}
    try:
        tensors: dict[str, np.ndarray] = load_file(path)
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path} is damaged: {error}") from error
    for key, value in tensors.items():
        if layout.get(key) != value.shape or value.dtype != np.float32:
            raise WeightsError(f"{path} is of another network: {key} does not fit config.json.")
    return tensors


def _same_bits(one: Tensor, other: Tensor) -> bool:
    """Equality that tells -0 from 0 and finds NaN equal to itself."""
    return np.array_equal(one.view(np.uint32), other.view(np.uint32))
