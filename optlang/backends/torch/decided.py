"""Steps that are taken again as long as the blocks of a rule are decided as they were: see `repeat`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from optlang.backends.base import Cell
from optlang.backends.repeat import Counts, Hypers, Tables
from optlang.backends.torch.work import decision
from optlang.host import HostScalars

Facts = tuple[tuple[str, int], ...]
Kind = tuple[int, Facts, list[bool | None]]  # of cells: their group, the facts that conditions read, and what these decided


class Decided:
    """`conditions`: those that settings or `t` may change."""

    def __init__(self, tables: Tables, conditions: Sequence[HostScalars], cells: Sequence[Cell]) -> None:
        self._tables, self._conditions = tables, conditions
        self._reads_t = any(condition.reads_t for condition in conditions)
        self._kinds: list[Kind] = []
        places: dict[Any, int] = {}
        self._kind = np.zeros(len(cells), dtype=np.int64)  # of each cell
        for number, cell in enumerate(cells):
            facts = _facts(conditions, cell)
            found = _decisions(conditions, cell.hypers, cell.t, facts)
            self._kind[number] = place = places.setdefault((cell.group, facts, *found), len(places))
            if place == len(self._kinds):
                self._kinds.append((cell.group, facts, found))
        self._hypers: Hypers = ()  # those that were last found to decide alike

    def ready(self, hypers: Hypers, counts: Counts, seed: int) -> Callable[[], None] | None:
        """The next step; None where a block is decided otherwise, or memory has changed."""
        if (self._reads_t or hypers is not self._hypers) and not self._holds(hypers, counts):
            return None
        self._hypers = hypers
        return self._tables.ready(hypers, counts, seed)

    def _holds(self, hypers: Hypers, counts: Counts) -> bool:
        if isinstance(counts, int):
            each = [(kind, counts) for kind in self._kinds]
        else:
            each = [(self._kinds[place], t) for place, t in np.unique(np.stack([self._kind, counts]), axis=1).T.tolist()]
        return all(_decisions(self._conditions, hypers[group], t, facts) == found for (group, facts, found), t in each)


def lasts(conditions: Sequence[HostScalars], cells: Sequence[Cell]) -> bool:
    """Whether `t` decides the next step as this one: what is kept for another takes as long as it saves."""
    reading = [condition for condition in conditions if condition.reads_t]
    each = {(cell.group, cell.t, _facts(reading, cell)): cell.hypers for cell in cells} if reading else {}
    return all(
        _decisions(reading, hypers, t, facts) == _decisions(reading, hypers, t + 1, facts) for (_, t, facts), hypers in each.items()
    )


def _facts(conditions: Sequence[HostScalars], cell: Cell) -> Facts:
    return tuple(cell.facts.items()) if any(condition.facts for condition in conditions) else ()


def _decisions(conditions: Sequence[HostScalars], hypers: Any, t: int, facts: Facts) -> list[bool | None]:
    known = dict(facts)
    return [decision(condition, hypers, t, known) for condition in conditions]
