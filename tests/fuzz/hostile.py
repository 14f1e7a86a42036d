"""Texts that mean no good, and what every reader of texts owes them: a result or findings, soon, and never an exception."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

from optlang import library, rules
from optlang.diagnose import diagnose
from optlang.errors import OptError, Source
from optlang.format import format_file
from optlang.parser import parse

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

words = st.lists(st.sampled_from(WORDS), max_size=60).map(" ".join)
raw = st.binary(max_size=300).map(lambda b: b.decode("utf-8", "replace"))
unicode = st.text(max_size=200)


@st.composite
def damaged(draw: Any) -> str:
    """A library rule with some parts cut, doubled, exchanged or replaced by words."""
    text: str = draw(st.sampled_from(SHELF))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(text)))
        end = min(len(text), start + draw(st.sampled_from([0, 1, 1, 2, 5, 20, 100])))
        part = draw(st.sampled_from(["", *WORDS, text[start:end] * 2, text[start:end][::-1]]))
        text = text[:start] + part + text[end:]
    return text


@st.composite
def in_a_body(draw: Any) -> str:
    return f"rule A {{ hyper lr = 0.1 state m = 0 {draw(words)} w' = w - lr*g }}"


texts = st.one_of(damaged(), damaged(), in_a_body(), words, raw, unicode)


def read(text: str) -> str:
    """All that reads a text: findings in all their forms, the formatter, every printer and generator. Gives what was reached."""
    found = diagnose(Source(text), pedantic=True)
    for finding in found:
        assert finding.to_text() and finding.to_json() and finding.message
        assert 0 <= finding.span.start <= finding.span.end
    file, wrong = parse(Source(text))
    if not wrong:
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
    for printer in PRINTERS:
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
