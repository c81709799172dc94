"""A directory of weights that describes itself.

    DIR/
      config.json            format version and SystemConfig
      params/<part>/         Orbax, one checkpoint for each of flashface, autoencoder, text_tower,
                             image_tower
      tokenizer/             vocab.json, merges.txt, tokenizer_config.json
      unused/                what of converted files no network uses (`convert/unused.py`)

It is written beside its final place and renamed, so that a directory which exists is whole.
"""

import dataclasses
import hashlib
import json
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from flashface_jax.common.from_json import from_json
from flashface_jax.models.network import Network, Params, flatten
from flashface_jax.weights.system import SystemConfig
from flashface_jax.weights.tokenizer import Tokenizer

FORMAT = 1
NOT_DESCRIBED = (ValueError, KeyError, TypeError, AttributeError, RecursionError)
"""What reading JSON of another form than was written raises."""
WRITTEN_AT_ONCE = 1  # GB that Orbax may hold besides the parameters themselves

CONFIG_FILE = "config.json"
"""Where a directory keeps its system's configuration."""

Place = Callable[[Params], Params]
"""From a tree of shapes to one of shardings."""


class WeightsError(ValueError):
    """A directory that is no weights directory; the message says what is wrong with it."""


def on_one_device(shapes: Params) -> Params:
    """Everything on the default device."""
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.tree.map(lambda leaf: device, shapes)


def write_config(directory: Path, config: SystemConfig) -> None:
    """Write `config.json`."""
    described = {"format": FORMAT, "system": dataclasses.asdict(config)}
    (directory / CONFIG_FILE).write_text(json.dumps(described, indent=2) + "\n")


def read_config(directory: Path) -> SystemConfig:
    """Read `config.json`.

    Raises:
        WeightsError: if it is missing, damaged or of another format.
    """
    path = directory / CONFIG_FILE
    try:
        described = json.loads(path.read_text())
        if described["format"] != FORMAT:
            raise WeightsError(
                f"{path} has format {described['format']}, this version reads {FORMAT}."
            )
        return from_json(SystemConfig, described["system"], "the system")
    except (FileNotFoundError, NotADirectoryError) as error:
        raise WeightsError(
            f"{directory} is no weights directory: it has no {CONFIG_FILE}. "
            "`flashface convert official --help` makes one."
        ) from error
    except WeightsError:
        raise
    except (*NOT_DESCRIBED, OSError) as error:
        raise WeightsError(f"{path} is damaged: {error}") from error


def write_params(directory: Path, part: str, params: Params) -> None:
    """Save the parameters of one part.

    Raises:
        WeightsError: if they cannot be written, say on a full disk.
    """
    place = (directory / "params" / part).absolute()
    # Orbax copies NumPy arrays before it writes them; arrays of the host's device it does not.
    # Putting aligned arrays there copies nothing either.
    host = jax.local_devices(backend="cpu")[0]
    handler = ocp.StandardCheckpointHandler(save_concurrent_gb=WRITTEN_AT_ONCE)
    try:
        with ocp.Checkpointer(handler) as checkpointer:
            checkpointer.save(place, jax.device_put(params, host))
    except ValueError as error:  # what Orbax makes of a failed write
        raise WeightsError(f"{place} could not be written: {error}") from error


def restore_params(folder: Path, shapes: Params, place: Place) -> Params:
    """Read a saved tree, whose leaves have these shapes, to where each belongs.

    Raises:
        ValueError: it is another tree; a damaged one makes Orbax raise many other errors.
    """
    wanted = jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        shapes,
        place(shapes),
    )
    # The handler alone: a checkpointer warns of what an item of a run's checkpoint does not have.
    with closing(ocp.StandardCheckpointHandler()) as handler:
        # Compared first: a restore that fails half way leaves threads that fail later.
        if _shapes(handler.metadata(folder).tree) != _shapes(shapes):
            raise ValueError("its parameters have other names or shapes.")
        restored: Params = handler.restore(folder, args=ocp.args.StandardRestore(wanted))
    return restored


def _shapes(params: Params) -> dict[str, tuple[int, ...]]:
    return {name: tuple(leaf.shape) for name, leaf in flatten(params).items()}


@dataclass(frozen=True)
class WeightsDirectory:
    """An opened directory; parameters are read when asked for.

    Attributes:
        path: the directory.
        config: what the networks look like.
    """

    path: Path
    config: SystemConfig

    @classmethod
    def open(cls, path: Path) -> "WeightsDirectory":
        """Open a directory; raises WeightsError if it is none."""
        return cls(path, read_config(path))

    def params(self, part: str, network: Network, place: Place = on_one_device) -> Params:
        """Read the parameters of one part.

        Args:
            part: its name.
            network: its structure.
            place: where each parameter goes.

        Raises:
            WeightsError: if they are missing, damaged or of other shapes.
        """
        if not jax.tree.leaves(network.shapes):
            return {}  # a part without parameters has no checkpoint
        folder = (self.path / "params" / part).absolute()
        if not folder.exists():
            raise WeightsError(
                f"{self.path} has no {part}: convert again with the file that holds it."
            )
        try:
            return restore_params(folder, network.shapes, place)
        except (ValueError, KeyError, OSError) as error:
            raise WeightsError(
                f"{folder} is damaged, or holds another network than config.json says: {error}"
            ) from error

    def holds(self, part: str) -> bool:
        """Whether the parameters of a part are there; whether they are whole, reading says."""
        return (self.path / "params" / part).exists()

    def tokenizer(self) -> Tokenizer:
        """Open the tokenizer."""
        return Tokenizer.from_directory(tokenizer_of(self.path))


def tokenizer_of(directory: Path) -> Path:
    """Where a directory keeps its tokenizer.

    Raises:
        WeightsError: if it has none.
    """
    place = directory / "tokenizer"
    if not place.exists():
        raise WeightsError(f"{directory} has no tokenizer: convert again with --tokenizer.")
    return place


def sha256_of(params: Params) -> str:
    """Hash of parameters' names, shapes, dtypes and values; every process must call it."""
    digest = hashlib.sha256()
    for name, leaf in sorted(flatten(params).items()):
        digest.update(f"{name} {leaf.shape} {leaf.dtype}".encode())
        whole = isinstance(leaf, np.ndarray) or leaf.is_fully_addressable
        values = leaf if whole else multihost_utils.process_allgather(leaf, tiled=True)
        # bfloat16 has no buffer of its own.
        digest.update(np.ascontiguousarray(values).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()
