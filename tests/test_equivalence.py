"""Equivalence of rules: proofs, counterexamples, and never a wrong "same". (45 s)"""

from __future__ import annotations

import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_rules import rules as random_rules
from stepping import Loop, program

from optlang import ir, library
from optlang.compare import trial
from optlang.compare.equivalence import equivalent
from optlang.compare.trial import refute
from optlang.ir import Node, Program, rebuild, substitute, walk
from optlang.rules import Rule
from optlang.simplify import simplify
from optlang.types import TENSOR, Extent, Type, TypeProblem

HYPERS = """hyper lr = 1e-3 in (0, inf)  hyper beta1 = 0.9 in [0, 1)  hyper beta2 = 0.999 in [0, 1)  hyper eps = 1e-8 in [0, inf)
hyper weight_decay = 0 in [0, inf)  state a = 0  state b = 0  d = g + weight_decay*w"""
SGD = "hyper lr = 0.1 in (0, inf)  hyper mu = 0.9 in [0, 1)  state m = 0"


def named(name: str) -> Program:
    found = Rule(name).program
    assert isinstance(found, Program)
    return found


def like_adam(step: str, a: str = "a + (1 - beta1)*(d - a)", b: str = "b*beta2 + d*d*(1 - beta2)") -> Program:
    return program(f"rule Other {{ {HYPERS}  a' = {a}  b' = {b}  w' = w - {step} }}")


FUSED = "lr*sqrt(1 - beta2^t)/(1 - beta1^t)*a'/(sqrt(b') + eps*sqrt(1 - beta2^t))"
OUTSIDE = "lr*sqrt(1 - beta2^t)/(1 - beta1^t)*a'/(sqrt(b') + eps)"
PLAIN = "lr*a'/(1 - beta1^t)/(sqrt(b'/(1 - beta2^t)) + eps)"


def test_adam_fused_is_adam() -> None:
    verdict = equivalent(named("adam"), like_adam(FUSED))
    assert verdict and verdict.status == "same"
    assert "`a` is `m`" in verdict.reason and verdict.counterexample is None


def test_eps_outside_is_not_adam() -> None:
    verdict = equivalent(named("adam"), like_adam(OUTSIDE))
    assert verdict.status == "different" and not verdict
    assert verdict.counterexample is not None and verdict.counterexample.step == 1
    assert "weight" in verdict.to_text() and "gradient" in verdict.to_text() and "eps = " in verdict.to_text()


def test_scaled_and_negated_states() -> None:
    verdict = equivalent(named("adam"), like_adam(PLAIN.replace("a'", "(-a'/2)"), a="beta1*a - 2*(1 - beta1)*d"))
    assert verdict.status == "same" and "`a` is -2 times `m`" in verdict.reason


def test_swapped_states() -> None:
    step = PLAIN.replace("a'", "x").replace("b'", "a'").replace("x", "b'")
    other = like_adam(step, a="beta2*a + (1 - beta2)*d^2", b="beta1*b + (1 - beta1)*d")
    assert equivalent(named("adam"), other)


def test_states_nobody_reads_do_not_count() -> None:
    other = program("""rule R { hyper lr = 1e-3 in (0, inf)  hyper weight_decay = 0 in [0, inf)  state s = 0  s' = s + 1
                       w' = w - lr*(weight_decay*w + g) }""")
    assert equivalent(named("sgd"), other)


LR = "hyper lr = 0.1 in (0, inf)"
ALIKE = {  # pairs that take the same steps, and what is said of them
    "states in another order": ("state a = 0 state b per tensor = 1 a' = a + g b' = b/2 w' = w - lr*a'*b'",
                                "state y per tensor = 1 state x = 0 x' = x + g y' = 0.5*y w' = w - lr*y'*x'", "same"),
    "truths": ("state s = false s' = s or g > 1 w' = w - lr*where(s', g + g, g)",
               "state s = false s' = s or g > 1 w' = w - lr*where(s', 2*g, g)", "same"),
    "states without gradient": ("state a = w state b = 0 a' = a b' = b w' = w - lr*(g + b + (w - a))",
                                "state a = w state b = 0 a' = a b' = b w' = w - (lr*g + lr*b + lr*(w - a))", "same"),
    "weights to evaluate with": ("state a = w a' = (a + w')/2 w' = w - lr*g eval = 2*a' - w'",
                                 "state a = w a' = (a + w')/2 w' = w - lr*g eval = a' + a' - w'", "same"),
    "one state for two": ("state a = 0 state b = 0 a' = a + g b' = b + 2*g w' = w - lr*(a' + b')",
                          "state a = 0 a' = a + 3*g w' = w - lr*a'", "open"),
    "a state that some have": ("when rank >= 2 { state m = 0 m' = m + g u = m' } else { u = g } w' = w - lr*u",
                               "state m = 0 when rank >= 2 { m' = m + g u = m' } else { u = g } w' = w - lr*u", "open"),
}  # fmt: skip


@pytest.mark.parametrize("name", ALIKE)
def test_forms_of_one_rule(name: str) -> None:
    one, other, status = ALIKE[name]
    assert equivalent(program(f"rule A {{ {LR} {one} }}"), program(f"rule B {{ {LR} {other} }}")).status == status


def test_a_report_that_one_lacks_leaves_it_open() -> None:
    text = f"rule A {{ {LR} report r = lr w' = w - lr*g }}"
    assert equivalent(program(text), program(text.replace("report r = lr", ""))).status != "same"


DIFFERENT = [("lion", "signum"), ("adam", "adamw"), ("momentum", "nesterov"), ("adam", "amsgrad"), ("adam", "nadam"),
             ("adam", "radam"), ("adagrad", "rmsprop"), ("sgd", "signsgd")]  # fmt: skip


@pytest.mark.parametrize(("a", "b"), DIFFERENT)
def test_different_rules_of_the_library(a: str, b: str) -> None:
    verdict = equivalent(named(a), named(b))
    assert verdict.status == "different" and verdict.counterexample is not None


PAST_ALGEBRA = ("swats", "gam")  # a mode that stays switched; gradients at points that depend on gradients elsewhere


RULES = [n for n in library.names() if isinstance(Rule(n).program, Program)]


@pytest.mark.parametrize("name", RULES if "OPTLANG_EVERYTHING" in os.environ else RULES[::6])  # steps of all: test_simplify.py
def test_each_rule_is_itself_and_its_simplified_form(name: str) -> None:
    rule = named(name)
    assert equivalent(rule, rule) or name in PAST_ALGEBRA
    assert equivalent(rule, simplify(rule)).status != "different"


def test_dampening() -> None:
    def sgd(new: str) -> Program:
        return program(f"rule R {{ {SGD}  hyper dampening = 0 in [0, 1)  m' = {new}  w' = w - lr*m' }}")

    damped = sgd("mu*m + (1 - dampening)*g")
    assert equivalent(damped, sgd("g - dampening*g + m*mu"))
    assert equivalent(damped, sgd("mu*m + g - 0*dampening")).status == "different"
    first = sgd("where(t == 1, g, mu*m + (1 - dampening)*g)")  # torch's
    assert equivalent(damped, first).status == "different"


def test_scaling_by_a_setting_differs_only_when_it_changes() -> None:
    outside = program(f"rule R {{ {SGD}  m' = mu*m + g  w' = w - lr*m' }}")
    inside = program(f"rule R {{ {SGD}  m' = mu*m + lr*g  w' = w - m' }}")
    verdict = equivalent(outside, inside)
    assert verdict.status == "different" and "when settings change" in verdict.reason


def test_zero_over_zero_is_a_difference() -> None:
    verdict = equivalent(program("rule R { w' = w - g*g/g }"), program("rule R { w' = w - g }"))
    assert verdict.status == "different"
    assert verdict.counterexample is not None and verdict.counterexample.gradient == 0
    assert "nan" in verdict.to_text()


def test_rounding_is_no_difference() -> None:
    """A sign of what is zero but for rounding, and a sum in another order."""
    left = program("rule R { w' = w - 0.1*((g + 1) - 1) }")
    assert equivalent(left, program("rule R { w' = w - 0.1*g }")).status == "same"
    a, b = program("rule R { w' = w - sign(0.1*g + 0.2*g - 0.3*g) }"), program("rule R { w' = w }")
    assert equivalent(a, b).status != "different"


def test_overflow_is_no_difference() -> None:
    """Weights that run away end a comparison before products overflow in another order."""
    left, right = (program(f"rule R {{ w' = w - 0.1*{u} }}") for u in ("(g @ g.T) @ g", "g @ (g.T @ g)"))
    assert equivalent(left, right).status != "different"


def test_a_verdict_prints_as_text() -> None:
    verdict = equivalent(named("sgd"), named("lion"))
    assert str(verdict) == verdict.to_text() and str(verdict).startswith("different: they part at step 1\n  step 1, element [")


def test_different_defaults_and_names_are_notes() -> None:
    a, b = (program(f"rule R {{ hyper lr = {x} in (0, inf)  w' = w - lr*g }}") for x in (0.1, 0.2))
    verdict = equivalent(a, b)
    assert verdict and verdict.notes == ("`lr` is 0.1 in R by default, 0.2 in R",)
    c = program("rule C { hyper rate = 0.1 in (0, inf)  w' = w - rate*g }")
    found = equivalent(a, c)
    assert found.status == "different" and "note: only R has `lr`" in found.to_text()


def test_draws() -> None:
    rule = program("rule R { w' = w - g*uniform() }")
    assert equivalent(rule, rule)
    other = program("rule R { z = uniform()  w' = w - z*g }")
    assert equivalent(rule, other).status in ("different", "open")


def test_evaluation_weights_count() -> None:
    a = program("rule R { state x = w  x' = 0.9*x + 0.1*w'  w' = w - 0.1*g  eval = x' }")
    b = program("rule R { state x = w  x' = 0.9*x + 0.1*w'  w' = w - 0.1*g  eval = w' }")
    assert equivalent(a, a) and equivalent(a, b).status == "different"
    assert "to evaluate with" in equivalent(a, b).to_text()


def test_model_calls() -> None:
    a = program("rule R { hyper rho = 0.1  w' = w - 0.1*grad(w + rho*g) + 0.01*hvp(2*g) }")
    b = program("rule R { hyper rho = 0.1  w' = w + 0.01*hvp(g + g) - grad(g*rho + w)/10 }")
    assert equivalent(a, b)
    assert equivalent(a, program("rule R { hyper rho = 0.1  w' = w - 0.1*grad(w - rho*g) + 0.01*hvp(2*g) }")).status == "different"


def test_values_per_model() -> None:
    a, b, c = (program(f"rule R {{ w' = w - loss*{x}*g }}") for x in ("2", "(1 + 1)", "3"))
    assert equivalent(a, b) and equivalent(a, c).status == "different"


def test_long_rules_are_run_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of rules that part no run less is made; of those that do not, it is said."""
    monkeypatch.setattr(trial, "SECONDS", -1)
    lines = "  ".join(f"x{i + 1} = sin(x{i})" for i in range(400))
    a, b, c = (program(f"rule R {{ x0 = {first}  {lines}  w' = w - x400 }}") for first in ("g/3 + w", "w + 1/3*g", "g"))
    assert "no difference was found in 1 of 7 runs" in equivalent(a, b).reason and equivalent(a, b).status == "open"
    assert equivalent(a, c).status == "different" and equivalent(a, a).status == "same"


def test_what_nobody_can_run_is_open() -> None:
    """A fact that no parameter has. (States of a fixed shape do run.)"""
    square = Type("real", Extent("array", 7, 7))
    weights = ir.add(ir.W, ir.make("sum", (ir.state("s", square),), TENSOR))
    a, b = (
        Program("R", "", (), (ir.State("s", square, ir.mul(ir.eye(7), ir.const(x))),), (), {"s": ir.state("s", square)}, weights)
        for x in (1, 2)
    )
    assert equivalent(a, b).status == "different"
    vector = ir.make("matmul", (ir.W, ir.make("transpose", (ir.G,))))
    c = Program("R", "", (), (), (), {}, ir.add(ir.W, ir.make("sum", (ir.div(vector, ir.fact("depth")),), TENSOR)))
    verdict = equivalent(c, Program("R", "", (), (), (), {}, ir.W))
    assert verdict.status == "open" and "could not be run" in verdict.reason


# ------------------------------------------------------------------------------------- never "same" where they are not


@st.composite
def mutants(draw: st.DrawFn) -> tuple[Program, Program]:
    """A rule of the library or a random one, and the same with one operation or literal changed."""
    names = ["adam", "adamw", "lion", "rmsprop", "momentum", "adagrad", "nadam", "lars"]
    rule = draw(st.one_of(random_rules, st.sampled_from(names).map(named)))
    node = draw(st.sampled_from([n for n in walk(rule.roots()) if _changed(n, 0) is not None]))
    changed = _changed(node, draw(st.integers(0, 5)))
    assert changed is not None
    try:
        return rule, rule.replaced(substitute(rule.all_roots(), {node: changed}))
    except TypeProblem:
        return rule, rule


def _changed(node: Node, choice: int) -> Node | None:
    if node.op in ("add", "sub", "mul", "div", "maximum", "minimum"):
        others = [op for op in ("add", "sub", "mul", "div", "maximum", "minimum") if op != node.op]
        return ir.make(others[choice % 5], node.args)
    if node.op == "const" and not isinstance(node.value, bool):
        return ir.const(node.value + (1, 0.001, -1, 2, 1e-9, 0.5)[choice])
    if node.op in ("sqrt", "abs", "sign", "neg"):
        return ir.make(("abs", "neg", "sign", "sqrt")[choice % 4], node.args)
    return rebuild(node, node.args[::-1]) if node.op in ("lt", "gt") else None


@settings(max_examples=60, deadline=None)
@given(mutants(), st.integers(0, 1000))
def test_same_is_never_wrong(pair: tuple[Program, Program], seed: int) -> None:
    a, b = pair
    if not equivalent(a, b):
        return
    random = np.random.default_rng(seed)
    start = random.normal(size=(3, 4))
    settings_ = {h.name: h.default for h in a.hypers if h.kind == "real"} | ({"weight_decay": 0.3} if _has(a, "weight_decay") else {})
    left, right = Loop(a, start.copy(), **settings_), Loop(b, start.copy(), **settings_)
    for step in range(6):
        gradient = random.normal(size=(3, 4)) * 10.0 ** random.integers(-3, 3)
        with np.errstate(all="ignore"):
            x, y = left.step(gradient)[0], right.step(gradient)[0]
            usual = np.isfinite(x) & np.isfinite(y) & (np.abs(x) < 1e6)
        np.testing.assert_allclose(y[usual], x[usual], rtol=1e-6, atol=1e-9, err_msg=f"step {step}")


def _has(rule: Program, name: str) -> bool:
    return any(h.name == name for h in rule.hypers)


@settings(max_examples=25, deadline=None)
@given(random_rules)
def test_simplified_is_never_called_different(rule: Program) -> None:
    assert equivalent(rule, simplify(rule, "safe")).status != "different"


def test_refute_shows_the_first_parting() -> None:
    a = program("rule A { w' = where(t < 3, w - 0.1*g, w) }")
    b = program("rule B { w' = w - 0.1*g }")
    found, problem = refute(a, b)
    assert problem == "" and found is not None
    assert found.step == 3 and found.names == ("A", "B") and found.values[0] != found.values[1]
    assert f"element [{', '.join(map(str, found.element))}]" in found.to_text()
