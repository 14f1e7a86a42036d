"""Text to syntax tree, with every error of a file in one run.

The text is scanned, its brackets are paired, and Lark's LALR tables for `grammar/opt.lark` are run over the lexemes. Where one
does not fit, `advice` finds the words for it and `recovery` reads on.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache

from optlang import library
from optlang.errors import MOST_FINDINGS, Diagnostic, Fix, Source, Span, did_you_mean
from optlang.front.advice import ENDS_VALUE, NO_DEFAULT, ORDER
from optlang.front.grammar_tables import grammar
from optlang.front.recovery import CLOSING, OPENING, Reader, pair_brackets
from optlang.front.scan import MOST_LEXEMES, Lexeme, scan
from optlang.front.syntax import File

COMPARISONS = ("<=", ">=", "==", "!=", "<", ">")
KINDS = frozenset(["real", "int", "bool"])
NAME_OR_PATH = re.compile(r"\s*[\w.:/\\~-]+\s*")
MOST_OF_A_PATH = 4_096
MOST_NESTING = 100
MOST_STATEMENTS = 4_000
NESTING = frozenset(["POWER", "TRANSPOSE", "NOT"])
LEVELLING = frozenset(["PLUS", "MINUS", "TIMES", "OVER", "MATMUL", "COMPARE", "AND", "OR", "COMMA", "EQUAL"])


@cache
def terminals() -> dict[str, str]:
    """Keywords and symbols to the grammar's names for them."""
    named = {t.pattern.value: t.name for t in grammar().terminals if t.pattern.type == "str"}
    return named | dict.fromkeys(COMPARISONS, "COMPARE")


def parse(source: Source) -> tuple[File, list[Diagnostic]]:
    """The tree of all that can be read, and what is wrong with the rest, in the order of the text."""
    if len(source.text) > library.MOST_BYTES:
        return File(source, (), ()), [library.too_large(source.name)]
    if len(source.text) <= MOST_OF_A_PATH and NAME_OR_PATH.fullmatch(source.text) and source.text.strip() not in terminals():
        return File(source, (), ()), [_no_text(source)]
    found = scan(source, terminals())
    comments = tuple(found.comments)
    if (limit := _too_large(source, found.lexemes, len(comments))) is not None:
        return File(source, (), comments), [limit]
    pair_brackets(found.lexemes)
    lexemes = _check_kinds(source, found.lexemes, found.diagnostics)
    items = Reader(grammar(), source, lexemes, found.diagnostics).read()
    return File(source, tuple(items), comments), sorted(found.diagnostics, key=lambda d: d.span)[:MOST_FINDINGS]


def _no_text(source: Source) -> Diagnostic:
    name = source.text.strip()
    start = source.text.index(name)
    return Diagnostic("S01", f"`{name[:40]}` is not the text of a rule", Span(start, start + len(name)), "",
                      "`optlang.load` takes library names and paths", source=source)  # fmt: skip


def _too_large(source: Source, lexemes: Sequence[Lexeme], comments: int) -> Diagnostic | None:
    """A file that only a machine writes is refused before it can hurt."""
    if len(lexemes) + comments > MOST_LEXEMES:
        return _limit(source, f"the file has more than {MOST_LEXEMES} words, signs and comments", Span(0, 1))
    if (deep := _too_deep(lexemes)) is not None:
        return _limit(source, f"expressions or blocks are nested more than {MOST_NESTING} deep", deep.span)
    equations = [lexeme for lexeme in lexemes if lexeme.type == "EQUAL"]
    if len(equations) > MOST_STATEMENTS:
        return _limit(source, f"the file has more than {MOST_STATEMENTS} statements", equations[MOST_STATEMENTS].span)
    return None


def _check_kinds(source: Source, lexemes: Sequence[Lexeme], found: list[Diagnostic]) -> list[Lexeme]:
    """`hyper float lr`: the grammar takes any name for a kind, also one on the line before. The lexemes without the wrong ones."""
    several = [
        (word, kind, name)
        for word, kind, name in zip(lexemes, lexemes[1:], lexemes[2:], strict=False)
        if word.type == "HYPER" and kind.type == name.type == "NAME" and kind.text not in KINDS
    ]
    wrong = [kind for _, kind, name in several if not name.fresh]
    alone = [(word, name) for word, name, after in several if after.fresh]
    for _, name in alone[:MOST_FINDINGS]:
        found.append(Diagnostic("S16", NO_DEFAULT, name.span, "", ORDER, source=source))
    for kind in wrong[:MOST_FINDINGS]:
        near = did_you_mean(kind.text, ["int", "bool"])
        help_ = f"did you mean `{near}`?" if near else "`int` and `bool` are kinds; a real number needs no word: `hyper lr = 1e-3`"
        found.append(Diagnostic("S20", f"there is no kind `{kind.text[:40]}`", kind.span, "", help_, source=source,
                                fix=Fix(kind.span, near)))  # fmt: skip
    dropped = {id(lexeme) for lexeme in (*wrong, *(part for pair in alone for part in pair))}
    return [lexeme for lexeme in lexemes if id(lexeme) not in dropped]


def _limit(source: Source, message: str, at: Span) -> Diagnostic:
    return Diagnostic("L01", message, at, "the limit is here", "split it into smaller pieces with names", source=source)


def _too_deep(lexemes: Sequence[Lexeme]) -> Lexeme | None:
    """The first lexeme that is nested too deep: by brackets, or by `^`, `.T`, `-` and `not`, which nest without brackets."""
    chains, depth = [0], 0
    value = False  # whether the lexeme before ends a value
    for lexeme in lexemes:
        if lexeme.type in OPENING:
            chains.append(0)
            depth += 1
        elif lexeme.type in CLOSING and len(chains) > 1:
            depth -= 1 + chains.pop()
        elif lexeme.type in NESTING or (lexeme.type == "MINUS" and not value):
            chains[-1] += 1
            depth += 1
        elif lexeme.type in LEVELLING or (lexeme.fresh and value):
            depth -= chains[-1]
            chains[-1] = 0
        value = lexeme.type in ENDS_VALUE
        if depth > MOST_NESTING:
            return lexeme
    return None
