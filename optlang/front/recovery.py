"""Reading on after an error: the grammar's LALR machine, driven so that a broken statement is mended or left out.

The stack below the place where a statement begins does not change until the statement is complete. So that place is
remembered, and after an error the stack is cut back to it; what can be kept of the statement (the name it defines) is fed
again with a nameless name, which becomes `syntax.Broken`, in the place of what could not be read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from lark import Lark
from lark.exceptions import UnexpectedToken

from optlang.errors import MOST_FINDINGS, Diagnostic, Source
from optlang.front.advice import ITEM_WORDS, Trouble, advise, begins_statement
from optlang.front.foreign import STATEMENTS
from optlang.front.lalr import Machine, Place
from optlang.front.scan import Lexeme
from optlang.front.syntax import Item

OPENING, CLOSING = frozenset(["LPAR", "LSQB", "LBRACE"]), frozenset(["RPAR", "RSQB", "RBRACE"])


class Start(NamedTuple):
    """Where a statement begins: among the lexemes, and on the stack of the machine."""

    place: Place
    index: int  # type: ignore[assignment]  # not the method of tuples
    depth: int


@dataclass
class Open:
    """A brace that is open, and the statement or form that it belongs to."""

    brace: Lexeme
    owner: Start


class Reader:
    """One pass over the lexemes of a file."""

    def __init__(self, grammar: Lark, source: Source, lexemes: Sequence[Lexeme], found: list[Diagnostic]) -> None:
        self.machine = Machine(grammar)
        end = len(source.text.rstrip())
        self.source, self.found = source, found
        self.lexemes = [*lexemes, Lexeme("$END", "", end, end, True)]
        self.start: Start = Start("item", 0, 1)
        self.open: list[Open] = []
        self.seen: dict[int, Lexeme] = {}  # that have been in trouble, by id, which none gets again while they are kept

    def read(self) -> list[Item]:
        """The items; errors are added to `found`, and reading stops after MOST_FINDINGS of them."""
        index = 0
        while len(self.found) < MOST_FINDINGS and index < len(self.lexemes):
            try:
                items = self.machine.feed(self.lexemes[index])
            except UnexpectedToken:
                index = self.recover(index)
                continue
            if self.lexemes[index].type == "$END":
                return list(items)
            self.note(index)
            index += 1
        return []

    def note(self, index: int) -> None:
        """Remembers where statements begin and which braces are open."""
        lexeme = self.lexemes[index]
        if lexeme.type == "RBRACE":
            self.start = self.open.pop().owner
        elif lexeme.type == "LBRACE":
            self.open.append(Open(lexeme, self.start))
        elif (place := self.machine.place()) is not None:
            self.start = Start(place, index, self.machine.depth - 1)

    # ---------------------------------------------------------------------------------------------------- errors

    def recover(self, index: int) -> int:
        """Reports the lexeme that does not fit, and returns the index from which to read on."""
        trouble = Trouble(self.source, self.lexemes, index, self.start.index, self.start.place, self.machine.wants(),
                          [o.brace for o in self.open])  # fmt: skip
        if id(trouble.here) in self.seen:
            return self.give_up(index)
        self.seen[id(trouble.here)] = trouble.here
        advice = advise(trouble)
        self.report(advice.diagnostic)
        if advice.mend is not None:
            return self.splice(index, *advice.mend)
        after = self.skip(index)
        brace = next((k for k in range(index, after) if self.lexemes[k].type == "LBRACE"), after)
        if "LBRACE" in trouble.wants and brace < after:
            return brace
        return after if self.complete() and not advice.spoils else self.salvage(after)

    def report(self, found: Diagnostic) -> None:
        """One finding for one place: what the scanner has said is not said again."""
        if not any(other.span.start <= found.span.start < max(other.span.end, other.span.start + 1) for other in self.found):
            self.found.append(found)

    def give_up(self, index: int) -> int:
        """The second trouble with one lexeme: it is left out without further words."""
        if not self.complete():
            self.machine.cut(self.start.depth)
        return self.skip(index + 1) if self.lexemes[index].type != "$END" else len(self.lexemes)

    def splice(self, index: int, first: int, after: int, new: Sequence[Lexeme]) -> int:
        """Other lexemes in the place of some; the statement is read again if some of them had been read."""
        self.lexemes[first:after] = new
        if first >= index:
            return first
        self.machine.cut(self.start.depth)
        return self.start.index

    def complete(self) -> bool:
        """Whether what has been read is a whole statement."""
        return self.machine.takes("$END") or self.machine.takes("RBRACE")

    def skip(self, index: int) -> int:
        """The next place where a statement begins or a block ends."""
        while True:
            lexeme = self.lexemes[index]
            if lexeme.type == "$END" or (index > self.start.index and self.may_go_on(index)):
                return index
            partner = lexeme.partner
            if lexeme.type == "LBRACE" and partner is not None and partner.start > lexeme.start:
                index = self.lexemes.index(partner, index)
            index += 1

    def may_go_on(self, index: int) -> bool:
        lexeme = self.lexemes[index]
        if lexeme.type == "RBRACE":
            return bool(self.open)
        if not self.open:
            foreign = lexeme.type == "NAME" and lexeme.fresh and STATEMENTS.get(lexeme.text, ("",))[0] in ITEM_WORDS
            return foreign or lexeme.type in ("RULE", "DEF", "ROUTE") or (lexeme.type == "FROM" and lexeme.fresh)
        return begins_statement(self.lexemes, index)

    def salvage(self, after: int) -> int:
        """Reads the statement again with what cannot be read left out."""
        self.machine.cut(self.start.depth)
        for kept, then in self.rests(after):
            try:
                for lexeme in kept:
                    self.machine.feed(lexeme)
            except UnexpectedToken:
                self.machine.cut(self.start.depth)
            else:
                return then
        return after

    def rests(self, after: int) -> Iterator[tuple[list[Lexeme], int]]:
        """What may be kept of the statement, best first, and where to read on."""
        whole = self.lexemes[self.start.index : after]
        brace = next((k for k, x in enumerate(whole) if x.type == "LBRACE"), len(whole))
        head = whole[:brace]
        if not head:
            return
        equal = next((k for k, x in enumerate(head) if x.type == "EQUAL" and x.depth == 0), -1)
        nothing = Lexeme("NAME", "", head[0].start, head[-1].end)
        names = [x for x in head[1:] if x.type == "NAME"][:1]
        if brace < len(whole) and head[0].type in ("RULE", "ROUTE", "DEF"):
            yield _header(head), self.start.index + brace
        if head[0].type == "DEF":
            yield [*_header(head), Lexeme("EQUAL", "=", head[-1].end, head[-1].end), nothing], after
        if brace < len(whole) and head[0].type in ("WHEN", "EVERY", "REPEAT"):
            yield [head[0], nothing], self.start.index + brace
        if equal > 0:
            yield [*head[: equal + 1], nothing], after
        if head[0].type in ("HYPER", "STATE", "REPORT"):
            yield [head[0], *names, Lexeme("EQUAL", "=", head[-1].end, head[-1].end), nothing], after
        if head[0].type == "INPUT":
            yield [head[0], *names], after
        if head[0].type == "RETURN":
            yield [head[0], nothing], after


def _header(head: Sequence[Lexeme]) -> list[Lexeme]:
    """`rule NAME` or `def NAME(a, b)`: the names that can be read in a broken header."""
    closing = next((k for k, x in enumerate(head) if x.type == "RPAR"), len(head))  # what comes after it is no parameter
    head = head[: closing + 1]
    end = head[-1].end
    names = [x for x in head[1:] if x.type == "NAME"] or [Lexeme("NAME", "", end, end)]
    if head[0].type != "DEF":
        return [head[0], *names[:1]]
    listed = [x for name in names[1:] for x in (name, Lexeme("COMMA", ",", end, end))]
    return [head[0], *names[:1], Lexeme("LPAR", "(", end, end), *listed, Lexeme("RPAR", ")", end, end)]


def pair_brackets(lexemes: Sequence[Lexeme]) -> None:
    """Notes for each bracket the other one, and for each lexeme how many closed round and square brackets are around it.
    A brace ends all other brackets: no expression holds one."""
    stack: list[Lexeme] = []
    for lexeme in lexemes:
        if lexeme.type == "LBRACE":
            while stack and stack[-1].type != "LBRACE":
                stack.pop()
        if lexeme.type in OPENING:
            stack.append(lexeme)
        elif lexeme.type in CLOSING:
            _close(stack, lexeme)
    depth = 0
    for lexeme in lexemes:
        closed = lexeme.partner is not None and "BRACE" not in lexeme.type
        depth -= closed and lexeme.type in CLOSING
        lexeme.depth = depth
        depth += closed and lexeme.type in OPENING


def _close(stack: list[Lexeme], closing: Lexeme) -> None:
    """Round and square brackets may be mixed in ranges: `[0, 1)`."""
    brace = closing.type == "RBRACE"
    while brace and stack and stack[-1].type != "LBRACE":
        stack.pop()
    if stack and (stack[-1].type == "LBRACE") == brace:
        closing.partner, stack[-1].partner = stack[-1], closing
        stack.pop()
