"""Racing rules: the same model from the same start on the same batches, every step size tuned over the same grid."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from optlang.race.contest import GRID, Entrant, race
from optlang.race.errors import RaceError
from optlang.race.results import Entry, Estimate, Point, Results, Run

if TYPE_CHECKING:
    from optlang.race.tasks import Score, Split, Task, load, split

__all__ = [
    "GRID",
    "Entrant",
    "Entry",
    "Estimate",
    "Point",
    "RaceError",
    "Results",
    "Run",
    "Score",
    "Split",
    "Task",
    "load",
    "race",
    "split",
]


def __getattr__(name: str) -> Any:
    """What needs torch is imported when it is asked for."""
    if name in ("Score", "Split", "Task", "load", "split"):
        from optlang.race import tasks

        return getattr(tasks, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
