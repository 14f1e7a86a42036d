"""Programs and expressions as text: rules, equations, LaTeX, cards, graphs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any


def as_printed(self: object, printer: Any, cycle: bool) -> None:
    """The `_repr_pretty_` of what notebooks are to show as `print` does. A class has it itself: IPython takes a `__repr__` before
    what is inherited."""
    printer.text(str(self))


def columns(rows: Iterable[Sequence[str]], numbers: bool = False) -> list[str]:
    """Rows of as many cells each as lines of a table; `numbers`: all cells but the first end below each other."""
    rows = list(rows)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    place = str.rjust if numbers else str.ljust
    return ["  ".join([row[0].ljust(widths[0]), *map(place, row[1:], widths[1:])]).rstrip() for row in rows]
