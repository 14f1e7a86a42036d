"""Exact steps on found programs: what they find, that they keep the meaning, and that nothing gets longer."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from optlang import ir
from optlang.compare.trial import Walk, World
from optlang.ir import Program
from optlang.search.distil.collecting import forms, polynomial
from optlang.search.distil.listing import listing, measure
from optlang.search.distil.proof import exact
from optlang.search.distil.protections import bounded, least
from optlang.search.distil.slots import slot_moves
from optlang.search.programs.functions import FUNCTIONS
from optlang.search.programs.genome import Form, Genome, Statement, from_text, live, to_program
from optlang.search.programs.type_codes import codes

FORM = Form()
OTHER_WORLDS = (101, 102, 103)  # the steps themselves are tried in worlds 0 to 6


def program(text: str, form: Form = FORM) -> Program:
    return to_program(from_text(text), form)


def simplified(text: str, form: Form = FORM) -> tuple[str, ...]:
    return listing(exact(program(text, form), form.scaled)[0], form.scaled)


def assert_same_steps(a: Program, b: Program) -> None:
    """In closed loop, in worlds that the steps were not tried in, for as long as the first is finite."""
    for seed in OTHER_WORLDS:
        world = World(((4, 3), (5,)), {h.name: h for h in a.hypers}, seed, changing=True)
        walks = Walk(a, world), Walk(b, world), Walk(a, world, 1e-12)
        with np.errstate(all="ignore"):
            for step in range(6):
                for x, y, near in zip(*(walk.go(step) for walk in walks), strict=True):
                    usable = np.isfinite(x) & np.isfinite(near) & (np.abs(x) < 1e12)
                    allowed = 1e-6 * (1 + np.abs(x)) + 1e4 * np.abs(near - x)
                    assert np.all((np.abs(x - y) <= allowed)[usable])
                    if not usable.all():
                        return


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("a = sub(g, m)\nu = add(a, m)\nm = mul(g, 1.0)", ("u = g",)),
        ("a = mul(g, g)\na = sqrt(a)\nu = protected_div(g, 2.0)\nu = mul(a, u)\nu = div(u, a)", ("u = mul(0.4999999975, g)",)),
        ("a = mul(g, 0.25)\nb = mul(g, 0.75)\nu = add(a, b)", ("u = g",)),
        ("a = sqrt(g)\nu = mul(a, a)", ("u = g",)),
        ("a = tanh(g)\na = mul(a, 3.0)\nu = sign(a)", ("u = sign(g)",)),
        ("a = abs(g)\nu = div(g, a)", ("u = sign(g)",)),
        ("v = sub(v, v)\nu = add(g, v)", ("u = g",)),
        ("v = mul(v, 0.9)\nu = add(g, v)", ("u = g",)),
        ("m = interp(g, m, 0.9)\nv = interp(g, v, 0.9)\nu = add(m, v)", ("m' = interp(g, m, 0.9)", "u = add(m', m')")),
        ("v = mul(v, 0.5)\nv = add(v, g)\nu = sign(v)", ("v' = interp(g, v, 0.5)", "u = sign(v')")),
        ("m = interp(g, m, 0.5)\nv = interp(g, m, 0.5)\nu = add(v, m)\nu = mul(u, v)\nm = mul(v, 1.0)", None),
    ],
)  # fmt: skip
def test_algebra_finds_the_short_form(text: str, wanted: tuple[str, ...] | None) -> None:
    genome = from_text(text)
    before = to_program(genome, FORM)
    after, steps = exact(before, True)
    if wanted is not None:
        assert listing(after, True) == wanted
    assert measure(after, True) <= measure(before, True)
    assert all(step.kind == "exact" and step.name and step.evidence for step in steps)
    assert_same_steps(before, after)


def test_steps_say_what_changed_and_never_lengthen() -> None:
    _, steps = exact(program("a = mul(g, g)\nb = protected_sqrt(a)\nm = interp(b, m, 0.9)\nv = interp(b, v, 0.9)\nu = add(m, v)"), True)
    assert len(steps) >= 2
    for before, after in pairwise(steps):
        assert before.statements[1] == after.statements[0] and before.slots[1] == after.slots[0]
    assert all(step.statements[0] >= step.statements[1] and step.slots[0] >= step.slots[1] for step in steps)
    assert any("abs(g)" in step.after for step in steps)


def test_a_merged_average_has_shares_that_add_up_to_one_exactly() -> None:
    """v' = interp(g, interp(g, v, a), b), over exact fractions, whatever a and b are."""
    form = Form(("v",), ("m", "u"))
    before = program("m = interp(g, v, 0.8999999761581421)\nv = interp(g, m, 1.109133005142212)\nu = sign(m)", form)
    terms = polynomial(before.updates["v"])
    a, b = Fraction(0.8999999761581421), Fraction(1.109133005142212)
    v = frozenset([(ir.state("v", before.states[0].type), 1)])
    assert terms[v] == a * b and sum(terms.values()) == 1
    after, steps = exact(before, True)
    assert listing(after, True)[0] == f"v' = interp(g, v, {float(a * b)!r})"
    assert any("sum is 1 exactly" in step.evidence for step in steps)


@pytest.mark.parametrize("text", ["x*y - y*x", "x*(y + 2) - 2*x", "(x + y)*(x - y)", "x/y/y", "x - x/2", "3*x*y/x"])
def test_polynomials_are_exact(text: str) -> None:
    x, y = ir.G, ir.W
    made = {
        "x*y - y*x": ir.sub(ir.mul(x, y), ir.mul(y, x)),
        "x*(y + 2) - 2*x": ir.sub(ir.mul(x, ir.add(y, ir.const(2))), ir.mul(ir.const(2), x)),
        "(x + y)*(x - y)": ir.mul(ir.add(x, y), ir.sub(x, y)),
        "x/y/y": ir.div(ir.div(x, y), y),
        "x - x/2": ir.sub(x, ir.div(x, ir.const(2))),
        "3*x*y/x": ir.div(ir.mul(ir.mul(ir.const(3), x), y), x),
    }[text]
    values = {x: Fraction(7, 3), y: Fraction(-5, 4)}
    wanted = eval(text, {"x": values[x], "y": values[y]})  # the test's own text
    terms = polynomial(made)
    total = sum((c * np.prod([values[n] ** p for n, p in m], initial=Fraction(1)) for m, c in terms.items()), Fraction(0))
    assert total == wanted
    assert all(polynomial(form) == terms for form in forms(terms))


def test_a_sign_up_to_a_protection_says_where_it_holds() -> None:
    before = program("m = interp(g, m, 0.9)\na = abs(m)\nu = protected_div(m, a)")
    assert not exact(before, True)[1]
    [move] = bounded(before, True)
    assert listing(move.program, True) == ("m' = interp(g, m, 0.9)", "u = sign(m')")
    assert "e = 1e-08" in move.evidence and "|x| ≥ 9.9e-07" in move.evidence


def test_a_large_protection_is_no_protection() -> None:
    assert not bounded(program("a = abs(g)\na = add(a, 0.01)\nu = div(g, a)"), True)


@pytest.mark.parametrize("text", ["a = exp(m)\na = add(a, 1.0)\nu = protected_div(g, a)", "a = cosh(m)\nu = protected_div(g, a)"])
def test_protections_that_never_matter_go(text: str) -> None:
    before = program(text + "\nm = interp(g, m, 0.9)")
    [move, *_] = bounded(before, True)
    assert move.name == "a protection that never matters"
    assert measure(move.program, True) < measure(before, True)
    assert_same_steps(before, move.program)


def test_a_protection_that_matters_stays() -> None:
    assert not bounded(program("m = square(g)\na = sqrt(m)\nu = protected_div(g, m)\nu = mul(u, a)"), True)
    assert least(ir.square(ir.G), frozenset()) <= 0


def test_slots_that_differ_are_not_merged() -> None:
    differing = program("m = interp(g, m, 0.9)\nv = interp(g, v, 0.8)\nu = add(m, v)")
    assert not [move for move in slot_moves(differing) if "merged" in move.name]
    doubled = program("m = interp(g, m, 0.9)\na = mul(g, 2.0)\nv = interp(a, v, 0.9)\nu = mul(m, v)")
    [move] = [move for move in slot_moves(doubled) if "merged" in move.name]
    assert "v = 2·m" in move.evidence and len(move.program.states) == 1
    assert_same_steps(doubled, move.program)


# ---------------------------------------------------------------------------------------------------- random programs

NAMES = ("w", "g", "m", "v", "a", "b", "c", "d", "u", "t")
CALLED = tuple(FUNCTIONS[name] for name in (
    "add", "sub", "mul", "protected_div", "div", "interp", "square", "sqrt", "abs", "sign", "neg", "maximum", "minimum", "tanh", "exp",
    "protected_sqrt", "complement", "cube", "clip_norm", "normalize", "unbiased", "agreeing", "protected_log", "global_norm", "reciprocal",
))  # fmt: skip
ARGUMENTS = st.one_of(st.sampled_from(NAMES), st.sampled_from([0.0, 1.0, 2.0, -1.0, 0.5, 0.9, 0.999, 1e-8]), st.floats(-3, 3))


@st.composite
def genomes(draw: st.DrawFn) -> Genome:
    """Programs of up to 10 statements that are well typed; what does not fit is passed over."""
    made: Genome = ()
    for _ in range(draw(st.integers(2, 10))):
        function = draw(st.sampled_from(CALLED))
        target = draw(st.sampled_from(("m", "v", "a", "b", "c", "d", "u")))
        one = Statement(function.name, target, tuple(draw(ARGUMENTS) for _ in range(function.operands)))
        if codes((*made, one, Statement("mul", "u", ("g", 1.0))), FORM) is not None:
            made = (*made, one)
    whole = (*made, Statement("add", "u", ("u" if any(s.target == "u" for s in made) else "g", "m")))
    return whole if codes(whole, FORM) is not None else (Statement("add", "u", ("g", "m")),)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(genomes())
@example((Statement("square", "m", ("w",)), Statement("interp", "m", ("w", 1.0, -1.0)), Statement("add", "u", ("g", "m"))))
def test_random_programs_keep_their_meaning_and_get_no_longer(genome: Genome) -> None:
    before = to_program(genome, FORM)
    after, steps = exact(before, True)
    assert measure(after, True) <= measure(before, True)
    assert all(step.statements[1] <= step.statements[0] for step in steps)
    assert len(listing(before, True)) <= max(1, len(live(genome, FORM)) + len(before.states) + 1)
    assert_same_steps(before, after)
