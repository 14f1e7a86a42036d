"""Text into lexemes and comments. What no rule file can contain is diagnosed here, and mended where its meaning is plain."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field

from optlang.errors import Diagnostic, Fix, Source, Span
from optlang.foreign import LIBRARIES, OWNERS, SAID_HERE, SIGNS, SMART_PRIMES, SUPERSCRIPTS, TRANSPOSED
from optlang.syntax import Comment

LONGEST_NAME = 100
LONGEST_NUMBER = 60
MOST_LEXEMES = 100_000
MOST_FINDINGS = 50
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


NAME = r"[^\W\d][\w\u0300-\u036f]*"  # with combining marks, which normalisation joins to their letters
SHAPES = re.compile(
    rf"""
      (?P<space>    [ \t\r\n\f]+ )
    | (?P<comment>  \#[^\n]* )
    | (?P<string>   "[^"\n]*" (?!") | "" (?!") )
    | (?P<quoted>   \"\"\" .*? (?:\"\"\"|\Z) | "[^"\n]* | [“”„][^“”"\n]*[“”"]? | (?<![\w)\]'’′‘`´ʹ]) ' [^'\n]* ' )
    | (?P<foreigncomment> //[^\n]* | /\*.*?(?:\*/|\Z) )
    | (?P<dotted>   {NAME} (?: \.(?!T\b){NAME} )+ )
    | (?P<word>     {NAME} [{PRIMES}]* )
    | (?P<number>   (?:[0-9]+(?:\.[0-9]+)?|\.[0-9]+)(?:[eE][+\-]?[0-9]+)?
                    (?P<tail> \.[eE][+\-]?[0-9]+ | (?: \.(?!T\b) | \w )* ) )
    | (?P<symbol>   \*\*=? | === | := | <- (?=\s) | <> | (?: && | \|\| ) | [-+*/^@]=(?!=) | <= | >= | == | != | \.T(?!\w)
                  | [-+*/@^=<>(){{}}\[\],] )
    | (?P<other>    . )
    """,
    re.VERBOSE | re.DOTALL,
)
BARS = re.compile(r"(\|\|?|‖)[^|‖\n]+\1")
HIDDEN = re.compile("[\x00-\x08\x0b\x0e-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]")


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


def scan(source: Source, fixed: Mapping[str, str]) -> Scan:
    """The lexemes of a text; the scan ends early where there are too many, or too many errors.

    `fixed` gives the terminals of keywords and symbols.
    """
    found = Scan(source, fixed)
    _hidden(found)
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


def match_span(match: re.Match[str]) -> Span:
    return Span(*match.span())


# ----------------------------------------------------------------------------------------------------- characters


def _hidden(found: Scan) -> None:
    """Characters that cannot be seen could make a text mean something else than it shows; comments and texts included."""
    for match in HIDDEN.finditer(found.source.text):
        name = unicodedata.name(match.group(), f"U+{ord(match.group()):04X}")
        found.report("S02", f"an invisible character, {name}", match_span(match), "delete it", fix="")
        if len(found.diagnostics) >= 5:
            break


def _other(found: Scan, match: re.Match[str]) -> None:
    text = match.group()
    if text in "|‖" and _bars(found, match):
        return
    if text in SIGNS:
        _sign(found, match)
    elif text in TRANSPOSED:
        _transposed(found, match.end() - 1, match.end())
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
    said = "norm" if closing.group().startswith(("||", "‖")) else "abs"
    found.report("S08", f"`{closing.group()[:60]}`: bars mean nothing here", match_span(closing), f"write `{said}(x)`",
                 f"{said}({closing.group().strip('|‖')})")  # fmt: skip
    found.bars_until = closing.end()
    return True


def _sign(found: Scan, match: re.Match[str]) -> None:
    sign = SIGNS[match.group()]
    update = sign.help.startswith("an equation")
    fix = None if update or match.group() == "%" else sign.meant
    found.report(sign.code, sign.message, match_span(match), sign.help, fix)
    if update and found.lexemes and found.lexemes[-1].type == "NAME":
        found.lexemes[-1].type = "PRIMED"
    if sign.meant:
        found.add(found.fixed.get(sign.meant, "NAME"), sign.meant, *match.span())


def _foreign_comment(found: Scan, match: re.Match[str]) -> None:
    span = Span(match.start(), match.start() + 2)
    if match.group().startswith("//") and not found.fresh and not match.group()[2:3].isspace():
        help_ = "comments begin with `#`; a quotient rounded down is `floor(a/b)`"
    else:
        help_ = "comments begin with `#` and end with the line"
    found.report("S15", f"`{match.group()[:2]}` does not begin a comment here", span, help_,
                 "#" if match.group().startswith("//") else None)  # fmt: skip
    found.fresh = found.fresh or "\n" in match.group()


# ----------------------------------------------------------------------------------------------------------- words


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
            _transposed(found, offset, offset + 1)
    digits = "".join(SUPERSCRIPTS.get(char, "") for char in name[len(base) :])
    if digits:
        span = Span(start + len(base), middle)
        found.report("S08", f"`{name[len(base) :]}` is a raised number", span, "powers are written `x^2`", fix=f"^{digits}")
        found.add("POWER", "^", *_offsets(span))
        found.add("NUMBER", digits, *_offsets(span))


def _offsets(span: Span) -> tuple[int, int]:
    return span.start, span.end


def normal(name: str) -> str:
    """Python normalises names by NFKC; the same here, so that a keyword argument finds its hyper."""
    return unicodedata.normalize("NFKC", name)


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


def _transposed(found: Scan, start: int, end: int) -> None:
    found.report("S08", f"`{found.source.text[start:end]}` is not an operator of this language", Span(start, end),
                 "a transposed matrix is written `x.T`", fix=".T")  # fmt: skip
    found.add("TRANSPOSE", ".T", start, end)


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
    said = SAID_HERE.get(last.rstrip("_"))
    return f"write `{said}`" if said else f"functions stand before their operand: `{last.rstrip('_')}({owner})`"


# --------------------------------------------------------------------------------------------------- numbers, texts


def _number(found: Scan, match: re.Match[str]) -> None:
    tail, (start, end) = match.group("tail"), match.span()
    digits = match.group()[: len(match.group()) - len(tail)]
    if len(digits) > LONGEST_NUMBER:
        found.report("L01", f"a number of {len(digits)} characters", Span(start, start + LONGEST_NUMBER),
                     f"at most {LONGEST_NUMBER}; a float64 has 17 digits")  # fmt: skip
        digits = digits[:LONGEST_NUMBER]
    middle = start + len(digits)
    if not tail:
        found.add("NUMBER", digits, start, end)
    elif tail.isidentifier() and tail not in _SUFFIXES and not re.fullmatch(r"[eE]|_+\d[\d_]*|[xXbBoO][\da-fA-F]+", tail):
        found.report("S07", "a `*` is missing between a number and a name", Span(start, end), f"write `{digits}*{tail}`",
                     f"{digits}*{tail}")  # fmt: skip
        found.add("NUMBER", digits, start, middle)
        found.add("TIMES", "*", middle, middle)
        found.add(found.fixed.get(tail, "NAME"), normal(tail), middle, end)
    else:
        _bad_number(found, match.group(), digits, tail, Span(start, end))
        found.add("NUMBER", digits, start, end)


_SUFFIXES = frozenset(["f", "F", "d", "L", "l", "j", "J", "u", "f32", "f64"])


def _bad_number(found: Scan, text: str, digits: str, tail: str, span: Span) -> None:
    shown = text if len(text) < 40 else text[:40] + "…"
    if tail == "." or re.fullmatch(r"\.[eE][+\-]?\d+", tail):
        found.report("S06", f"`{shown}` ends in a point without digits", span, f"write `{digits}.0{tail[1:]}`", f"{digits}.0{tail[1:]}")
    elif re.fullmatch(r"[eE]", tail):
        found.report("S06", f"`{shown}` has no exponent", span, f"write a whole number behind it: `{digits}e-3`")
    elif re.fullmatch(r"_+\d[\d_]*", tail):
        plain = text.replace("_", "")
        found.report("S06", f"`{shown}`: numbers are written without `_`", span, f"write `{plain}`", plain)
    elif tail in _SUFFIXES:
        found.report("S06", f"`{shown}`: numbers have no suffix", span, f"write `{digits}`", digits)
    elif "e" in digits.lower() and tail.startswith("."):
        found.report("S06", f"`{shown}`: the exponent of a number is whole", span, "for other powers write `10^(-3.5)`")
    else:
        found.report("S06", f"`{shown}` is not a number", span, "numbers look like `10`, `0.999` or `1e-8`")


def _string(found: Scan, match: re.Match[str]) -> None:
    found.add("STRING", match.group(), *match.span())


def _quoted(found: Scan, match: re.Match[str]) -> None:
    text, span = match.group(), match_span(match)
    inner = re.sub(r"\s+", " ", text.strip("\"'“”„")).strip()
    if text.startswith('"') and not text.startswith('"""'):
        found.report("S05", "this text has no closing quotation mark", span, 'close it with `"` on the same line', pointer="")
    else:
        found.report("S05", "this is not how a text is quoted", span, f'write `"{inner[:60]}"`, in one line', f'"{inner}"')
    found.add("STRING", f'"{inner}"', *match.span())


def _symbol(found: Scan, match: re.Match[str]) -> None:
    if match.group() != "||" or not _bars(found, match):
        _sign(found, match)


_ENTER = {
    "other": _other, "word": _word, "dotted": _dotted, "number": _number, "tail": _number, "string": _string,
    "quoted": _quoted, "symbol": _symbol, "foreigncomment": _foreign_comment,
}  # fmt: skip
