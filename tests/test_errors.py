"""Places, excerpts and forms of diagnostics. (1 s)"""

from __future__ import annotations

import json
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optlang.errors import Diagnostic, Fix, Label, OptError, Source, Span, did_you_mean

TEXT = "rule A {\n  m' = b3*m\n\tw' = w\n}"


def finding(**more: object) -> Diagnostic:
    at = TEXT.index("b3")
    return Diagnostic("N02", "unknown name `b3`", Span(at, at + 2), source=Source(TEXT, "a.opt"), **more)  # type: ignore[arg-type]


def test_text_points_at_the_place() -> None:
    assert finding(pointer="not defined", help="did you mean `b1`?").to_text() == (
        "error[N02]: unknown name `b3`\n"
        "  --> a.opt:2:8\n"
        "   |\n"
        " 2 |   m' = b3*m\n"
        "   |        ^^ not defined\n"
        "   = help: did you mean `b1`?  (optlang explain N02)"
    )


def test_a_finding_prints_as_text() -> None:
    assert str(finding()) == finding().to_text()
    assert repr([finding()]) == "[<error[N02] at a.opt:2:8: unknown name `b3`>]"


def test_text_without_help_names_the_explanation() -> None:
    assert finding().to_text().endswith("= help: optlang explain N02")


def test_labels_and_severity() -> None:
    at = TEXT.index("w'")
    text = finding(severity="lint", labels=(Label(Span(at, at + 2), "here"),)).to_text()
    assert text.startswith("lint[N02]")
    assert " 3 |  w' = w\n   |  -- here" in text


def test_long_lines_are_shown_around_the_place() -> None:
    source = Source("x" * 5000 + " = ?" + "y" * 5000)
    text = Diagnostic("S01", "no", Span(5003, 5004), source=source).to_text(width=80)
    excerpt, carets = text.splitlines()[3:5]
    assert len(excerpt) < 90
    assert excerpt[carets.index("^")] == "?"


def test_unprintable_characters_do_not_reach_the_terminal() -> None:
    text = Diagnostic("S02", "no", Span(2, 3), source=Source("a \x1b[31m b")).to_text()
    assert "\x1b" not in text


@given(st.text(max_size=80), st.integers(0, 90), st.integers(0, 90))
def test_any_place_has_a_text(text: str, start: int, length: int) -> None:
    start = min(start, len(text))
    found = Diagnostic("S01", "message", Span(start, min(start + length, len(text))), source=Source(text))
    assert found.to_text()
    place = found.to_json()
    assert place["line"] == text.count("\n", 0, start) + 1


def test_json_is_json() -> None:
    place = finding(fix=Fix(Span(1, 2), "x"), labels=(Label(Span(0, 4), "rule"),)).to_json()
    assert json.loads(json.dumps(place)) == place
    assert (place["line"], place["column"], place["end_column"], place["file"]) == (2, 8, 10, "a.opt")
    assert place["fix"]["text"] == "x" and place["labels"][0]["line"] == 1


def test_error_carries_its_findings_through_pickle() -> None:
    error = pickle.loads(pickle.dumps(OptError([finding(), finding(help="second")])))
    assert [d.help for d in error.diagnostics] == ["", "second"]
    assert str(error).count("error[N02]") == 2


@pytest.mark.parametrize(("name", "near"), [
    ("bta1", "beta1"), ("beta", "beta1"), ("l", "lr"), ("Lr", "lr"), ("eps", "inner.eps"), ("xyz", ""), ("er", ""), ("prod", ""),
    ("", ""), ("b" * 100_000, ""),
])  # fmt: skip
def test_did_you_mean(name: str, near: str) -> None:
    assert did_you_mean(name, ["beta1", "lr", "momentum", "inner.eps", "round"]) == near


def test_source_lines() -> None:
    source = Source("a\r\nb\n\nc")
    assert [source.line(n) for n in (1, 2, 3, 4)] == ["a", "b", "", "c"]
    assert [source.position(k) for k in (0, 3, 5, 6, 7)] == [(1, 1), (2, 1), (3, 1), (4, 1), (4, 2)]
