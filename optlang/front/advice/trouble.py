"""A lexeme that does not fit and what is around it, and the words of the language by what they begin."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from optlang.errors import Diagnostic, Fix, Label, Source, Span
from optlang.front.foreign import STATEMENTS
from optlang.front.scan import Lexeme

VALUES = frozenset(["NAME", "PRIMED", "NUMBER", "STRING"])
ENDS_VALUE = VALUES | {"RPAR", "TRANSPOSE"}
STATEMENT_WORDS = {"hyper": "HYPER", "input": "INPUT", "state": "STATE", "eval": "EVAL", "report": "REPORT", "every": "EVERY",
                   "when": "WHEN", "repeat": "REPEAT", "return": "RETURN"}  # fmt: skip
ITEM_WORDS = {"rule": "RULE", "def": "DEF", "route": "ROUTE", "from": "FROM"}
BRANCH_WORDS = {"when": "WHEN", "otherwise": "OTHERWISE"}
SMALL_WORDS = {"in": "IN", "per": "PER", "from": "FROM", "import": "IMPORT", "use": "USE", "else": "ELSE", "and": "AND",
               "or": "OR", "not": "NOT", "otherwise": "OTHERWISE"}  # fmt: skip
OPERATORS = frozenset(["PLUS", "MINUS", "TIMES", "OVER", "MATMUL", "POWER", "COMPARE", "AND", "OR", "NOT"])
WORDS_OF = {"item": ITEM_WORDS, "statement": STATEMENT_WORDS, "branch": BRANCH_WORDS}


class Advice(NamedTuple):
    """The finding, and how to read on: (first, after, new) lexemes; None where only leaving out helps. `spoils`: what was read of
    the statement is not what was meant, even where it is whole."""

    diagnostic: Diagnostic
    mend: tuple[int, int, Sequence[Lexeme]] | None = None
    spoils: bool = False


@dataclass
class Trouble:
    """A lexeme that does not fit, and what is around it."""

    source: Source
    lexemes: Sequence[Lexeme]
    index: int
    start: int  # index of the first lexeme of the statement
    place: str  # what kind of thing began there: item, statement, branch
    wants: frozenset[str]
    open: Sequence[Lexeme]  # the braces that are open
    unclosed: Lexeme | None = field(init=False)

    def __post_init__(self) -> None:
        opened: list[Lexeme] = []
        for lexeme in self.lexemes[self.start : self.index]:
            if lexeme.type in ("LPAR", "LSQB") and lexeme.partner is None:
                opened.append(lexeme)
            elif lexeme.type in ("RPAR", "RSQB") and lexeme.partner is None and opened:
                opened.pop()  # it was put there by a mend
        self.unclosed = opened[-1] if opened else None

    @property
    def here(self) -> Lexeme:
        return self.lexemes[self.index]

    @property
    def before(self) -> Lexeme:
        return self.lexemes[self.index - 1] if self.index else Lexeme("$START", "", 0, 0)

    @property
    def first(self) -> Lexeme:
        return self.lexemes[self.start]

    def after(self, steps: int = 1) -> Lexeme:
        return self.lexemes[min(self.index + steps, len(self.lexemes) - 1)]

    @property
    def in_statement(self) -> bool:
        """Whether the lexeme belongs to an unfinished statement, and is not one too many behind a complete one."""
        return not ({"RBRACE", "$END"} & self.wants)

    def has(self, type_: str) -> bool:
        """Whether the statement so far holds such a lexeme."""
        return any(lexeme.type == type_ for lexeme in self.lexemes[self.start : self.index])

    def say(
        self, code: str, message: str, help: str = "", at: Lexeme | Span | None = None, pointer: str = "",
        fix: Fix | None = None, labels: tuple[Label, ...] = (),
    ) -> Diagnostic:  # fmt: skip
        place = self.here if at is None else at
        span = place if isinstance(place, Span) else place.span
        return Diagnostic(code, message, span, pointer, help, labels=labels, fix=fix, source=self.source)

    def put(self, *new: Lexeme) -> tuple[int, int, Sequence[Lexeme]]:
        """A mend that inserts lexemes here."""
        return self.index, self.index, new

    def instead(self, *new: Lexeme) -> tuple[int, int, Sequence[Lexeme]]:
        """A mend that replaces the lexeme."""
        return self.index, self.index + 1, new

    def virtual(self, type_: str, text: str = "") -> Lexeme:
        return Lexeme(type_, text, self.before.end, self.before.end)


def begins_statement(lexemes: Sequence[Lexeme], index: int) -> bool:
    """Whether a statement, branch or top-level form begins here, as far as one can see without the grammar."""
    here = lexemes[index]
    if here.type in STATEMENT_WORDS.values() or here.type in ("RULE", "DEF", "ROUTE", "OTHERWISE", "$END"):
        return True
    following = lexemes[min(index + 1, len(lexemes) - 1)]
    if here.type == "FROM":
        return here.fresh and following.type == "NAME" and lexemes[min(index + 2, len(lexemes) - 1)].type == "IMPORT"
    if here.type == "NAME" and here.fresh and here.depth == 0 and here.text in STATEMENTS:
        return following.type in VALUES | {"LPAR"}
    return here.type in ("NAME", "PRIMED") and following.type == "EQUAL" and here.depth == 0


def shown(lexeme: Lexeme) -> str:
    """How a message names a lexeme."""
    if lexeme.type == "$END":
        return "the end of the file"
    text = lexeme.text + "'" * (lexeme.type == "PRIMED") or "this"
    return f"`{text if len(text) <= 30 else text[:30] + '…'}`"
