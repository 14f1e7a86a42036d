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

from optlang.backends.base import Cell
from optlang.backends.formats import Packed
from optlang.backends.watch import Versions, Watch
from optlang.backends.writing import is_of_memory
from optlang.host import HostScalars, MissingFact
from optlang.ir import G, Node, W

if TYPE_CHECKING:
    from optlang.backends.torch.functions import Bound

Array = Any  # numpy.ndarray
Hypers = Sequence[Mapping[str, Any]]  # of each group
WEIGHTS, GRADIENT = "@weights", "@gradient"  # no state is called so


class Table:
    """One kernel with all the parameters that it steps. `keys`: where a cell has the tensor of each column, see `key_of`.

    `kinds`: groups, with facts where the kernel's numbers depend on these; `kind`: of each cell. Raises Unseen.
    """

    def __init__(self, keys: Sequence[str], slots: HostScalars, calls: Sequence[tuple[Cell, Bound]]) -> None:
        like, cells = calls[0][1], [cell for cell, _ in calls]
        self.slots, self.count = slots, len(cells)
        self.number = np.float64 if like.s.dtype == torch.float64 else np.float32
        self.shapes = [tuple(cell.weights.shape) for cell in cells]
        self.sizes = np.array([cell.weights.numel() for cell in cells], dtype=np.int64)
        self.streams = np.array([cell.index for cell in cells], dtype=np.int64)
        self.draws = like.counter is not None
        found = [(cell.group, tuple(cell.facts.items()) if slots.facts else ()) for cell in cells]
        self.kinds = list(dict.fromkeys(found))
        places = {kind: place for place, kind in enumerate(self.kinds)}
        self.kind = np.array([places[kind] for kind in found], dtype=np.int64)
        tensors = [cell.weights if key in (WEIGHTS, GRADIENT) else cell.state[key] for cell in cells for key in keys]
        self.watch = Watch(tensors, [key == GRADIENT for key in keys] * len(cells))
        self.pointers = self.watch.pointers.reshape(len(cells), len(keys))
        self.versions = Versions([cell.weights for cell in cells])

    @abstractmethod
    def ready(self, hypers: Hypers, counts: Array, seed: int) -> Callable[[], None]:
        """A step that only has to be taken; `counts` [cells]: the numbers of the updates. Raises MissingFact."""

    def counters(self, counts: Array, seed: int) -> Array:
        """[cells, 3]: (t, seed, stream) of each parameter."""
        return np.stack([counts, np.full_like(counts, seed & 0xFFFFFFFF), self.streams], 1) & 0xFFFFFFFF

    def rows(self, hypers: Hypers, counts: Array) -> tuple[Array, Array]:
        """The different rows of numbers, and which of them each parameter has."""
        first = int(counts[0])
        if (counts == first).all():
            return self._numbers(hypers, [(kind, first) for kind in self.kinds]), self.kind
        pairs, places = np.unique(np.stack([self.kind, counts]), axis=1, return_inverse=True)
        return self._numbers(hypers, [(self.kinds[kind], t) for kind, t in pairs.T.tolist()]), places.reshape(-1)

    def _numbers(self, hypers: Hypers, rows: Sequence[tuple[tuple[int, Any], int]]) -> Array:
        found = [self.slots(hypers[group], t, dict(facts)) for (group, facts), t in rows]
        return np.array(found, dtype=self.number).reshape(len(rows), -1)


class Tables:
    """All of one step, with the places of their parameters among those of the step."""

    def __init__(self, tables: Sequence[tuple[Table, Sequence[int]]]) -> None:
        self._tables = [(table, np.array(places, dtype=np.int64)) for table, places in tables]

    def ready(self, hypers: Hypers, counts: Array, seed: int) -> Callable[[], None] | None:
        """The step of the same parameters, if nothing but gradients, hypers and counts has changed."""
        if not all(table.watch.holds() for table, _ in self._tables):
            return None
        try:
            steps = [table.ready(hypers, counts[places], seed) for table, places in self._tables]
        except (MissingFact, MemoryError, RuntimeError) as problem:
            if not isinstance(problem, MissingFact) and not is_of_memory(problem):
                raise
            return None  # the long way says what is missing, and makes room

        def take() -> None:
            for step in steps:
                step()

        return take


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
    own = all(node is W or node is G or node.op == "state" for node, _ in columns)
    return own and all(_is_in_order(bound.tensors[place]) for bound in calls for place, _ in places)


def _is_in_order(tensor: Tensor | Packed) -> bool:
    return all(part.is_contiguous() for part in tensor.parts) if isinstance(tensor, Packed) else tensor.is_contiguous()
