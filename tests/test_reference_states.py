"""What rules keep between steps, in the reference interpreter: states of every extent, and windows."""

from __future__ import annotations

import math

import numpy as np
import pytest
from nodes_by_hand import LR, SHAPES, X, norm, reduce, rule, stored, two_groups
from stepping import cell, step_of, take

from optlang import ir
from optlang.backends.base import StepError
from optlang.backends.reference import BACKEND
from optlang.ir import FALSE, TRUE, G, Program, State, T, W, const, make
from optlang.types import ELEMENT, GROUP, MODEL, ROW, TENSOR, Type

# ----------------------------------------------------------------------------------------------------------- states



@pytest.mark.parametrize("extent", SHAPES, ids=str)
@pytest.mark.parametrize("window", [0, 5])
def test_states_have_the_shape_of_their_extent(extent, window):
    s = stored(extent, window=window)
    step = take(rule(W, s=(extent, LR, s, window)), step_of(cell(np.ones((2, 4, 3)), lr=0.25)))
    made = step.cells[0].state["s"]
    assert made.shape == ((window,) if window else ()) + SHAPES[extent]
    assert np.all(made == 0.25)


def test_initial_values_read_weights_hypers_and_facts():
    start = ir.add(ir.mul(LR, W), ir.fact("numel"))
    one = take(rule(W, s=(ELEMENT, start, stored(ELEMENT))), step_of(cell(X, lr=2.0))).cells[0]
    np.testing.assert_allclose(one.state["s"], 2 * X + 6)
    two = take(rule(W, s=(MODEL, norm(W, MODEL), stored(MODEL))), two_groups())
    assert float(two.model["s"]) == pytest.approx(math.sqrt(1 + 4 + 50 + 49))


def test_states_that_exist_are_left_alone():
    program = rule(W, s=(ELEMENT, const(1), stored(ELEMENT)))
    step = step_of(cell([1.0, 2.0]))
    step.cells[0].state["s"] = kept = np.array([5.0, 6.0])
    take(program, step)
    assert step.cells[0].state["s"] is kept
    assert kept.tolist() == [5, 6]


def test_a_parameter_that_comes_later_gets_its_states_and_the_others_keep_theirs():
    m, n = stored(ELEMENT, "m"), stored(MODEL, "n")
    program = rule(W, m=(ELEMENT, W, ir.add(m, G)), n=(MODEL, const(0), ir.add(n, const(1))))
    early, late = cell([1.0], [10.0]), cell([2.0], [20.0], index=1)
    step = take(program, step_of(early))
    step.cells = [early, late]
    take(program, step)
    assert (early.state["m"].item(), late.state["m"].item(), float(step.model["n"])) == (21, 22, 2)


def test_a_guard_decides_whether_a_state_exists():
    matrix = make("ge", (ir.fact("rank"), const(2)))
    r = stored(ROW, "r")
    new = ir.branch(matrix, ir.add(r, reduce("sum", W, ROW)), r)
    step = take(rule(W, r=(ROW, const(0), new, 0, matrix)), step_of(cell(X), cell([1.0], index=1)))
    assert step.cells[0].state["r"].tolist() == [[6], [16]]
    assert step.cells[1].state == {}


def test_truth_values_are_states_too():
    seen = stored(ELEMENT, kind="bool")
    program = rule(make("where", (seen, const(1), const(0))), s=(ELEMENT, FALSE, make("or", (seen, make("gt", (G, const(0)))))))
    one = take(program, step_of(cell([0.0, 0.0], [1.0, -1.0]))).cells[0]
    assert one.state["s"].dtype == bool
    assert one.state["s"].tolist() == [True, False]
    one.gradient = np.array([-1.0, -1.0])
    take(program, step_of(one))
    assert (one.weights.tolist(), one.state["s"].tolist()) == ([1, 0], [True, False])
    switched = stored(MODEL, "switch", kind="bool")
    step = take(rule(W, switch=(MODEL, FALSE, make("or", (switched, TRUE)))), step_of(cell([0.0])))
    assert step.model["switch"].dtype == bool
    assert bool(step.model["switch"])


def test_whole_numbers_are_kept_exactly():
    count = ir.state("n", Type("int", TENSOR))
    program = Program("Test", "", (), (State("n", count.type, const(2**40)),), (), {"n": ir.add(count, const(1))}, W)
    one = take(program, step_of(cell(np.float32([1.0, 2.0])))).cells[0]
    assert one.state["n"].dtype == np.int64
    assert int(one.state["n"]) == 2**40 + 1


def test_states_per_group_and_model_are_updated_once():
    g, m = stored(GROUP, "g"), stored(MODEL, "m")
    program = rule(ir.add(g, m), g=(GROUP, const(0), ir.add(g, reduce("sum", G, GROUP))), m=(MODEL, const(10), ir.add(m, const(1))))
    step = two_groups()
    take(program, step)
    assert (float(step.groups[0]["g"]), float(step.groups[1]["g"]), float(step.model["m"])) == (7, 96, 11)
    assert [c.weights.ravel()[0] for c in step.cells] == [10, 10, 10]
    take(program, step)
    assert (float(step.groups[0]["g"]), float(step.groups[1]["g"]), float(step.model["m"])) == (14, 192, 12)
    assert [c.weights.ravel()[0] for c in step.cells] == [18, 107, 107]
    assert all(c.state == {} for c in step.cells)


def test_a_model_value_uses_the_largest_t():
    step = step_of(cell([0.0], t=3), cell([0.0], t=8, index=1, group=1), cell([0.0], t=5, index=2, group=0))
    program = rule(T, g=(GROUP, const(0), T), m=(MODEL, const(0), T))
    take(program, step)
    assert [c.weights.item() for c in step.cells] == [3, 8, 5]
    assert (float(step.groups[0]["g"]), float(step.groups[1]["g"]), float(step.model["m"])) == (5, 8, 8)


def test_groups_must_agree_on_a_hyper_of_a_model_value():
    program = rule(ir.sub(W, ir.mul(LR, G)), m=(MODEL, const(0), ir.mul(LR, norm(G, MODEL))))
    step = step_of(cell([1.0], [1.0], lr=0.1), cell([1.0], [1.0], index=1, group=1, lr=0.2))
    executable = BACKEND.compile(program, "safe")
    executable.prepare(step)
    with pytest.raises(StepError, match=r"`lr`.*0\.1 for parameter `p0`.*0\.2 for parameter `p1`"):
        executable.step(step)
    assert [c.weights.tolist() for c in step.cells] == [[1], [1]]
    step.cells[1].hypers = {"lr": 0.1}
    executable.step(step)
    assert float(step.model["m"]) == pytest.approx(0.1 * math.sqrt(2))


def test_groups_may_differ_where_only_parameters_use_the_hyper():
    step = step_of(cell([1.0], [1.0], lr=0.1), cell([1.0], [1.0], index=1, group=1, lr=0.2))
    scale = norm(G, MODEL)
    take(rule(ir.sub(W, ir.div(ir.mul(G, LR), ir.div(G, G))), m=(MODEL, const(0), scale)), step)
    assert [c.weights.item() for c in step.cells] == pytest.approx([0.9, 0.8])


# ---------------------------------------------------------------------------------------------------------- windows


def test_a_window_pushes_and_reduces():
    h = stored(TENSOR, "h", window=3)
    new = make("push", (h, norm(G, TENSOR)))
    program = rule(reduce("mean", new, "window"), h=(TENSOR, const(math.nan), new, 3))
    one = cell([0.0, 0.0], [3.0, 4.0])
    seen = []
    for scale in (1, 2, 3, 4):
        one.gradient = scale * np.array([3.0, 4.0])
        take(program, step_of(one))
        seen.append(one.weights[0])
    assert seen == [5, 7.5, 10, 15]
    assert one.state["h"].tolist() == [10, 15, 20]


@pytest.mark.parametrize("extent", SHAPES, ids=str)
def test_window_reductions_skip_what_is_empty(extent):
    h = stored(extent, "h", window=4)
    values = {"sum": 4.0, "mean": 2.0, "amax": 3.0, "amin": 1.0, "count": 2.0, "quantile": 2.5}
    for op, expected in values.items():
        more = (const(0.75),) if op == "quantile" else ()
        one = cell(np.ones((2, 4, 3)))
        one.state["h"] = np.stack([np.full(SHAPES[extent], v) for v in (math.nan, 1.0, 3.0, math.nan)])
        BACKEND.compile(rule(reduce(op, h, "window", *more)), "safe").step(step_of(one))
        assert np.all(one.weights == expected), op


def test_windows_of_small_values_beside_larger_ones():
    h, k = stored(TENSOR, "h", window=2), stored(ROW, "k", window=2)
    one = cell(X)
    one.state |= {"h": np.array([1.0, 10.0]), "k": np.array([[[1.0], [2.0]], [[3.0], [4.0]]])}
    product = ir.mul(ir.mul(h, W), k)
    BACKEND.compile(rule(reduce("sum", product, "window")), "safe").step(step_of(one))
    np.testing.assert_allclose(one.weights, X * [[1 + 30], [2 + 40]])


def test_a_window_per_model_is_shared():
    h = stored(MODEL, "h", window=2)
    new = make("push", (h, norm(G, MODEL)))
    step = take(rule(W, h=(MODEL, const(0), new, 2)), two_groups())
    np.testing.assert_allclose(step.model["h"], [0, math.hypot(5, 12, 84)])


def test_a_branch_may_hold_a_window():
    h = stored(ELEMENT, "h", window=2)
    new = ir.branch(make("eq", (T, const(1))), make("push", (h, reduce("sum", W, ROW))), h)
    one = cell(X)
    take(rule(W, h=(ELEMENT, const(0), new, 2)), step_of(one))
    assert one.state["h"].tolist() == [[[0] * 3] * 2, [[6] * 3, [16] * 3]]
    one.t = 2
    take(rule(W, h=(ELEMENT, const(0), new, 2)), step_of(one))
    assert one.state["h"][0].tolist() == [[0] * 3] * 2
