"""Scaling degrees of the library and of small rules, held against what scaling the loss really does. (2 s)"""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from stepping import Loop, program

from optlang import ir, library
from optlang.analysis.degrees import carries, degrees
from optlang.analysis.linear_equations import ZERO
from optlang.analysis.units import CURVATURE, GRADIENT, PARAMETER, words
from optlang.ir import Program, const, neg
from optlang.rules import Rule

SQUARE = (Fraction(2), Fraction(-2))
INVERSE = (Fraction(-1), Fraction(2))


def named(name: str) -> Program:
    found = Rule(name).program
    assert isinstance(found, Program)
    return found


def test_adam() -> None:
    found = degrees(named("adam"))
    assert found.hypers["lr"] == PARAMETER and found.hypers["eps"] == GRADIENT and found.hypers["beta1"] == ZERO
    assert found.hypers["weight_decay"] == CURVATURE
    assert found.states == {"m": GRADIENT, "v": SQUARE}
    assert not found.conflicts
    text = found.to_text()
    assert "  lr has parameter units" in text and "  eps has gradient units" in text and "  state v has squared gradient units" in text


def test_what_the_loss_does() -> None:
    assert degrees(named("adamw")).to_text().endswith("the update does not depend on the scale of the loss, `eps` apart")
    assert degrees(named("lion")).to_text().endswith("the update does not depend on the scale of the loss")
    assert "unless `lr` and `weight_decay` follow it" in degrees(named("sgd")).to_text()
    assert degrees(named("sgd")).hypers["lr"] == INVERSE


@pytest.mark.parametrize("name", ["lion", "signum", "rprop", "adamw", "muon"])
def test_scaling_the_loss_changes_nothing(name: str) -> None:
    """What the degrees promise, tried out: gradients seven times as large give the same weights."""
    rule, random = named(name), np.random.default_rng(1)
    found = degrees(rule)
    assert set(found.with_loss) <= found.added
    start, gradients = random.normal(size=(4, 3)), random.normal(size=(5, 4, 3))
    quiet = dict.fromkeys(found.with_loss, 0.0)
    plain, scaled = (Loop(rule, start.copy(), **quiet) for _ in range(2))
    for gradient in gradients:
        np.testing.assert_allclose(plain.step(gradient)[0], scaled.step(7 * gradient)[0], rtol=1e-6)


@pytest.mark.parametrize("name", ["sgd", "momentum", "adam", "adagrad"])
def test_hypers_that_follow_the_loss_undo_its_scale(name: str) -> None:
    """Scaling every hyper by its degree in the loss leaves the weights alone."""
    rule, random = named(name), np.random.default_rng(2)
    found = degrees(rule)
    start, gradients = random.normal(size=(4, 3)), random.normal(size=(5, 4, 3))
    base = {h.name: h.default or 0.01 for h in rule.hypers}
    moved = {k: v * 8.0 ** float((found.hypers[k] or ZERO)[0]) for k, v in base.items()}
    plain, scaled = Loop(rule, start.copy(), **base), Loop(rule, start.copy(), **moved)
    for gradient in gradients:
        np.testing.assert_allclose(plain.step(gradient)[0], scaled.step(8 * gradient)[0], rtol=1e-6)


def test_conflict_says_where() -> None:
    found = degrees(program("rule R { hyper lr = 1  state v = 0  v' = v + g^2  u = g/(v + abs(g))  w' = w - lr*u }"))
    (conflict,) = found.conflicts
    assert (conflict.place, conflict.node.op) == ("u", "add")
    assert str(conflict) == "in `u`: what has squared gradient units meets what has gradient units, at `+`"
    assert "no statement" in found.to_text()


def test_conflicts_of_weights_and_states() -> None:
    found = degrees(program("rule R { state m = 0  m' = 0.9*m + g  w' = w - 0.1*m' }"))
    assert [c.place for c in found.conflicts] == ["w'"]
    assert degrees(program("rule R { w' = g }")).conflicts[0].want == "a weight"
    found = degrees(program("rule R { hyper lr = 1  state m = w  m' = m + g  w' = w - lr*m' }"))
    assert [c.place for c in found.conflicts] == ["m'"]
    assert "a state that has gradient units" in str(found.conflicts[0])


def test_known_conflicts_of_published_rules() -> None:
    """AdaBelief adds one eps to a square and to a root; LAMB falls back on a step without units."""
    assert [c.place for c in degrees(named("adabelief")).conflicts] == ["u"]
    assert [c.place for c in degrees(named("lamb")).conflicts] == ["ratio"]


def test_second_order() -> None:
    found = degrees(named("sophiah"))
    assert found.states["h"] == CURVATURE and found.hypers["rho"] == PARAMETER
    assert degrees(named("sam")).hypers["rho"] == PARAMETER


def test_powers() -> None:
    found = degrees(program("rule R { hyper a = 1  hyper p = 0.5  hyper c = 2  w' = w - a*g/(abs(g)^p) - c^t*w*g^(-1)*abs(g) }"))
    assert found.hypers["a"] == (Fraction(-1, 2), Fraction(3, 2)) and found.hypers["c"] == ZERO and found.hypers["p"] == ZERO
    below = degrees(program("rule R { hyper a = 1  hyper p = 0.5  w' = w - a*g*abs(g)^(-p) }"))
    assert below.hypers["a"] == found.hypers["a"] and not below.conflicts


def test_open_degrees() -> None:
    found = degrees(program("rule R { hyper a = 1  hyper b = 1  w' = w - a*b*g }"))
    assert found.hypers == {"a": None, "b": None}
    assert "a may have any units" in found.to_text()


def test_inputs_loss_and_functions() -> None:
    found = degrees(program("""rule R { input s per element  hyper k = 1  hyper tau = 1
                            w' = w - k*g/(abs(g) + s)*exp(-loss/tau) - 0*atan2(w, k) }"""))
    assert found.inputs["s"] == GRADIENT and found.hypers["tau"] == (Fraction(1), Fraction(0)) and found.hypers["k"] == PARAMETER


def test_literals_that_carry_units() -> None:
    assert all(carries(const(x)) for x in (0, 1e-8, float("inf"), float("nan"), -1e-12)) and carries(neg(const(1e-8)))
    assert not any(carries(const(x)) for x in (1, 0.5, True, -1))


def test_roots_and_numbers_alone() -> None:
    found = degrees(program("rule R { hyper lr = 1  hyper k = 1  w' = w - lr*cbrt(g) - k*max(1e-9, 0) }"))
    assert found.hypers["lr"] == (Fraction(-1, 3), Fraction(4, 3)) and not found.conflicts
    assert carries(ir.power(const(1e-9), const(2))) and not carries(ir.power(const(3), const(2)))


def test_what_is_added_is_a_small_number_that_stands_in_sums_alone() -> None:
    """Its square in a sum is added, too; a small factor is none."""
    text = "rule R {{ hyper lr = 1  hyper eps = 1e-8 in [0, inf)  w' = w - lr*g/sqrt({}) }}"
    said = "does not depend on the scale of the loss, `eps` apart"
    assert said in degrees(program(text.format("g^2 + eps^2"))).to_text()
    assert said not in degrees(program(text.format("eps*g^2"))).to_text()
    assert said not in degrees(program(text.format("g^eps"))).to_text()


def test_a_conflict_in_what_a_state_begins_with_is_of_that_state() -> None:
    found = degrees(program("rule R { state a = w  state m = w + 1  a' = a  m' = 0.5*m  w' = w - 0*m' - 0*a' }"))
    assert [c.place for c in found.conflicts] == ["m"]


def test_words() -> None:
    known = {"loss": (1, 0), "1/parameter": (0, -1), "1/curvature": (-1, 2), "squared parameter": (0, 2), "1/gradient": (-1, 1)}
    for what, (loss, parameter) in known.items():
        assert what in words((Fraction(loss), Fraction(parameter)))
    assert words((Fraction(1), Fraction(3))) == "has units of loss parameter^3"
    assert words((Fraction(1, 2), Fraction(0))) == "has units of loss^1/2"
    assert words(None) == "may have any units"


def test_whole_library_has_degrees() -> None:
    for name in library.names():
        found = Rule(name).program
        if isinstance(found, Program):
            assert degrees(found).to_text().startswith(f"scaling of {found.name}:\n")
