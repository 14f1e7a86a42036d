"""Characters and signs that no rule file holds: said, and read as what is meant."""

from __future__ import annotations

import re
import unicodedata

from optlang.errors import Span
from optlang.front.foreign import SIGNS, TRANSPOSED, UPDATE
from optlang.front.lexemes import PRIMES, Scan, match_span

BARS = re.compile(r"(\|\|?|‖|∥)[^|‖∥\n]+\1")
HIDDEN = re.compile("[\x00-\x08\x0b\x0e-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ud800-\udfff\ufeff]|\r(?!\r*\n)")


def hidden(found: Scan) -> None:
    """Characters that cannot be seen could make a text mean something else than it shows; comments and texts included."""
    for match in HIDDEN.finditer(found.source.text):
        if match.group() == "\r":  # which an editor may show as the end of a line, and of a comment
            found.report("S02", "a carriage return that ends no line", match_span(match), "save the file with plain line ends", "\n")
        else:
            name = unicodedata.name(match.group(), f"U+{ord(match.group()):04X}")
            found.report("S02", f"an invisible character, {name}", match_span(match), "delete it", fix="")
        if len(found.diagnostics) >= 5:
            break


def other(found: Scan, match: re.Match[str]) -> None:
    text = match.group()
    if text in "|‖∥" and _bars(found, match):
        return
    if text in SIGNS:
        report_sign(found, match)
    elif text in TRANSPOSED:
        transposed(found, match.end() - 1, match.end())
    elif text in PRIMES:
        found.report("S10", "a prime stands behind a name and nowhere else", match_span(match),
                     "give the expression a name: a prime is part of a name, as in `m'`")  # fmt: skip
    elif HIDDEN.match(text):
        pass
    elif text.isspace():
        found.report("S02", f"a special blank, {unicodedata.name(text, f'U+{ord(text):04X}')}", match_span(match),
                     "replace it by a plain one", fix=" ")  # fmt: skip
    else:
        found.add("OTHER", text, *match.span())


def _bars(found: Scan, match: re.Match[str]) -> bool:
    """`|g|` and `||g||`: a bar where an operand should stand, and the one that closes it."""
    if match.start() < found.bars_until:
        return True
    before = found.lexemes[-1].type if found.lexemes else ""
    closing = BARS.match(found.source.text, match.start())
    if closing is None or before in ("NAME", "PRIMED", "NUMBER", "RPAR"):
        return False
    said = "norm" if closing.group().startswith(("||", "‖", "∥")) else "abs"
    found.report("S08", f"`{closing.group()[:60]}`: bars mean nothing here", match_span(closing), f"write `{said}(x)`",
                 f"{said}({closing.group().strip('|‖∥')})")  # fmt: skip
    found.bars_until = closing.end()
    return True


def report_sign(found: Scan, match: re.Match[str]) -> None:
    sign = SIGNS[match.group()]
    update = sign.help.startswith(UPDATE)
    fix = None if update or match.group() in "%√∑" else _apart(found.source.text, match.span(), sign.meant)
    help_ = sign.help
    if update and found.lexemes and found.lexemes[-1].type == "NAME":
        name = found.lexemes[-1].text
        help_ = sign.help if name in ("g", "t") else f"{UPDATE}`{name}' = {name} {match.group()[0]} …`"
        found.lexemes[-1].type = "PRIMED"
    found.report(sign.code, sign.message, match_span(match), help_, fix)
    if sign.meant:
        found.add(found.fixed.get(sign.meant, "NAME"), sign.meant, *match.span())


def _apart(text: str, place: tuple[int, int], word: str) -> str:
    """A word for a sign, with blanks where it would grow together with its neighbours."""
    if not word.isalpha():
        return word
    before, after = text[max(place[0] - 1, 0) : place[0]], text[place[1] : place[1] + 1]
    return " " * before.isidentifier() + word + " " * (after.isidentifier() or after.isdigit())


def foreign_comment(found: Scan, match: re.Match[str]) -> None:
    span = Span(match.start(), match.start() + 2)
    if match.group().startswith("//") and not found.fresh and not match.group()[2:3].isspace():
        help_ = "comments begin with `#`; a quotient rounded down is `floor(a/b)`"
    else:
        help_ = "comments begin with `#` and end with the line"
    found.report("S15", f"`{match.group()[:2]}` does not begin a comment here", span, help_,
                 "#" if match.group().startswith("//") else None)  # fmt: skip
    found.fresh = found.fresh or "\n" in match.group()


def transposed(found: Scan, start: int, end: int) -> None:
    found.report("S08", f"`{found.source.text[start:end]}` is not an operator of this language", Span(start, end),
                 "a transposed matrix is written `x.T`", fix=".T")  # fmt: skip
    found.add("TRANSPOSE", ".T", start, end)


def nabla(found: Scan, match: re.Match[str]) -> None:
    """`∇`, and the `∇f` of `∇f(w + e)`: the gradient elsewhere, if something is called."""
    found.report("S08", f"`{match.group()}` is not an operator of this language", match_span(match),
                 "the gradient is `g`; at another point it is `grad(x)`")  # fmt: skip
    if len(match.group()) > 1:
        found.add("NAME", "grad", *match.span())


def symbol(found: Scan, match: re.Match[str]) -> None:
    if match.group() != "||" or not _bars(found, match):
        report_sign(found, match)
