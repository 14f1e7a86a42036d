"""Programs that are the same are merged, on the level that can tell; what cannot train anything is rejected."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optlang.search.distil.steps import genome_function
from optlang.search.programs.genome import Form, Genome, from_text, live, to_text
from optlang.search.programs.mutation import Mutator
from optlang.search.programs.seeds import SEEDS, seed
from optlang.search.programs.space import Space
from optlang.search.screening import fingerprint as behaviour
from optlang.search.screening.canonical import algebraic_key, structural_key
from optlang.search.screening.sieve import Screen

FORM = Form()
SPACE = Space(seeds=(seed("adamw-bare", FORM),))

SAME = {  # each pair on the level that must merge it
    "canonical": [
        ("a = add(g, w)\nu = add(a, m)", "b = add(w, g)\nu = add(m, b)"),
        ("a = tanh(w)\nb = sign(g)\nu = mul(a, b)", "b = sign(g)\na = tanh(w)\nc = exp(b)\nu = mul(b, a)"),
    ],
    "algebra": [
        ("a = mul(g, 1.0)\nu = tanh(a)", "u = tanh(g)"),
        ("a = sub(g, w)\na = add(a, w)\nu = tanh(a)", "u = tanh(g)"),
        ("a = mul(g, g)\na = sqrt(a)\nu = mul(a, g)", "a = abs(g)\nu = mul(g, a)"),
        ("a = square(g)\nu = mul(a, g)", "u = cube(g)"),
        ("u = mul(g, 3.0)", "u = mul(g, 0.001)"),
        ("u = neg(g)\nu = neg(u)", "u = mul(g, 2.0)"),
        ("a = mul(g, 2.0)\na = sign(a)\nu = add(a, g)", "a = sign(g)\nu = add(a, g)"),
        ("a = mul(m, 0.9)\nb = mul(g, 0.1)\nm = add(a, b)\nu = tanh(m)", "m = interp(g, m, 0.9)\nu = tanh(m)"),
    ],
    "fingerprint": [
        ("a = exp(w)\na = protected_log(a)\nu = add(a, g)", "u = add(w, g)"),
        ("m = interp(g, m, 0.9)\nu = mul(m, 1.0)", "v = interp(g, v, 0.9)\nu = mul(v, 1.0)"),
        ("a = maximum(g, w)\nb = minimum(g, w)\nu = add(a, b)", "u = add(g, w)"),
    ],
}


@pytest.mark.parametrize(("level", "one", "other"), [(level, *pair) for level, pairs in SAME.items() for pair in pairs])
def test_the_same_program_is_merged_on_its_level(level: str, one: str, other: str) -> None:
    screen = Screen(SPACE, descent=None)
    first, second = screen.check(from_text(one)), screen.check(from_text(other))
    assert first.level == ""
    assert (second.level, second.fingerprint) == (level, first.fingerprint)
    assert screen.counters[level].merged == 1


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("u = mul(w, 0.1)", "does not read the gradient"),
        ("u = log(g)", "has updates that are not finite"),
        ("u = sub(g, g)", "has updates of zero"),
        ("u = neg(g)", "has updates that climb"),
        ("a = transpose(g)\na = transpose(a)\nu = mul(a, 1.0)", "has updates that are not finite"),
    ],
)
def test_what_cannot_train_anything_is_rejected(text: str, reason: str) -> None:
    screen = Screen(SPACE)
    for _ in range(2):  # the second time from memory
        verdict = screen.check(from_text(text))
        assert (verdict.level, verdict.reason) == ("rejected", reason)


def test_invariance_to_the_scale_of_the_loss() -> None:
    screen = Screen(Space(constraints=("loss scale",), seeds=(from_text("u = sign(g)"),)))
    assert screen.check(from_text("u = sign(g)")).level == ""
    assert screen.check(from_text("u = normalize(g)")).level == ""
    assert screen.check(from_text("u = mul(g, 1.0)")).reason == "depends on the scale of the loss"


@settings(max_examples=150)
@given(st.integers(0, 10**6), st.integers(1, 15))
def test_the_quick_way_is_the_reference_interpreters(number: int, steps: int) -> None:
    genome = live(drifts(number, steps)[-1], FORM)
    step = genome_function(genome, FORM, behaviour.LAYOUT)
    if step is None:
        return
    with np.errstate(all="ignore"):
        quick, slow = behaviour._quick(step, FORM, 1.0, behaviour.probe()), behaviour._by_interpreter(genome, FORM, 1.0, behaviour.probe())
    known = np.isfinite(quick) & np.isfinite(slow) & (np.abs(slow) < 1e30)
    np.testing.assert_allclose(quick[known], slow[known], rtol=1e-6, atol=1e-9 * max(np.abs(slow[known]).max(initial=0), 1e-30))


def test_a_division_by_a_constant_is_one_in_single_precision() -> None:
    plain, more = from_text("u = mul(g, 2.0)"), from_text("a = protected_div(g, 0.5)\nu = mul(a, 1.0)")
    small = from_text("a = protected_div(g, 1e-8)\nu = add(a, w)")
    assert algebraic_key(plain, Form(scaled=False)) == algebraic_key(more, Form(scaled=False))
    assert algebraic_key(small, FORM) == algebraic_key(from_text("a = mul(g, 5e7)\nu = add(a, w)"), FORM), "there 1e-8 counts"


def test_merges_are_right() -> None:
    """An audit: programs that keys or fingerprints merge do the same on gradients that no fingerprint was made from."""
    merged: dict[str, int] = {}
    wrong = []
    first: dict[object, Genome] = {}
    for genome in {live(genome, FORM) for number in range(80) for genome in drifts(number, 60)}:
        for key in keys(genome):
            other = first.setdefault(key, genome)
            if other != genome:
                merged[key[0]] = merged.get(key[0], 0) + 1
                wrong += [] if same_direction(genome, other) else [(key[0], to_text(genome), to_text(other))]
    assert merged["algebraic"] > 40 and merged["fingerprint"] > 150, merged
    assert len(wrong) <= 1 + sum(merged.values()) // 200, wrong[:3]


def keys(genome: Genome) -> list[tuple[str, object]]:
    found = behaviour.updates(genome, FORM)
    finite = [("fingerprint", behaviour.fingerprint(genome, FORM, found))] if np.isfinite(found).all() and found.any() else []
    return [("structural", structural_key(genome, FORM)), ("algebraic", algebraic_key(genome, FORM)), *finite]


def drifts(number: int, steps: int) -> list[Genome]:
    """A chain of programs, each a child of the one before."""
    source, mutate = random.Random(number), Mutator(SPACE)
    found = [SPACE.seeds[0]]
    for _ in range(steps):
        found.append(mutate(found[-1], source)[0])
    return found


def same_direction(one: Genome, other: Genome) -> bool:
    """Whether two programs give the same updates, up to a positive factor, where both are finite."""
    with np.errstate(all="ignore"):
        a, b = (behaviour.updates(genome, FORM, 0.37) for genome in (one, other))
        if not (np.isfinite(a).all() and np.isfinite(b).all()):
            return bool((np.isfinite(a) == np.isfinite(b)).mean() > 0.9)
        size = np.sqrt((a**2).sum() * (b**2).sum())
        return bool(size == 0 or (a * b).sum() / size > 1 - 1e-9)


NOT_THE_SAME = {
    "a power of a negative number is undefined": "a = pow(g, 0.59)\nb = mul(w, a)\nb = sub(b, b)\nu = sub(g, b)\nu = agreeing(g, u)",
    "nought times what may be infinite": "a = exp(g)\na = mul(a, 0.0)\na = add(g, a)\nu = agreeing(g, a)",
    "an average of a number and itself, of shares that lose their 1": "b = exp(g)\nb = exp(b)\na = interp(g, g, b)\nu = agreeing(g, a)",
    "the exponential of a large negative number is 0": "a = exp(g)\na = sign(a)\na = sub(a, 1.0)\nu = add(g, a)",
}


@pytest.mark.parametrize("text", NOT_THE_SAME.values(), ids=NOT_THE_SAME)
def test_what_is_the_same_in_theory_alone_is_not_merged(text: str) -> None:
    screen = Screen(SPACE, descent=None)
    assert screen.check(from_text("u = mul(g, 1.0)")).level == ""
    assert screen.check(from_text(text)).level == ""


def test_what_surely_is_a_number_vanishes() -> None:
    for made in ("tanh(w)", "sqrt(a)", "unbiased(w, 0.9)", "norm_tensor(w)"):
        genome = from_text(f"a = square(w)\nb = {made}\nc = sub(g, b)\nu = add(c, b)")
        assert algebraic_key(genome, FORM) == algebraic_key(from_text("u = mul(g, 1.0)"), FORM)


def test_keys_do_not_depend_on_names_of_temporaries() -> None:
    one, other = from_text("a = tanh(g)\nu = add(a, w)"), from_text("d = tanh(g)\nu = add(w, d)")
    assert structural_key(one, FORM) == structural_key(other, FORM)


def test_a_slot_that_is_only_written_is_a_temporary() -> None:
    one, other = from_text("v = tanh(g)\nu = add(v, w)"), from_text("a = tanh(g)\nu = add(a, w)")
    assert structural_key(one, FORM) == structural_key(other, FORM)
    assert algebraic_key(one, FORM) == algebraic_key(other, FORM)


def test_one_less_is_not_two_less() -> None:
    """hash(-1) is hash(-2) in Python."""
    one, other = from_text("u = sub(w, g)"), from_text("a = mul(g, 2.0)\nu = sub(w, a)")
    assert algebraic_key(one, FORM) != algebraic_key(other, FORM)


def test_programs_that_are_long_when_written_out_have_keys() -> None:
    """Each of sixty statements uses the one before twice: as a tree that is 2^60 calls."""
    for line in ("a = maximum(b, c)\nc = tanh(a)\nb = minimum(a, c)", "b = add(b, c)\nc = mul(b, c)", "b = mul(b, b)\nb = add(b, 1.0)"):
        genome = from_text("b = tanh(g)\nc = sin(w)\n" + "\n".join([line] * 20) + "\nu = mul(b, 1.0)")
        assert algebraic_key(genome, FORM) == algebraic_key(genome, FORM)
        assert structural_key(genome, FORM) == structural_key(genome, FORM)


def test_a_slot_that_is_used_otherwise_is_another_program() -> None:
    one, other = from_text("m = interp(g, m, 0.9)\nu = sign(m)"), from_text("u = sign(m)\nm = interp(g, m, 0.9)")
    screen = Screen(SPACE)
    assert {screen.check(one).level, screen.check(other).level} == {""}


def test_a_factor_is_no_other_behaviour_nor_hides_one() -> None:
    """The first of these steps is of the size 1e8, the second of 1e-8."""
    form = Form()
    texts = [f"m = protected_div(g, m)\nu = mul(m, {factor})" for factor in (1.0, 2.48, 1e-5)]
    assert len({named(text, form) for text in texts}) == 1
    overflows = [f"a = sinh(g)\nu = mul(a, {factor})" for factor in (1.0, 8.01, 1e4, 1e-5)]
    assert len({named(text, form) for text in overflows}) == 1
    huge = [f"a = mul(g, {rate})\na = exp(a)\nu = {of}" for rate in (0.2, 0.3) for of in ("add(a, g)", "mul(a, g)")]
    assert len({named(text, form) for text in huge}) == 4


def named(text: str, form: Form) -> str:
    return behaviour.fingerprint(from_text(text), form, behaviour.updates(from_text(text), form))


def test_masks_that_differ_in_few_elements_are_two_behaviours() -> None:
    """Of the signs that `agreeing` compares, one in a thousand depends on this factor."""
    text = "m = mul(m, {})\nm = interp(m, g, 2.26)\nm = agreeing(w, m)\nb = mul(0.01, g)\nu = add(m, b)"
    assert len({named(text.format(factor), Form()) for factor in (1.66, 1.74, 1.78)}) == 3


def test_seeds_are_new_once() -> None:
    screen = Screen(SPACE)
    verdicts = [screen.check(from_text(text)) for text in SEEDS.values()]
    assert [verdict.level for verdict in verdicts] == [""] * len(SEEDS)
    assert all(screen.check(from_text(text)).level == "canonical" for text in SEEDS.values())
