"""Steps that are taken again where the blocks of a rule are decided as they were in a step before: see `repeat`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import is_
from typing import Any

import numpy as np

from optlang.backends.base import NOTHING_GIVEN, Cell, Given, Repeat, Write
from optlang.backends.repeated.numbers import Numbers
from optlang.backends.repeated.rows import Counts, Hypers, Rows
from optlang.backends.repeated.tables import Tables
from optlang.backends.torch.staged import Staged
from optlang.backends.torch.work import decision
from optlang.host import HostScalars

Facts = tuple[tuple[str, int], ...]
Decisions = tuple[bool | None, ...]
DecisionKey = bytes  # what all conditions decide about all cells, to look a step up by
MOST = 8  # ways that are kept: those that come again are few


class Decided:
    """Tables for each way in which a step is decided. `conditions`: those that settings or `t` may change. Raises Unseen."""

    def __init__(self, tables: Tables | Staged, conditions: Sequence[HostScalars], cells: Sequence[Cell]) -> None:
        self.tables = tables
        self._rows = Rows(Numbers([node for condition in conditions for node in condition.nodes]), cells)
        times = {cell.t for cell in cells}
        self.begun = {cell.group: cell.hypers for cell in cells}, times.pop() if len(times) == 1 else np.array([c.t for c in cells])
        self._known: dict[DecisionKey, Tables | Staged] = {}
        self._last: DecisionKey = b""
        self._hypers: Hypers = ()  # those of which `_last` is known
        self._read: list[Any] = []  # what conditions read of them
        self.lacks = False

    def ready(self, hypers: Hypers, counts: Counts, seed: int, given: Given = NOTHING_GIVEN) -> Write | None:
        """The next step; None where it is decided in a new way, or memory has changed."""
        if not self._known:
            self._known[self._decided(*self.begun)] = self.tables
        if self._rows.reads_t or not self._last or self._differ(hypers):
            self._last = self._decided(hypers, counts)
        tables = self._known.get(self._last)
        self.lacks = tables is None and len(self._known) < MOST
        return None if tables is None else tables.ready(hypers, counts, seed, given)

    @property
    def looks(self) -> bool:
        """Whether nothing is ready as long as a cell has no gradient."""
        return all(tables.looks for tables in (self.tables, *self._known.values()))

    @property
    def numbers(self) -> list[Numbers]:
        """See `Repeat`."""
        return [self._rows.numbers, *self.tables.numbers]

    def learn(self, other: Repeat) -> None:
        """Takes over the tables of a step of the same cells that was decided in another way."""
        assert isinstance(other, Decided)
        self._known[self._decided(*other.begun)] = other.tables

    def _differ(self, hypers: Hypers) -> bool:
        """Whether any setting that conditions read is another one than in the last step."""
        if hypers is self._hypers:
            return False
        before, self._hypers = self._read, hypers
        self._read = [value for group, _ in self._rows.kinds for value in self._rows.numbers.picked(hypers[group])]
        return len(before) != len(self._read) or not all(map(is_, before, self._read))

    def _decided(self, hypers: Hypers | Mapping[int, Any], counts: Counts) -> DecisionKey:
        rows, places = self._rows.of(hypers, counts)
        return (rows if isinstance(counts, int) else rows[places]).tobytes()  # type: ignore[no-any-return]


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
