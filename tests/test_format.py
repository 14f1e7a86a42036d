"""The formatter: canonical, idempotent, faithful to the tree, and it loses no comment. (10 s)"""

from __future__ import annotations

from pathlib import Path

import programs
import pytest
from hypothesis import given, settings

from optlang import library
from optlang.errors import Source
from optlang.front.columns import WIDTH
from optlang.front.format import format_file
from optlang.front.parser import parse

GOLDEN = Path(__file__).parent / "golden" / "format"


def formatted(text: str) -> str:
    file, found = parse(Source(text))
    assert not found, found[0].to_text()
    return format_file(file)


def in_rule(body: str) -> str:
    """A body formatted, without the braces and indentation around it."""
    return "\n".join(line[2:] for line in formatted(f"rule A {{\n{body}\n}}").splitlines()[1:-1])


def test_comments_of_a_block_that_begins_later_stay_in_it() -> None:
    text = "every 4 from 2 {  # now and then\n  w' = w\n}"
    assert in_rule(text) == in_rule(in_rule(text)) and "# now and then" in in_rule(text)


@pytest.mark.parametrize("name", sorted(library.index()))
def test_library_is_formatted(name: str) -> None:
    source = library.find(name)
    assert formatted(source.text) == source.text


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.in.opt")), ids=lambda p: p.stem)
def test_golden(path: Path) -> None:
    expected = path.with_name(path.name.replace(".in.opt", ".out.opt")).read_text(encoding="utf-8")
    assert formatted(path.read_text(encoding="utf-8")) == expected


@settings(max_examples=120, deadline=None)
@given(programs.texts())
def test_any_program(text: str) -> None:
    before, found = parse(Source(text))
    assert not found, found[0].to_text()
    result = format_file(before)
    after, found = parse(Source(result))
    assert not found, found[0].to_text()
    assert programs.bare(after.items) == programs.bare(before.items)
    assert [c.text.rstrip() for c in after.comments] == [c.text.rstrip() for c in before.comments]
    assert format_file(after) == result
    assert not any(line != line.rstrip() for line in result.splitlines())
    assert "\n\n\n" not in result


@pytest.mark.parametrize(
    ("written", "canonical"),
    [
        ("x = (a*b)*c", "x = a*b*c"),
        ("x = a*(b*c)", "x = a*(b*c)"),
        ("x = a-(b-c)", "x = a - (b - c)"),
        ("x = (a-b)-c", "x = a - b - c"),
        ("x = -(a^2)", "x = -a^2"),
        ("x = (-a)^2", "x = (-a)^2"),
        ("x = t^-decay", "x = t^(-decay)"),
        ("x = a*-b", "x = a*(-b)"),
        ("x = - -a", "x = -(-a)"),
        ("x = a^(b^c)", "x = a^b^c"),
        ("x = (a^b)^c", "x = (a^b)^c"),
        ("x = (a.T)@(b)", "x = a.T @ b"),
        ("x = (a@b).T", "x = (a @ b).T"),
        ("x = (2).T", "x = (2).T"),
        ("x = (a<b) and (not (c))", "x = a < b and not c"),
        ("x = not(a and b)", "x = not (a and b)"),
        ("x = a<b<c", "x = a < b < c"),
        ("x = (a<b)<c", "x = (a < b) < c"),
        ("x = a<(b<c)", "x = a < (b < c)"),
        ("x = lr*m'/(1-b)/(v+eps)", "x = lr * m'/(1 - b) / (v + eps)"),
        ("x = lr * m' / v", "x = lr*m'/v"),
        ("x=mean( g ^2 per row )", "x = mean(g^2 per row)"),
        ("x = A(g=g,lr=.5*lr,)", "x = A(g = g, lr = .5*lr)"),
        ("x = normal(per model)", "x = normal(per model)"),
    ],
)
def test_expressions(written: str, canonical: str) -> None:
    assert in_rule(written) == canonical


def test_hypers_in_columns() -> None:
    text = 'hyper lr=1e-3 in(0,inf)"step" hyper bool nesterov=false "look ahead"\nhyper int k=10'
    assert in_rule(text).splitlines() == [
        'hyper lr            = 1e-3 in (0, inf) "step"',
        'hyper bool nesterov = false            "look ahead"',
        "hyper int k         = 10",
    ]


def test_blank_line_parts_columns() -> None:
    assert in_rule("a=1\nlong=2\n\n\n\nb=3") == "a    = 1\nlong = 2\n\nb = 3"


def test_comments_stay_where_they_belong() -> None:
    text = "# first\na = 1 # one\nlong = 2 # two\n\n# between\nb = 3 +  # inside\n 4\n# last"
    assert in_rule(text).splitlines() == [
        "# first", "a    = 1  # one", "long = 2  # two", "", "# between", "# inside", "b = 3 + 4", "# last",
    ]  # fmt: skip


def test_blocks_of_one_equation_stay_on_one_line() -> None:
    assert in_rule("when c {\n x=1\n}\nelse {\n x=2 }") == "when c { x = 1 } else { x = 2 }"
    assert in_rule("when c { # why\n x=1 }") == "when c {  # why\n  x = 1\n}"
    assert in_rule("every 2 from 1 { x=1 y=2 }") == "every 2 from 1 {\n  x = 1\n  y = 2\n}"


def test_long_lines_are_broken_between_the_outermost_terms() -> None:
    terms = " + ".join(f"some_name_{k}*f(another_name_{k}, third)" for k in range(6))
    lines = in_rule(f"x = {terms}").splitlines()
    assert len(lines) > 1
    assert all(len(line) <= WIDTH for line in lines)
    assert all(line.strip().startswith("+ ") for line in lines[1:])


def test_deep_sum_is_no_deep_recursion() -> None:
    text = "x = " + " + ".join(["a"] * 9_000)
    assert in_rule(text).replace("\n", "").count("a") == 9_000


def test_empty_file() -> None:
    assert formatted("") == ""
    assert formatted("# only this") == "# only this\n"
