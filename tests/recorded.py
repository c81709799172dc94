"""Numbers recorded from the released code, and checkpoints in its format drawn by rule."""

import json
import math
import zlib
from pathlib import Path

import numpy as np
import torch

from flashface_jax.models.network import Params, flatten, unflatten

RECORDINGS = Path(__file__).parent / "recordings"


def layout(name: str) -> dict:
    """Module configuration, seed and state-dict layout of a recording."""
    return json.loads((RECORDINGS / f"{name}.json").read_text())


def arrays(name: str) -> dict[str, np.ndarray]:
    """Inputs and outputs of a recording."""
    with np.load(RECORDINGS / f"{name}.npz") as file:
        return dict(file)


def drawn(key: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    """The weight that the recordings' rule gives a state-dict key."""
    rng = np.random.Generator(np.random.PCG64(zlib.crc32(key.encode()) + seed))
    values = rng.standard_normal(shape).astype(np.float32)
    if len(shape) >= 2:
        return values / np.float32(math.sqrt(math.prod(shape[1:])))
    if len(shape) == 0:
        return values
    return 1 + np.float32(0.1) * values if key.endswith("weight") else np.float32(0.05) * values


def drawn_state_dict(name: str) -> dict[str, torch.Tensor]:
    """A whole state dict by rule."""
    described = layout(name)
    return {
        key: torch.from_numpy(np.asarray(drawn(key, tuple(shape), described["seed"])))
        for key, shape in described["state_dict"].items()
    }


def drawn_parameters(shapes: Params, seed: int) -> Params:
    """Parameters of a network by rule, each drawn by its own name."""

    def one(name: str, shape: tuple[int, ...]) -> np.ndarray:
        # The rule is for PyTorch's order, output channels first, and calls scales weights.
        key = name.removesuffix("scale") + "weight" if name.endswith("scale") else name
        return np.moveaxis(drawn(key, (shape[-1], *shape[:-1]), seed), 0, -1)

    return unflatten({name: one(name, x.shape) for name, x in flatten(shapes).items()}, shapes)


def nhwc(x: np.ndarray) -> np.ndarray:
    """Channels first -> channels last."""
    return np.moveaxis(x, -3, -1)


def relative_difference(ours: np.ndarray, recorded: np.ndarray) -> float:
    """Largest absolute difference over the recording's standard deviation."""
    ours = np.asarray(ours)
    assert ours.shape == recorded.shape, f"{ours.shape} is not {recorded.shape}"
    return float(np.abs(ours - recorded).max() / recorded.std())


def assert_close(name: str, ours: np.ndarray, recorded: np.ndarray, tolerance: float) -> None:
    """Allow a difference of `tolerance` standard deviations of the recording, and say which."""
    difference = relative_difference(ours, recorded)
    assert difference <= tolerance, f"{name}: {difference:.1e} of the std, allowed {tolerance:.0e}"


def block_name(recorded_name: str) -> str:
    """decoder_4.1.blocks.0 -> decoder/4/0, middle_1.blocks.0 -> middle/0."""
    stage, block = recorded_name.split(".blocks.")
    stage = stage.removesuffix("_1") if stage.startswith("middle") else stage.removesuffix(".1")
    return f"{stage.replace('_', '/')}/{block}"
