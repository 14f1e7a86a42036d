"""Text into lexemes and comments. What no rule file can contain is diagnosed here, and mended where its meaning is plain."""

from __future__ import annotations

import re
from collections.abc import Mapping

from optlang.errors import MOST_FINDINGS, Source, Span
from optlang.front import literals, signs
from optlang.front.foreign import LIBRARIES, OWNERS, SAID_HERE, SUPERSCRIPTS, TRANSPOSED
from optlang.front.lexemes import (
    LONGEST_NAME,
    LONGEST_NUMBER,
    MOST_LEXEMES,
    PRIMES,
    Lexeme,
    Scan,
    match_span,
    normal,
)
from optlang.front.syntax import Comment
from optlang.ops import BUILTINS

__all__ = ["LONGEST_NAME", "LONGEST_NUMBER", "MOST_LEXEMES", "Lexeme", "scan"]

NAME = r"[^\W\d][\w\u0300-\u036f]*"  # with combining marks, which normalisation joins to their letters
SHAPES = re.compile(
    rf"""
      (?P<space>    [ \t\r\n\f]+ )
    | (?P<comment>  \#[^\n]* )
    | (?P<string>   "[^"\n]*" (?!") | "" (?!") )
    | (?P<quoted>   \"\"\" .*? (?:\"\"\"|\Z) | "[^"\n]* | [“”„][^“”"\n]*[“”"]? | (?<![\w)\]'’′‘`´ʹ]) ' [^'\n]* ' )
    | (?P<foreigncomment> //[^\n]* | /\*.*?(?:\*/|\Z) )
    | (?P<dotted>   {NAME} (?: \.(?!T\b){NAME} )+ )
    | (?P<nabla>    ∇ (?: {NAME} (?=\() )? )
    | (?P<word>     {NAME} [{PRIMES}]* )
    | (?P<number>   (?:[0-9]+(?:\.[0-9]+)?|\.[0-9]+)(?:[eE][+\-]?[0-9]+)?
                    (?P<tail> \.[eE][+\-]?[0-9]+ | (?: \.(?!T\b) | \w )* ) )
    | (?P<symbol>   \*\*=? | === | := | <- (?=\s) | <> | (?: && | \|\| ) | [-+*/^@]=(?!=) | <= | >= | == | != | \.T(?!\w)
                  | [-+*/@^=<>(){{}}\[\],] )
    | (?P<other>    . )
    """,
    re.VERBOSE | re.DOTALL,
)


def scan(source: Source, fixed: Mapping[str, str]) -> Scan:
    """The lexemes of a text; the scan ends early where there are too many, or too many errors.

    `fixed` gives the terminals of keywords and symbols.
    """
    found = Scan(source, fixed)
    signs.hidden(found)
    for match in SHAPES.finditer(source.text):
        kind, text = match.lastgroup, match.group()
        if kind == "space":
            found.fresh = found.fresh or "\n" in text
        elif kind == "comment":
            found.comments.append(Comment(match_span(match), text))
        elif kind == "symbol" and text in fixed:
            found.add(fixed[text], text, *match.span())
        else:
            _ENTER[kind or "other"](found, match)
        if len(found.lexemes) + len(found.comments) > MOST_LEXEMES or len(found.diagnostics) >= MOST_FINDINGS:
            break
    return found


def _word(found: Scan, match: re.Match[str]) -> None:
    text, (start, end) = match.group(), match.span()
    name = text.rstrip(PRIMES)
    primes = text[len(name) :]
    middle = start + len(name)
    if name.isascii():
        _enter_word(found, name, primes, start, middle, end)
        return
    base = name.rstrip("".join(SUPERSCRIPTS) + TRANSPOSED)
    if base:
        _enter_word(found, normal(base), primes, start, start + len(base), start + len(base) + len(primes))
    for offset, char in enumerate(name[len(base) :], start + len(base)):
        if char in TRANSPOSED:
            signs.transposed(found, offset, offset + 1)
    digits = "".join(SUPERSCRIPTS.get(char, "") for char in name[len(base) :])
    if digits:
        span = Span(start + len(base), middle)
        found.report("S08", f"`{name[len(base) :]}` is a raised number", span, "powers are written `x^2`", fix=f"^{digits}")
        found.add("POWER", "^", *_offsets(span))
        found.add("NUMBER", digits, *_offsets(span))


def _offsets(span: Span) -> tuple[int, int]:
    return span.start, span.end


def _enter_word(found: Scan, name: str, primes: str, start: int, middle: int, end: int) -> None:
    if len(name) > LONGEST_NAME:
        found.report("L01", f"a name of {len(name)} characters", Span(start, start + LONGEST_NAME), f"at most {LONGEST_NAME}")
        name = name[:LONGEST_NAME]
    if not name.isidentifier():
        found.report("S02", f"`{name[:30]}` holds a character that cannot be part of a name", Span(start, middle),
                     "names are made of letters, digits and `_`")  # fmt: skip
    if not primes:
        found.add(found.fixed.get(name, "NAME"), name, start, end)
        return
    if len(primes) > 1:
        found.report("S10", f"`{name}{primes}` has more than one prime", Span(middle, end),
                     f"`{name}` is the old value and `{name}'` the new one; for an older value keep a state of its own", "'")  # fmt: skip
    elif primes != "'":
        found.report("S10", f"this is a typographic mark, `{primes}`, not a prime", Span(middle, end),
                     "write the straight `'` of the keyboard", fix="'")  # fmt: skip
    if name in found.fixed:
        found.report("S18", f"`{name}` is a keyword and cannot be primed", Span(start, end), "choose another name")
    found.add("PRIMED", name, start, end)


def _dotted(found: Scan, match: re.Match[str]) -> None:
    """`torch.sqrt`, `self.lr`: the last name is what is meant. `g.abs()` is left to the parser's advice."""
    owner, *_, last = match.group().split(".")
    start, end = match.span()
    if owner not in LIBRARIES and owner not in OWNERS:
        found.report("S12", f"`{match.group()[:60]}`: there are no attributes or methods", Span(start + len(owner), end),
                     _for_method(owner, last))  # fmt: skip
        found.add("NAME", "", start, end)
        return
    what = "no library is needed" if owner in LIBRARIES else f"there is no `{owner}`"
    said = SAID_HERE.get(last)
    found.report("S12", f"`{match.group()[:60]}`: {what}", Span(start, end),
                 f"write `{said}`" if said else f"write `{last}`", None if said else last)  # fmt: skip
    found.add("NAME", "" if said else last, start, end)


def _for_method(owner: str, last: str) -> str:
    name = last.rstrip("_")
    if name in SAID_HERE:
        return f"write `{SAID_HERE[name]}`"
    if name in BUILTINS:
        return f"functions stand before their operand: `{name}({owner})`"
    return "no name has parts: settings are read by their names, and what a call keeps is its own"


_ENTER = {
    "other": signs.other, "symbol": signs.symbol, "foreigncomment": signs.foreign_comment, "nabla": signs.nabla,
    "word": _word, "dotted": _dotted, "number": literals.number, "tail": literals.number, "string": literals.string,
    "quoted": literals.quoted,
}  # fmt: skip
