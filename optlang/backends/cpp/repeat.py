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
from optlang.backends.torch_functions import Bound
from optlang.host import HostScalars, MissingFact
from optlang.ir import G, Node, W

Array = Any  # numpy.ndarray


class Table:
    """One kernel with all the parameters that it steps."""

    def __init__(self, kernel: Kernel, step: Any, slots: HostScalars, cells: Sequence[Cell], calls: Sequence[Bound]) -> None:
        self.kernel, self.step, self.slots, self.cells = kernel, step, slots, list(cells)
        self.number = np.float64 if calls[0].s.dtype == torch.float64 else np.float32
        self.weights = [cell.weights for cell in cells]
        columns = [self._column(node) for node in kernel.tensors]
        self.kept = [column if node is not G else [] for node, column in zip(kernel.tensors, columns, strict=True)]
        self.kinds = [[_kind(x) for x in column] for column in columns]
        self.pointers = np.array([[x.data_ptr() for x in column] for column in columns], dtype=np.uint64).T.copy()
        self.known = [column.tolist() for column in self.pointers.T]
        self.sizes = np.array([x.numel() for x in self.weights], dtype=np.int64)
        self.starts = np.concatenate([[0], np.cumsum(-(-self.sizes // CHUNK))])
        self.room = np.empty((len(cells) + int(self.starts[-1])) * kernel.sums + 1)
        self.results = np.empty((len(cells), kernel.returned))
        self.draws = calls[0].counter is not None

    def _column(self, node: Node) -> list[Tensor]:
        if node is W:
            return [cell.weights for cell in self.cells]
        return [cell.gradient for cell in self.cells] if node is G else [cell.state[node.value] for cell in self.cells]

    def holds(self) -> bool:
        """Whether everything is where it was and as it was; pointers of new gradients are taken over."""
        try:
            columns = [self._column(node) for node in self.kernel.tensors]
        except KeyError:  # of a state
            return False
        if not all(self._is_as_it_was(place, column) for place, column in enumerate(columns)):
            return False
        for place, node in enumerate(self.kernel.tensors):
            if node is G:
                self.pointers[:, place] = [x.data_ptr() for x in columns[place]]
        return True

    def _is_as_it_was(self, place: int, column: Sequence[Tensor]) -> bool:
        """Gradients may be others of the same kind; weights and states are the same tensors, in the same memory."""
        node = self.kernel.tensors[place]
        if node.op in ("g", "w") and [_kind(x) for x in column] != self.kinds[place]:
            return False
        return node is G or (all(map(is_, column, self.kept[place])) and [x.data_ptr() for x in column] == self.known[place])

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


def fits(kernel: Kernel, calls: Sequence[Bound]) -> bool:
    """Whether calls of a kernel can be repeated from a table: all of it the parameters' own, and its memory in order."""
    plain = all(node is W or node is G or node.op == "state" for node in kernel.tensors)
    return plain and all(x.is_contiguous() for bound in calls for x in bound.tensors)
