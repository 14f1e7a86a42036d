"""Text into lexemes: what is refused, and what it is read as so that reading can go on. (1 s)"""

from __future__ import annotations

import pytest

from optlang.errors import Source
from optlang.front.parser import terminals
from optlang.front.scan import LONGEST_NAME, LONGEST_NUMBER, scan


def read(text: str) -> tuple[str, str]:
    """The lexemes, and the codes of what was wrong."""
    found = scan(Source(text), terminals())
    words = " ".join(x.text + "'" * (x.type == "PRIMED") for x in found.lexemes)
    return words, " ".join(d.code for d in found.diagnostics)


@pytest.mark.parametrize(
    ("text", "words", "codes"),
    [
        ("m' = .5*g^2 # note", "m' = .5 * g ^ 2", ""),
        ("x.T@y", "x .T @ y", ""),
        ("2.T", "2 .T", ""),
        ("a<-1", "a < - 1", ""),
        ("x**2", "x ^ 2", "S08"),
        ("m += g", "m' = g", "S09"),
        ("m*=g", "m' = g", "S09"),
        ("x := 1", "x = 1", "S09"),
        ("a <- 1", "a = 1", "S09"),
        ("a && b || !c", "a and b or not c", "S08 S08 S08"),
        ("a × b − c", "a * b - c", "S08 S08"),
        ("g²", "g ^ 2", "S08"),
        ("g¹²", "g ^ 12", "S08"),
        ("yᵀ", "y .T", "S08"),
        ("|g|", "g", "S08"),
        ("a | b", "a or b", "S08"),
        ("||g||*2", "g * 2", "S08"),
        ("m''", "m'", "S10"),
        ("m’ n′ o`", "m' n' o'", "S10 S10 S10"),
        ("(m)'", "( m )", "S10"),
        ("2m", "2 * m", "S07"),
        ("1e-3.5", "1e-3", "S06"),
        ("1_000", "1", "S06"),
        ("1.", "1", "S06"),
        ("1.e-3", "1", "S06"),
        ("0x1F", "0", "S06"),
        ("1.0f", "1.0", "S06"),
        ("1e", "1", "S06"),
        ("torch.sqrt(x)", "sqrt ( x )", "S12"),
        ("self.lr", "lr", "S12"),
        ("x; y", "x y", "S14"),
        ("x // y\nz", "x z", "S15"),
        ("/* a\nb */ z", "z", "S15"),
        ("'text'", '"text"', "S05"),
        ("“text”", '"text"', "S05"),
        ('"text', '"text"', "S05"),
        ('"""a\n b"""', '"a b"', "S05"),
        ("x\N{NO-BREAK SPACE}y", "x y", "S02"),
        ("x\N{RIGHT-TO-LEFT OVERRIDE}", "x", "S02"),
        ("# in a comment \N{LEFT-TO-RIGHT ISOLATE}", "", "S02"),
        ("a\0b", "a b", "S02"),
        ("ϵ β₁ e\N{COMBINING ACUTE ACCENT}", "ε β1 é", ""),
    ],
)
def test_words(text: str, words: str, codes: str) -> None:
    assert read(text) == (words, codes)


def test_long_names_and_numbers() -> None:
    assert read("x" * LONGEST_NAME)[1] == read("1" * LONGEST_NUMBER)[1] == ""
    assert read("x" * (LONGEST_NAME + 1))[1] == read("1" * (LONGEST_NUMBER + 1))[1] == "L01"


def test_offsets_and_lines() -> None:
    found = scan(Source("a =\n  b"), terminals())
    assert [(x.start, x.end, x.fresh) for x in found.lexemes] == [(0, 1, True), (2, 3, False), (6, 7, True)]


def test_primed_keyword() -> None:
    assert read("state' = 1")[1] == "S18"


@pytest.mark.parametrize(("text", "mended"), [("!c", "not c"), ("a&&b", "a and b"), ("a || b", "a or b"), ("x**2", "x^2"), ("g²", "g^2")])
def test_fixes_do_not_grow_together_with_their_neighbours(text: str, mended: str) -> None:
    [found] = scan(Source(text), terminals()).diagnostics
    assert found.fix is not None
    assert text[: found.fix.span.start] + found.fix.text + text[found.fix.span.end :] == mended
