"""Text into lexemes and comments. What no rule file can contain is diagnosed here, and mended where its meaning is plain."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass

from optlang.errors import Diagnostic, Fix, Source, Span
from optlang.syntax import Comment

LONGEST_NAME = 100
LONGEST_NUMBER = 60
PRIMES = "'’′‘`´"


@dataclass(slots=True)
class Lexeme:
    """One symbol. `type` is the grammar's terminal; `BAD` where a diagnostic has already been made."""

    type: str
    text: str
    start: int
    end: int
    fresh: bool = False  # the first of its line

    @property
    def span(self) -> Span:
        return Span(self.start, self.end)


SHAPES = re.compile(
    r"""
      (?P<space>   [ \t\r\n\f]+ )
    | (?P<comment> \#[^\n]* )
    | (?P<string>  "[^"\n]*" )
    | (?P<word>    [^\W\d]\w*[%s]* )
    | (?P<number>  (?:[0-9]+(?:\.[0-9]+)?|\.[0-9]+)(?:[eE][+\-]?[0-9]+)?(?P<tail>[\w.]*) )
    | (?P<symbol>  <= | >= | == | != | \.T(?!\w) | [-+*/@^=<>(){}\[\],] )
    | (?P<other>   . )
    """
    % PRIMES,
    re.VERBOSE | re.DOTALL,
)


@dataclass(slots=True)
class Scan:
    """What a text holds: lexemes, comments, and what was wrong with its characters."""

    lexemes: list[Lexeme]
    comments: list[Comment]
    diagnostics: list[Diagnostic]


def scan(source: Source, fixed: Mapping[str, str]) -> Scan:
    """The lexemes of a text. `fixed` gives the terminals of keywords and symbols."""
    found = Scan([], [], [])
    fresh = True
    for match in SHAPES.finditer(source.text):
        kind, text = match.lastgroup, match.group()
        if kind == "tail":
            kind = "number"
        if kind == "space":
            fresh = fresh or "\n" in text
        elif kind == "comment":
            found.comments.append(Comment(Span(match.start(), match.end()), text))
        else:
            found.lexemes.append(Lexeme(_type(kind or "", text, fixed), _text(kind or "", text), *match.span(), fresh))
            fresh = False
    return found


def _type(kind: str, text: str, fixed: Mapping[str, str]) -> str:
    if kind == "word":
        return "PRIMED" if text[-1] in PRIMES else fixed.get(text, "NAME") if text.isalpha() else "NAME"
    if kind == "symbol":
        return fixed[text]
    return {"number": "NUMBER", "string": "STRING"}.get(kind, "OTHER")


def _text(kind: str, text: str) -> str:
    if kind != "word":
        return text
    text = text.rstrip(PRIMES)
    return text if text.isascii() else unicodedata.normalize("NFC", text)
