"""Reading safetensors files tensor by tensor, without holding the whole file in memory."""

from pathlib import Path

import ml_dtypes  # noqa: F401  (makes bfloat16 a dtype that NumPy knows)
import numpy as np
from safetensors import SafetensorError, safe_open

from flashface_jax.convert.files.torch_file import REOPEN_AFTER, UnreadableError
from flashface_jax.convert.table import Shape

# Whole numbers are position_ids, which no model reads.
READ = {"F64", "F32", "F16", "BF16", "I64", "I32", "U8"}


class SafetensorsFile:
    """A safetensors file; tensors are mapped, and read when asked for.

    Attributes:
        path: the file.
        shapes: shape of every tensor.
    """

    def __init__(self, path: Path):
        """Open a file.

        Raises:
            UnreadableError: if it does not exist, is truncated or damaged, or holds numbers of
                fewer bits than any network is trained with.
        """
        self.path = path
        self._file = _open(path)
        self._mapped = 0
        self.shapes: dict[str, Shape] = {}
        for key in self._file.keys():  # noqa: SIM118  (it is no mapping)
            part = self._file.get_slice(key)
            if part.get_dtype() not in READ:
                raise UnreadableError(
                    f"{path}: {key} holds {part.get_dtype()} numbers; take the file with float32, "
                    "float16 or bfloat16 ones."
                )
            self.shapes[key] = tuple(part.get_shape())

    def read(self, key: str) -> np.ndarray:
        """Read one tensor, as a float32 array of its own."""
        if self._mapped > REOPEN_AFTER:
            self._file, self._mapped = _open(self.path), 0
        tensor = self._file.get_tensor(key)
        self._mapped += tensor.nbytes
        return tensor.astype(np.float32)


def _open(path: Path) -> safe_open:
    if not path.is_file():
        raise UnreadableError(f"{path} does not exist or is no file.")
    try:
        return safe_open(path, framework="numpy")
    except (SafetensorError, OSError) as error:
        raise UnreadableError(
            f"{path} is no safetensors file, or a truncated one; download it again ({error})."
        ) from error
