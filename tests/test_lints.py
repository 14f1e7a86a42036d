"""Lints: each where it belongs, silence where it does not, and what `check --pedantic` may import. (3 s)"""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from stepping import Loop, program

from optlang import ir, library, lower
from optlang.analysis.first_step import First
from optlang.errors import Diagnostic, Source
from optlang.front import parser
from optlang.ir import Program
from optlang.lints import lints
from optlang.rules import check
from optlang.types import TENSOR, Type


def found(text: str) -> list[Diagnostic]:
    source = Source(text)
    file, problems = parser.parse(source)
    assert not problems
    return lower.check(file, pedantic=True)


def one(text: str, code: str) -> Diagnostic:
    diagnostics = found(text)
    assert [d.code for d in diagnostics] == [code], [d.to_text() for d in diagnostics]
    assert diagnostics[0].severity == "lint" and diagnostics[0].help and diagnostics[0].message
    return diagnostics[0]


def pointed(diagnostic: Diagnostic) -> str:
    return diagnostic.source.text[diagnostic.span.start : diagnostic.span.end]


@pytest.mark.parametrize("name", library.names())
def test_library_is_clean(name: str) -> None:
    file, _ = parser.parse(library.find(name))
    # factors that come to undo the gradient's size, and a step of SGD beside a model of the loss, are more than degrees show
    fitted = ("P05",) if name in ("psgdkron", "smb") else ()
    assert [d.to_text() for d in lower.check(file, pedantic=True) if d.code not in fitted] == []


def test_unread_state() -> None:
    assert pointed(one("rule R { state m = 0  m' = 0.9*m + g  w' = w - 0.1*g }", "P01")) == "m"
    one("rule R { state a = 0  state b = 0  a' = a + 1  b' = b + g  w' = w - b*0.1 }", "P01")
    assert found("rule R { state a = 0  state b = 0  a' = g  b' = b + a  w' = w - 0.1*b }") == []
    assert found("rule R { state a = w  a' = 0.9*a + 0.1*w'  w' = w - 0.1*g  eval = a' }") == []


ADAM = "hyper b1 = 0.9  hyper b2 = 0.99  state m = 0  state v = 0  m' = b1*m + (1 - b1)*g  v' = b2*v + (1 - b2)*g^2"


def test_foreign_correction() -> None:
    wrong = one(f"rule R {{ {ADAM}  mh = m'/(1 - b2^t)  w' = w - 0.1*mh/(sqrt(v'/(1 - b2^t)) + 1e-8) }}", "P02")
    assert pointed(wrong).startswith("mh =") and "`1 - b1^t`" in wrong.help
    one(f"rule R {{ {ADAM}  w' = w - 0.1*m'/(1 - b1^t)/(sqrt(v'/(1 - b1^t)) + 1e-8) }}", "P02")
    one(f"rule R {{ {ADAM}  w' = w - 0.1*m'/(1 - b2^t)/(sqrt(v') + 1e-8) }}", "P02")
    assert found(f"rule R {{ {ADAM}  w' = w - 0.1*m'/(1 - b1^t)/(sqrt(v'/(1 - b2^t)) + 1e-8) }}") == []
    late = one(f"rule R {{ {ADAM}  mh = m/(1 - b1^t)  w' = w - 0.1*mh/(sqrt(v'/(1 - b2^t)) + 1e-8) }}", "P02")
    assert pointed(late).startswith("mh =") and late.help == "divide `m'` by `1 - b1^t`"
    assert found("rule R { state a = 0  w' = w - 0.1*g  a' = 0.9*a + 0.1*w'  eval = a'/(1 - 0.9^t) }") == []


def test_an_undefined_start_says_which_division_it_is() -> None:
    """The equation may hold several, of which others have their small number."""
    factored = one("rule R { state r per row = 0  r' = 0.9*r + mean(g^2 per row)  w' = w - g/sqrt(r'/mean(r' per matrix) + 1e-12) }", "P04")
    assert factored.pointer.endswith("divided by what is made of `r'`")
    assert one("rule R { n = norm(g)  w' = w - g/n }", "P04").pointer.endswith("made of `n`")
    assert one("rule R { w' = w - 1e-3*g/(t - 1) }", "P04").pointer.endswith("made of `t`")


def test_blind_update() -> None:
    one("rule R { hyper lr = 1  w' = w - lr*w }", "P03")
    assert [d.code for d in found("rule R { state m = 0  m' = 0.5*m + 0*w  w' = w - m }")] == ["P03"]
    for seeing in ("grad(w*2)", "m", "hvp(w)", "loss*w"):
        assert found(f"rule R {{ state m = 0  m' = 0.5*m + g  w' = w - 0.1*{seeing} - 0.1*m }}") == []


def test_undefined_start() -> None:
    wrong = one("rule R { u = g/abs(g)  w' = w - 0.1*u }", "P04")
    assert pointed(wrong).startswith("u =")
    one("rule R { state v = 0  v' = v + g^2  w' = w - 0.1*g/sqrt(v') }", "P04")
    one("rule R { w' = w - 0.1*g/norm(g) }", "P04")
    one("rule R { w' = w - g*norm(w)/norm(w) }", "P04")
    assert "times zero" in one("rule R { w' = w - 0.2*sqrt(numel)/norm(g)*g }", "P04").pointer
    assert found("rule R { w' = w - 0.1*where(g == 0, 0, g/abs(g)) }") == []
    assert found("rule R { when norm(g) > 0 { w' = w - 0.1*g/norm(g) } else { w' = w } }") == []
    assert found("rule R { state h[5] per tensor = nan  h' = push(h, norm(g))  w' = w - 0.1*g*min(1, quantile(h', 0.5)) }") == []


def test_undefined_start_is_what_happens() -> None:
    """The lint's reading of a first step against the interpreter's."""
    for text, nan in (("g/abs(g)", True), ("g/(abs(g) + 1)", False), ("mean(g)/std(g)", True), ("g/sqrt(sum(g^2) + w^2)", True),
                      ("1/norm(g)*g", True)):  # fmt: skip
        rule = program(f"rule R {{ w' = w - {text} }}")
        lint = any(First(rule, weight).undefined() is not None for weight in (0.5, 0.0))
        ran = any(np.isnan(Loop(rule, np.full((3, 3), weight)).step(np.zeros((3, 3)))[0]).any() for weight in (0.5, 0.0))
        assert lint == ran == nan, text


def test_unnormalised() -> None:
    for update in ("g/(g^2 + 1e-8)", "g*abs(g)/(sqrt(v') + 1e-8)", "m'/(v' + 1e-8)", "g^2/(norm(g) + 1e-8)"):
        rule = f"rule R {{ hyper lr = 1 {ADAM}  w' = w - lr*{update} - 0*(m' + v') }}"
        assert "P05" in {d.code for d in found(rule)}, update
    fine = ("g", "g*min(1, lr/(norm(g) + 1e-6))", "m'/(sqrt(v') + 1e-8)", "g/(norm(g) + 1e-8)*norm(w)",
            "sign(g)*mean(g/(abs(g) + 1e-8))")
    for update in fine:
        rule = f"rule R {{ hyper lr = 1 {ADAM}  w' = w - lr*{update} - 0*(m' + v') }}"
        assert "P05" not in {d.code for d in found(rule)}, update


def test_equal_reals() -> None:
    assert "`==`" in one("rule R { w' = w - where(g == w, 0, 0.1*g) }", "P06").message
    one("rule R { w' = w - where(g != 0.1, 0.1*g, 0) }", "P06")
    for fine in ("g == 0", "t == 1", "sign(g) == sign(w)", "rank == 2", "round(g) != 3"):
        assert found(f"rule R {{ w' = w - where({fine}, 0.2*g, 0.1*g) }}") == []


def test_unused_hyper() -> None:
    assert pointed(one("rule R { hyper lr = 1  hyper rho = 1  w' = w - lr*g }", "P07")) == "rho"
    assert found("rule R { hyper a = 1  state m = a  m' = m + g  w' = w - m }") == []
    assert found("rule R { hyper int k = 3  repeat k { state x = g  x' = x/2 }  w' = w - x }") == []


def test_rounded_sign() -> None:
    """A mean of weights that begins as `w` but for rounding, as in FOCUS; what is exactly `w`, or far from it, has a sign."""
    mean = "hyper b = 0.99 in [0, 1) state a = 0 a' = b*a + (1 - b)*w"
    assert pointed(one(f"rule R {{ {mean}  d = sign(w - a'/(1 - b^t))  w' = w - 0.1*g - 0.1*d }}", "P08")).startswith("d = ")
    one(f"rule R {{ {mean}  w' = w - where(w - a'/(1 - b^t) > 0, 0.2, 0.1)*g }}", "P08")
    for fine in ("w - a'", "w - a", "a' - g", "g", "w - clip(w, -9, 9)", "g - 0.9*g", "t - 1"):
        assert "P08" not in {d.code for d in found(f"rule R {{ {mean}  w' = w - 0.1*g - 0.1*sign({fine}) }}")}, fine
    assert found(f"rule R {{ {mean}  w' = w - where(w - a'/(1 - b^t) > 1e-6, 0.2, 0.1)*g }}") == []
    assert found("rule R { state a = w  a' = 0.9*a + 0.1*w'  w' = w - 0.1*g - 0.1*sign(w - a) }") == []
    assert found("rule R { state a = w  a' = 0.9*a + 0.1*(w - g)  w' = w - 0.1*g - 0.1*sign(w - a') }") == []


@pytest.mark.parametrize("op", ["+", "*"])
def test_doublings_end(op: str) -> None:
    lines = "\n".join(f"x{i + 1} = x{i} {op} x{i}" for i in range(100))
    assert found(f"rule R {{ x0 = g\n{lines}\n w' = w - 1e-3*x100 }}") == []


def test_places_may_be_missing() -> None:
    """Programs made by hand have no spans."""
    rule = Program("R", "", (ir.Hyper("a.b", "real", 1.0), ir.Hyper("c", "real", 1.0)),
                   (ir.State("s", Type("real", TENSOR), ir.const(0)),), (), {"s": ir.const(1)}, ir.W)  # fmt: skip
    assert [d.code for d in lints(rule, Source(""))] == ["P01", "P03", "P07"]
    assert all(d.to_text() for d in lints(rule, Source("")))


def test_several_at_once() -> None:
    text = "rule R { hyper q = 1  state m = 0  m' = m + g  w' = w - where(g == w, 1, 0)*g/abs(g) }"
    assert sorted(d.code for d in found(text)) == ["P01", "P04", "P06", "P07"]


def test_rules_with_errors_are_not_linted() -> None:
    """What could not be read is missing from the program: the state `b` has no new value here."""
    text = "rule R { hyper b0 = 1e-2 in rule(0, inf)  when whole { state b per model = b0^2  b' = b }  w' = w - g }"
    assert {d.severity for d in check(text, pedantic=True)} == {"error"}


def test_pedantic_check_imports_neither_torch_nor_sympy() -> None:
    code = """
import sys
from optlang import library, lower
from optlang.front import parser
lower.check(parser.parse(library.find("adam"))[0], pedantic=True)
import optlang.simplify, optlang.analysis.degrees
assert not {"torch", "sympy"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)
