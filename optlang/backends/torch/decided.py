"""Steps that are taken again where the blocks of a rule are decided as they were in a step before: see `repeat`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from optlang.backends.base import Cell, Loss, Repeat, Write
from optlang.backends.numbers import Numbers
from optlang.backends.repeat import Counts, Hypers, Tables
from optlang.backends.torch.staged import Staged
from optlang.backends.torch.work import decision
from optlang.host import HostScalars

Facts = tuple[tuple[str, int], ...]
Decisions = tuple[bool | None, ...]
Way = Any  # what all conditions decide about all cells
MOST = 8  # ways that are kept: those that come again are few


class Decided:
    """Tables for each way in which a step is decided. `conditions`: those that settings or `t` may change."""

    def __init__(self, tables: Tables | Staged, conditions: Sequence[HostScalars], cells: Sequence[Cell]) -> None:
        self.tables, self._conditions = tables, conditions
        self._reads_t = any(condition.reads_t for condition in conditions)
        found = [(cell.group, _facts(conditions, cell)) for cell in cells]
        self._kinds = list(dict.fromkeys(found))
        places = {kind: place for place, kind in enumerate(self._kinds)}
        self._kind = np.array([places[kind] for kind in found], dtype=np.int64)  # of each cell
        self._numbers: dict[Decisions, int] = {}
        times = {cell.t for cell in cells}
        self.begun = {cell.group: cell.hypers for cell in cells}, times.pop() if len(times) == 1 else np.array([c.t for c in cells])
        self._way = self._decided(*self.begun)
        self._known = {self._way: tables}
        self._hypers: Hypers = ()  # those of which `_way` is known
        self.lacks = False

    def ready(self, hypers: Hypers, counts: Counts, seed: int, loss: Loss | None = None) -> Write | None:
        """The next step; None where it is decided in a new way, or memory has changed."""
        if self._reads_t or hypers is not self._hypers:
            self._way, self._hypers = self._decided(hypers, counts), hypers
        tables = self._known.get(self._way)
        self.lacks = tables is None and len(self._known) < MOST
        return None if tables is None else tables.ready(hypers, counts, seed, loss)

    @property
    def looks(self) -> bool:
        """Whether nothing is ready as long as a cell has no gradient."""
        return all(tables.looks for tables in self._known.values())

    @property
    def numbers(self) -> list[Numbers]:
        """See `Repeat`."""
        return self.tables.numbers

    def learn(self, other: Repeat) -> None:
        """Takes over the tables of a step of the same cells that was decided in another way."""
        assert isinstance(other, Decided)
        self._known[self._decided(*other.begun)] = other.tables

    def _decided(self, hypers: Hypers | Mapping[int, Any], counts: Counts) -> Way:
        if isinstance(counts, int):
            return tuple(self._number(hypers, kind, counts) for kind in self._kinds)
        pairs, places = np.unique(np.stack([self._kind, counts]), axis=1, return_inverse=True)
        each = [self._number(hypers, self._kinds[place], t) for place, t in pairs.T.tolist()]
        return np.array(each)[places.reshape(-1)].tobytes()

    def _number(self, hypers: Hypers | Mapping[int, Any], kind: tuple[int, Facts], t: int) -> int:
        """One for each way to decide about one parameter."""
        group, facts = kind
        return self._numbers.setdefault(_decisions(self._conditions, hypers[group], t, facts), len(self._numbers))


def lasts(conditions: Sequence[HostScalars], cells: Sequence[Cell]) -> bool:
    """Whether `t` decides the next step as this one."""
    reading = [condition for condition in conditions if condition.reads_t]
    each = {(cell.group, cell.t, _facts(reading, cell)): cell.hypers for cell in cells} if reading else {}
    return all(
        _decisions(reading, hypers, t, facts) == _decisions(reading, hypers, t + 1, facts) for (_, t, facts), hypers in each.items()
    )


def _facts(conditions: Sequence[HostScalars], cell: Cell) -> Facts:
    return tuple(cell.facts.items()) if any(condition.facts for condition in conditions) else ()


def _decisions(conditions: Sequence[HostScalars], hypers: Any, t: int, facts: Facts) -> Decisions:
    known = dict(facts)
    return tuple(decision(condition, hypers, t, known) for condition in conditions)
