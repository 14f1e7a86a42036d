"""Known rules are recognised by what they do, however they are written and scaled; others are not."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from optlang.search.programs.genome import Form, from_text, to_program

matches = runpy.run_path(str(Path(__file__).parents[1] / "examples" / "search" / "rediscovery" / "families.py"))["matches"]

MATCHES = {
    "momentum": [
        "m = interp(g, m, 0.9)\nu = mul(m, 17.0)",
        "a = mul(m, 0.8)\nm = add(a, g)\nu = mul(m, 1.0)",
        "m = interp(g, m, 0.95)\na = interp(g, m, 0.95)\nu = neg(a)\nu = neg(u)",
    ],
    "sign-momentum": [
        "m = interp(g, m, 0.9)\nu = sign(m)",
        "a = sign(g)\nm = interp(a, m, 0.9)\nu = mul(m, 0.01)",
        "a = mul(g, 1000.0)\na = tanh(a)\nm = interp(a, m, 0.7)\nu = mul(m, 1.0)",
    ],
    "normalized": [
        "u = normalize(g)",
        "u = sign(g)",
        "a = square(g)\nv = interp(a, v, 0.9)\na = sqrt(v)\nu = div(g, a)",
        "m = interp(g, m, 0.9)\na = norm_tensor(m)\nu = div(m, a)",
    ],
}
OTHERS = {
    "momentum": ["u = mul(g, 1.0)", "u = sign(g)", "a = mul(g, 1.0)\nu = neg(a)\nm = interp(g, m, 0.9)"],
    "sign-momentum": ["u = sign(g)", "m = interp(g, m, 0.9)\nu = mul(m, 1.0)", "u = tanh(g)"],
    "normalized": ["u = mul(g, 1.0)", "u = tanh(g)", "u = square(g)", "m = interp(g, m, 0.9)\nu = mul(m, 1.0)"],
}


@pytest.mark.parametrize(("family", "text"), [(f, text) for f, texts in MATCHES.items() for text in texts])
def test_members(family: str, text: str) -> None:
    assert matches(to_program(from_text(text), Form()), family).is_found


@pytest.mark.parametrize(("family", "text"), [(f, text) for f, texts in OTHERS.items() for text in texts])
def test_others(family: str, text: str) -> None:
    assert not matches(to_program(from_text(text), Form()), family).is_found


def test_a_rule_that_cannot_run_matches_nothing() -> None:
    program = to_program(from_text("a = transpose(g)\na = transpose(a)\nu = mul(a, 1.0)"), Form())
    assert matches(program, "momentum").cosine == -1.0
