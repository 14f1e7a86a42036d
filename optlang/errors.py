"""Where, what, and what to do: sources, spans and diagnostics.

Everything that can be wrong with a `.opt` file ends as a `Diagnostic`. It is structured first; the text, JSON and editor
forms are made from the same object. The catalogue of codes with their explanations lives in `catalogue`.
"""

from __future__ import annotations

import difflib
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from typing import Any, Literal, NamedTuple

Severity = Literal["error", "warning", "lint"]
BYTE_ORDER_MARK = "\ufeff"  # some editors write it before a text
MOST_FINDINGS = 50  # about one file; what comes after so many is noise
MOST_COMPARED = 500  # names that a wrong one is compared with, 10 µs each


class Span(NamedTuple):
    """A half-open range of character offsets in one source text."""

    start: int
    end: int

    def to(self, other: Span) -> Span:
        """The smallest span that holds both."""
        return Span(min(self.start, other.start), max(self.end, other.end))


@dataclass(frozen=True)
class Source:
    """One text with the name under which messages speak of it (a path, `<stdin>`, `<text>`).

    `imports` are the texts of files beside it as they were when it was read, by who imports them under which name.
    """

    text: str
    name: str = "<text>"
    imports: Mapping[tuple[str, str], Source] = field(default_factory=dict, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "text", self.text.removeprefix(BYTE_ORDER_MARK))

    @cached_property
    def _line_starts(self) -> list[int]:
        starts = [0]
        starts.extend(i + 1 for i, char in enumerate(self.text) if char == "\n")
        return starts

    def position(self, offset: int) -> tuple[int, int]:
        """Line and column, both from 1, of a character offset."""
        line = bisect_right(self._line_starts, offset)
        return line, offset - self._line_starts[line - 1] + 1

    def line(self, number: int) -> str:
        """The text of a line, counted from 1, without its end."""
        start = self._line_starts[number - 1]
        end = self.text.find("\n", start)
        return self.text[start : end if end >= 0 else len(self.text)].rstrip("\r")


class Label(NamedTuple):
    """A further place that the message points at."""

    span: Span
    text: str


class Fix(NamedTuple):
    """A replacement that an editor may apply."""

    span: Span
    text: str


class Diagnostic(NamedTuple):
    """One finding: `code` is a key of the catalogue, `pointer` the words beside the caret, `help` what to do."""

    code: str
    message: str
    span: Span
    pointer: str = ""
    help: str = ""
    severity: Severity = "error"
    labels: tuple[Label, ...] = ()
    fix: Fix | None = None
    source: Source = Source("")

    def __str__(self) -> str:
        return self.to_text()

    def __repr__(self) -> str:
        """One line, as lists of findings show it."""
        line, column = self.source.position(self.span.start)
        return f"<{self.severity}[{self.code}] at {self.source.name}:{line}:{column}: {self.message}>"

    def to_text(self, width: int = 160) -> str:
        """The message as printed: header, place, excerpt with carets, labels, help."""
        line, column = self.source.position(self.span.start)
        rows = [f"{self.severity}[{self.code}]: {self.message}", f"  --> {self.source.name}:{line}:{column}"]
        marks = [(self.span, "^", self.pointer), *((label.span, "-", label.text) for label in self.labels)]
        gutter = max(len(str(self.source.position(span.start)[0])) for span, _, _ in marks) + 2
        if self.source.text:
            rows.append(" " * gutter + "|")
            for span, mark, words in marks:
                rows.extend(_excerpt(self.source, span, mark, words, gutter, width))
        more = f"{self.help}  (optlang explain {self.code})" if self.help else f"optlang explain {self.code}"
        rows.append(" " * gutter + f"= help: {more}")
        return "\n".join(rows).encode(errors="replace").decode()  # names of files may be no text

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary; lines and columns count from 1, offsets from 0."""
        return {
            "code": self.code,
            "severity": self.severity,
            "message": self.message,
            "file": self.source.name,
            **_place(self.source, self.span),
            "pointer": self.pointer,
            "help": self.help,
            "labels": [{**_place(self.source, x.span), "text": x.text} for x in self.labels],
            "fix": None if self.fix is None else {**_place(self.source, self.fix.span), "text": self.fix.text},
        }


def _place(source: Source, span: Span) -> dict[str, int]:
    line, column = source.position(span.start)
    end_line, end_column = source.position(span.end)
    return {
        "line": line, "column": column, "end_line": end_line, "end_column": end_column,
        "start": span.start, "end": span.end,
    }  # fmt: skip


def _excerpt(source: Source, span: Span, mark: str, words: str, gutter: int, width: int) -> list[str]:
    number, column = source.position(span.start)
    text = source.line(number).replace("\t", " ")
    length = max(1, min(span.end - span.start, len(text) - column + 1))
    cut = max(0, column - width // 2) if len(text) > width else 0  # a very long line is shown around the caret
    shown = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text[cut : cut + width])
    carets = mark * min(length, max(1, width - (column - 1 - cut)))
    return [
        f"{number:>{gutter - 1}} | {shown}",
        " " * gutter + "| " + " " * (column - 1 - cut) + carets + (f" {words}" if words else ""),
    ]


class OptError(Exception):
    """A `.opt` program that cannot be used; `diagnostics` says why, `str()` prints them all."""

    def __init__(self, diagnostics: Sequence[Diagnostic]) -> None:
        self.diagnostics = tuple(diagnostics)
        super().__init__("\n\n".join(d.to_text() for d in self.diagnostics))

    def __reduce__(self) -> tuple[type[OptError], tuple[tuple[Diagnostic, ...]]]:
        return type(self), (self.diagnostics,)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The closest known name, whatever its case, or an empty string. Of very many only some that begin alike are looked at.

    The setting of a called rule is nearest to its own name, `a.lr` to `lr`. A word of three letters has little to be like: half of
    it may differ, but not the first letter.
    """
    by_lower = {k.lower(): k for k in known if k != name}
    likely: Iterable[str] = by_lower
    if dotted := next((k for k in by_lower if name and k.endswith(f".{name.lower()}")), ""):
        return by_lower[dotted]
    if len(by_lower) > MOST_COMPARED:
        likely = islice((k for k in by_lower if k[:1] == name[:1].lower() and abs(len(k) - len(name)) <= 2), MOST_COMPARED)
    short = len(name) <= 3
    likely = [k for k in likely if k[:1] == name[:1].lower()] if short else likely
    found = difflib.get_close_matches(name[:80].lower(), likely, n=1, cutoff=0.6 if short else 0.7)
    return by_lower[found[0]] if found else ""
