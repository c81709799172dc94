"""Computing a local function of a feature map tile by tile: the same values, less memory."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from flashface_jax.common.shapes import FeatureMap

T = TypeVar("T")
Local = Callable[[FeatureMap], FeatureMap]
"""Multiplies height and width by a whole number; a position sees no further than a halo."""


class Place(NamedTuple):
    """Where a tile lies along an axis of the map.

    Attributes:
        start: its first position.
        window: first position of its window, which is the tile with its halo.
        repeated: how many of its first positions belong to the tile before as well.
    """

    start: Int[Array, ""]
    window: Int[Array, ""]
    repeated: Int[Array, ""]


@dataclass(frozen=True)
class Axis:
    """How an axis of a map is cut into equal tiles, of which the last may overlap another.

    All windows have one length and none leaves the map: at its border a window is moved inwards.
    So a convolution within a window pads with zeros where it would in the whole map, or else at
    least a halo away from the tile.

    Attributes:
        length: of the map.
        side: wanted length of a tile; a shorter map is one tile.
        halo: positions beyond a tile that its values depend on.
    """

    length: int
    side: int
    halo: int

    @property
    def tile(self) -> int:
        """Length of a tile."""
        return min(self.side, self.length)

    @property
    def window(self) -> int:
        """Length of a window."""
        return min(self.tile + 2 * self.halo, self.length)

    @property
    def count(self) -> int:
        """Number of tiles."""
        return math.ceil(self.length / self.tile)

    def place(self, index: Int[Array, ""]) -> Place:
        """Return where tile `index` lies."""
        start = jnp.minimum(index * self.tile, self.length - self.tile)
        window = jnp.clip(start - self.halo, 0, self.length - self.window)
        return Place(start, window, index * self.tile - start)


class Tile(NamedTuple):
    """Values of a local function in one tile.

    Attributes:
        values: without the halo.
        row: its first row in the function's whole output.
        column: its first column there.
        new: the positions that no earlier tile has, so that each counts once.
    """

    values: FeatureMap
    row: Int[Array, ""]
    column: Int[Array, ""]
    new: Bool[Array, "_ _"]


@dataclass(frozen=True)
class Grid:
    """Tiles of a map, in rows."""

    rows: Axis
    columns: Axis

    @classmethod
    def of(cls, x: FeatureMap, side: int, halo: int) -> "Grid":
        """Cut a map into square tiles."""
        return cls(Axis(x.shape[1], side, halo), Axis(x.shape[2], side, halo))

    def fold(self, step: Callable[[T, Tile], T], start: T, local: Local, x: FeatureMap) -> T:
        """Carry a value through all tiles of local(x), one at a time."""

        def body(index: Int[Array, ""], carry: T) -> T:
            return step(carry, self._tile(local, x, index))

        return jax.lax.fori_loop(0, self.rows.count * self.columns.count, body, start)

    def map(self, local: Local, x: FeatureMap) -> FeatureMap:
        """Return local(x), one tile at a time."""
        window = x[:, : self.rows.window, : self.columns.window]
        one = jax.eval_shape(local, window)
        scale = one.shape[1] // window.shape[1]
        shape = (x.shape[0], scale * x.shape[1], scale * x.shape[2], one.shape[3])

        def write(whole: FeatureMap, tile: Tile) -> FeatureMap:
            return jax.lax.dynamic_update_slice(whole, tile.values, (0, tile.row, tile.column, 0))

        # All of it is overwritten. A constant would be allocated before the map that precedes it
        # in a chain of maps is done with: this waits for x.
        unwritten = jnp.broadcast_to(x[0, 0, 0, 0].astype(one.dtype), shape)
        return self.fold(write, unwritten, local, x)

    def _tile(self, local: Local, x: FeatureMap, index: Int[Array, ""]) -> Tile:
        row = self.rows.place(index // self.columns.count)
        column = self.columns.place(index % self.columns.count)
        window = jax.lax.dynamic_slice(
            x,
            (0, row.window, column.window, 0),
            (x.shape[0], self.rows.window, self.columns.window, x.shape[3]),
        )
        y = local(window)
        scale = y.shape[1] // window.shape[1]
        height, width = scale * self.rows.tile, scale * self.columns.tile
        values = jax.lax.dynamic_slice(
            y,
            (0, scale * (row.start - row.window), scale * (column.start - column.window), 0),
            (y.shape[0], height, width, y.shape[3]),
        )
        new_rows = jnp.arange(height) >= scale * row.repeated
        new_columns = jnp.arange(width) >= scale * column.repeated
        new = new_rows[:, None] & new_columns[None]
        return Tile(values, scale * row.start, scale * column.start, new)
