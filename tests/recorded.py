"""Numbers recorded from the released code, and checkpoints in its format drawn by rule."""

import json
import math
import zlib
from pathlib import Path

import numpy as np
import torch

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


def nhwc(x: np.ndarray) -> np.ndarray:
    """Channels first -> channels last."""
    return np.moveaxis(x, -3, -1)


def relative_difference(ours: np.ndarray, recorded: np.ndarray) -> float:
    """Largest absolute difference over the recording's standard deviation."""
    ours = np.asarray(ours)
    assert ours.shape == recorded.shape, f"{ours.shape} is not {recorded.shape}"
    return float(np.abs(ours - recorded).max() / recorded.std())
