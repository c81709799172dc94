"""Writing state dicts of NumPy arrays as PyTorch or safetensors files."""

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import save_file

from flashface_jax.convert.table import ConversionError

Form = Literal["official", "safetensors"]
Precision = Literal["float32", "float16", "bfloat16"]

State = dict[str, np.ndarray]
"""Contiguous arrays by key; a key that repeats another may have the very same array."""

Writer = Callable[[State, Path], None]


def in_precision(key: str, x: np.ndarray, precision: Precision) -> np.ndarray:
    """A contiguous copy of a float32 array, rounded to nearest.

    Raises:
        ConversionError: if a number is too large for the precision.
    """
    with np.errstate(over="ignore"):
        copy = x.astype(jnp.dtype(precision), order="C")
    if not np.array_equal(np.isfinite(copy), np.isfinite(x)):
        raise ConversionError(
            f"{key} holds {np.abs(x[np.isfinite(x)]).max():.3g}, which is more than {precision} "
            "can: choose --dtype float32 or bfloat16."
        )
    return copy


def writer(form: Form) -> Writer:
    """Return what writes a form of file; raises ModuleNotFoundError if its library is missing."""
    if form == "safetensors":
        return write_safetensors
    from flashface_jax.convert.files.torch_file import write_torch  # noqa: PLC0415  (imports PyTorch)

    return write_torch


def write_safetensors(state: State, path: Path, about: dict[str, str] | None = None) -> None:
    """Write as safetensors, every key with a tensor of its own; PyTorch is not needed.

    Args:
        state: what to write.
        path: the file.
        about: what its header says besides.

    Raises:
        ConversionError: if the file cannot be written, say on a full disk.
    """
    try:
        save_file(state, path, about)
        path.chmod(0o644)  # safetensors makes it private
    except SafetensorError as error:
        raise ConversionError(f"{path} could not be written: {error}") from error
