"""Programs and expressions as text: rules, equations, LaTeX, cards, graphs."""

from __future__ import annotations

from typing import Any


class Printed:
    """What notebooks show as `print` does."""

    __slots__ = ()

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """IPython's protocol."""
        printer.text(str(self))
