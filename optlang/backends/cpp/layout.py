"""How kernels go over tensors: in chunks of elements, or of whole rows where rows and columns matter; and the room for what they find."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any, NamedTuple

import numpy as np

from optlang.backends.lined import matrices
from optlang.types import Frame

Array = Any  # numpy.ndarray
CHUNK = 1 << 14  # elements: what a chunk touches stays in the second-level cache
WAVE = 64  # chunks that go through all passes before the next ones do: weights and two states of them stay in the last cache
LEAST_ROWS = 512  # of a chunk that leaves values per column beside: they are few beside its elements


class Room(NamedTuple):
    """How many numbers a kernel keeps for each row, column and matrix of a tensor, and `beside` for each column of a chunk. `frame`:
    what rows are, see `frame_of`."""

    rows: int
    cols: int
    matrices: int
    beside: int
    frame: Frame


class Layout(NamedTuple):
    """`starts`: the first chunk of each tensor, and behind the last one their number. `shapes`: see `Shape` in lined.h; `lines`:
    room for values per row and column."""

    starts: Array
    shapes: Array
    lines: Array


def layout(room: Room | None, shapes: Sequence[tuple[int, ...]]) -> Layout:
    """For tensors of some shapes; `room` where rows and columns matter."""
    if room is None:
        sizes = np.array([prod(shape) for shape in shapes], dtype=np.int64)
        return Layout(_starts(-(-sizes // CHUNK)), np.zeros(1, dtype=np.int64), np.zeros(1))
    found, used = [], 0
    for shape in shapes:
        batch, rows, cols = matrices(room.frame, shape)
        per, many = _chunk(rows, cols, LEAST_ROWS if room.beside else 1)
        parts = -(-rows // per) if per < rows else 1
        chunks = -(-batch * parts // many)
        beside = used + batch * (rows * room.rows + cols * room.cols + room.matrices)
        found.append((batch, rows, cols, per, many, chunks, used, beside))
        used = beside + (chunks * cols * room.beside if parts > 1 else 0)
    numbers = np.array(found, dtype=np.int64)
    return Layout(_starts(numbers[:, 5]), numbers, np.empty(used + 1))


def _chunk(rows: int, cols: int, least: int) -> tuple[int, int]:
    """The rows of a chunk, and how many matrices it holds: of small ones several."""
    if rows * cols <= CHUNK:
        return rows, max(1, CHUNK // max(1, rows * cols))
    return min(rows, max(least, CHUNK // cols)), 1


def _starts(chunks: Array) -> Array:
    return np.concatenate([[0], np.cumsum(chunks)])
