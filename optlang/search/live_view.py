"""A search while it runs: in a terminal a view that is drawn anew, in a log file one line for what happens.

The view shows how far the budget is spent, what each level of the screening does and how fast, the best program with its
statements, and the Pareto front.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from optlang.search.api import Search
    from optlang.search.evolution.hunt import Progress

SILENCE = 30.0  # seconds between two lines of a search that finds nothing
REDRAWN = 2.0  # seconds between two readings of the Pareto front: it is a query
ROWS = 6


class View:
    """What is shown of a search. `tell` takes every round."""

    def __init__(self, search: Search, console: Console) -> None:
        self.search, self.console = search, console
        self.live: Live | None = None
        self._front: Table | None = None
        self._drawn = self._spoken = 0.0

    def tell(self, progress: Progress) -> None:
        """Draws the view anew, or prints a line."""
        if self.live is None:
            self._line(progress)
            return
        self.live.update(self.drawn(progress))

    def drawn(self, progress: Progress) -> Group:
        """The view after a round."""
        if self._front is None or time.monotonic() - self._drawn > REDRAWN:
            self._front, self._drawn = front(self.search), time.monotonic()
        return Group(*self._parts(progress), self._front, Text("\nCtrl-C ends after this round; twice ends at once", style="dim"))

    def _line(self, progress: Progress) -> None:
        """One line for a round that brought something or answered somebody, or for a while without."""
        now = time.monotonic()
        if progress.round.improved or progress.round.answered or progress.point is not None or progress.dry or now - self._spoken > SILENCE:
            self._spoken = now
            self.console.print(f"{progress}{left(progress)}", highlight=False, soft_wrap=True)

    def _parts(self, progress: Progress) -> Iterator[Any]:
        done = progress.round
        best = self.search.best()
        yield Text(f"{self.search.store.path}: {done.branch}, {done.children:,} children, {done.spent:,} training steps"
                   f"{left(progress)}")  # fmt: skip
        yield spent(progress)
        yield screening(self.search, done.branch, progress.seconds)
        yield Text(f"\nbest: {best.name}, fitness {best.fitness:.4f} ± {best.error:.4f}", style="bold")
        yield Text(best.text, style="green")
        if self.search.hunt.points:
            yield Text(f"on validation tasks: {self.search.hunt.points[-1].validation:.4f}")
        yield Text("\nwhat nothing beats in fitness and size:", style="bold")


def left(progress: Progress) -> str:
    """How long it will still take, from how long it has taken in all sittings."""
    if not 0.01 < progress.done < 1:
        return ""
    minutes = math.ceil(progress.seconds * (1 - progress.done) / progress.done / 60)
    return f", about {minutes} minute{'s' * (minutes > 1)} left"


def spent(progress: Progress) -> Table:
    """A bar for the budget, on a line of its own."""
    made = Table.grid(padding=(0, 1))
    made.add_row(ProgressBar(total=1.0, completed=progress.done, width=60), f"{progress.done:.0%}")
    return made


def screening(search: Search, branch: str, seconds: float) -> Table:
    """What the levels of a branch's screening have done since it began, and how many children a second reach them."""
    made = Table(box=None, pad_edge=False)
    for word in ("level", "seen", "merged", "rejected", "passed", "per second"):
        made.add_column(word, justify="left" if word == "level" else "right")
    for name, counter in search.hunt.strands[branch].screen.summary():
        rate = counter.seen / max(seconds, 1e-9)
        made.add_row(name, *(f"{n:,}" for n in (counter.seen, counter.merged, counter.rejected, counter.passed)), f"{rate:,.0f}")
    trained = search.hunt.strands[branch].trained
    made.add_row("trained", f"{trained:,}", "", "", "", f"{trained / max(seconds, 1e-9):,.1f}")
    return made


def front(search: Search) -> Table:
    """Fitness against size."""
    made = Table(box=None, pad_edge=False)
    for word in ("rule", "fitness", "statements", "slots", "bytes/element"):
        made.add_column(word, justify="left" if word == "rule" else "right")
    for one in search.pareto()[:ROWS]:
        made.add_row(one.name, f"{one.fitness:.4f}", str(one.statements), str(one.slots), str(one.size))
    return made


@contextmanager
def watching(search: Search, quiet: bool = False, stream: TextIO | None = None) -> Iterator[View]:
    """A view for as long as a search runs; nothing is shown where it is to be quiet."""
    console = Console(file=stream or sys.stdout, quiet=quiet)
    view = View(search, console)
    if not console.is_terminal or quiet:
        yield view
        return
    with Live(console=console, refresh_per_second=4, transient=True) as live:
        view.live = live
        yield view
