"""Reading PyTorch state dicts tensor by tensor, without the whole file in memory; writing them."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import torch
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

from flashface_jax.convert.table import ConversionError, Shape

# Pages of a mapped file count as this process's memory until the mapping is dropped.
REOPEN_AFTER = 1 << 30


class UnreadableError(ConversionError):
    """A file that is no PyTorch state dict."""


class TorchFile:
    """A state dict on disk; tensors are mapped, and read when asked for.

    Attributes:
        path: the file.
        shapes: shape of every tensor.
    """

    def __init__(self, path: Path):
        """Open a file saved with `torch.save`.

        Raises:
            UnreadableError: if it does not exist, is truncated, or holds no state dict.
        """
        self.path = path
        self._tensors = _state_dict(path)
        self._mapped = 0
        self.shapes: dict[str, Shape] = {
            key: tuple(tensor.shape) for key, tensor in self._tensors.items()
        }

    def read(self, key: str) -> np.ndarray:
        """Read one tensor, as a float32 array of its own."""
        if self._mapped > REOPEN_AFTER:
            self._tensors, self._mapped = _state_dict(self.path), 0
        tensor = self._tensors[key]
        self._mapped += tensor.nbytes
        return tensor.to(torch.float32, copy=True).numpy()


def _state_dict(path: Path) -> dict[str, torch.Tensor]:
    if not path.is_file():
        raise UnreadableError(f"{path} does not exist or is no file.")
    try:
        content = _load(path)
    except Exception as error:  # reading what is no pickle can raise anything
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UnreadableError(
            f"{path} is no PyTorch checkpoint, or a truncated one; download it again ({reason})."
        ) from error
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    if not isinstance(content, dict) or not content:
        raise UnreadableError(f"{path} holds no state dict but a {type(content).__name__}.")
    strange = [
        key
        for key, value in content.items()
        if not isinstance(key, str) or not isinstance(value, torch.Tensor)
    ]
    if strange:
        raise UnreadableError(f"{path}: {strange[0]!r} names no tensor, so this is no state dict.")
    return content


def _load(path: Path) -> object:
    """Load with memory mapping; files in PyTorch's format from before 1.6 cannot be mapped."""
    with path.open("rb") as file:
        zipped = file.read(2) == b"PK"
    # Checkpoints of whole runs also name classes of the trainer's, which need not be installed and
    # must not run: each is read as an object that keeps nothing.
    strangers = get_unsafe_globals_in_checkpoint(path) if zipped else []
    with safe_globals([(_stand_in(name), name) for name in strangers]):
        return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)


def _stand_in(name: str) -> type:
    """A class whose instances take any arguments and any state, and keep neither."""

    def nothing(self: object, *state: object) -> None:
        pass

    def make(cls: type, *arguments: object) -> object:
        return object.__new__(cls)

    members = {"__new__": make, "__init__": nothing, "__setstate__": nothing}
    return type(name.rpartition(".")[2], (), members)


def write_torch(state: dict[str, np.ndarray], path: Path) -> None:
    """Write contiguous arrays as `torch.save` does; an array under two keys is stored once.

    Raises:
        ConversionError: if the file cannot be written, say on a full disk.
    """
    unique = {id(x): x for x in state.values()}
    tensors = {address: _tensor(x) for address, x in unique.items()}
    try:
        torch.save({key: tensors[id(x)] for key, x in state.items()}, path)
    except RuntimeError as error:  # what PyTorch makes of a failed write
        reason = str(error).splitlines()[0]
        raise ConversionError(f"{path} could not be written: {reason}") from error


def _tensor(x: np.ndarray) -> torch.Tensor:
    if x.dtype == jnp.bfloat16:  # which NumPy and PyTorch do not share
        return torch.from_numpy(x.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(x)
