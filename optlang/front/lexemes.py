"""Lexemes, and what a scan gathers."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field

from optlang.errors import MOST_FINDINGS, Diagnostic, Fix, Source, Span
from optlang.front.foreign import SMART_PRIMES
from optlang.front.syntax import Comment

LONGEST_NAME = 100
LONGEST_NUMBER = 60
MOST_LEXEMES = 20_000
PRIMES = "'" + SMART_PRIMES


@dataclass(slots=True, eq=False)
class Lexeme:
    """One symbol. `type` is the grammar's terminal, or OTHER where the grammar has none; `partner` its other bracket."""

    type: str
    text: str
    start: int
    end: int
    fresh: bool = False  # the first of its line
    partner: Lexeme | None = None
    depth: int = 0  # round and square brackets around it that are closed

    @property
    def span(self) -> Span:
        return Span(self.start, self.end)


@dataclass(slots=True)
class Scan:
    """What a text holds: lexemes, comments, and what was wrong with its characters."""

    source: Source
    fixed: Mapping[str, str]
    lexemes: list[Lexeme] = field(default_factory=list)
    comments: list[Comment] = field(default_factory=list)
    diagnostics: list[Diagnostic] = field(default_factory=list)
    fresh: bool = True
    bars_until: int = 0  # bars before this offset have been reported

    def report(self, code: str, message: str, span: Span, help: str = "", fix: str | None = None, pointer: str = "") -> None:
        if len(self.diagnostics) < MOST_FINDINGS:
            self.diagnostics.append(Diagnostic(code, message, span, pointer, help, source=self.source,
                                               fix=None if fix is None else Fix(span, fix)))  # fmt: skip

    def add(self, type_: str, text: str, start: int, end: int) -> None:
        self.lexemes.append(Lexeme(type_, text, start, end, self.fresh))
        self.fresh = False


def match_span(match: re.Match[str]) -> Span:
    return Span(*match.span())


def normal(name: str) -> str:
    """Python normalises names by NFKC; the same here, so that a keyword argument finds its hyper."""
    return unicodedata.normalize("NFKC", name)
