"""The same parameters stepped again: pointers that have not moved are not gathered anew, which counts for many small tensors.

A table holds what a kernel was called with. Before it is used again, everything in it that could have changed is looked at:
the memory of weights, gradients and states, their number types and their order. What differs is gathered anew, from the start.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor

from optlang.backends.base import NOTHING_GIVEN, Cell, Given, Repeat, Write
from optlang.backends.formats import Packed
from optlang.backends.repeated.calls import Whole, Work
from optlang.backends.repeated.library import Unseen
from optlang.backends.repeated.numbers import Numbers
from optlang.backends.repeated.rows import NOTHING, Counts, Hypers, Known, Rows
from optlang.backends.repeated.watch import Grip, Versions, Watch, grip
from optlang.backends.torch.bound import Bound, Slots
from optlang.backends.writing import is_of_memory
from optlang.ir import G, Node, W

Array = Any  # numpy.ndarray
WEIGHTS, GRADIENT = "@weights", "@gradient"  # no state is called so
Key = str | Node


class Table:
    """One kernel with all the parameters that it steps. `keys`: where a cell has the tensor of each column, see `keys_of`.

    Raises Unseen, also for columns that are new in each step where these are not for it.
    """

    takes_new = False  # what the model or the training loop gives in each step, or what is handed out

    def __init__(self, keys: Sequence[Key], slots: Slots, calls: Sequence[tuple[Cell, Bound]]) -> None:
        like, cells = calls[0][1], [cell for cell, _ in calls]
        self.shared, nodes = slots.shared, [*slots.host.nodes, *slots.shared]
        kind = np.float64 if like.s.dtype == torch.float64 else np.float32
        self.numbers = Numbers([nodes[place] for place in slots.order], slots.shared, kind)
        self.count = len(cells)
        self.shapes = [tuple(cell.weights.shape) for cell in cells]
        self.sizes = np.array([cell.weights.numel() for cell in cells], dtype=np.int64)
        self._counters = np.array([(0, 0, cell.index & 0xFFFFFFFF) for cell in cells], dtype=np.int64)
        self.draws = like.counter is not None
        self.own_rows = Rows(self.numbers, cells, len(slots.shared))
        own = [(place, key) for place, key in enumerate(keys) if isinstance(key, str)]
        self.new = {key: place for place, key in enumerate(keys) if not isinstance(key, str)}
        if self.new and not self.takes_new:
            raise Unseen
        tensors = [cell.weights if key in (WEIGHTS, GRADIENT) else cell.state[key] for cell in cells for _, key in own]
        self.watch: Watch = Watch(tensors, [key == GRADIENT for _, key in own] * len(cells))
        self.pointers = self.watch.pointers.reshape(len(cells), len(own))
        if self.new:
            self.pointers = self.watch.spread(len(cells), len(keys), [place for place, _ in own])
        self.looks = GRADIENT in keys
        self.versions = Versions([cell.weights for cell in cells])
        self.among: Any = slice(len(self.shared))  # places of `shared` among the values per model that are known

    @abstractmethod
    def ready(self, hypers: Hypers, counts: Counts, seed: int, known: Known) -> Callable[[], None]:
        """All is computed but what this returns, which writes. `known`: the values of `shared`."""

    def works(self, known: Known) -> list[Work]:
        """What is to be done, the kernel last, after `settle`; nothing where Python has a part in that."""
        return []

    def settle(self, hypers: Hypers, counts: int, seed: int) -> None:
        """Gives all but values per model; for `works`."""

    def answered(self) -> Array:
        """Where the kernel leaves what it returns; None where that is not always the same place."""
        return None

    def counters(self, counts: Counts, seed: int) -> Array:
        """[cells, 3]: (t, seed, stream) of each parameter, to be read only until they are asked for again."""
        self._counters[:, 0], self._counters[:, 1] = counts & 0xFFFFFFFF, seed & 0xFFFFFFFF
        return self._counters

    def rows(self, hypers: Hypers, counts: Counts, known: Known) -> tuple[Array, Array]:
        """The different rows of numbers, to be read only until they are asked for again, and which of them each parameter has."""
        return self.own_rows.of(hypers, counts, known[self.among] if self.shared else known)


class Called(Table):
    """Parameters for which one call of a kernel does everything."""

    @abstractmethod
    def call(self, hypers: Hypers, counts: Counts, seed: int, known: Known) -> Callable[[], Array]:
        """A call of the kernel that only has to be made; [cells, returned] numbers. `known`: the values of `shared`."""

    def ready(self, hypers: Hypers, counts: Counts, seed: int, known: Known) -> Callable[[], None]:
        """The same where it writes."""
        call = self.call(hypers, counts, seed, known)

        def take() -> None:
            call()
            self.versions.grow()

        return take


class Tables:
    """All of one step, with the places of their parameters among those of the step."""

    lacks = False

    def __init__(self, tables: Sequence[tuple[Table, Sequence[int]]]) -> None:
        self._tables = [(table, np.array(places, dtype=np.int64)) for table, places in tables]
        self.shared = tuple(dict.fromkeys(node for table, _ in self._tables for node in table.shared))
        for table in self.each:
            table.among = table.among if self.shared == table.shared else [self.shared.index(node) for node in table.shared]
        self.count = sum(table.count for table, _ in self._tables)
        self.looks = all(table.looks for table, _ in self._tables)

    @property
    def each(self) -> list[Table]:
        return [table for table, _ in self._tables]

    @property
    def numbers(self) -> list[Numbers]:
        """See `Repeat`."""
        return [table.numbers for table in self.each]

    def slots(self, node: Node) -> list[tuple[int, int]]:
        """For which cell, and at which address, the tables that read or write `node` want its memory."""
        found = []
        for table, places in self._tables:
            if node in table.new:
                column = table.pointers[:, table.new[node]]
                found += [(place, column[n:].ctypes.data) for n, place in enumerate(places.tolist())]
        return found

    def hold(self, keep: Grip | None = None) -> bool:
        """Whether nothing but gradients has changed."""
        return all(table.watch.holds(keep) for table, _ in self._tables)

    def ready(self, hypers: Hypers, counts: Counts, seed: int, given: Given = NOTHING_GIVEN) -> Write | None:
        """The step of the same parameters, if nothing but gradients, hypers and counts has changed."""
        keep = grip()
        if not self.hold(keep):
            return None
        return kept([keep], self.settled(hypers, counts, seed) or self.prepared(hypers, counts, seed, NOTHING))

    def settled(self, hypers: Hypers, counts: Counts, seed: int) -> Whole | None:
        """The same by one call; None where Python has a part in it."""
        if not isinstance(counts, int):
            return None
        for table in self.each:
            table.settle(hypers, counts, seed)
        return self._whole

    @cached_property
    def _whole(self) -> Whole | None:
        works = self.works(NOTHING)
        return Whole(works) if works else None

    def works(self, known: Known) -> list[Work]:
        """What is to be done after tables have settled, kernels that write included; nothing where Python has a part in that."""
        each = [table.works(known) for table in self.each]
        return [*chain.from_iterable(each), *(table.versions.grow for table in self.each)] if all(each) else []

    def prepared(self, hypers: Hypers, counts: Counts, seed: int, known: Known) -> Write | None:
        """The step of parameters that have been looked at; None where there is no memory for it."""
        try:
            steps = [
                table.ready(hypers, counts if isinstance(counts, int) else counts[places], seed, known) for table, places in self._tables
            ]
        except (MemoryError, RuntimeError) as problem:
            if not is_of_memory(problem):
                raise
            return None  # the long way makes room

        if len(steps) == 1:
            return steps[0]

        def take() -> None:
            for step in steps:
                step()

        return take

    def answers(self, hypers: Hypers, counts: Counts, seed: int, known: Known) -> Array:
        """[cells, returned] what the kernels return; all of these are called."""
        found = [
            (places, table.call(hypers, counts if isinstance(counts, int) else counts[places], seed, known)())
            for table, places in self._tables if isinstance(table, Called)
        ]
        if len(found) == 1:
            return found[0][1]
        together = np.empty((self.count, found[0][1].shape[1]))
        for places, numbers in found:
            together[places] = numbers
        return together

    def learn(self, other: Repeat) -> None:
        """There is one way only to decide such a step."""


def kept(held: Sequence[Any], write: Write | None) -> Write | None:
    """What writes, and keeps what it reads until then; nothing is nothing to be kept."""
    if write is None or not any(held):
        return write
    if isinstance(write, Whole):
        write.held = held
        return write
    return partial(_kept, held, write)


def _kept(keep: Any, write: Write) -> Any:
    """Writes; what it is given to keep lives as long as what waits to do so."""
    return write()


def same(cells: Sequence[Cell], others: Sequence[Cell | None]) -> bool:
    """Whether these are the very same cells in the same order."""
    return len(cells) == len(others) and all(one is other for one, other in zip(cells, others, strict=True))


def keys_of(columns: Sequence[tuple[Node, int]], places: Sequence[tuple[int, int]], bound: Bound) -> list[Key]:
    """Where a cell has the tensor of each column: see `Table`. What is new in each step has its node for that."""
    return [node if node.op == "input" else _key_of(bound, *place) for (node, _), place in zip(columns, places, strict=True)]


def whole_keys(bound: Bound) -> list[Key]:
    """The same for each of a function's tensors, as a whole."""
    tensors = bound.code.tensors
    return keys_of([(node, 0) for node in tensors], [(place, 0) for place in range(len(tensors))], bound)


def _key_of(bound: Bound, place: int, part: int) -> str:
    node, tensor = bound.code.tensors[place], bound.tensors[place]
    if node.op == "state" or part:
        name = str(node.value) if node.op == "state" else "w"
        return f"{name}.{tensor.form.beside}" if part and isinstance(tensor, Packed) else name
    return WEIGHTS if node is W else GRADIENT


def fits(columns: Sequence[tuple[Node, int]], places: Sequence[tuple[int, int]], calls: Sequence[Bound]) -> bool:
    """Whether calls of a kernel can be repeated from a table: all is the parameters' own and its memory in order, or new in each step."""
    own = [place for (node, _), (place, _) in zip(columns, places, strict=True) if node.op != "input"]
    whose = all(node in (W, G) or (node.op in ("state", "input") and node.type.extent.level in ("tensor", "array")) for node, _ in columns)
    return whose and all(_is_in_order(bound.tensors[place]) for bound in calls for place in own)


def _is_in_order(tensor: Tensor | Packed) -> bool:
    return all(part.is_contiguous() for part in tensor.parts) if isinstance(tensor, Packed) else tensor.is_contiguous()
