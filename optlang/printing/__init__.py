"""Programs and expressions as text: rules, equations, LaTeX, cards, graphs."""

from __future__ import annotations

from typing import Any


def as_printed(self: object, printer: Any, cycle: bool) -> None:
    """The `_repr_pretty_` of what notebooks are to show as `print` does. A class has it itself: IPython takes a `__repr__` before
    what is inherited."""
    printer.text(str(self))
