"""What differs between two rules, for people and programs: in a sentence, and their equations side by side."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

from optlang.printing import as_printed

if TYPE_CHECKING:
    from optlang.compare.equivalence import Verdict

LONG = 60  # characters of an expression in a sentence, from which on it is cut short
NARROW = 36  # characters of a column, below which equations stand one above the other
MANY = 6  # equations in a row that only one rule has, of which the others are counted
WIDEST = 160  # characters of a line: wider columns are hard to compare


@dataclass(frozen=True, slots=True)
class Edit:
    """`new` stands for `old` in the equations `where`. None: the other comes in or goes out, with its sign or as an equation."""

    old: str | None
    new: str | None
    where: tuple[str, ...] = ()

    def __str__(self) -> str:
        if self.old is not None and self.new is not None:
            return f"`{short(self.new)}` for `{short(self.old)}`"
        return f"`{short(self.new)}` added" if self.new is not None else f"`{short(self.old or '')}` left out"


@dataclass(frozen=True, slots=True)
class Row:
    """An equation of each rule, None where there is none; `same`: they differ in names at most."""

    old: str | None
    new: str | None
    same: bool


@dataclass(frozen=True)
class Difference:
    """The second rule as the first one with changes. True where both take the same steps.

    `distance` counts the nodes that differ, `size` those of both rules. `renamed` has states, settings and equations by the
    first rule's name, with the second's. `verdict` is that of `equivalent`; without one, only the same equations are the same.
    """

    names: tuple[str, str]
    edits: tuple[Edit, ...]
    rows: tuple[Row, ...]
    renamed: Mapping[str, str]
    distance: int
    size: int
    verdict: Verdict | None = None

    _repr_pretty_ = as_printed

    def __bool__(self) -> bool:
        return not self.distance if self.verdict is None else bool(self.verdict)

    @property
    def common(self) -> float:
        """The share of both rules that is the same, from 0 to 1."""
        return max(0.0, 1 - self.distance / self.size)

    def __str__(self) -> str:
        return self.to_text()

    def sentence(self, most: int = 99) -> str:
        """`AdaBelief is AdamW with …`, on one line, with so many changes."""
        old, new = self.names
        if not self.distance:
            return f"{new} is {old}{' by other names' if self.renamed else ''}"
        more = f"; {len(self.edits) - most} more" if len(self.edits) > most else ""
        return f"{new} is {old} with {_listed(self.edits[:most])}{more}"

    def to_text(self, width: int = 100) -> str:
        """The changes, the names that correspond, the verdict, and the equations side by side in so many columns."""
        return "\n".join([*self._headline(), "", *self._table(width)])

    def to_json(self) -> dict[str, Any]:
        """All of it for programs."""
        found = self.verdict
        verdict = {} if found is None else {"verdict": found.status, "reason": found.reason, "notes": list(found.notes)}
        return {
            "a": self.names[0], "b": self.names[1], **verdict, "distance": self.distance, "common": round(self.common, 3),
            "sentence": self.sentence(), "renamed": dict(self.renamed),
            "edits": [{"old": e.old, "new": e.new, "where": list(e.where)} for e in self.edits],
            "equations": [{"a": row.old, "b": row.new, "same": row.same} for row in self.rows],
        }  # fmt: skip

    def _headline(self) -> Iterator[str]:
        old, new = self.names
        yield f"{new} is {old}" if self.distance else self.sentence()
        yield from (f"  with {edit}{_in(edit.where)}" for edit in self.edits)
        if self.renamed:
            yield "  where " + ", ".join(f"`{other}` is {old}'s `{mine}`" for mine, other in self.renamed.items())
        yield f"{self.common:.0%} of both is the same, names aside"
        if self.verdict is not None:
            yield f"{self.verdict.status}: {self.verdict.reason}"
            yield from (f"note: {note}" for note in self.verdict.notes)

    def _table(self, width: int) -> Iterator[str]:
        column = (min(width, WIDEST) - 4) // 2
        if column < NARROW:
            yield from _stacked(self)
            return
        yield f"  {self.names[0][:column].ljust(column)}  {self.names[1][:column]}".rstrip()
        for row in _fewer(self):
            left, right = (textwrap.wrap(text or "", column, subsequent_indent="    ") or [""] for text in (row.old, row.new))
            for i in range(max(len(left), len(right))):
                cells = [side[i] if i < len(side) else "" for side in (left, right)]
                yield f"{' ' if row.same else '|'} {cells[0].ljust(column)}  {cells[1]}".rstrip()


def _fewer(found: Difference) -> Iterator[Row]:
    """The rows, of many in turn that only one rule has the first ones and how many more."""
    for sides, group in groupby(found.rows, lambda row: (row.old is None, row.new is None)):
        rows = list(group)
        left_out = len(rows) - MANY if any(sides) else 0
        yield from rows[:MANY] if left_out > 1 else rows
        if left_out > 1:
            text = f"… {left_out} more equations"
            yield Row(None if sides[0] else text, None if sides[1] else text, False)


def _stacked(found: Difference) -> Iterator[str]:
    yield f"- {found.names[0]}"
    yield f"+ {found.names[1]}"
    for row in _fewer(found):
        if row.same:
            yield f"  {row.new}"
        else:
            yield from [f"- {row.old}"] * (row.old is not None)
            yield from [f"+ {row.new}"] * (row.new is not None)


def short(text: str) -> str:
    """Cut in the middle where it is long."""
    return text if len(text) <= LONG else f"{text[: LONG - 20].rstrip()} … {text[-15:].lstrip()}"


def _in(where: tuple[str, ...]) -> str:
    return f" in {_and([f'`{name}`' for name in where])}" if where else ""


def _and(words: list[str]) -> str:
    return " and ".join([*([", ".join(words[:-1])] if len(words) > 1 else []), words[-1]])


def _listed(edits: tuple[Edit, ...]) -> str:
    """The edits, those of the same equations together."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for edit in edits:
        groups.setdefault(edit.where, []).append(str(edit))
    return "; ".join(f"{_and(words)}{_in(where)}" for where, words in groups.items())


__all__ = ["Difference", "Edit", "Row"]
