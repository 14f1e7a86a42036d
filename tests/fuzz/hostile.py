"""Texts that mean no good, and what every reader of texts owes them: a result or findings, soon, and never an exception."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from optlang import diagnose, library, rules
from optlang.errors import OptError, Source
from optlang.front.format import format_file
from optlang.front.parser import parse

from .chance import Choices, Drawn

WORDS = [
    "rule", "def", "route", "from", "import", "hyper", "int", "bool", "input", "state", "per", "in", "every", "when", "else", "repeat",
    "return", "use", "otherwise", "report", "eval", "not", "and", "or", "named", "w", "w'", "g", "t", "loss", "A", "f", "x",
    "x'", "m", "m'",
    "lr", "std", "ema", "norm", "sqrt", "where", "grad", "push", "row", "col", "model", "tensor", "true", "nan", "inf", "0", "1",
    "2", "1e-3",
    "1e999", "99999999999999999999", "{", "}", "(", ")", "[", "]", ",", "=", "==", "<", "<=", "+", "-", "*", "/", "^", "@", ".T", "'", '"',
    "#", "\n", ";", ":", "**", "+=", "\\", "\x00", "\u202e", "\ufeff", "é", "𝛽", "𝒘", "'''", "\r", "\x1b[31m", "\ud7ff", "’",
    "“a”", '"text"',
]  # fmt: skip
SHELF = [library.find(name).text for name in sorted(library.index())]

BAD = [path.read_text(encoding="utf-8") for path in sorted((Path(__file__).parents[1] / "bad").rglob("*.opt"))]
SHORT = [text for text in (*BAD, *SHELF) if len(text) < 700]
LETTERS = [(0, 127), (0, 127), (0, 0x2FF), (0x300, 0x36F), (0x370, 0x3FF), (0x2000, 0x22FF), (0xFE00, 0xFFFF), (0x1D400, 0x1D7FF),
           (0, 0x10FFFF)]  # fmt: skip


def words(choose: Choices, most: int = 60) -> str:
    return " ".join(choose.one(WORDS) for _ in range(choose.number(0, most)))


def in_a_body(choose: Choices) -> str:
    return f"rule A {{ hyper lr = 0.1 state m = 0 {words(choose, 12)} w' = w - lr*g }}"


def raw(choose: Choices) -> str:
    return bytes(choose.number(0, 255) for _ in range(choose.number(0, 200))).decode("utf-8", "replace")


def unicode(choose: Choices) -> str:
    low, high = choose.one(LETTERS)
    signs = (chr(choose.number(low, high)) for _ in range(choose.number(0, 80)))
    return "".join(sign for sign in signs if not "\ud800" <= sign <= "\udfff")


def damaged(choose: Choices, texts: Sequence[str]) -> str:
    """A text with some parts cut, doubled, exchanged or replaced by words."""
    text: str = choose.one(texts)
    for _ in range(choose.number(1, 4)):
        start = choose.number(0, len(text))
        end = min(len(text), start + choose.one([0, 1, 1, 2, 5, 20, 100]))
        sort = choose.number(0, 4)
        part = choose.one(WORDS) if sort > 2 else ["", text[start:end] * 2, text[start:end][::-1]][sort]
        text = text[:start] + part + text[end:]
    return text


def spliced(choose: Choices) -> str:
    """The beginning of one text and the end of another."""
    one, two = choose.one(SHORT), choose.one(SHORT)
    return one[: choose.number(0, len(one))] + two[choose.number(0, len(two)) :]


SORTS: tuple[Callable[[Choices], str], ...] = (
    lambda choose: damaged(choose, SHELF), *(lambda choose: damaged(choose, SHORT),) * 4, in_a_body, in_a_body, words, spliced, spliced,
    raw, unicode,
)  # fmt: skip


def text(choose: Choices) -> str:
    """Any of these."""
    return str(choose.one(SORTS)(choose))


@st.composite
def texts(draw: Any) -> str:
    """As strategy of hypothesis."""
    return text(Drawn(draw))


def read(text: str, printers: bool = True) -> str:
    """All that reads a text: findings in all their forms, the formatter, every printer and generator. Gives what was reached."""
    file, found = diagnose.read(Source(text), pedantic=True)
    for finding in found:
        assert finding.to_text() and finding.to_json() and finding.message
        assert 0 <= finding.span.start <= finding.span.end
    if not any(finding.code[0] in "SL" for finding in found):
        once = format_file(file)
        again, problems = parse(Source(once))
        assert not problems, once
        assert format_file(again) == once
    if any(d.severity == "error" for d in found):
        return "findings"
    try:
        rule = rules.Rule.from_source(Source(text))
    except OptError:
        return "several"
    for printer in PRINTERS if printers else ():
        try:
            printer(rule)
        except ValueError as reason:
            assert type(reason) is ValueError and str(reason)
    return "rule"


PRINTERS: tuple[Callable[[rules.Rule], str], ...] = (
    lambda rule: rule.latex(), lambda rule: rule.markdown(), lambda rule: compiled(rule.module()),
    lambda rule: rules.generate(rule, "torch"),
)  # fmt: skip


def compiled(text: str) -> str:
    """Generated Python at least parses."""
    compile(text, "generated.py", "exec")
    return text
