"""The weights of a training run: its newest checkpoint, opened as a weights directory."""

import json
from dataclasses import dataclass
from pathlib import Path

import jax

from flashface_jax.common.from_json import from_json
from flashface_jax.models.lora import Lora, LoraConfig, LoraShapes, lora_shapes
from flashface_jax.models.network import Network, Params
from flashface_jax.weights.directory import (
    NOT_DESCRIBED,
    Place,
    WeightsDirectory,
    WeightsError,
    on_one_device,
    restore_params,
)
from flashface_jax.weights.run_files import (
    CHECKPOINTS,
    TRAIN_FILE,
    UNREADABLE,
    items_of,
    newest_checkpoint,
)
from flashface_jax.weights.trainable import FLASHFACE, LORA, merge_trainable, split_trainable


def open_weights(path: Path) -> WeightsDirectory:
    """Open a converted directory or the working directory of a run.

    Raises:
        WeightsError: if it is neither.
    """
    kind = RunDirectory if (path / CHECKPOINTS).is_dir() else WeightsDirectory
    return kind.open(path)


@dataclass(frozen=True)
class RunDirectory(WeightsDirectory):
    """The working directory of a training run; parameters are its newest checkpoint's."""

    def params(self, part: str, network: Network, place: Place = on_one_device) -> Params:
        """Read the parameters of one part, averaged if the run averages, low-rank updates added.

        Raises:
            WeightsError: if they are missing, damaged or of other shapes.
        """
        if not jax.tree.leaves(network.shapes):
            return {}
        lora = self.lora() if part == FLASHFACE else None
        shapes = {part: network.shapes}
        if lora is not None:
            shapes[LORA] = self._update_shapes(network, lora)
        newest = self._newest()
        newest.require(part)
        trainable = (part,) if f"params-{part}" in newest.items else ()
        params, frozen = split_trainable(shapes, trainable, lora)
        return merge_trainable(newest.trained(params, place), newest.frozen(frozen, place), lora)[
            part
        ]

    def updates(self, flashface: Network, config: LoraConfig) -> Lora:
        """Read the low-rank updates by themselves, averaged if the run averages.

        Raises:
            WeightsError: if they are missing, damaged or of other shapes.
        """
        shapes = {LORA: self._update_shapes(flashface, config)}
        newest = self._newest()
        newest.require(LORA)
        updates: Lora = newest.trained(shapes, on_one_device)[LORA]
        return updates

    def holds(self, part: str) -> bool:
        """Whether the newest checkpoint has a part; whether it is whole, reading says."""
        return self._newest().holds(part)

    def lora(self) -> LoraConfig | None:
        """What the run's low-rank updates are like, if it trains such.

        Raises:
            WeightsError: if the run's configuration is missing or damaged.
        """
        path = self.path / TRAIN_FILE
        try:
            described = json.loads(path.read_text()).get("lora")
            return None if described is None else from_json(LoraConfig, described, "lora")
        except (*NOT_DESCRIBED, OSError) as error:
            raise WeightsError(
                f"{path} is missing or damaged: restore it from a copy ({error})."
            ) from error

    def _update_shapes(self, flashface: Network, config: LoraConfig) -> LoraShapes:
        try:
            return lora_shapes(flashface.shapes, config)
        except ValueError as error:
            raise WeightsError(f"{self.path / TRAIN_FILE} is damaged: {error}") from error

    def _newest(self) -> "_Newest":
        newest = newest_checkpoint(self.path)
        if newest is None:
            raise WeightsError(f"{self.path} has no checkpoint yet: let the run go on.")
        return _Newest(self.path, newest, items_of(newest))


@dataclass(frozen=True)
class _Newest:
    """The newest checkpoint of a run.

    Attributes:
        path: the run's directory.
        folder: the checkpoint's.
        items: what it has.
    """

    path: Path
    folder: Path
    items: set[str]

    def holds(self, part: str) -> bool:
        return not self.items.isdisjoint({f"params-{part}", f"frozen-{part}"})

    def require(self, part: str) -> None:
        if not self.holds(part):
            raise WeightsError(f"The newest checkpoint of {self.path} has no {part}.")

    def trained(self, shapes: dict[str, Params], place: Place) -> dict[str, Params]:
        averaged = any(item.startswith("average-") for item in self.items)
        return self._read("average" if averaged else "params", shapes, place)

    def frozen(self, shapes: dict[str, Params], place: Place) -> dict[str, Params]:
        return self._read("frozen", shapes, place)

    def _read(self, kind: str, shapes: dict[str, Params], place: Place) -> dict[str, Params]:
        try:
            return {
                part: restore_params(self.folder / f"{kind}-{part}", tree, place)
                for part, tree in shapes.items()
            }
        except jax.errors.JaxRuntimeError:  # a device without room, say
            raise
        except UNREADABLE as error:  # what Orbax says of either fills screens
            raise WeightsError(
                f"The newest checkpoint of {self.path} is damaged, or is of other networks than "
                "config.json says."
            ) from error
