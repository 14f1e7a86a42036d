"""The same parameters stepped again: pointers that have not moved are not gathered anew, which counts for many small tensors.

A table holds what a kernel was called with. Before it is used again, everything in it that could have changed is looked at:
the memory of weights, gradients and states, their number types and their order. What differs is gathered anew, from the start.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from optlang.backends.base import Cell, Loss, Repeat, Write
from optlang.backends.formats import Packed
from optlang.backends.watch import Versions, Watch
from optlang.backends.writing import is_of_memory
from optlang.host import MissingFact
from optlang.ir import G, Node, W

if TYPE_CHECKING:
    from optlang.backends.torch.functions import Bound, Slots

Array = Any  # numpy.ndarray
Counts = Any  # numpy.ndarray or int: [cells]: the number of each one's update, or one for all of them
Hypers = Sequence[Mapping[str, Any]]  # of each group
Known = Mapping[Node, float]  # values per model
NOTHING: Known = {}
AHEAD = 64  # steps whose numbers are computed at once where hypers do not change
WEIGHTS, GRADIENT = "@weights", "@gradient"  # no state is called so


class Table:
    """One kernel with all the parameters that it steps. `keys`: where a cell has the tensor of each column, see `key_of`.

    `kinds`: groups, with facts where the kernel's numbers depend on these; `kind`: of each cell. Raises Unseen.
    """

    def __init__(self, keys: Sequence[str], slots: Slots, calls: Sequence[tuple[Cell, Bound]]) -> None:
        like, cells = calls[0][1], [cell for cell, _ in calls]
        self.shared, own = slots.shared, len(slots.host.nodes)
        order = slots.order if slots.shared else tuple(range(own))
        self._own, self._others = ([order.index(place) for place in some] for some in (range(own), range(own, len(order))))
        self.slots, self.count = slots.host, len(cells)
        self.number = np.float64 if like.s.dtype == torch.float64 else np.float32
        self.shapes = [tuple(cell.weights.shape) for cell in cells]
        self.sizes = np.array([cell.weights.numel() for cell in cells], dtype=np.int64)
        self.streams = np.array([cell.index for cell in cells], dtype=np.int64)
        self.draws = like.counter is not None
        found = [(cell.group, tuple(cell.facts.items()) if slots.host.facts else ()) for cell in cells]
        self.kinds = list(dict.fromkeys(found))
        places = {kind: place for place, kind in enumerate(self.kinds)}
        self.kind = np.array([places[kind] for kind in found], dtype=np.int64)
        tensors = [cell.weights if key in (WEIGHTS, GRADIENT) else cell.state[key] for cell in cells for key in keys]
        self.watch = Watch(tensors, [key == GRADIENT for key in keys] * len(cells))
        self.pointers = self.watch.pointers.reshape(len(cells), len(keys))
        self.looks = GRADIENT in keys
        self.versions = Versions([cell.weights for cell in cells])
        self._hypers: Hypers = ()  # those of the last step
        self._first, self._ahead = 0, np.empty(0)  # numbers of this step and later ones

    @abstractmethod
    def call(self, hypers: Hypers, counts: Counts, seed: int, known: Known) -> Callable[[], Array]:
        """A call of the kernel that only has to be made; [cells, returned] numbers. `known`: the values of `shared`. Raises MissingFact."""

    def ready(self, hypers: Hypers, counts: Counts, seed: int, known: Known) -> Callable[[], None]:
        """The same where it writes."""
        call = self.call(hypers, counts, seed, known)

        def take() -> None:
            call()
            self.versions.grow()

        return take

    def counters(self, counts: Counts, seed: int) -> Array:
        """[cells, 3]: (t, seed, stream) of each parameter."""
        return np.stack([np.broadcast_to(x, self.count) for x in (counts, seed & 0xFFFFFFFF, self.streams)], 1) & 0xFFFFFFFF

    def rows(self, hypers: Hypers, counts: Counts, known: Known) -> tuple[Array, Array]:
        """The different rows of numbers, to be read only until they are asked for again, and which of them each parameter has."""
        if isinstance(counts, int):
            rows, places = self._rows_at(hypers, counts), self.kind
        else:
            pairs, found = np.unique(np.stack([self.kind, counts]), axis=1, return_inverse=True)
            rows, places = self._numbers(hypers, [(self.kinds[kind], t) for kind, t in pairs.T.tolist()]), found.reshape(-1)
        for node, place in zip(self.shared, self._others, strict=True):
            rows[:, place] = known[node]
        return rows, places

    def _rows_at(self, hypers: Hypers, t: int) -> Array:
        """The row of each kind."""
        if hypers is not self._hypers and not self._is_patched(hypers):
            self._hypers, self._ahead = hypers, self._numbers(hypers, [(kind, t) for kind in self.kinds])[None]
            self._first = t
        elif not 0 <= t - self._first < len(self._ahead):
            self._first, self._ahead = t, self._numbers_ahead(hypers, t)
        return self._ahead[t - self._first]

    def _is_patched(self, hypers: Hypers) -> bool:
        """Whether hypers differ in nothing but values that are numbers by themselves: these are put where they belong."""
        known, self._hypers = self._hypers, ()
        for place, (group, _) in enumerate(self.kinds) if known else ():
            old, new = known[group], hypers[group]
            for name in [name for name in self.slots.hypers if new[name] is not old[name]]:
                if name not in self.slots.alone:
                    return False
                for column in self.slots.alone[name]:
                    self._ahead[:, place, self._own[column]] = new[name]
        self._hypers = hypers if known else ()
        return bool(known)

    def _numbers_ahead(self, hypers: Hypers, t: int) -> Array:
        """[steps, kinds, numbers]"""
        found: list[Any] = [self.slots.ahead(hypers[group], t, dict(facts), AHEAD) for group, facts in self.kinds]
        if any(rows is None for rows in found):
            return self._numbers(hypers, [(kind, t) for kind in self.kinds])[None]
        with np.errstate(over="ignore"):
            return self._in_place(np.stack(found, 1))

    def _numbers(self, hypers: Hypers, rows: Sequence[tuple[tuple[int, Any], int]]) -> Array:
        found = [self.slots(hypers[group], t, dict(facts)) for (group, facts), t in rows]
        return self._in_place(np.array(found, dtype=self.number).reshape(len(rows), -1))

    def _in_place(self, numbers: Array) -> Array:
        """[…, numbers]: host numbers where the kernel looks for each, with room for those per model; each step as it lies in memory."""
        if not self.shared:
            return np.ascontiguousarray(numbers, dtype=self.number)
        found = np.zeros((*numbers.shape[:-1], len(self._own) + len(self._others)), self.number)
        found[..., self._own] = numbers
        return found


class Tables:
    """All of one step, with the places of their parameters among those of the step."""

    lacks = False

    def __init__(self, tables: Sequence[tuple[Table, Sequence[int]]]) -> None:
        self._tables = [(table, np.array(places, dtype=np.int64)) for table, places in tables]
        self.shared = tuple(dict.fromkeys(node for table, _ in self._tables for node in table.shared))
        self.count = sum(table.count for table, _ in self._tables)
        self.looks = all(table.looks for table, _ in self._tables)

    def hold(self) -> bool:
        """Whether nothing but gradients has changed."""
        return all(table.watch.holds() for table, _ in self._tables)

    def ready(self, hypers: Hypers, counts: Counts, seed: int, loss: Loss | None = None, known: Known = NOTHING) -> Write | None:
        """The step of the same parameters, if nothing but gradients, hypers and counts has changed."""
        if not self.hold():
            return None
        try:
            each = [counts if isinstance(counts, int) else counts[places] for _, places in self._tables]
            steps = [table.ready(hypers, some, seed, known) for (table, _), some in zip(self._tables, each, strict=True)]
        except (MissingFact, MemoryError, RuntimeError) as problem:
            if not isinstance(problem, MissingFact) and not is_of_memory(problem):
                raise
            return None  # the long way says what is missing, and makes room

        def take() -> None:
            for step in steps:
                step()

        return take

    def answers(self, hypers: Hypers, counts: Counts, seed: int, known: Known) -> Array:
        """[cells, returned] what the kernels return. Raises MissingFact."""
        found = [
            (places, table.call(hypers, counts if isinstance(counts, int) else counts[places], seed, known)())
            for table, places in self._tables
        ]
        if len(found) == 1:
            return found[0][1]
        together = np.empty((self.count, found[0][1].shape[1]))
        for places, numbers in found:
            together[places] = numbers
        return together

    def learn(self, other: Repeat) -> None:
        """There is one way only to decide such a step."""


def same(cells: Sequence[Cell], others: Sequence[Cell]) -> bool:
    """Whether these are the very same cells in the same order."""
    return len(cells) == len(others) and all(one is other for one, other in zip(cells, others, strict=True))


def key_of(bound: Bound, place: int, part: int) -> str:
    """Where a cell has a column's tensor: see `Table`."""
    node, tensor = bound.code.tensors[place], bound.tensors[place]
    if node.op == "state" or part:
        name = str(node.value) if node.op == "state" else "w"
        return f"{name}.{tensor.form.beside}" if part and isinstance(tensor, Packed) else name
    return WEIGHTS if node is W else GRADIENT


def fits(columns: Sequence[tuple[Node, int]], places: Sequence[tuple[int, int]], calls: Sequence[Bound]) -> bool:
    """Whether calls of a kernel can be repeated from a table: all of it the parameters' own, and its memory in order."""
    own = all(node is W or node is G or (node.op == "state" and node.type.extent.level in ("tensor", "array")) for node, _ in columns)
    return own and all(_is_in_order(bound.tensors[place]) for bound in calls for place, _ in places)


def _is_in_order(tensor: Tensor | Packed) -> bool:
    return all(part.is_contiguous() for part in tensor.parts) if isinstance(tensor, Packed) else tensor.is_contiguous()
