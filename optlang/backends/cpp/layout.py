"""How kernels go over tensors: in chunks of elements, or of whole rows where rows and columns matter; and the room for what they find."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any, NamedTuple

import numpy as np

from optlang.backends.kernels.lines import matrices
from optlang.types import Frame

Array = Any  # numpy.ndarray
CHUNK = 1 << 14  # elements: what a chunk touches stays in the second-level cache
WAVE = 64  # chunks that go through all passes before the next ones do: weights and two states of them stay in the last cache
DOUBLE = 8  # bytes
LEAST_ROWS = 512  # of a chunk that leaves values per column beside: they are few beside its elements


class Room(NamedTuple):
    """How many numbers a kernel keeps for each row, column and matrix of a tensor, and `beside` for each column of a chunk. `frame`:
    what rows are, see `frame_of`. `size`: bytes of what it computes with, as which values per row are kept, which nothing is added to."""

    rows: int
    cols: int
    matrices: int
    beside: int
    frame: Frame
    size: int = DOUBLE


class Layout(NamedTuple):
    """`starts`: the first chunk of each tensor, and behind the last one their number. `shapes`: see `Shape` in lined.h; `lines`:
    room for the values per row and column of a wave, which the next one uses again."""

    starts: Array
    shapes: Array
    lines: Array


def layout(room: Room | None, shapes: Sequence[tuple[int, ...]]) -> Layout:
    """For tensors of some shapes; `room` where rows and columns matter."""
    if room is None:
        sizes = np.array([prod(shape) for shape in shapes], dtype=np.int64)
        return Layout(_starts(-(-sizes // CHUNK)), np.zeros(1, dtype=np.int64), np.zeros(1))
    placed = [_placed(room, *matrices(room.frame, shape)) for shape in shapes]
    starts = _starts(np.array([one.chunks for one in placed], dtype=np.int64))
    found, used, most, last = [], 0, 0, 0
    for n, one in enumerate(placed):
        if n == last:
            used, last = 0, _wave_end(n, starts)
        found.append((*one.numbers, used, used + one.values, last))
        used += one.values + one.beside
        most = max(most, used)
    return Layout(starts, np.array(found, dtype=np.int64), np.empty(most + 1))


class _Placed(NamedTuple):
    """A tensor in chunks: matrices, rows, columns, rows of a chunk and its matrices, chunks; and the room for its values."""

    numbers: tuple[int, int, int, int, int, int]
    values: int
    beside: int

    @property
    def chunks(self) -> int:
        return self.numbers[-1]


def _placed(room: Room, batch: int, rows: int, cols: int) -> _Placed:
    per, many = _chunk(rows, cols, LEAST_ROWS if room.beside else 1)
    parts = -(-rows // per) if per < rows else 1
    chunks = -(-batch * parts // many)
    values = -(-batch * rows * room.rows * room.size // DOUBLE) + batch * (cols * room.cols + room.matrices)
    return _Placed((batch, rows, cols, per, many, chunks), values, chunks * cols * room.beside if parts > 1 else 0)


def _wave_end(first: int, starts: Array) -> int:
    """Behind the tensors that go through all passes together with the first of them."""
    return max(first + 1, int(np.searchsorted(starts, starts[first] + WAVE, side="right")) - 1)


def _chunk(rows: int, cols: int, least: int) -> tuple[int, int]:
    """The rows of a chunk, and how many matrices it holds: of small ones several."""
    if rows * cols <= CHUNK:
        return rows, max(1, CHUNK // max(1, rows * cols))
    return min(rows, max(least, CHUNK // cols)), 1


def _starts(chunks: Array) -> Array:
    return np.concatenate([[0], np.cumsum(chunks)])
