"""Conditions that ranges decide are not written for people, and what is written takes the same steps."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from random_rules import rules as random_rules
from stepping import Loop, program

import optlang
from optlang.analysis.constant_conditions import without_constant_conditions
from optlang.ir import Program, walk
from optlang.printing.render import latex

EVERY = "rule R { hyper int k = 3 in [1, inf)  state h = 0  every k from 1 { h' = h + g }  w' = w - 0.1*h' }"


def comparisons(rule: Program) -> int:
    return sum(node.op in ("lt", "le", "gt", "ge") for node in walk(rule.roots()))


def test_every_k_from_the_first_step_says_nothing_of_the_first_step() -> None:
    assert r"\geq" not in latex(program(EVERY)) and r"\bmod k" in latex(program(EVERY))
    assert ">= 1" not in optlang.build(EVERY, to="module").split("class R", 1)[1].split("def step", 1)[1]
    later = EVERY.replace("from 1", "from 5")
    assert r"t \geq 5" in latex(program(later)) and "t >= 5" in optlang.build(later, to="module")


@pytest.mark.parametrize(
    ("condition", "left"),
    [("t >= 1", 0), ("1 <= t", 0), ("t > 0", 0), ("t < 1", 0), ("k >= 1", 0), ("k > 9", 0), ("not (t >= 1)", 0), ("rank >= 0", 0),
     ("t >= 1 and g > 0", 1), ("t < 1 or g > 0", 1), ("t > 1", 1), ("k > 1", 1), ("k < 9", 1), ("rank >= 1", 1), ("numel >= 1", 1),
     ("lr > 0", 1), ("t >= k", 1)],
)  # fmt: skip
def test_only_what_ranges_decide_goes(condition: str, left: int) -> None:
    rule = program(f"rule R {{ hyper lr = 0.1 in (0, inf)  hyper int k = 2 in [1, 9]  w' = w - where({condition}, g, lr*w) }}")
    assert comparisons(rule) == 1 + (" and " in condition or " or " in condition)
    assert comparisons(without_constant_conditions(rule)) == left


@settings(max_examples=30, deadline=None)
@given(random_rules)
def test_steps_stay_what_they_are(rule: Program) -> None:
    random = np.random.default_rng(0)
    start, gradients = random.normal(size=(3, 4)), random.normal(size=(3, 3, 4))
    one, other = Loop(rule, start.copy()), Loop(without_constant_conditions(rule), start.copy())
    with np.errstate(all="ignore"):
        for gradient in gradients:
            np.testing.assert_array_equal(one.step(gradient)[0], other.step(gradient)[0])
