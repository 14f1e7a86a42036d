"""What a step is said to move: for which parameters, through which stages, at which steps. 1 second."""

from __future__ import annotations

import pytest
from stepping import program

import optlang
from optlang.analysis.costs import EXAMPLES, describe, truth_of
from optlang.ir import Program
from optlang.plan import Plan, plan


def planned(body: str) -> Plan:
    return plan(program(f"rule R {{ hyper lr = 1 in (0, inf) {body} }}"))


def of_library(name: str) -> str:
    made = optlang.Rule(name).program
    assert isinstance(made, Program)
    return describe(plan(made))


def test_conditions_are_decided_for_the_examples() -> None:
    found = planned("when rows > cols and t >= 2 { w' = w - g } else { w' = w - lr*g }")
    assert len(found.conditions) == 1
    assert [truth_of(found, EXAMPLES["a matrix"], t) for t in (1, 2)] == [(False,), (True,)]
    assert truth_of(found, EXAMPLES["a vector"], 1) == (False,)
    assert truth_of(found, EXAMPLES["a vector"], 2) == (None,)


@pytest.mark.parametrize(
    ("body", "vectors"),
    [
        ("w' = w - g", True),
        ("w' = w - mean(g per row)", False),
        ("w' = w - g @ g.T @ g", False),
        ("w' = w - as_param(as_matrix(g))", False),
        ("w' = w - g*norm(mean(g per col) per model)", False),
        ("when rank >= 2 { w' = w - mean(g per row) } else { w' = w - g }", True),
        ("state r per row = 0 r' = r + mean(g per row) w' = w - g + 0*r", False),
    ],
)
def test_vectors_are_described_where_the_rule_takes_them(body: str, vectors: bool) -> None:
    text = describe(planned(body))
    assert "step 1 of a matrix" in text
    assert ("a vector" in text) == vectors


def test_rules_that_treat_both_alike_are_described_once() -> None:
    assert of_library("adamw").count("step 1 of") == 1
    assert of_library("adafactor").count("step 1 of") == 2
    assert "a vector" not in of_library("muon")


def test_answers_of_the_model_are_read_like_tensors() -> None:
    assert describe(planned("w' = w - lr*grad(w + g)")).splitlines()[1:] == [
        "  stage 1  reads g w: 8 bytes per element  then the gradient at another point",
        "  stage 2  reads answer w, writes w: 12 bytes per element",
    ]


def test_windows_are_moved_whole_and_small_values_cost_nothing_per_element() -> None:
    assert "reads g h w, writes h w: 52 bytes" in describe(planned("state h[5] = 0 h' = push(h, g) w' = w - mean(h')"))
    assert "reads g w, writes n w: 12 bytes" in describe(planned("state n per tensor = 0 n' = n + norm(g) w' = w - g/n'"))


def test_a_step_that_changes_nothing() -> None:
    assert describe(planned("w' = w")).splitlines()[1] == "  one stage  reads nothing: 0 bytes per element"
