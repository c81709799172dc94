"""The conversion engine: a total table between a PyTorch state dict and a parameter tree.

Every source key is mapped or known to be dead, every target is filled exactly once, and every
shape fits; whatever does not hold is reported together.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from flashface_jax.common.errors import ProblemsError
from flashface_jax.models.network import Params, flatten, unflatten

Shape = tuple[int, ...]

ALIGNMENT = 64  # bytes


class ConversionError(ProblemsError):
    """A checkpoint that cannot be converted; the message says why and what to do."""


@dataclass(frozen=True)
class Transform:
    """A reordering of one tensor, both ways; back to PyTorch a view, which allocates nothing."""

    to_jax: Callable[[np.ndarray], np.ndarray]
    to_torch: Callable[[np.ndarray], np.ndarray]


AS_IS = Transform(lambda x: x, lambda x: x)
LINEAR = Transform(lambda x: x.T, lambda x: x.T)  # (out, in) <-> (in, out)
CONV = Transform(  # (out, in, h, w) <-> (h, w, in, out)
    lambda x: x.transpose(2, 3, 1, 0), lambda x: x.transpose(3, 2, 0, 1)
)
ROW = Transform(lambda x: x[0], lambda x: x[None])  # (1, ...) <-> (...)
VECTOR = Transform(lambda x: x[0, 0], lambda x: x[None, None])  # (1, 1, c) <-> (c)
POINT = Transform(lambda x: x.T[None, None], lambda x: x[0, 0].T)  # (out, in) <-> (1, 1, in, out)


@dataclass(frozen=True)
class Share:
    """The `index`-th of `count` equal parts of a parameter's last axis, its output channels."""

    index: int
    count: int

    def of(self, x: np.ndarray) -> np.ndarray:
        """View that part of a parameter."""
        return np.split(x, self.count, axis=-1)[self.index]


WHOLE = Share(0, 1)


@dataclass(frozen=True)
class Entry:
    """One tensor: its key in the state dict, its path in the parameter tree, its transform.

    Attributes:
        source: the key.
        target: the path. Several keys can share a parameter; one key can fill several.
        transform: how the tensor becomes its share of the parameter.
        share: the part of the parameter that the tensor is.
    """

    source: str
    target: str
    transform: Transform
    share: Share = WHOLE

    def fill(self, parameter: np.ndarray, tensor: np.ndarray) -> None:
        """Write a source tensor to where it belongs in the parameter."""
        self.share.of(parameter)[...] = self.transform.to_jax(tensor)

    def to_torch(self, parameter: np.ndarray) -> np.ndarray:
        """View the source tensor in the parameter."""
        return self.transform.to_torch(self.share.of(parameter))


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
        found += self._filling_problems(target)
        for entry in self.entries:
            if entry.source not in source:
                found.append(f"{entry.source}: missing")
            elif entry.target not in target:
                found.append(f"{entry.source}: maps to {entry.target}, which the model lacks")
            else:
                found += _shape_problem(entry, source[entry.source], target[entry.target])
        return list(dict.fromkeys(found))  # a key that fills several parameters errs once

    def left_out(self, source: Iterable[str]) -> list[Dead]:
        """What of `source` is dead."""
        keys = list(source)
        return [dead for dead in self.dead if any(key.startswith(dead.prefix) for key in keys)]

    def _filling_problems(self, target: Iterable[str]) -> list[str]:
        """Say which parameters are not filled exactly once."""
        filled = Counter((entry.target, entry.share) for entry in self.entries)
        shares: dict[str, set[Share]] = {name: set() for name in target}
        for name, share in filled:
            shares.setdefault(name, set()).add(share)
        found = [f"{name}: filled {n} times" for (name, _), n in filled.items() if n > 1]
        for name, some in shares.items():
            counts = {share.count for share in some}
            if not some:
                found.append(f"{name}: filled by no key")
            elif len(counts) > 1:
                found.append(f"{name}: filled {len(counts)} times")
            elif len(some) < max(counts):
                found.append(f"{name}: only {len(some)} of its {max(counts)} parts are filled")
        return found

    def convert(
        self, read: Callable[[str], np.ndarray], like: Params, advance: Callable[[], object]
    ) -> Params:
        """Fill the tree `like` with float32 arrays read one by one; `advance` ticks each."""
        named = {name: aligned(leaf.shape) for name, leaf in flatten(like).items()}
        for entry in self.entries:
            entry.fill(named[entry.target], read(entry.source))
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
            read: gives the parameter of a name; called once for each.
            unused: dead keys whose tensors are known; the others are filled.
            store: turns a key and a view in PyTorch's order into the array to write.

        Returns:
            Arrays by key. A key that repeats another has the very same array.

        Raises:
            ValueError: if a key fills several parameters, which may differ by now.
        """
        sources = Counter(entry.source for entry in self.entries)
        several = [key for key, count in sources.items() if count > 1]
        if several:
            raise ValueError(f"{several[0]} fills several parameters: there is no way back.")
        targets: dict[str, list[Entry]] = {}
        for entry in self.entries:
            targets.setdefault(entry.target, []).append(entry)
        state: dict[str, np.ndarray] = {}
        for target, entries in targets.items():
            parameter = read(target)
            state |= {e.source: store(e.source, e.to_torch(parameter)) for e in entries}
        for key, fill in self.fills.items():
            if key in unused:
                state[key] = store(key, unused[key])
            elif isinstance(fill, str):
                state[key] = state[fill]
            else:
                state[key] = store(key, np.asarray(fill, np.float32))
        return state


def aligned(shape: Shape) -> np.ndarray:
    """An array for float32 numbers that starts where XLA wants, so that JAX can use it in place.

    JAX copies NumPy arrays that start elsewhere, which most do; for whole networks that is a
    second set of parameters in memory.
    """
    size = math.prod(shape)
    values = np.empty(size + ALIGNMENT // 4, np.float32)
    first = -values.ctypes.data % ALIGNMENT // 4
    return values[first : first + size].reshape(shape)


def _shape_problem(entry: Entry, source: Shape, target: Shape) -> list[str]:
    expected = entry.to_torch(np.broadcast_to(np.float32(0), target)).shape
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


def point(source: str, target: str) -> list[Entry]:
    """1x1 convolution with bias that is a dense layer in the state dict."""
    return [Entry(f"{source}.weight", f"{target}/kernel", POINT), _bias(source, target)]


def joined(source: str, target: str, names: tuple[str, ...], layer: "Layer") -> list[Entry]:
    """Layers of equal width, named below `source`, that are one layer here."""
    return [
        replace(entry, share=Share(i, len(names)))
        for i, name in enumerate(names)
        for entry in layer(f"{source}.{name}", target)
    ]


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
