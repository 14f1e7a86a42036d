"""The canonical text of a file: one statement a line, equal signs of neighbours in one column, comments where they were.

The layout depends on the tree, the comments and on where blank lines stood, and on nothing else; so it is idempotent.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from optlang.errors import OptError, Source
from optlang.front import syntax as s
from optlang.front.columns import INDENT, WIDTH, heads, wrapped
from optlang.front.parser import parse
from optlang.front.unparse import BREAK, LINE_END, Entry, head_of
from optlang.resources import deep_recursion

BLANK_LINE = re.compile(r"\n[ \t\r\f]*\n")
SKIPPED_OR_BRACE = re.compile(r'"[^"\n]*"|#[^\n]*|[{}]')


@dataclass(slots=True)
class Row:
    """One line: its text, the comment at its end, and whether a blank line stands before it."""

    text: str
    comment: str = ""
    blank: bool = False


def canonical(source: Source) -> str:
    """A text in canonical style. Raises OptError where it cannot be read: nothing of it may be lost."""
    file, found = parse(source)
    if any(d.severity == "error" for d in found):
        raise OptError(found)
    return format_file(file)


def format_file(file: s.File) -> str:
    """The text of a parsed file in canonical form, comments kept. For files without syntax errors."""
    layout = Layout(file)
    with deep_recursion():
        layout.entries(file.items, len(file.source.text), "", apart=_apart)
    _align_comments(layout.rows)
    return "".join("\n" * (row.blank and number > 0) + row.text + "\n" for number, row in enumerate(layout.rows))


def _apart(before: Entry, after: Entry) -> bool:
    """Top-level forms stand apart, except imports and functions of one line."""
    return not (isinstance(before, s.Import) and isinstance(after, s.Import)) and not (_is_short(before) and _is_short(after))


def _is_short(item: Entry) -> bool:
    return isinstance(item, s.Def) and item.short


def _align_comments(rows: Sequence[Row]) -> None:
    """Comments at the ends of neighbouring lines begin in one column."""
    run: list[Row] = []
    for row in [*rows, Row("", "", True)]:
        if run and (row.blank or not row.comment):
            column = max(len(r.text) for r in run)
            for r in run:
                r.text = f"{r.text:<{column}}  {r.comment}"
            run = []
        if row.comment:
            run.append(row)


class Layout:
    """The rows so far, and the comments that are still to be placed (the next one last)."""

    def __init__(self, file: s.File) -> None:
        self.text = file.source.text
        self.waiting = list(file.comments)[::-1]
        self.rows: list[Row] = []
        self.done = 0  # everything before this offset has been placed

    # ------------------------------------------------------------------------------------------------- sequences

    def entries(
        self, entries: Sequence[Entry], end: int, indent: str, apart: Callable[[Entry, Entry], bool] = lambda a, b: False
    ) -> None:
        """Statements or top-level forms with the comments between them, up to the offset `end`."""
        found = heads(entries, self.gap)
        for number, entry in enumerate(entries):
            first = len(self.rows)
            must = number > 0 and apart(entries[number - 1], entry) and not self.gap(self.done, entry.span.start)
            self.own_lines(entry.span.start, indent)
            self.entry(entry, found[number], indent)
            self.rows[first].blank |= must
            self.done = entry.span.end
            self.line_end(entry.span.end)
        self.own_lines(end, indent)

    def own_lines(self, end: int, indent: str) -> None:
        """Comments on lines of their own, up to the offset `end`."""
        while self.waiting and self.waiting[-1].span.start < end:
            comment = self.waiting.pop()
            blank = self.gap(self.done, comment.span.start)
            self.rows.append(Row(indent + comment.text.rstrip(), blank=blank))
            self.done = comment.span.end

    def line_end(self, end: int) -> None:
        """A comment that follows on the line of the offset `end` stays there."""
        if self.waiting and self.waiting[-1].span.start >= end and "\n" not in self.text[end : self.waiting[-1].span.start]:
            comment = self.waiting.pop()
            self.rows[-1].comment = comment.text.rstrip()
            self.done = comment.span.end

    def gap(self, start: int, end: int) -> bool:
        """Whether there is a blank line between two offsets."""
        return BLANK_LINE.search(self.text, start, end) is not None

    # --------------------------------------------------------------------------------------------------- entries

    def entry(self, entry: Entry, head: str, indent: str) -> None:
        """One statement or top-level form. Comments inside of it go above it."""
        blank, first = self.gap(self.done, entry.span.start), len(self.rows)
        opening = entry.span.end if _body_of(entry) is None else self.brace(_before_body(entry), "{")
        self.own_lines(opening, indent)
        for row in self.rows[first:]:
            row.blank = False
        line = "" if self.comment_before(entry.span.end) else _one_line(entry)
        if opening == entry.span.end or (line and len(indent + line) <= WIDTH):
            self.simple(line or head, indent)
        else:
            self.bodies(entry, head, opening, indent)
        self.rows[first].blank = blank

    def simple(self, text: str, indent: str) -> None:
        """A line, broken where it is too long."""
        line = indent + text.replace(LINE_END, " ").replace(BREAK, " ")
        lines = [line] if len(line) <= WIDTH else wrapped(text, indent)
        self.rows.extend(Row(part.rstrip()) for part in lines)

    def bodies(self, entry: Entry, head: str, opening: int, indent: str) -> None:
        body = _body_of(entry) or ()
        otherwise = entry.otherwise if isinstance(entry, (s.When, s.Every)) else ()
        closing = self.brace(body[-1].span.end if body else opening + 1, "}")
        self.braces(head, body, opening, closing, indent)
        if otherwise or self.comment_before(entry.span.end):
            self.rows.pop()
            self.braces("} else", otherwise, self.brace(closing, "{"), entry.span.end - 1, indent)

    def braces(self, head: str, body: Sequence[Entry], opening: int, closing: int, indent: str) -> None:
        """`head {`, the body, `}`; a comment behind the opening brace stays there."""
        self.simple(head + " {", indent)
        self.done = opening + 1
        if self.waiting and opening < self.waiting[-1].span.start < (body[0].span.start if body else closing):
            self.line_end(opening + 1)
        first = len(self.rows)
        self.entries(body, closing, indent + INDENT)
        for row in self.rows[first : first + 1]:
            row.blank = False
        self.rows.append(Row(indent + "}"))

    def comment_before(self, end: int) -> bool:
        return bool(self.waiting) and self.waiting[-1].span.start < end

    def brace(self, start: int, which: str) -> int:
        """The offset of the next brace outside texts and comments."""
        return next(m.start() for m in SKIPPED_OR_BRACE.finditer(self.text, start) if m.group() == which)


# ---------------------------------------------------------------------------------------------------------- blocks


def _body_of(entry: Entry) -> Sequence[Entry] | None:
    """What stands between the first braces; None where there are none."""
    match entry:
        case s.Rule(body=body) | s.Def(body=body, short=False):
            return body
        case s.Every(body=body) | s.When(body=body) | s.Repeat(body=body):
            return body
        case s.Route(branches=branches):
            return branches
        case _:
            return None


def _before_body(entry: Entry) -> int:
    """An offset between the last expression of the head and the opening brace."""
    match entry:
        case s.Rule() | s.Route() | s.Def():
            return entry.name_span.end
        case s.When(condition=last) | s.Every(start=None, period=last) | s.Repeat(count=last):
            return last.span.end
        case s.Every(start=last) if last is not None:
            return last.span.end
        case _:
            return entry.span.start


def _one_line(entry: Entry) -> str:
    """A block with one equation on each side, on one line; a function of one expression; else nothing."""
    match entry:
        case s.When() | s.Every() | s.Repeat():
            sides = [entry.body] if isinstance(entry, s.Repeat) or not entry.otherwise else [entry.body, entry.otherwise]
            if any(len(side) != 1 or not isinstance(side[0], s.Equation) for side in sides):
                return ""
            return f"{head_of(entry)} " + " else ".join(f"{{ {head_of(side[0])} }}" for side in sides).replace(BREAK, " ")
        case _:
            return ""
