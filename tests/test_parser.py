"""The parser: right trees and spans, every error in one run, and nothing that a text can do to it. (15 s)"""

from __future__ import annotations

import random
import resource
import subprocess
import sys
import time

import programs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optlang import library
from optlang.errors import MOST_FINDINGS, Diagnostic, Source
from optlang.front import syntax as s
from optlang.front.parser import MOST_NESTING, MOST_STATEMENTS, parse
from optlang.lower import check

LIBRARY = {name: library.find(name).text for name in library.index()}


def parsed(text: str) -> tuple[s.File, list[Diagnostic]]:
    return parse(Source(text))


def tree(text: str) -> s.File:
    file, found = parsed(text)
    assert not found, found[0].to_text()
    return file


def body(text: str) -> tuple[s.Statement, ...]:
    [rule] = tree(f"rule A {{ {text} }}").items
    assert isinstance(rule, s.Rule)
    return rule.body


def value(text: str) -> s.Expr:
    [equation] = body(f"x = {text}")
    assert isinstance(equation, s.Equation)
    return equation.value


def shape(expr: s.Expr) -> str:
    """An expression with all its brackets."""
    match expr:
        case s.Binary(op=op, left=left, right=right):
            return f"({shape(left)} {op} {shape(right)})"
        case s.Unary(op=op, value=inner):
            return f"({op} {shape(inner)})"
        case s.Transpose(value=inner):
            return f"{shape(inner)}.T"
        case s.Name(id=name, primed=primed):
            return name + "'" * primed
        case s.Number(text=text):
            return text
        case s.Call(func=func, args=args):
            return f"{func}({', '.join(shape(a.value) for a in args if a.value)})"
        case _:
            raise AssertionError(expr)


# ------------------------------------------------------------------------------------------------------- trees


@pytest.mark.parametrize("name", sorted(LIBRARY))
def test_library_parses(name: str) -> None:
    assert tree(LIBRARY[name]).items


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("a + b*c", "(a + (b * c))"),
        ("a - b - c", "((a - b) - c)"),
        ("a/b*c", "((a / b) * c)"),
        ("-a^2", "(- (a ^ 2))"),
        ("2^3^2", "(2 ^ (3 ^ 2))"),
        ("2^-a", "(2 ^ (- a))"),
        ("-a*b", "((- a) * b)"),
        ("a @ b.T", "(a @ b.T)"),
        ("a.T.T", "a.T.T"),
        ("a^b.T", "(a ^ b.T)"),
        ("not a < b and c or d", "(((not (a < b)) and c) or d)"),
        ("a + b < c*d", "((a + b) < (c * d))"),
        ("f(a, b)^2", "(f(a, b) ^ 2)"),
        ("m' + w'", "(m' + w')"),
    ],
)
def test_precedence(text: str, meant: str) -> None:
    assert shape(value(text)) == meant


def test_statements() -> None:
    hyper, inp, state, equation, every, when, repeat, report, evaluation = body(
        """hyper int k = 10 in [1, inf) "how often"   input n per model "noise"   state h[k] per tensor = nan
        m' = mean(g per row)   every k from 1 { a = 1 } else { b = 2 }   when c { } repeat 5 { }   report r = 1   eval = w'"""
    )
    assert isinstance(hyper, s.Hyper) and (hyper.kind, hyper.name, hyper.doc) == ("int", "k", "how often")
    assert hyper.range is not None and not hyper.range.low_open and hyper.range.high_open
    assert isinstance(inp, s.Input) and (inp.name, inp.per, inp.doc) == ("n", "model", "noise")
    assert isinstance(state, s.State) and (state.name, state.per) == ("h", "tensor") and state.window is not None
    assert isinstance(equation, s.Equation) and equation.target.primed
    assert isinstance(equation.value, s.Call) and equation.value.args[0].per == "row"
    assert isinstance(every, s.Every) and every.start is not None and len(every.body) == len(every.otherwise) == 1
    assert isinstance(when, s.When) and isinstance(repeat, s.Repeat)
    assert isinstance(report, s.Report) and isinstance(evaluation, s.Eval)


def test_top_level() -> None:
    text = """from std import ema, clip_global
    def f(x, a = 1) = x   def h() { return 1 }
    route R "doc" { when rank == 2 and not named("*e*") use A(lr = 1) otherwise use B() }"""
    imported, short, long, route = tree(text).items
    assert isinstance(imported, s.Import) and [n.id for n in imported.names] == ["ema", "clip_global"]
    assert isinstance(short, s.Def) and short.short and [p.name for p in short.parameters] == ["x", "a"]
    assert isinstance(long, s.Def) and not long.short
    assert isinstance(route, s.Route) and route.doc == "doc" and route.branches[1].condition is None


def test_spans_are_the_text() -> None:
    text = "rule A {\n  x = (a + b)*mean(g per row)  # note\n}"
    file = tree(text)
    [rule] = file.items
    assert isinstance(rule, s.Rule)
    [equation] = rule.body
    assert isinstance(equation, s.Equation) and isinstance(equation.value, s.Binary)
    cut = lambda node: text[node.span.start : node.span.end]  # noqa: E731
    assert cut(rule) == text
    assert cut(equation) == "x = (a + b)*mean(g per row)"
    assert cut(equation.value.left) == "(a + b)"
    assert cut(equation.value.right) == "mean(g per row)"
    assert cut(file.comments[0]) == file.comments[0].text == "# note"


def test_names_are_normalised_as_python_does() -> None:
    assert shape(value("β₁*ϵ")) == "(β1 * ε)"
    assert shape(value("e\N{COMBINING ACUTE ACCENT}")) == "é"


def test_line_breaks_mean_nothing() -> None:
    one = tree("rule A { hyper a = 1 x = a - 1 y = x w' = w - y }")
    many = tree("rule\nA\n{\nhyper\na\n=\n1\nx\n=\na\n-\n1\ny=\nx w'\n=w\n-y\n}")
    assert programs.bare(one.items) == programs.bare(many.items)


# ------------------------------------------------------------------------------------------- several errors in one run


def test_all_errors_of_a_file() -> None:
    text = """rule A {
  hypr lr = 1e-3
  m' = beta m
  x = (a + b
  when x > { y = 1 }
  z = 2 +
  w' = w - lr*x
}
rule B {
  w' = w -* g
}
"""
    file, found = parsed(text)
    source = Source(text)
    assert [(d.code, source.position(d.span.start)[0]) for d in found] == [
        ("S17", 2), ("S07", 3), ("S03", 4), ("S16", 5), ("S16", 6), ("S16", 10),
    ]  # fmt: skip
    first, second = file.items
    assert isinstance(first, s.Rule) and isinstance(second, s.Rule)
    assert [type(x).__name__ for x in first.body] == ["Hyper", "Equation", "Equation", "When", "Equation", "Equation"]


def test_names_of_broken_statements_stay_known() -> None:
    """What a broken equation defines is still defined, so that its readers are not blamed."""
    file, found = parsed("rule A { hyper lr = ) state m = * m' = ? x = [1] report r = , w' = w - lr*x*m' }")
    [rule] = file.items
    assert found and isinstance(rule, s.Rule)
    names = [getattr(x, "name", None) or x.target.id for x in rule.body]  # type: ignore[union-attr]
    assert {"lr", "m", "x", "w"} <= set(names)


@pytest.mark.parametrize("name", sorted(LIBRARY))
def test_truncated_files(name: str) -> None:
    """A file that ends too early is told so, and what stands before it is kept."""
    text = LIBRARY[name]
    for cut in range(1, len(text), max(1, len(text) // 40)):
        _, found = parsed(text[:cut])
        assert len(found) <= 3, text[:cut][-60:]
        for finding in found:
            assert finding.span.end <= cut
            assert finding.to_text()


# -------------------------------------------------------------------------------------------- nothing can happen to it


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.text(max_size=200), st.binary(max_size=200).map(lambda b: b.decode("latin-1"))))
def test_any_text(text: str) -> None:
    sound(text)


PIECES = ["{", "}", "(", ")", "[", "]", "=", "'", '"', "#", "when ", "rule ", "def ", "hyper ", "state ", " in ", " per ", "^", "**",
          ".", "..", "1e", ",", ";", ":", "\n", " else ", " use ", "m[t]", "\x00", "β", "if x: ", "lambda x: ", "from ", "return ",
          "torch.", "every ", "|", "//", "-", "not ", "otherwise "]  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from([*PIECES, "x", "g", "1", "w'", " "]), max_size=40))
def test_any_pieces(pieces: list[str]) -> None:
    sound("".join(pieces))


@pytest.mark.parametrize("seed", range(8))
def test_damaged_library_files(seed: int) -> None:
    chance = random.Random(seed)
    for text in LIBRARY.values():
        text = text[:3000]
        for _ in range(chance.randint(1, 4)):
            at = chance.randrange(len(text) + 1)
            text = text[:at] + chance.choice([*PIECES, "", "", ""]) + text[at + chance.randrange(6) :]
        file = sound(text)
        for finding in check(file):  # lowering takes whatever tree is left
            assert finding.to_text()


def sound(text: str) -> s.File:
    """A tree or findings, each with a place inside the text and its texts, and no exception."""
    file, found = parsed(text)
    assert isinstance(file, s.File)
    assert len(found) <= MOST_FINDINGS
    for finding in found:
        assert 0 <= finding.span.start <= finding.span.end <= len(text)
        assert finding.message and finding.to_text() and finding.to_json()
    return file


LARGE = {
    "parentheses": ("rule A { x = " + "(" * 10_000 + "1" + ")" * 10_000 + " }", "L01"),
    "blocks": ("rule A {" + "when a {" * 10_000, "L01"),
    "powers": ("rule A { x = " + "2^" * 10_000 + "2 }", "L01"),
    "powers on lines": ("rule A { x = " + "2^\n" * 10_000 + "2 }", "L01"),
    "signs": ("rule A { x = " + "-" * 10_000 + "2 }", "L01"),
    "transposes": ("rule A { x = y" + ".T" * 10_000 + " }", "L01"),
    "statements": ("rule A {" + "x = 1\n" * (MOST_STATEMENTS + 1) + "}", "L01"),
    "words": ("x " * 400_000, "L01"),
    "comments": ("#\n" * 400_000, "L01"),
    "name": ("rule A {" + "x" * 900_000 + " = 1 }", "L01"),
    "number": ("rule A { x = " + "1" * 900_000 + " }", "L01"),
    "open text": ('rule A "' + "x" * 900_000, "S05"),
    "quotes": ("'" * 900_000, "S05"),
    "dollars": ("$" * 15_000, "S02"),
    "errors": ("rule A {" + "x = )\n" * 3_500 + "}", "S04"),
    "points": ("1." * 400_000, "S06"),
    "rubbish": ("".join(map(chr, range(1, 2000))) * 200, "S02"),
}


@pytest.mark.parametrize("name", sorted(LARGE))
def test_large_files_are_refused_quickly(name: str) -> None:
    text, code = LARGE[name]
    start = time.thread_time()
    _, found = parsed(text[:1_000_000])
    assert time.thread_time() - start < 10  # the figures are in tests/bench; this is a guard
    assert code in [d.code for d in found]
    assert found[0].to_text()


def test_largest_files_are_read_quickly() -> None:
    text = "rule A {\n" + "x = a+b\n" * (MOST_STATEMENTS - 10) + "}"
    start, before = time.thread_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    [rule] = tree(text).items
    assert isinstance(rule, s.Rule) and len(rule.body) == MOST_STATEMENTS - 10
    assert time.thread_time() - start < 20
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1_000_000  # kB


def test_nesting_up_to_the_limit() -> None:
    deep = MOST_NESTING - 2
    assert body("x = " + "(" * deep + "1" + ")" * deep)
    assert body("x = " + "a - " * 5000 + "a")
    assert body("x = " + "-a*" * 500 + "a")


def test_start_up_needs_no_large_library() -> None:
    code = ("import sys; from optlang.front.parser import parse; from optlang.front.format import format_file;"
            "from optlang.library import find; format_file(parse(find('adam'))[0]);"
            "print([m for m in ('torch', 'sympy', 'numpy') if m in sys.modules])")  # fmt: skip
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
