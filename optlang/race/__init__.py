"""Racing rules: the same model from the same start on the same batches, every step size tuned over the same grid.

`optlang.race("adamw", "my.opt")` runs one: see `api`."""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from optlang.race.contest import GRID, race
    from optlang.race.entrants import Entrant
    from optlang.race.errors import RaceError
    from optlang.race.loading import load
    from optlang.race.results import Entry, Estimate, Point, Results, Run
    from optlang.race.tasks import Score, Split, Task, split

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


_HOME = {
    "contest": ("GRID", "race"),
    "entrants": ("Entrant",),
    "errors": ("RaceError",),
    "loading": ("load",),
    "results": ("Entry", "Estimate", "Point", "Results", "Run"),
    "tasks": ("Score", "Split", "Task", "split"),
}


def __getattr__(name: str) -> Any:
    """What needs torch or other packages is imported when it is asked for: `optlang race --help` needs neither."""
    for home, names in _HOME.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{home}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


class _Race(ModuleType):
    """This package, which is called to run a race: `optlang.race` would be a function, were it not a package."""

    def __call__(self, *rules: Any, **settings: Any) -> Any:
        return import_module(f"{__name__}.api").race(*rules, **settings)


sys.modules[__name__].__class__ = _Race
