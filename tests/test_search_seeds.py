"""Rules become programs of a search and come back as the same rule."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optlang import ir
from optlang.compare.trial import refute
from optlang.errors import OptError
from optlang.ir import Program
from optlang.library import names
from optlang.rules import Rule
from optlang.search.programs.genome import Form, GenomeError, from_text, to_program, to_text
from optlang.search.programs.seeds import SEEDS, from_program, seed
from optlang.search.programs.type_codes import codes

SCALED, PLAIN = Form(), Form(scaled=False)
KNOWN = ["sgd", "momentum", "nesterov", "adam", "adamw", "adabelief", "adagrad", "rmsprop", "lion", "signsgd", "signum"]


def program_of(name: str) -> Program:
    program = Rule(name).program
    assert isinstance(program, Program)
    return program


def settled(program: Program) -> Program:
    """With every setting but lr at its default."""
    fixed = {ir.hyper(h.name, h.kind): ir.const(h.default) for h in program.hypers if h.name != "lr"}
    return program.replaced(ir.substitute(program.all_roots(), fixed))


@pytest.mark.parametrize("name", KNOWN)
@pytest.mark.parametrize("form", [SCALED, PLAIN], ids=["scaled", "plain"])
def test_library_rules_come_back(name: str, form: Form) -> None:
    found = from_program(program_of(name), form)
    assert codes(found, form) is not None
    counterexample, problem = refute(settled(program_of(name)), to_program(found, form))
    assert counterexample is None, counterexample.to_text()
    assert problem == ""


@pytest.mark.parametrize("name", SEEDS)
def test_named_seeds_are_programs(name: str) -> None:
    found = seed(name, SCALED)
    assert codes(found, SCALED) is not None
    assert from_text(to_text(found)) == found
    assert refute(to_program(found, SCALED), to_program(found, SCALED)) == (None, "")


WRITTEN = {  # the named seeds in equations
    "sgd-bare": "w' = w - lr*g",
    "adam-bare": "state m = 0  state v = 0  m' = 0.9*m + 0.1*g  v' = 0.999*v + 0.001*g^2  w' = w - lr*m'/(sqrt(v') + 1e-8)",
    "adamw-bare": "state m = 0  state v = 0  m' = 0.9*m + 0.1*g  v' = 0.999*v + 0.001*g^2  w' = w - lr*(m'/(sqrt(v') + 1e-8) + 0.01*w)",
    "muon-bare": "state m = 0  m' = 0.95*m + 0.05*g  w' = w - lr*orthogonalize(0.05*g + 0.95*m')",
    "adafactor-bare": """when rank >= 2 {
        state r per row = 0  state c per col = 0
        r' = 0.999*r + 0.001*mean(g^2 per row)  c' = 0.999*c + 0.001*mean(g^2 per col)  v = r'*c'/(mean(r' per matrix) + 1e-8)
      } else { state s = 0  s' = 0.999*s + 0.001*g^2  v = s' }
      u = g/(sqrt(v) + 1e-8)  w' = w - lr*u/max(1, rms(u))""",
    "cautious-adam-bare": """state m = 0  state v = 0  m' = 0.9*m + 0.1*g  v' = 0.999*v + 0.001*g^2
      u = m'/(sqrt(v') + 1e-8)  w' = w - lr*where(u*g > 0, u, 0)""",
}


@pytest.mark.parametrize("name", SEEDS)
def test_named_seeds_are_their_equations(name: str) -> None:
    wanted = Rule(f"from std import orthogonalize\nrule Wanted {{ hyper lr = 1e-3 in (0, inf)  {WRITTEN[name]} }}").program
    assert isinstance(wanted, Program)
    counterexample, problem = refute(wanted, to_program(seed(name, SCALED), SCALED))
    assert counterexample is None, counterexample.to_text()
    assert problem == ""


def test_settings_that_turn_something_off_leave_nothing_behind() -> None:
    assert to_text(seed("sgd", SCALED)) == "u = mul(g, 1.0)"
    assert len(seed("rmsprop", SCALED)) == 4


def test_every_library_rule_becomes_a_program_or_says_why() -> None:
    refused = {}
    for name in names():
        try:
            seed(name, SCALED)
        except GenomeError as problem:
            refused[name] = str(problem)
    assert all(len(message) > 30 for message in refused.values())
    assert not refused.keys() & set(KNOWN)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("state a = 0  state b = 0  state c = 0  a' = g  b' = a'*2  c' = b'  w' = w - lr*(c' + a + b + c)", "3 states, the search 2 slots"),
        ("state m = 1  m' = m + g  w' = w - lr*m'", "begin at 0"),
        ("w' = w - g*min(lr, 1/sqrt(t))", "step size is used other than as a factor"),
    ],
)
def test_rules_that_cannot_be_programs_say_why(text: str, told: str) -> None:
    program = Rule(f"rule R {{ hyper lr = 1e-3 in (0, inf)  {text} }}").program
    assert isinstance(program, Program)
    with pytest.raises(GenomeError, match=told):
        from_program(program, SCALED)


def test_one_rule_of_a_file_is_named_behind_it(tmp_path: Path) -> None:
    path = tmp_path / "two.opt"
    form = "rule {} {{ hyper lr = 1e-3 in (0, inf) w' = w - lr*{} }}\n"
    path.write_text(form.format("A", "g") + form.format("B", "sign(g)"))
    assert [to_text(seed(f"{path}:{name}", SCALED)) for name in "AB"] == [to_text(seed(name, SCALED)) for name in ("sgd", "signsgd")]
    with pytest.raises(OptError, match="choose one by name: A, B"):
        seed(str(path), SCALED)


LINES = ["a = square(g)", "b = tanh(m)", "m = interp(g, m, 0.9)", "v = interp(a, v, 0.99)", "a = maximum(a, b)", "b = agreeing(m, g)",
         "v = normalize(v)", "a = mul(w, 0.1)", "b = protected_div(m, a)"]  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from(LINES), max_size=6), st.sampled_from(["u = add(m, g)", "u = sign(v)", "u = interp(m, g, 0.3)"]))
def test_programs_of_the_search_come_back(lines: list[str], last: str) -> None:
    """A program as a rule and as a program again does the same."""
    text = "\n".join(["a = mul(g, 1.0)", "b = mul(w, 1.0)", *lines, last])
    wanted = to_program(from_text(text), SCALED)
    counterexample, _ = refute(wanted, to_program(from_program(wanted, SCALED), SCALED))
    assert counterexample is None, text + "\n" + counterexample.to_text()
