"""Program search over rules, as the search that found Lion did it (Chen et al. 2023, arXiv:2302.06675), on one machine or many.

`optlang.search("adamw", minutes=30)` starts one: see `api`. The way of a program: `mutation` makes it, `screening` looks
whether it is new, `strand` has it trained (`assess`, on `tasks`), `evolution` learns from it, `store` keeps it.
`optlang.search.propose("run.db", text)` is the way of one from outside: see `proposals`.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any


class _Search(ModuleType):
    """This package, which is called to start a search: `optlang.search` would be a function, were it not a package."""

    def __call__(self, *seeds: str, **settings: Any) -> Any:
        from optlang.search.api import search

        return search(*seeds, **settings)


def propose(store: Any, text: str, minutes: float | None = None) -> Any:
    """A rule for a search that another process runs, and what became of it; see `proposals.propose`."""
    from optlang.search import proposals

    return proposals.propose(store, text, minutes)


sys.modules[__name__].__class__ = _Search
