"""Expressions as text with as few parentheses as their operators allow, whatever the language that is printed."""

from __future__ import annotations

from dataclasses import dataclass

ATOM = 100  # binds tighter than any operator


@dataclass(frozen=True, slots=True)
class Piece:
    """A printed expression; `level` says how tightly its outermost operator binds."""

    text: str
    level: int = ATOM

    def inside(self, least: int) -> str:
        """The text where something that binds at least so tightly is needed."""
        return self.text if self.level >= least else f"({self.text})"


def chained(left: Piece, symbol: str, right: Piece, level: int, *, tight: bool = False, associates: str = "left") -> Piece:
    """`left symbol right`. `associates` says which operand may have the same level: "left", "right" or "none"."""
    space = "" if tight else " "
    first = left.inside(level + (associates != "left"))
    second = right.inside(level + (associates != "right"))
    return Piece(f"{first}{space}{symbol}{space}{second}", level)
