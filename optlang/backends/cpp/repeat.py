"""The same parameters stepped again: pointers that have not moved are not gathered anew, which counts for many small tensors.

A table holds what a kernel was called with. Before it is used again, everything in it that could have changed is looked at:
the memory of weights, gradients and states, their number types and their order. What differs is gathered anew, from the start.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from operator import is_
from typing import Any

import numpy as np
import torch
from torch import Tensor

from optlang.backends.base import Cell
from optlang.backends.cpp.source import CHUNK, Kernel
from optlang.backends.formats import Packed
from optlang.backends.torch_functions import Bound
from optlang.host import HostScalars, MissingFact
from optlang.ir import G, W

Array = Any  # numpy.ndarray
WEIGHTS, GRADIENT = "@weights", "@gradient"  # no state is called so


class Table:
    """One kernel with all the parameters that it steps. `keys`: where a cell has the tensor of each column, see `column`."""

    def __init__(self, kernel: Kernel, step: Any, keys: Sequence[str], slots: HostScalars, cells: Sequence[Cell], like: Bound) -> None:
        self.kernel, self.step, self.keys, self.slots, self.cells = kernel, step, keys, slots, list(cells)
        self.number = np.float64 if like.s.dtype == torch.float64 else np.float32
        self.draws = like.counter is not None
        columns = [column(self.cells, key) for key in keys]
        self.kept = [[] if key == GRADIENT else tensors for key, tensors in zip(keys, columns, strict=True)]
        self.kinds = [[_kind(x) for x in tensors] for tensors in columns]
        self.pointers = np.array([[x.data_ptr() for x in tensors] for tensors in columns], dtype=np.uint64).T.copy()
        self.known = [column.tolist() for column in self.pointers.T]
        self.weights = [cell.weights for cell in cells]
        self.sizes = np.array([x.numel() for x in self.weights], dtype=np.int64)
        self.starts = np.concatenate([[0], np.cumsum(-(-self.sizes // CHUNK))])
        self.room = np.empty((len(cells) + int(self.starts[-1])) * kernel.sums + 1)
        self.results = np.empty((len(cells), kernel.returned))

    def holds(self) -> bool:
        """Whether everything is where it was and as it was; pointers of new gradients are taken over."""
        try:
            columns = [column(self.cells, key) for key in self.keys]
        except KeyError:  # of a state
            return False
        if not all(self._is_as_it_was(place, tensors) for place, tensors in enumerate(columns)):
            return False
        for place, key in enumerate(self.keys):
            if key == GRADIENT:
                self.pointers[:, place] = [x.data_ptr() for x in columns[place]]
        return True

    def _is_as_it_was(self, place: int, tensors: Sequence[Tensor]) -> bool:
        """Gradients may be others of the same kind; weights and states are the same tensors, in the same memory."""
        key = self.keys[place]
        if key in (GRADIENT, WEIGHTS) and [_kind(x) for x in tensors] != self.kinds[place]:
            return False
        return key == GRADIENT or (all(map(is_, tensors, self.kept[place])) and [x.data_ptr() for x in tensors] == self.known[place])

    def ready(self, seed: int) -> Callable[[], None]:
        """A step that only has to be taken. Raises MissingFact."""
        rows, places = self._rows()
        pointers = (rows.ctypes.data + rows.strides[0] * places).astype(np.uint64)
        counters = np.zeros(3 * len(self.cells), dtype=np.uint32)
        if self.draws:
            drawn = np.array([[cell.t, seed, cell.index] for cell in self.cells], dtype=np.int64) & 0xFFFFFFFF
            counters = drawn.astype(np.uint32).reshape(-1)

        def take() -> None:
            given = (self.sizes, self.starts, self.pointers, pointers, counters, self.room, self.results)
            self.step(ctypes.c_int64(len(self.cells)), *(ctypes.c_void_p(x.ctypes.data) for x in given))
            torch.autograd.graph.increment_version(self.weights)
            rows.size  # noqa: B018 - the numbers live until the step is over

        return take

    def _rows(self) -> tuple[Array, Array]:
        """The different rows of numbers, and which of them each parameter has."""
        found: dict[Any, int] = {}
        rows: list[Sequence[Any]] = []
        places = []
        by_facts = bool(self.slots.facts)
        for cell in self.cells:
            key = (id(cell.hypers), cell.t, id(cell.facts) if by_facts else 0)
            place = found.get(key)
            if place is None:
                place = found[key] = len(rows)
                rows.append(self.slots(cell.hypers, cell.t, cell.facts))
            places.append(place)
        return np.array(rows, dtype=self.number).reshape(len(rows), -1), np.array(places, dtype=np.int64)


def column(cells: Sequence[Cell], key: str) -> list[Tensor]:
    """The weights or gradients of cells, or a state of theirs."""
    if key == WEIGHTS:
        return [cell.weights for cell in cells]
    return [cell.gradient for cell in cells] if key == GRADIENT else [cell.state[key] for cell in cells]


def _kind(x: Tensor) -> tuple[torch.dtype, bool, int]:
    return x.dtype, x.is_contiguous(), x.numel()


class Tables:
    """All of one step, with the cells in their order."""

    def __init__(self, cells: Sequence[Cell], tables: Sequence[Table]) -> None:
        self.cells, self.tables = list(cells), list(tables)

    def again(self, cells: Sequence[Cell], seed: int) -> Callable[[], None] | None:
        """The step of the same cells, if nothing but gradients, hypers and t has changed."""
        if not same(cells, self.cells) or not all(table.holds() for table in self.tables):
            return None
        try:
            steps = [table.ready(seed) for table in self.tables]
        except MissingFact:
            return None

        def take() -> None:
            for step in steps:
                step()

        return take


def same(cells: Sequence[Cell], others: Sequence[Cell]) -> bool:
    """Whether these are the very same cells in the same order."""
    return len(cells) == len(others) and all(map(is_, cells, others))


def fits(kernel: Kernel, places: Sequence[tuple[int, int]], calls: Sequence[Bound]) -> bool:
    """Whether calls of a kernel can be repeated from a table: all of it the parameters' own, and its memory in order."""
    own = all(node is W or node is G or node.op == "state" for node, _ in kernel.columns)
    return own and all(_is_in_order(bound.tensors[place]) for bound in calls for place, _ in places)


def _is_in_order(tensor: Tensor | Packed) -> bool:
    return all(part.is_contiguous() for part in tensor.parts) if isinstance(tensor, Packed) else tensor.is_contiguous()
