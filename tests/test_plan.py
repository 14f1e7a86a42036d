"""Plans: where programs are cut, what decides their blocks before a step, and what a stage moves. About 1 second."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from random_rules import rules
from stepping import facts, program

from optlang import ir, library
from optlang.analysis.costs import describe, truth_of
from optlang.ir import Node, Program, Routing
from optlang.ops import CALLS
from optlang.plan import Plan, is_gathering, plan
from optlang.rules import Rule
from optlang.types import MODEL


def programs(name: str) -> list[Program]:
    """The program of a library rule, or those that a route sends to."""
    made = Rule(name).program
    return [case.program for case in made.cases] if isinstance(made, Routing) else [made]


def levels(text: str, *truths: tuple[bool | None, ...]) -> list[list[str]]:
    """The barriers of a rule, level by level, as `operator extent`."""
    cut = plan(program(text))
    truths = truths or ((None,) * len(cut.conditions),)
    roots = [root for truth in truths for root in cut.decided(cut.program.roots(), truth)]
    return [[f"{b.op} {b.mark.type.extent}" for b in level] for level in cut.levels(roots, truths)]


def rule(body: str) -> str:
    return f"rule R {{ hyper lr = 0.1 in (0, inf)\n{body}\n}}"


def everything(cut: Plan) -> list[Node]:
    return [*cut.program.all_roots(), *(arg for b in cut.barriers.values() for arg in b.args)]


# -------------------------------------------------------------------------------------------------------- barriers


def test_a_rule_of_one_parameter_at_a_time_has_no_barrier() -> None:
    assert levels(rule("w' = w - lr*g/norm(g)")) == []


def test_a_norm_of_the_model_is_a_barrier() -> None:
    assert levels(rule("w' = w - lr*g/norm(g per model)")) == [["sum model"]]


def test_barriers_that_do_not_need_each_other_are_crossed_together() -> None:
    assert levels(rule("w' = w - lr*g*sum(g per model)/mean(w per group)")) == [["sum model", "mean group"]]


def test_a_barrier_that_needs_another_comes_after_it() -> None:
    found = levels(rule("n = norm(g per model)\n d = sum((g/n)^2 per group)\n w' = w - lr*grad(w + g*d)"))
    assert found == [["sum model"], ["sum group"], ["grad element"]]


def test_the_same_reduction_is_crossed_once() -> None:
    [level] = levels(rule("w' = w - lr*g/norm(g per model) - lr*w/norm(g per model)"))
    assert len(level) == 1


def test_a_mean_of_what_the_model_already_shares_is_no_barrier_of_parameters() -> None:
    cut = plan(program(rule("n = sum(g per group)\n w' = w - lr*g*max(n per model)")))
    assert [(b.op, str(b.mark.type.extent)) for b in cut.barriers.values()] == [("sum", "group"), ("amax", "model")]


@pytest.mark.parametrize("name", library.names())
def test_nothing_but_barriers_needs_several_parameters(name: str) -> None:
    for made in programs(name):
        cut = plan(made)
        assert not [n for n in ir.walk(everything(cut)) if n.op in CALLS or is_gathering(n)]


@pytest.mark.parametrize(("name", "stages"), [("adamw", 0), ("lamb", 0), ("sam", 2), ("sophiah", 1), ("lookahead", 0)])
def test_the_stages_of_the_shelf(name: str, stages: int) -> None:
    [made] = programs(name)
    cut = plan(made)
    truth = tuple(bool(x) for x in truth_of(cut, facts((4, 3)), 1))
    roots = cut.decided([cut.program.weights, *cut.program.updates.values()], truth)
    assert len(cut.levels(roots, [truth])) == stages


# ------------------------------------------------------------------------------------------------- known conditions


def decided(text: str, t: int = 1, shape: tuple[int, ...] = (4, 3)) -> Node:
    """The new weights as they are left by what is known at a step."""
    cut = plan(program(text))
    [root] = cut.decided([cut.program.weights], truth_of(cut, facts(shape), t))
    return root


def ops(node: Node) -> set[str]:
    return {n.op for n in ir.walk([node])}


def test_a_block_that_fires_every_few_steps_costs_nothing_in_between() -> None:
    text = rule("state slow = w\n every 5 { slow' = slow + 0.5*(sqrt(w) - slow)  w' = slow' } else { w' = w - lr*g }")
    assert "sqrt" in ops(decided(text, 5))
    assert "sqrt" not in ops(decided(text, 4))


def test_a_condition_on_facts_chooses_by_the_parameter() -> None:
    text = rule("when rank >= 2 { w' = w - lr*mean(g per row) } else { w' = w - lr*g }")
    assert "mean" in ops(decided(text, 1, (4, 3)))
    assert "mean" not in ops(decided(text, 1, (4,)))


def test_a_condition_on_data_stays() -> None:
    assert "branch" in ops(decided(rule("when norm(g) > 1 { w' = w - lr*sqrt(g) } else { w' = w - lr*g }")))


def test_a_parameter_does_not_decide_for_the_model() -> None:
    """Each would give the shared value its own answer."""
    text = rule("state s per model = 0\n every 2 { s' = s + 1 }\n w' = w - lr*s'*g")
    assert decided(text, 1) is decided(text, 2)


def test_barriers_of_the_side_not_taken_are_not_crossed() -> None:
    text = rule("every 3 { w' = w - lr*g/norm(g per model) } else { w' = w - lr*g }")
    assert levels(text, (False,)) == []
    assert levels(text, (True,)) == [["sum model"]]
    assert levels(text, (False,), (True,)) == [["sum model"]]


def test_a_state_that_only_some_parameters_have_is_kept_by_a_condition() -> None:
    [made] = programs("adafactor")
    cut = plan(made)
    guarded = {s.name: s.guard for s in cut.program.states if s.guard is not None}
    assert {"r", "c", "s"} <= set(guarded)
    assert set(guarded.values()) <= set(cut.conditions)


@settings(max_examples=60)
@given(rules)
def test_a_plan_of_one_parameter_keeps_its_program(made: Program) -> None:
    """Without barriers and blocks there is nothing to cut: the very same expressions."""
    cut = plan(made)
    assert not cut.barriers
    assert cut.program.weights is made.weights
    assert cut.program.updates == dict(made.updates)


def test_a_plan_of_ten_thousand_operators() -> None:
    x: Node = ir.G
    for _ in range(10_000):
        x = ir.add(ir.mul(x, ir.W), ir.G)
    deep = Program("Deep", "", (), (), (), {}, ir.sub(ir.W, ir.make("sum", (x,), MODEL)))
    assert len(plan(deep).barriers) == 1


# ------------------------------------------------------------------------------------------------------------ bytes


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("sgd", "reads g w, writes w: 12 bytes per element"),
        ("lion", "reads g m w, writes m w: 20 bytes per element"),
        ("adamw", "reads g m v w, writes m v w: 28 bytes per element"),
    ],
)
def test_what_a_step_moves(name: str, line: str) -> None:
    [made] = programs(name)
    assert line in describe(plan(made))


def test_factored_moments_move_nothing_for_each_element() -> None:
    [made] = programs("adafactor")
    text = describe(plan(made))
    assert "reads c g r w, writes c r w: 12 bytes per element" in text
    assert "reads g s w, writes s w: 20 bytes per element" in text


def test_the_stages_of_sam_in_words() -> None:
    [made] = programs("sam")
    lines = describe(plan(made)).splitlines()
    assert [line.split("then ")[-1] for line in lines[1:3]] == ["sum per model", "the gradient at another point"]


def test_a_state_that_holds_is_neither_read_nor_written() -> None:
    text = rule("hyper int k = 2 in [1, inf)\n state m = 0\n every k { m' = m + g }\n w' = w - lr*g")
    assert "reads g w, writes w: 12 bytes" in describe(plan(program(text)))
