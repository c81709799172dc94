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
import json
from dataclasses import dataclass
from pathlib import Path

import jax
import orbax.checkpoint as ocp

from flashface_jax.from_json import from_json
from flashface_jax.models.network import Network, Params, flatten
from flashface_jax.system import SystemConfig
from flashface_jax.tokenizer import Tokenizer
from flashface_jax.training.checkpoint import Checkpoints

FORMAT = 1
NOT_DESCRIBED = (ValueError, KeyError, TypeError, AttributeError, RecursionError)
"""What reading JSON of another form than was written raises."""
WRITTEN_AT_ONCE = 1  # GB that Orbax may hold besides the parameters themselves


class WeightsError(ValueError):
    """A directory that is no weights directory; the message says what is wrong with it."""


def write_config(directory: Path, config: SystemConfig) -> None:
    """Write `config.json`."""
    described = {"format": FORMAT, "system": dataclasses.asdict(config)}
    (directory / "config.json").write_text(json.dumps(described, indent=2) + "\n")


def read_config(directory: Path) -> SystemConfig:
    """Read `config.json`.

    Raises:
        WeightsError: if it is missing, damaged or of another format.
    """
    path = directory / "config.json"
    try:
        described = json.loads(path.read_text())
        if described["format"] != FORMAT:
            raise WeightsError(
                f"{path} has format {described['format']}, this version reads {FORMAT}."
            )
        return from_json(SystemConfig, described["system"], "the system")
    except (FileNotFoundError, NotADirectoryError) as error:
        raise WeightsError(
            f"{directory} is no weights directory: it has no config.json. "
            "`python -m flashface_jax.convert official --help` makes one."
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


def _saved_shapes(
    checkpointer: ocp.StandardCheckpointer, place: Path
) -> dict[str, tuple[int, ...]]:
    metadata = checkpointer.metadata(place).item_metadata
    return {} if metadata is None else _shapes(metadata.tree)


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

    def params(self, part: str, network: Network) -> Params:
        """Read the parameters of one part onto the default device.

        Raises:
            WeightsError: if they are missing, damaged or of other shapes.
        """
        if not jax.tree.leaves(network.shapes):
            return {}  # a part without parameters has no checkpoint
        place = (self.path / "params" / part).absolute()
        if not place.exists():
            raise WeightsError(
                f"{self.path} has no {part}: convert again with the file that holds it."
            )
        device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        wanted = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=device),
            network.shapes,
        )
        try:
            with ocp.StandardCheckpointer() as checkpointer:
                # Compared first: a restore that fails half way leaves threads that fail later.
                if _saved_shapes(checkpointer, place) != _shapes(network.shapes):
                    raise ValueError("its parameters have other names or shapes.")
                return checkpointer.restore(place, wanted)
        except (ValueError, KeyError, OSError) as error:
            raise WeightsError(
                f"{place} is damaged, or holds another network than config.json says: {error}"
            ) from error

    def holds(self, part: str) -> bool:
        """Whether the parameters of a part are there; whether they are whole, reading says."""
        return (self.path / "params" / part).exists()

    def tokenizer(self) -> Tokenizer:
        """Open the tokenizer."""
        place = self.path / "tokenizer"
        if not place.exists():
            raise WeightsError(f"{self.path} has no tokenizer: convert again with --tokenizer.")
        return Tokenizer.from_directory(place)


@dataclass(frozen=True)
class RunDirectory(WeightsDirectory):
    """The working directory of a training run; parameters are its newest checkpoint's."""

    def params(self, part: str, network: Network) -> Params:
        """Read the parameters of one part, averaged if the run averages.

        Raises:
            WeightsError: if they are missing, damaged or of other shapes.
        """
        if not jax.tree.leaves(network.shapes):
            return {}
        checkpoints = Checkpoints(self.path)
        try:
            if checkpoints.latest_step is None:
                raise WeightsError(f"{self.path} has no checkpoint yet: let the run go on.")
            return checkpoints.read_part(part, network.shapes)
        except KeyError as error:
            raise WeightsError(f"The newest checkpoint of {self.path} has no {part}.") from error
        except WeightsError:
            raise
        except (ValueError, OSError) as error:  # what Orbax says of either fills screens
            raise WeightsError(
                f"The newest checkpoint of {self.path} is damaged, or its {part} is another "
                "network than config.json says."
            ) from error
        finally:
            checkpoints.close()

    def holds(self, part: str) -> bool:
        """A run has every part that its configuration names."""
        return True


def open_weights(path: Path) -> WeightsDirectory:
    """Open a converted directory or the working directory of a run.

    Raises:
        WeightsError: if it is neither.
    """
    kind = RunDirectory if (path / "checkpoints").is_dir() else WeightsDirectory
    return kind.open(path)
