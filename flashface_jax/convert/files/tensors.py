"""Where tensors are read from: a file, some of a file's keys, or several files with an index."""

import json
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np

from flashface_jax.convert.files.safetensors_file import SafetensorsFile
from flashface_jax.convert.files.torch_file import TorchFile, UnreadableError
from flashface_jax.convert.table import Shape


@runtime_checkable
class Tensors(Protocol):
    """Named tensors that are read when asked for.

    Attributes:
        path: what an error calls them.
        shapes: shape of every tensor.
    """

    path: Path
    shapes: dict[str, Shape]

    def read(self, key: str) -> np.ndarray:
        """Read one tensor, as a float32 array of its own."""
        ...


class Section:
    """The tensors of a file whose keys begin in a certain way."""

    def __init__(self, whole: Tensors, *prefixes: str, but: tuple[str, ...] = ()):
        """Pick the keys that start with one of `prefixes` and with none of `but`."""
        self.path = whole.path
        self.shapes = {
            key: shape
            for key, shape in whole.shapes.items()
            if key.startswith(prefixes) and not key.startswith(but)
        }
        self.read = whole.read


class Shards:
    """Several files that hold one network, as `*.index.json` lists them."""

    def __init__(self, index: Path):
        """Open every file that the index names.

        Raises:
            UnreadableError: if the index, or a file that it names, is missing or damaged.
        """
        self.path = index
        places = _weight_map(index)
        files = {name: open_tensors(index.parent / name) for name in sorted({*places.values()})}
        self._files = {key: files[name] for key, name in places.items()}
        for key, name in places.items():
            if key not in files[name].shapes:
                raise UnreadableError(f"{index} says that {name} holds {key}, which it does not.")
        self.shapes = {key: file.shapes[key] for key, file in self._files.items()}

    def read(self, key: str) -> np.ndarray:
        """Read one tensor, as a float32 array of its own."""
        return self._files[key].read(key)


def open_tensors(path: Path) -> Tensors:
    """Open a `.safetensors` file, an `.index.json`, or else what `torch.save` wrote.

    Raises:
        UnreadableError: if it is missing, damaged, or none of these.
    """
    if path.suffix == ".json":
        return Shards(path)
    return SafetensorsFile(path) if path.suffix == ".safetensors" else TorchFile(path)


def _weight_map(index: Path) -> dict[str, str]:
    """Key -> file name, as an index has it."""
    try:
        places = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        if all(type(name) is str and Path(name).name == name for name in places.values()):
            return places
        raise ValueError("its weight_map names no files")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UnreadableError(
            f"{index} is no index of tensors; download it again ({error})."
        ) from error
