"""Text to syntax tree, with every error of a file in one run.

The text is scanned, split into top-level items, and each item is parsed by Lark's LALR tables for `grammar/opt.lark`. Where
that fails, a diagnostic is made, the broken statement is taken out or mended, and the item is parsed again.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import cache
from typing import Any

from lark import Lark
from lark.exceptions import UnexpectedToken

from optlang.tree import Builder
from optlang.errors import Diagnostic, Source
from optlang.resources import cache_file, folder
from optlang.scan import Lexeme, scan
from optlang.syntax import File, Item

COMPARISONS = ("<=", ">=", "==", "!=", "<", ">")


@cache
def grammar() -> Lark:
    """The LALR tables; made once in 0.3 s, then kept in the user's cache under a hash of the grammar and Lark's version."""
    text = (folder("grammar") / "opt.lark").read_text(encoding="utf-8")
    kept = cache_file(f"grammar-{sys.version_info.major}.{sys.version_info.minor}.lark")
    cached = str(kept) if kept is not None else False
    return Lark(text, parser="lalr", lexer="basic", transformer=Builder(), keep_all_tokens=True, cache=cached)


@cache
def terminals() -> dict[str, str]:
    """Keywords and symbols to the grammar's names for them."""
    named = {t.pattern.value: t.name for t in grammar().terminals if t.pattern.type == "str"}
    return named | dict.fromkeys(COMPARISONS, "COMPARE")


def parse(source: Source) -> tuple[File, list[Diagnostic]]:
    """The tree of all that can be read, and what is wrong with the rest."""
    found = scan(source, terminals())
    items, diagnostics = [], list(found.diagnostics)
    try:
        items = list(run(found.lexemes))
    except UnexpectedToken as error:
        token = error.token
        at = token.span if isinstance(token, Lexeme) else found.lexemes[-1].span
        diagnostics.append(Diagnostic("S01", "this is not expected here", at, source=source))
    return File(source, tuple(items), tuple(found.comments)), diagnostics


def run(lexemes: Sequence[Lexeme]) -> list[Item]:
    """The items that the grammar sees. Raises UnexpectedToken at the first lexeme that does not fit."""
    machine: Any = grammar().parse_interactive("")
    for lexeme in lexemes:
        machine.feed_token(lexeme)
    items: list[Item] = machine.feed_eof()
    return items
