"""Numbers that are known before a step (hypers, `t`, facts and what is computed from them), in rows.

There is a row for each group of parameters and each set of facts that the numbers depend on, and one for those of the whole step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from optlang import ir
from optlang.backends.arrays import read
from optlang.backends.base import Batch, Cell
from optlang.backends.repeated.library import Unseen
from optlang.backends.repeated.numbers import Numbers, together
from optlang.ir import Node
from optlang.philox import MASK

Array = Any  # numpy.ndarray
Counts = Any  # numpy.ndarray or int: [cells]: the number of each one's update, or one for all of them
Hypers = Sequence[Mapping[str, Any]]  # of each group
Known = Any  # numpy.ndarray: values per model
Kind = tuple[int, tuple[int, ...]]  # a group, and facts of some of its parameters
NOTHING: Known = np.empty(0)


class Rows:
    """Those of some parameters. `known`: how many values per model are given, and are the last that `numbers` reads. Raises Unseen."""

    def __init__(self, numbers: Numbers, cells: Sequence[Cell], known: int = 0) -> None:
        self.numbers, self.reads_t, self._known, names = numbers, bool(numbers.of("t")), known, numbers.of("fact")
        found = [(cell.group, tuple(cell.facts.get(name) for name in names)) for cell in cells]
        if any(None in facts for _, facts in found):
            raise Unseen  # what is missing may not matter: that takes a closer look
        self.kinds: list[Any] = list(dict.fromkeys(found))
        places = {kind: place for place, kind in enumerate(self.kinds)}
        self.kind = np.array([places[kind] for kind in found], dtype=np.int64)  # of each cell
        numbers.hold(len(self.kinds))
        self._settled = len(numbers.hypers) + len(names)
        self._given: tuple[Any, Any] = None, None  # hypers and kinds of the last step

    def of(self, hypers: Hypers | Mapping[int, Any], counts: Counts, known: Known = NOTHING) -> tuple[Array, Array]:
        """The different rows, to be read only until they are asked for again, and which of them each parameter has."""
        places = self.settle(hypers, counts)
        if self._known:
            self.numbers.given[:, -self._known :] = known
        return self.numbers.compute(), places

    def settle(self, hypers: Hypers | Mapping[int, Any], counts: Counts) -> Array:
        """Gives all but values per model; which row each parameter has."""
        kinds, places = self.kinds, self.kind
        if not isinstance(counts, int):
            pairs, found = np.unique(np.stack([self.kind, counts]), axis=1, return_inverse=True)
            kinds, places, counts = [self.kinds[kind] for kind in pairs[0].tolist()], found.reshape(-1), pairs[1]
        if kinds is not self._given[1] or (self.numbers.hypers and hypers is not self._given[0]):
            self._fill(hypers, kinds)
        if self.reads_t:
            self.numbers.given[:, self._settled] = counts
        return places

    def _fill(self, hypers: Hypers | Mapping[int, Any], kinds: Sequence[Kind]) -> None:
        """Hypers and facts of each row."""
        if kinds is not self._given[1]:
            self.numbers.hold(len(kinds))
            self.numbers.given[:, len(self.numbers.hypers) : self._settled] = [facts for _, facts in kinds]
        for row, (group, _) in enumerate(kinds):
            self.numbers.put(row, hypers[group])
        self._given = hypers, kinds


class Row:
    """What all values per model of a step are made of. Raises Unseen where that is more than single numbers."""

    def __init__(self, numbers: Sequence[Numbers]) -> None:
        self.leaves, self.given = together(numbers)
        everything = ir.walk(node for one in numbers for node in one.wanted)
        if any(node.op == "fact" or node.type.extent.level not in ("host", "model") for node in everything):
            raise Unseen
        self._numbers = numbers[0]  # that has the same row as all of them
        self.hypers = self._numbers.hypers
        self._t, self._loss = ([place for place, node in enumerate(self.leaves) if node.op == op] for op in ("t", "loss"))
        self.reads_loss = bool(self._loss)
        self._hypers: Mapping[str, Any] | None = None  # those that were given the last time

    def place(self, leaf: Node) -> int:
        """Where the value of a leaf belongs: behind all others where nobody reads it."""
        return self.leaves.index(leaf) if leaf in self.leaves else len(self.leaves)

    def give(self, hypers: Mapping[str, Any], t: int, seed: int, batch: Batch | None) -> None:
        """What a step begins with, but for the states."""
        if self.hypers and hypers is not self._hypers:
            self._hypers = hypers
            self._numbers.put(0, hypers)
        for place in self._t:
            self.given[place] = t
        self.given[-1] = seed & MASK
        for place in self._loss:
            assert batch is not None
            self.given[place] = one_number(batch.mean_loss())


def one_number(loss: Any) -> Any:
    """As float64 has it."""
    return loss.item() if isinstance(loss, Tensor) and loss.is_floating_point() else read(loss).reshape(())
