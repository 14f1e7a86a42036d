"""The same parameters stepped again: pointers that have not moved are not gathered anew, which counts for many small tensors.

A table holds what a kernel was called with. Before it is used again, everything in it that could have changed is looked at:
the memory of weights, gradients and states, their number types and their order. What differs is gathered anew, from the start.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from itertools import repeat
from operator import attrgetter, is_, itemgetter
from typing import Any

import numpy as np
import torch
from torch import Tensor

from optlang.backends.base import Cell
from optlang.backends.formats import Packed
from optlang.backends.torch.functions import Bound
from optlang.host import HostScalars, MissingFact
from optlang.ir import G, Node, W

Array = Any  # numpy.ndarray
WEIGHTS, GRADIENT = "@weights", "@gradient"  # no state is called so
DTYPE, HYPERS, T = attrgetter("dtype"), attrgetter("hypers"), attrgetter("t")


class Table:
    """One kernel with all the parameters that it steps. `keys`: where a cell has the tensor of each column, see `column`."""

    def __init__(self, keys: Sequence[str], slots: HostScalars, calls: Sequence[tuple[Cell, Bound]]) -> None:
        like = calls[0][1]
        self.keys, self.slots, self.cells = keys, slots, [cell for cell, _ in calls]
        self.states = [cell.state for cell in self.cells]
        self.number = np.float64 if like.s.dtype == torch.float64 else np.float32
        self.draws = like.counter is not None
        columns = [self._column(key) for key in keys]
        self.kept = [[] if key == GRADIENT else tensors for key, tensors in zip(keys, columns, strict=True)]
        self.kinds = [_kinds(tensors) for tensors in columns]
        self.known = [list(map(Tensor.data_ptr, tensors)) for tensors in columns]
        self.pointers = np.array(self.known, dtype=np.uint64).T.copy()
        self.weights = [cell.weights for cell in self.cells]
        self.sizes = np.array([x.numel() for x in self.weights], dtype=np.int64)

    @abstractmethod
    def ready(self, seed: int) -> Callable[[], None]:
        """A step that only has to be taken. Raises MissingFact."""

    def _column(self, key: str) -> list[Tensor]:
        """The weights or gradients of cells, or a state of theirs."""
        if key == WEIGHTS:
            return [cell.weights for cell in self.cells]
        return [cell.gradient for cell in self.cells] if key == GRADIENT else list(map(itemgetter(key), self.states))

    def holds(self) -> bool:
        """Whether everything is where it was and as it was; pointers of new gradients are taken over."""
        try:
            columns = [self._column(key) for key in self.keys]
        except KeyError:  # of a state
            return False
        return all(self._is_as_it_was(place, tensors) for place, tensors in enumerate(columns))

    def _is_as_it_was(self, place: int, tensors: list[Tensor]) -> bool:
        """Gradients may be others of the same kind; weights and states are the same tensors, in the same memory."""
        key = self.keys[place]
        if key in (GRADIENT, WEIGHTS) and _kinds(tensors) != self.kinds[place]:
            return False
        pointers = list(map(Tensor.data_ptr, tensors))
        if key == GRADIENT and pointers != self.known[place]:
            self.known[place], self.pointers[:, place] = pointers, pointers
        return key == GRADIENT or (all(map(is_, tensors, self.kept[place])) and pointers == self.known[place])

    def _counters(self, seed: int) -> Array:
        """[cells, 3]: (t, seed, stream) of each parameter."""
        return np.array([[cell.t, seed, cell.index] for cell in self.cells], dtype=np.int64) & 0xFFFFFFFF

    def _agree(self) -> bool:
        """Whether all cells have the same hypers and the same count."""
        first = self.cells[0]
        return all(map(is_, map(HYPERS, self.cells), repeat(first.hypers))) and list(map(T, self.cells)).count(first.t) == len(self.cells)

    def _rows(self) -> tuple[Array, Array]:
        """The different rows of numbers, and which of them each parameter has."""
        if not self.slots.facts and self._agree():
            first = self.cells[0]
            return np.array([self.slots(first.hypers, first.t, first.facts)], dtype=self.number), np.zeros(len(self.cells), dtype=np.int64)
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


def _kinds(tensors: list[Tensor]) -> tuple[list[Any], ...]:
    """Number types, whether memory is in order, and sizes: by loops that Python runs fast."""
    return list(map(DTYPE, tensors)), list(map(Tensor.is_contiguous, tensors)), list(map(Tensor.numel, tensors))


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


def key_of(bound: Bound, place: int, part: int) -> str:
    """Where a cell has a column's tensor: see `Table`."""
    node, tensor = bound.code.tensors[place], bound.tensors[place]
    if node.op == "state" or part:
        name = str(node.value) if node.op == "state" else "w"
        return f"{name}.{tensor.form.beside}" if part and isinstance(tensor, Packed) else name
    return WEIGHTS if node is W else GRADIENT


def fits(columns: Sequence[tuple[Node, int]], places: Sequence[tuple[int, int]], calls: Sequence[Bound]) -> bool:
    """Whether calls of a kernel can be repeated from a table: all of it the parameters' own, and its memory in order."""
    own = all(node is W or node is G or node.op == "state" for node, _ in columns)
    return own and all(_is_in_order(bound.tensors[place]) for bound in calls for place, _ in places)


def _is_in_order(tensor: Tensor | Packed) -> bool:
    return all(part.is_contiguous() for part in tensor.parts) if isinstance(tensor, Packed) else tensor.is_contiguous()
