"""The conversion engine: a total table between a PyTorch state dict and a parameter tree.

Every source key is mapped or known to be dead, every target is filled exactly once, and every
shape fits; whatever does not hold is reported together.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from flashface_jax.models.network import Params, unflatten

Shape = tuple[int, ...]

ALIGNMENT = 64  # bytes


class ConversionError(ValueError):
    """A checkpoint that cannot be converted; the message says why and what to do."""


@dataclass(frozen=True)
class Transform:
    """A reordering of one tensor, both ways; views only, so it works without allocating."""

    to_jax: Callable[[np.ndarray], np.ndarray]
    to_torch: Callable[[np.ndarray], np.ndarray]


AS_IS = Transform(lambda x: x, lambda x: x)
LINEAR = Transform(lambda x: x.T, lambda x: x.T)  # (out, in) <-> (in, out)
CONV = Transform(  # (out, in, h, w) <-> (h, w, in, out)
    lambda x: x.transpose(2, 3, 1, 0), lambda x: x.transpose(3, 2, 0, 1)
)
ROW = Transform(lambda x: x[0], lambda x: x[None])  # (1, ...) <-> (...)
VECTOR = Transform(lambda x: x[0, 0], lambda x: x[None, None])  # (1, 1, c) <-> (c)


@dataclass(frozen=True)
class Entry:
    """One tensor: its key in the state dict, its path in the parameter tree, its transform."""

    source: str
    target: str
    transform: Transform


@dataclass(frozen=True)
class Dead:
    """Source keys that hold nothing the model uses; they may be absent."""

    prefix: str
    reason: str


@dataclass(frozen=True)
class Table:
    """All tensors of one file, and what of it is dead.

    Attributes:
        entries: the tensors that the model uses.
        dead: the keys that it does not.
        fills: for each dead key that a file must have all the same, what it holds unless a file
            said otherwise: the tensor of another key, or a number.
    """

    entries: tuple[Entry, ...]
    dead: tuple[Dead, ...] = ()
    fills: Mapping[str, str | float] = field(default_factory=dict)

    def problems(self, source: Mapping[str, Shape], target: Mapping[str, Shape]) -> list[str]:
        """Say everything that keeps `source` from filling `target`; empty if nothing does."""
        mapped = {entry.source for entry in self.entries}
        found = [
            f"{key}: not a key of this model"
            for key in source
            if key not in mapped and not any(key.startswith(dead.prefix) for dead in self.dead)
        ]
        filled = Counter(entry.target for entry in self.entries)
        found += [f"{name}: filled {n} times" for name, n in filled.items() if n > 1]
        found += [f"{name}: filled by no key" for name in target if name not in filled]
        for entry in self.entries:
            if entry.source not in source:
                found.append(f"{entry.source}: missing")
            elif entry.target not in target:
                found.append(f"{entry.source}: maps to {entry.target}, which the model lacks")
            else:
                found += _shape_problem(entry, source[entry.source], target[entry.target])
        return found

    def convert(
        self, read: Callable[[str], np.ndarray], like: Params, advance: Callable[[], object]
    ) -> Params:
        """Fill the tree `like` with float32 arrays read one by one; `advance` ticks each."""
        named = {}
        for entry in self.entries:
            named[entry.target] = aligned_copy(entry.transform.to_jax(read(entry.source)))
            advance()
        return unflatten(named, like)

    def export(
        self,
        read: Callable[[str], np.ndarray],
        unused: Mapping[str, np.ndarray],
        store: Callable[[str, np.ndarray], np.ndarray],
    ) -> dict[str, np.ndarray]:
        """Inverse of `convert`: the state dict with every key, the dead ones included.

        Args:
            read: gives the parameter of a name.
            unused: dead keys whose tensors are known; the others are filled.
            store: turns a key and a view in PyTorch's order into the array to write.

        Returns:
            Arrays by key. A key that repeats another has the very same array.
        """
        state = {
            entry.source: store(entry.source, entry.transform.to_torch(read(entry.target)))
            for entry in self.entries
        }
        for key, fill in self.fills.items():
            if key in unused:
                state[key] = store(key, unused[key])
            elif isinstance(fill, str):
                state[key] = state[fill]
            else:
                state[key] = store(key, np.asarray(fill, np.float32))
        return state


def aligned_copy(x: np.ndarray) -> np.ndarray:
    """A contiguous float32 copy that starts where XLA wants, so that JAX can use it in place.

    JAX copies NumPy arrays that start elsewhere, which most do; for whole networks that is a
    second set of parameters in memory.
    """
    values = np.empty(x.size + ALIGNMENT // 4, np.float32)
    first = -values.ctypes.data % ALIGNMENT // 4
    copy = values[first : first + x.size].reshape(x.shape)
    copy[...] = x
    return copy


def _shape_problem(entry: Entry, source: Shape, target: Shape) -> list[str]:
    expected = entry.transform.to_torch(np.broadcast_to(np.float32(0), target)).shape
    if tuple(source) == expected:
        return []
    return [f"{entry.source}: shape {list(source)}, expected {list(expected)}"]


def summary(problems: Iterable[str], shown: int = 20) -> str:
    """Put problems in one message, the first `shown` in full."""
    problems = list(problems)
    lines = "".join(f"\n  {problem}" for problem in problems[:shown])
    more = f"\n  and {len(problems) - shown} more" if len(problems) > shown else ""
    return f"{len(problems)} problem{'s' * (len(problems) != 1)}{lines}{more}"


Layer = Callable[[str, str], list[Entry]]
"""(source prefix, target prefix) -> the entries of one layer."""


def linear(source: str, target: str) -> list[Entry]:
    """Dense layer with bias."""
    return [*linear_without_bias(source, target), _bias(source, target)]


def linear_without_bias(source: str, target: str) -> list[Entry]:
    """Dense layer without bias."""
    return [Entry(f"{source}.weight", f"{target}/kernel", LINEAR)]


def conv(source: str, target: str) -> list[Entry]:
    """Convolution with bias."""
    return [Entry(f"{source}.weight", f"{target}/kernel", CONV), _bias(source, target)]


def norm(source: str, target: str) -> list[Entry]:
    """Group or layer norm."""
    return [Entry(f"{source}.weight", f"{target}/scale", AS_IS), _bias(source, target)]


def _bias(source: str, target: str) -> Entry:
    return Entry(f"{source}.bias", f"{target}/bias", AS_IS)


def group(source: str, target: str, layers: Iterable[tuple[str, str, Layer]]) -> list[Entry]:
    """Entries of several layers below common prefixes."""
    return [
        entry
        for below_source, below_target, layer in layers
        for entry in layer(f"{source}.{below_source}", f"{target}/{below_target}")
    ]
