"""The table of a race: the best rule first, what became of the others, and how to read it."""

from __future__ import annotations

import math
from io import StringIO

from rich.console import Console, Group
from rich.markup import escape
from rich.table import Table

from optlang.race.results import Entry, Estimate, Results

WIDTH = 100  # of the table where nobody says how wide the page is


def table(results: Results) -> Group:
    """What the race was, the final table with the best rule first, and how to read it."""
    failed = [f"{entry.name}: {_first_line(entry.error)}" for entry in results.entries if entry.error]
    below = [*map(escape, failed), *([""] if failed else []), *([_caption(results)] if results.ranking else [])]
    return Group("", escape(_title(results)), "", _rows(results), "", *below)


def _rows(results: Results) -> Table:
    shown = Table(box=None, pad_edge=False, header_style="underline")
    accuracy = any(entry.test_accuracy for entry in results.entries)
    shown.add_column("rule", no_wrap=True)
    for name in ("step size", "test loss", "behind best", *(["accuracy %"] if accuracy else []), "ms/step", "state B/param"):
        shown.add_column(name, justify="right", no_wrap=True)
    shown.add_column("")
    ranking = results.ranking
    for place, entry in enumerate(ranking):
        cells = _cells(entry, ranking[0], accuracy)
        shown.add_row(*map(escape, cells), style="bold" if place == 0 and len(ranking) > 1 else "")
    for entry in results.entries:
        if not entry.finals:
            reason = "failed" if entry.error else "not finished"
            shown.add_row(escape(entry.name), *[""] * (len(shown.columns) - 2), escape(reason))
    return shown


def _cells(entry: Entry, best: Entry, accuracy: bool) -> list[str]:
    behind = None if entry is best else entry.behind(best)
    right = entry.test_accuracy
    percent = right and Estimate(100 * right.mean, right.error and 100 * right.error)
    return [
        entry.name,
        "-" if entry.step_size is None else f"{entry.step_size:.2g}",
        estimate(entry.test_loss),
        estimate(behind) if behind else "",
        *([estimate(percent) if percent else ""] if accuracy else []),
        f"{1e3 * entry.seconds_per_step:.2f}",
        f"{entry.state_bytes_per_parameter:.2f}",
        _remark(entry),
    ]


def _remark(entry: Entry) -> str:
    diverged = sum(run.diverged for run in entry.finals)
    remarks = [f"{diverged} of {len(entry.finals)} seeds diverged"] if diverged else []
    if entry.at_edge:
        remarks.append("step size at edge")
    return "; ".join([*remarks, *(["failed"] if entry.error else [])])


def _first_line(text: str) -> str:
    return text.partition("\n")[0]


def _title(results: Results) -> str:
    part = "" if results.complete else " (unfinished)"
    return f"{results.task}: {results.about}{part}"


def _caption(results: Results) -> str:
    return (
        f"Mean ± standard error over {_seeds(results)} on test data that nothing was tuned on, after {results.steps} steps. "
        "Step sizes were tuned on the validation loss of the last quarter, from "
        f"{results.grid[0]:.2g} to {results.grid[-1]:.2g}, further when the best lay at an end; "
        "they are constant unless the rule has a schedule. "
        "Behind best: difference of test losses, paired by seed."
    )


def _seeds(results: Results) -> str:
    counts = {len(entry.finals) for entry in results.ranking}
    text = f"{min(counts)}" if len(counts) == 1 else f"{min(counts)} to {max(counts)}"
    return f"{text} seed" if text == "1" else f"{text} seeds"


def number(value: float) -> str:
    """Four digits, or the word for what has none."""
    return f"{value:.4g}" if math.isfinite(value) else "diverged"


def estimate(value: Estimate) -> str:
    """`0.1234±0.0056`: the error with two digits, the mean to the same place."""
    if not value.error:
        return number(value.mean)
    places = max(0, 1 - math.floor(math.log10(value.error)))
    return f"{value.mean:.{places}f}±{value.error:.{places}f}"


def plain_table(results: Results) -> str:
    """The table as text without colour."""
    page = Console(file=StringIO(), width=WIDTH, force_terminal=False, force_jupyter=False, color_system=None)
    page.print(table(results))
    assert isinstance(page.file, StringIO)
    return "\n".join(line.rstrip() for line in page.file.getvalue().splitlines())
