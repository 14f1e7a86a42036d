"""What the programs of Triton kernels are for: chunks of elements, tiles of rows and columns, lines, matrices, or whole tensors.

Of a large model, what passes hand to each other of lines may be much. So its tensors then go in *waves*: some of them through all
passes, and the next ones after them, in the same memory.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from math import prod
from typing import Any

import numpy as np

from optlang.backends.kernels.lines import LINES, matrices
from optlang.types import Frame

Array = Any  # numpy.ndarray
BLOCK = 1 << 10  # elements: what four warps hold at once, eight for each thread
CHUNK = 1 << 13
SEVERAL = 1 << 9  # of a tile of several matrices: where elements are takes more registers then
WIDE = 1 << 8  # the columns of a tile; wider ones would have few rows for sums per column
LINES_EACH = 1 << 8  # rows, columns or matrices of one program
MOST_ROWS = 5 << 8  # of a chunk that leaves values per column beside: these are few beside its elements
BROAD = 1 << 5  # tiles that one program goes over at most, where nothing is summed per column
MANY = 3 << 7  # chunks, where that is more important
SHARE = 0.0099  # of the bytes of the parameters: what waves may take; tables of pointers take the rest of a hundredth
WAVES, FULL = 8, 1 << 23  # at the most, and of so many elements on average: launches have to be worth what they cost
CHUNKS, EACH, ALONG, MATRICES = "chunks", "tensors", "lines", "matrices"


@dataclass(frozen=True)
class Room:
    """How many values there are for each row, column and matrix, and in each pass how many of them are of elements: each chunk
    leaves its part of these `beside`, in memory that passes share. `frame`: see `frame_of`. `number`, `weight` and `chunk`: bytes
    of such a value, of an element of the parameters, and of what is added up for each chunk."""

    values: Mapping[str, int]
    beside: Sequence[Mapping[str, int]]
    frame: Frame
    number: int
    weight: int
    chunk: int


@dataclass(frozen=True, eq=False)
class Grid:
    """A row of `table` for each program; `constants`: what the kernel is compiled for."""

    table: Array
    constants: Mapping[str, int]


@dataclass(frozen=True, eq=False)
class Layout:
    """`starts`: the first chunk of each tensor, and behind the last one their number. `shapes`: see `lines`; `room`: for values
    per row, column and matrix. `waves`: what kernels are launched over, all of them for one wave after the other."""

    starts: Array
    sizes: Array
    shapes: Array
    room: int
    waves: Sequence[Mapping[str, Sequence[Grid]]]


def layout(room: Room | None, shapes: Sequence[tuple[int, ...]]) -> Layout:
    """For tensors of some shapes; `room` where rows and columns matter."""
    sizes = np.array([prod(shape) for shape in shapes], dtype=np.int64)
    if room is None:
        grids = {CHUNKS: [Grid(_chunks(sizes), {})], EACH: [_each(range(len(shapes)))]}
        return Layout(_starts(-(-sizes // CHUNK)), sizes, np.zeros(0, dtype=np.int64), 0, [grids])
    tiled, waves = _fitting(room, shapes, int(sizes.sum()))
    starts = _starts(np.array([prod(one.chunks) for one in tiled], dtype=np.int64))
    ends = [list(accumulate((tiled[n].room(room) for n in some), initial=0)) for some in waves]
    begins = [begin for some in ends for begin in some[:-1]]
    numbers = np.array([(*one.numbers, begin) for one, begin in zip(tiled, begins, strict=True)], dtype=np.int64)
    most = max(some[-1] for some in ends)
    return Layout(starts, sizes, numbers, most, [_grids({n: tiled[n] for n in some}, starts) for some in waves])


def tile(rows: int, cols: int) -> tuple[int, int, int]:
    """Powers of two: how many matrices at once, of small ones several, and how many of their rows and columns."""
    high, wide = (1 << max(size - 1, 0).bit_length() for size in (rows, cols))
    if high * wide <= SEVERAL:
        return SEVERAL // (high * wide), high, wide
    high = min(high, BLOCK // min(wide, WIDE))
    return 1, high, BLOCK // high


@dataclass(frozen=True)
class _Tiled:
    """A tensor in tiles. `numbers`: how many matrices, rows, columns, chunks from top to bottom, from left to right, and how many
    tiles of one chunk lie below each other; `broad`: how many beside."""

    numbers: tuple[int, int, int, int, int, int]
    tile: tuple[int, int, int]
    broad: int

    @classmethod
    def of(cls, batch: int, rows: int, cols: int, least: int, most: int, tiles: int) -> _Tiled:
        """Of a chunk, if that is possible: the least rows, the most tiles beside each other, and all tiles."""
        found = _, high, wide = tile(rows, cols)
        across = max(1, -(-cols // (wide * most)))
        broad = max(1, -(-cols // (wide * across)))
        deep = max(1, tiles // broad, least // high)
        return cls((batch, rows, cols, max(1, -(-rows // (high * deep))), across, deep), found, broad)

    @property
    def chunks(self) -> tuple[int, int, int]:
        batch, rows, cols, down, across, _ = self.numbers
        return -(-batch // self.tile[0]) if rows * cols else 0, down, across

    @property
    def counts(self) -> dict[str, int]:
        """Rows, columns and matrices."""
        batch, rows, cols, *_ = self.numbers
        return dict(zip(LINES, (batch * rows, batch * cols, batch), strict=True))

    def room(self, room: Room) -> int:
        down, across = self.numbers[3:5]
        more = dict(zip(LINES, (across - 1, down - 1, down * across - 1), strict=True))  # the first part lies where the whole will
        beside = [sum(count * some[name] * more[name] for name, count in self.counts.items()) for some in room.beside]
        return sum(count * room.values[name] for name, count in self.counts.items()) + max(beside, default=0)

    def table(self, n: int, start: int) -> Array:
        """[chunks, 6]: the number of each, its tensor, the first matrix, row and column of it, and whether its tiles are whole."""
        (batch, rows, cols, _, _, deep), (many, high, wide) = self.numbers, self.tile
        first, top, left = (axis.reshape(-1) for axis in np.indices(self.chunks, dtype=np.int64))
        first, top, left = first * many, top * (high * deep), left * (wide * self.broad)
        full = left + wide <= cols if self.broad == 1 else cols % wide == 0
        whole = (first + many <= batch) & (rows % high == 0) & full & (cols % 16 == 0)
        number = start + np.arange(len(first))
        return np.stack([number, np.full_like(number, n), first, top, left, whole], 1)


def _extent(room: Room, size: int) -> tuple[int, int, int]:
    """Of a chunk the least rows, the most tiles beside each other, and all tiles, for waves of some size. Of large ones chunks are
    large, so that values beside are few; of small ones small, so that chunks are many. Rows end where they begin if nothing is summed
    per column."""
    tiles = CHUNK // BLOCK
    if any(some["col"] for some in room.beside):
        return min(MOST_ROWS, size // (MANY * WIDE)), 1, tiles
    return 1, BROAD, min(BROAD, max(tiles, size // (MANY * BLOCK)))


def _fitting(room: Room, shapes: Sequence[tuple[int, ...]], size: int) -> tuple[list[_Tiled], list[range]]:
    """Tensors in tiles, and in as few waves as leave enough free; `size`: how many elements they have together."""
    for count in range(1, max(1, min(WAVES, size // FULL)) + 1):
        least, broad, tiles = _extent(room, size // count)
        tiled = [_Tiled.of(*matrices(room.frame, shape), least, broad, tiles) for shape in shapes]
        needed = [one.room(room) for one in tiled]
        waves = _waves(needed, count)
        most, chunks = max(sum(needed[some.start : some.stop]) for some in waves), sum(prod(one.chunks) for one in tiled)
        if room.number * most + room.chunk * chunks <= SHARE * room.weight * size or most == max(needed):
            break
    return tiled, waves


def _waves(needed: Sequence[int], count: int) -> list[range]:
    """Tensors that follow each other and need about as much as the next ones do; fewer than `count` where one needs most of it."""
    middles = np.cumsum(needed) - np.array(needed) / 2
    ends = np.searchsorted(middles, sum(needed) * np.arange(1, count) / count, side="right")
    ends = np.unique([0, *ends, len(needed)])
    return [range(first, last) for first, last in pairwise(ends.tolist())]


def _grids(tiled: Mapping[int, _Tiled], starts: Array) -> dict[str, list[Grid]]:
    """Of the tensors of one wave, by their numbers."""
    along = [(n, first) for n, one in tiled.items() for first in range(0, max(one.counts.values()), LINES_EACH)]
    lines = Grid(np.array(along, dtype=np.int64), {})
    return {CHUNKS: _tiles(tiled, starts), EACH: [_each(tiled)], ALONG: [lines], MATRICES: _matrices(tiled)}


def _each(tensors: Collection[int]) -> Grid:
    return Grid(np.array(list(tensors), dtype=np.int64)[:, None], {})


def _tiles(tiled: Mapping[int, _Tiled], starts: Array) -> list[Grid]:
    """The chunks of tensors whose tiles are alike, together."""
    found: dict[tuple[int, int, int], list[Array]] = {}
    for n, one in tiled.items():
        found.setdefault(one.tile, []).append(one.table(n, int(starts[n])))
    return [Grid(np.concatenate(tables), dict(zip(("many", "high", "wide"), tile, strict=True))) for tile, tables in found.items()]


def _matrices(tiled: Mapping[int, _Tiled]) -> list[Grid]:
    found: dict[int, list[tuple[int, int]]] = {}
    for n, one in tiled.items():
        many = one.tile[0]
        found.setdefault(many, []).extend((n, first) for first in range(0, one.numbers[0], many))
    return [Grid(np.array(table, dtype=np.int64), {"many": many}) for many, table in found.items()]


def _chunks(sizes: Array) -> Array:
    """[chunks, 3]: the tensor of each, its first element, and whether it is whole."""
    owner = np.repeat(np.arange(len(sizes)), -(-sizes // CHUNK))
    first = np.concatenate([np.arange(0, size, CHUNK) for size in sizes])
    return np.stack([owner, first, first + CHUNK <= sizes[owner] if len(owner) else owner], 1).astype(np.int64)


def _starts(counts: Array) -> Array:
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
