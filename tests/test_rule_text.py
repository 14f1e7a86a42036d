"""Programs printed as rules mean what they meant."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, assume, given, settings
from random_rules import rules
from stepping import program

from optlang import ir, library
from optlang.compare.equivalence import equivalent
from optlang.ir import Program
from optlang.printing.rule_text import to_opt
from optlang.rules import Rule


def parts(p: Program) -> tuple[object, ...]:
    """What a program is, its names and spans apart."""
    states = {(s.name, s.type, s.init, s.guard) for s in p.states}
    return p.name, p.doc, p.hypers, states, p.inputs, dict(p.updates), p.weights, p.evaluation, p.reports or {}


def undotted(p: Program) -> Program:
    """Names of calls and of numbers in tables with underscores, as they are printed."""

    def plain(name: str) -> str:
        return re.sub(r"\W", "_", name)

    def rename(node: ir.Node) -> ir.Node | None:
        if node.op in ("state", "hyper") and plain(node.value) != node.value:
            return ir.make(node.op, (), plain(node.value), node.type)
        return None

    found = p.replaced(ir.rewrite_top(p.all_roots(), rename))
    return replace(
        found,
        hypers=tuple(h._replace(name=plain(h.name)) for h in p.hypers),
        states=tuple(s._replace(name=plain(s.name)) for s in found.states),
        updates={plain(name): node for name, node in found.updates.items()},
    )


@given(rules)
@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_rule_comes_back(rule: Program) -> None:
    assume(not any(n.op == "neg" and n.args[0].op == "const" for n in ir.walk(rule.all_roots())))  # read as one number
    assert parts(program(to_opt(rule))) == parts(rule) == parts(program(to_opt(rule, by_hand=True)))


SHELF = [name for name in library.names() if isinstance(Rule(name).program, Program)]


@pytest.mark.parametrize("name", SHELF)
def test_the_library_comes_back(name: str) -> None:
    rule = Rule(name).program
    assert isinstance(rule, Program)
    again = program(to_opt(rule))
    assert rule.uses("random") or parts(program(to_opt(rule, by_hand=True))) == parts(again)
    if rule.uses("random"):  # draws are written anew
        assert again.uses("random") and [s.name for s in again.states] == [s.name for s in undotted(rule).states]
    elif any(h.baked for h in rule.hypers):  # an unrolled loop has no length, nor has a window or a matrix
        assert equivalent(again, rule).status != "different"
    else:
        assert parts(again) == parts(undotted(rule))


@pytest.mark.parametrize("text", [
    "rule R { state h[3] per model = nan h' = push(h, norm(g per model)) w' = w - g*mean(h') }",
    "rule R { input x per row when rank >= 2 { u = x*g } else { u = g } w' = w - u }",
    "rule R { when rank >= 2 { when rows > cols { state a per row = 1 a' = a + mean(g^2 per row) u = a' } else { u = 2 } } else "
    "{ state b = 0 b' = b + g u = b' } w' = w - u }",
    "rule R { state late per tensor = false late' = late or not (norm(g) > -1 and norm(w) < 9) w' = w - where(late', -g, g) }",
    "rule R { report size = norm(g per model) w' = w - (-g)^2 - 2^(-g) - (g - (w - g)) - g/(w/g) - (g/w)*g + quantile(g, 0.5 per group) }",
    "rule R { when rank == 2 { u = g @ (g.T @ g) + (eye(rows) @ g).T.T } else { u = as_param(as_matrix(g)) } w' = w - u }",
    "rule R { state z = w z' = z - g w' = w - g eval = (w' + z')/2 }",
])  # fmt: skip
def test_features_come_back(text: str) -> None:
    rule = program(text)
    assert parts(program(to_opt(rule))) == parts(rule) == parts(program(to_opt(rule, by_hand=True)))


def test_by_hand() -> None:
    """What is kept is read by its name, and what is made of settings alone is written where it is read."""
    text = to_opt(program("""rule R { hyper b = 0.9 in [0, 1) hyper e = 1e-08 in [0, inf) state m = 0 state v = 0
        c = 1 - b x = b*m + c*g m' = x y = x^2 v' = b*v + c*y u = y + x/(v' + e) w' = w - u }"""), by_hand=True)  # fmt: skip
    assert [line.strip() for line in text.splitlines()[5:-1]] == [
        "m' = b * m + (1 - b) * g", "y = m'^2", "v' = b * v + (1 - b) * y", "u = y + m' / (v' + e)", "w' = w - u",
    ]  # fmt: skip
    assert "e = 1e-8 in" in text


def test_shared_expressions_are_written_once() -> None:
    body = " ".join(f"x{i + 1} = x{i} + x{i}" for i in range(100))
    text = to_opt(program(f"rule R {{ x0 = g {body} w' = w - x100 }}"))
    assert len(text) < 4000
