"""The reference interpreter against values computed by hand or by plain NumPy, one feature at a time."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from stepping import cell, facts, step_of, take

from optlang import ir, philox
from optlang.backends.base import Cell, Step, StepError
from optlang.backends.reference import BACKEND
from optlang.ir import FALSE, LOSS, TRUE, G, Input, Node, Program, State, T, W, const, make
from optlang.ops import CALLS
from optlang.types import COL, ELEMENT, GROUP, MATRIX, MODEL, ROW, TENSOR, Extent, Kind, Type

LR = ir.hyper("lr")
X = np.array([[1.0, 2, 3], [4, 5, 7]])
numbers = st.floats(-10, 10)
many_shapes = hnp.array_shapes(min_dims=2, max_dims=4, max_side=4)


def rule(weights: Node, evaluation: Node | None = None, reports: dict[str, Node] | None = None, **states: tuple[Any, ...]) -> Program:
    """A program; each state is (extent, initial value, new value) and may go on with a window and a guard."""
    kept, updates = [], {}
    for name, (extent, start, new, *more) in states.items():
        kind: Kind = "bool" if new.type.kind == "bool" else "real"
        window, guard = (*more, None)[:2] if more else (0, None)
        kept.append(State(name, Type(kind, extent, window), start, guard))
        updates[name] = new
    return Program("Test", "", (), tuple(kept), (), updates, weights, evaluation, reports)


def value(node: Node, weights: Any = X, gradient: Any = None, **hypers: Any) -> Any:
    """What an expression is, spread over one parameter."""
    one = cell(weights, gradient, **hypers)
    return take(rule(node), step_of(one)).cells[0].weights


def reduce(op: str, x: Node, extent: Extent | str, *more: Node) -> Node:
    return make(op, (x, *more), extent)


def stored(extent: Extent, name: str = "s", kind: Kind = "real", window: int = 0) -> Node:
    return ir.state(name, Type(kind, extent, window))


# ----------------------------------------------------------------------------------------------------------- a step


def test_one_step_of_momentum_by_hand():
    m = stored(ELEMENT, "m")
    new = ir.add(ir.mul(ir.hyper("beta"), m), G)
    program = rule(ir.sub(W, ir.mul(LR, new)), m=(ELEMENT, const(0), new))
    step = step_of(cell([1.0, 2.0], [0.5, -1.0], lr=0.1, beta=0.9))
    take(program, step)
    np.testing.assert_allclose(step.cells[0].weights, [0.95, 2.1])
    np.testing.assert_allclose(step.cells[0].state["m"], [0.5, -1.0])
    take(program, step)
    np.testing.assert_allclose(step.cells[0].state["m"], [0.95, -1.9])
    np.testing.assert_allclose(step.cells[0].weights, [0.855, 2.29])


def test_old_values_are_read_even_where_new_ones_were_written_first():
    a, b = stored(ELEMENT, "a"), stored(ELEMENT, "b")
    program = rule(a, a=(ELEMENT, const(1), b), b=(ELEMENT, W, a))  # a, b and w change places
    one = take(program, step_of(cell([7.0, 8.0]))).cells[0]
    assert (one.weights.tolist(), one.state["a"].tolist(), one.state["b"].tolist()) == ([1, 1], [7, 8], [1, 1])


def test_everything_that_the_rule_keeps_may_be_w_itself():
    program = rule(ir.add(W, const(1)), last=(ELEMENT, const(0), W), first=(ELEMENT, W, stored(ELEMENT, "first")))
    step = step_of(cell([1.0, 2.0]))
    take(program, step)
    take(program, step)
    one = step.cells[0]
    assert (one.weights.tolist(), one.state["last"].tolist(), one.state["first"].tolist()) == ([3, 4], [2, 3], [1, 2])


@pytest.mark.parametrize("shape", [(), (5,), (0,), (2, 3), (0, 3), (2, 0, 3), (2, 3, 2, 2)])
def test_every_rank_and_empty_parameters(shape):
    w, g = np.full(shape, 2.0), np.full(shape, 0.5)
    norm = ir.make("sqrt", (reduce("sum", ir.square(G), TENSOR),))
    one = cell(w, g, lr=0.1)
    take(rule(ir.sub(W, ir.mul(LR, ir.div(G, ir.add(norm, const(1))))), n=(TENSOR, const(0), norm)), step_of(one))
    size = 0.5 * math.sqrt(w.size)
    np.testing.assert_allclose(one.weights, w - 0.1 * g / (size + 1))
    assert one.weights.shape == shape
    np.testing.assert_allclose(one.state["n"], size)


def test_a_scalar_becomes_the_whole_parameter():
    assert value(const(3)).tolist() == [[3, 3, 3], [3, 3, 3]]
    assert value(LR, lr=0.5).tolist() == [[0.5] * 3] * 2
    assert value(reduce("sum", W, MODEL)).tolist() == [[22.0] * 3] * 2
    assert value(reduce("sum", W, ROW)).tolist() == [[6.0] * 3, [16.0] * 3]


def test_10_000_operations_deep_and_a_chain_of_doublings():
    deep = W
    for _ in range(10_000):
        deep = ir.add(deep, const(1))
    assert value(deep, [0.0]).tolist() == [10_000]
    double = W
    for _ in range(100):
        double = ir.add(double, double)
    assert value(double, [1.0]).tolist() == [2.0**100]


def test_no_parameter_has_a_gradient():
    step = Step([], {}, {})
    take(rule(W, reports={"a": reduce("sum", W, MODEL)}), step)
    assert step.reports == {}
    assert BACKEND.compile(rule(W), "safe").evaluation(step) == []


# ------------------------------------------------------------------------------------------------------- reductions


@settings(max_examples=40)
@given(hnp.arrays(np.float64, many_shapes, elements=numbers))
def test_means_at_every_extent(x):
    axes = {ROW: -1, COL: -2, MATRIX: (-2, -1), TENSOR: None, GROUP: None, MODEL: None}
    for extent, axis in axes.items():
        expected = np.broadcast_to(np.mean(x, axis=axis, keepdims=True), x.shape)
        np.testing.assert_allclose(value(reduce("mean", W, extent), x), expected, atol=1e-12)


@settings(max_examples=40)
@given(hnp.arrays(np.float64, many_shapes, elements=numbers), st.sampled_from(["sum", "mean", "amax", "amin", "count"]))
def test_partial_reductions_only_reduce_what_is_left(x, op):
    plain = {"sum": np.sum, "mean": np.mean, "amax": np.max, "amin": np.min, "count": lambda a, axis, keepdims: np.full(
        np.sum(a, axis=axis, keepdims=True).shape, a.size / np.sum(a, axis=axis, keepdims=True).size)}[op]  # fmt: skip
    rows = reduce("sum", W, ROW)
    row_sums = x.sum(-1, keepdims=True)
    for extent, axis in {MATRIX: -2, TENSOR: None, MODEL: None}.items():
        expected = np.broadcast_to(plain(row_sums, axis=axis, keepdims=True), x.shape)
        np.testing.assert_allclose(value(reduce(op, rows, extent), x), expected, atol=1e-9)
    same = value(reduce(op, rows, ROW), x)
    np.testing.assert_allclose(same, np.broadcast_to(np.ones_like(row_sums) if op == "count" else row_sums, x.shape), atol=1e-9)


def test_reductions_of_a_transposed_matrix_follow_its_own_rows():
    per_row = reduce("sum", make("transpose", (W,)), Extent("array", "cols", 1))
    assert value(make("transpose", (ir.mul(per_row, make("transpose", (ir.div(W, W),))),))).tolist() == [[5, 7, 10]] * 2


def test_quantile_over_everything_and_over_rows():
    assert value(reduce("quantile", W, TENSOR, const(0.5)))[0, 0] == 3.5
    assert value(reduce("quantile", W, ROW, ir.hyper("q")), q=0.5)[:, 0].tolist() == [2, 5]
    share = ir.div(reduce("sum", G, TENSOR), const(6))
    assert value(reduce("quantile", W, COL, share), gradient=np.ones((2, 3)))[0].tolist() == [4, 5, 7]


def two_groups(**hypers: Any) -> Step:
    return step_of(
        cell([1.0, 2.0], [3.0, 4.0], index=0, group=0, **hypers),
        cell([[5.0, 5.0]], [[12.0, 0.0]], index=1, group=1, **hypers),
        cell([7.0], [84.0], index=2, group=1, **hypers),
    )


def norm(x: Node, extent: Extent) -> Node:
    return make("sqrt", (reduce("sum", ir.square(x), extent),))


def first_weights(node: Node, step: Step) -> list[float]:
    return [float(c.weights.ravel()[0]) for c in take(rule(node), step).cells]


def test_norms_per_tensor_group_and_model():
    assert first_weights(norm(G, TENSOR), two_groups()) == [5, 12, 84]
    assert first_weights(norm(G, GROUP), two_groups()) == pytest.approx([5, math.hypot(12, 84), math.hypot(12, 84)])
    assert first_weights(norm(G, MODEL), two_groups()) == pytest.approx([math.hypot(5, 12, 84)] * 3)


def test_what_is_counted_is_what_there_is_one_of():
    counts = {"elements": reduce("count", G, MODEL), "tensors": reduce("count", norm(G, TENSOR), MODEL),
              "groups": reduce("count", norm(G, GROUP), MODEL), "one": reduce("count", norm(G, MODEL), MODEL)}  # fmt: skip
    step = take(rule(W, reports=counts), two_groups())
    assert step.reports == {"elements": 5, "tensors": 3, "groups": 2, "one": 1}


def test_facts_are_summed_over_parameters():
    step = take(rule(W, reports={"n": reduce("sum", ir.fact("numel"), MODEL)}), two_groups())
    assert step.reports == {"n": 5.0}


def test_means_of_means_and_quantiles_across_parameters():
    assert first_weights(reduce("mean", reduce("mean", G, TENSOR), MODEL), two_groups()) == pytest.approx([(3.5 + 6 + 84) / 3] * 3)
    assert first_weights(reduce("quantile", G, MODEL, const(0.5)), two_groups()) == [4] * 3
    assert first_weights(reduce("amax", G, GROUP), two_groups()) == [4, 84, 84]


@settings(max_examples=30)
@given(st.lists(hnp.arrays(np.float64, hnp.array_shapes(max_dims=3, max_side=3), elements=numbers), min_size=1, max_size=4))
def test_model_reductions_are_those_of_all_elements_together(xs):
    for op, plain in {"sum": np.sum, "mean": np.mean, "amax": np.max, "amin": np.min}.items():
        cells = [cell(x, index=i, group=i % 2) for i, x in enumerate(xs)]
        expected = plain(np.concatenate([x.ravel() for x in xs]))
        for c in take(rule(reduce(op, W, MODEL)), step_of(*cells)).cells:
            np.testing.assert_allclose(c.weights, np.full(c.weights.shape, expected), atol=1e-9)


@settings(max_examples=20)
@given(st.lists(hnp.arrays(np.float64, hnp.array_shapes(max_dims=3, max_side=3), elements=numbers), min_size=1, max_size=4))
def test_without_model_values_a_parameter_steps_as_if_it_were_alone(xs):
    m = stored(ELEMENT, "m")
    new = ir.add(m, ir.mul(G, norm(W, TENSOR)))
    program = rule(ir.sub(W, ir.add(new, ir.random("normal", 3))), m=(ELEMENT, ir.neg(W), new))
    together = take(program, step_of(*(cell(x, x * 2, index=i) for i, x in enumerate(xs))))
    for i, x in enumerate(xs):
        alone = take(program, step_of(cell(x, x * 2, index=i)))
        assert np.array_equal(together.cells[i].weights, alone.cells[0].weights)
        assert np.array_equal(together.cells[i].state["m"], alone.cells[0].state["m"])


# --------------------------------------------------------------------------------------------------- choice, laziness


class Recorder:
    """A training loop that writes down at which points it was asked."""

    def __init__(self, factor: float = 2.0) -> None:
        self.points: list[list[Any]] = []
        self.factor = factor

    def __call__(self, points: list[Any]) -> list[Any]:
        self.points.append(points)
        return [self.factor * x for x in points]


@pytest.mark.parametrize("chosen", [True, False])
def test_the_side_not_chosen_is_not_computed(chosen):
    ask = Recorder()
    condition = ir.make("eq", (T, const(3)))
    node = ir.branch(condition, make("grad", (ir.mul(W, const(5)),)), W)
    step = step_of(cell([1.0, 2.0], t=3 if chosen else 4), grad=ask)
    take(rule(node), step)
    assert len(ask.points) == int(chosen)
    assert step.cells[0].weights.tolist() == ([10, 20] if chosen else [1, 2])


def test_one_parameter_that_chooses_a_gradient_moves_all_of_them():
    ask = Recorder()
    large = make("gt", (norm(W, TENSOR), const(5)))
    step = step_of(cell([1.0]), cell([9.0], index=1), grad=ask)
    take(rule(ir.branch(large, make("grad", (ir.add(W, const(1)),)), W)), step)
    assert [p.tolist() for p in ask.points[0]] == [[2.0], [10.0]]
    assert len(ask.points) == 1
    assert [c.weights.tolist() for c in step.cells] == [[1], [20]]


def test_a_value_per_model_does_not_depend_on_who_asks():
    large = make("gt", (norm(W, TENSOR), const(5)))
    step = step_of(cell([1.0]), cell([9.0], index=1))
    take(rule(ir.branch(large, reduce("sum", W, MODEL), W)), step)
    assert [c.weights.tolist() for c in step.cells] == [[1], [10]]


def test_both_sides_of_where_may_be_computed_element_by_element():
    assert value(make("where", (make("gt", (W, const(3))), const(0), W))).tolist() == [[1, 2, 3], [0, 0, 0]]


def test_a_chosen_side_of_coarser_extent_is_spread_before_it_is_reduced():
    side = ir.branch(make("gt", (LR, const(0))), const(1), W)
    assert value(reduce("sum", side, TENSOR), lr=1.0)[0, 0] == 6
    rows = ir.branch(make("gt", (LR, const(0))), const(1), reduce("sum", W, ROW))
    assert value(reduce("sum", rows, TENSOR), lr=1.0)[0, 0] == 2


def test_conditions_per_model_group_and_tensor():
    for extent, expected in ((TENSOR, [1, 0, 0]), (GROUP, [1, 0, 0]), (MODEL, [0, 0, 0])):
        small = make("lt", (norm(G, extent), const(6)))
        assert first_weights(ir.branch(small, const(1), const(0)), two_groups()) == expected


def test_a_matrix_side_is_for_matrices_only():
    matrix = make("ge", (ir.fact("rank"), const(2)))
    product = make("matmul", (make("matmul", (W, make("transpose", (W,)))), W))
    program = rule(ir.branch(matrix, product, W))
    step = take(program, step_of(cell(X), cell([1.0, 2.0], index=1)))
    np.testing.assert_allclose(step.cells[0].weights, X @ X.T @ X)
    assert step.cells[1].weights.tolist() == [1, 2]


def test_a_fact_that_is_missing_may_stand_where_it_is_not_chosen():
    matrix = make("ge", (ir.fact("rank"), const(2)))
    for choose in ("branch", "where"):
        node = make(choose, (matrix, ir.mul(W, ir.fact("rows")), W))
        assert value(node, [3.0]).tolist() == [3]
        assert value(node, [[3.0], [1.0]]).tolist() == [[6], [2]]


# ------------------------------------------------------------------------------------------------ matrices and views


@settings(max_examples=30)
@given(hnp.arrays(np.float64, many_shapes, elements=numbers))
def test_products_and_transposes_over_leading_dimensions(x):
    t = make("transpose", (W,))
    np.testing.assert_allclose(value(make("matmul", (make("matmul", (W, t)), W)), x), x @ np.swapaxes(x, -1, -2) @ x)
    np.testing.assert_allclose(value(make("matmul", (W, make("matmul", (t, W)))), x), x @ (np.swapaxes(x, -1, -2) @ x))


@settings(max_examples=30)
@given(hnp.arrays(np.float64, many_shapes, elements=numbers))
def test_identities(x):
    rows, cols = ir.eye("rows"), ir.eye("cols")
    assert np.array_equal(value(make("matmul", (rows, make("matmul", (W, cols)))), x), x)
    batch = x.size // (x.shape[-1] * x.shape[-2])
    assert value(reduce("sum", rows, TENSOR), x).ravel()[0] == batch * x.shape[-2]


def test_as_matrix_and_back():
    x = np.arange(24.0).reshape(2, 3, 2, 2)
    flat = make("as_matrix", (W,))
    per_row = reduce("sum", flat, Extent("array", "rows", 1, "flat"))
    np.testing.assert_allclose(value(make("as_param", (ir.add(flat, per_row),)), x), x + x.sum((1, 2, 3), keepdims=True))
    per_col = reduce("sum", flat, Extent("array", 1, "cols", "flat"))
    np.testing.assert_allclose(value(make("as_param", (ir.mul(flat, per_col),)), x), x * x.sum(0))
    gram = make("matmul", (make("matmul", (flat, make("transpose", (flat,)))), flat))
    m = x.reshape(2, 12)
    np.testing.assert_allclose(value(make("as_param", (gram,)), x), (m @ m.T @ m).reshape(x.shape))
    same = make("as_param", (make("matmul", (flat, ir.eye("cols", "flat"))),))
    assert np.array_equal(value(same, x), x)


MATRIX_NODES = {
    "`.T`": make("transpose", (W,)), "per row": reduce("mean", W, ROW),
    "per col": reduce("sum", W, COL), "per matrix": reduce("amax", W, MATRIX), "`as_matrix`": make("as_matrix", (W,)),
    "`eye`": ir.eye("rows"), "a draw per row": ir.random("normal", 1, ROW), "the state `s`": stored(ROW),
}  # fmt: skip


@pytest.mark.parametrize("shape", [(), (3,)])
@pytest.mark.parametrize("words", MATRIX_NODES)
def test_a_vector_is_no_matrix(words, shape):
    node = reduce("sum", MATRIX_NODES[words], TENSOR)
    step = step_of(cell(np.ones(shape), index=4))
    step.cells[0].state["s"] = np.ones((3, 1))
    with pytest.raises(StepError, match=r"parameter `p4` has shape .*rank 2.*when rank >= 2") as caught:
        BACKEND.compile(rule(node), "safe").step(step)
    assert words in str(caught.value)


def test_a_state_per_row_of_a_vector_is_refused_before_anything_is_made():
    program = rule(W, a=(TENSOR, const(0), stored(TENSOR, "a")), r=(ROW, reduce("sum", W, ROW), stored(ROW, "r")))
    step = step_of(cell(X), cell([1.0], index=1))
    with pytest.raises(StepError, match="p1"):
        BACKEND.compile(program, "safe").prepare(step)
    assert [c.state for c in step.cells] == [{}, {}]


# ----------------------------------------------------------------------------------------------------------- states

SHAPES = {ELEMENT: (2, 4, 3), ROW: (2, 4, 1), COL: (2, 1, 3), MATRIX: (2, 1, 1), TENSOR: ()}


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


# ------------------------------------------------------------------------------- loop: gradients, loss, inputs, reports


def test_gradients_at_another_point_and_hessian_products():
    grad, hvp = Recorder(2.0), Recorder(3.0)
    node = ir.add(make("grad", (ir.add(W, G),)), make("hvp", (G,)))
    step = step_of(cell([1.0], [0.5]), cell([[2.0]], [[1.0]], index=1), grad=grad, hvp=hvp)
    take(rule(node), step)
    assert [[p.tolist() for p in points] for points in (*grad.points, *hvp.points)] == [[[1.5], [[3.0]]], [[0.5], [[1.0]]]]
    assert [c.weights.item() for c in step.cells] == [3 + 1.5, 6 + 3]


def test_the_loss_at_another_point_is_one_number_for_all():
    points = []

    def loss_at(asked):
        points.append([p.tolist() for p in asked])
        return torch.tensor(3.0)

    step = step_of(cell([1.0], [0.5]), cell([[2.0]], [[1.0]], index=1), loss_at=loss_at)
    take(rule(ir.mul(make("loss_at", (ir.add(W, G),)), W)), step)
    assert points == [[[1.5], [[3.0]]]]
    assert [c.weights.item() for c in step.cells] == [3, 6]


def test_a_point_of_coarser_extent_is_spread():
    ask = Recorder()
    take(rule(make("grad", (LR,))), step_of(cell(X, lr=4.0), grad=ask))
    assert ask.points[0][0].tolist() == [[4.0] * 3] * 2


def test_the_loop_may_move_the_parameters_while_it_is_asked():
    one = cell([1.0, 2.0], [0.5, 0.5])

    def grad(points):
        one.weights[...] = points[0]  # as a closure does
        one.gradient[...] = -1
        answer = [points[0] * 10]
        one.weights[...] = [1.0, 2.0]
        return answer

    take(rule(ir.add(ir.sub(W, make("grad", (ir.add(W, G),))), G)), step_of(one, grad=grad))
    np.testing.assert_allclose(one.weights, [1 - 15 + 0.5, 2 - 25 + 0.5])


@pytest.mark.parametrize(("op", "words"), CALLS.items())
def test_without_a_closure_the_error_says_so(op, words):
    step = step_of(cell([1.0]))
    with pytest.raises(StepError, match=rf"rule `Test` needs {words}.*step\(closure\)"):
        take(rule(make(op, (ir.add(W, const(1)),))), step)
    assert step.cells[0].weights.tolist() == [1]


def test_answers_of_the_wrong_shape():
    step = step_of(cell([1.0, 2.0]), grad=lambda points: [np.ones(3)])
    with pytest.raises(StepError, match=r"\(3,\).*\(2,\)"):
        take(rule(make("grad", (ir.add(W, const(1)),))), step)


def test_loss():
    assert first_weights(LOSS, step_of(cell([1.0]), loss=torch.tensor(2.5, requires_grad=True))) == [2.5]
    with pytest.raises(StepError, match=r"reads the loss.*closure"):
        value(LOSS)


def test_inputs_at_every_level():
    inputs = {name: ir.input_(name, Type("real", extent)) for name, extent in
              {"e": ELEMENT, "r": ROW, "t_": TENSOR, "g_": GROUP, "m": MODEL}.items()}  # fmt: skip
    node = inputs["e"]
    for name in ("r", "t_", "g_", "m"):
        node = ir.add(node, inputs[name])
    one = cell(X)
    one.inputs = {"e": X, "r": np.array([[10.0], [20.0]]), "t_": 100}
    step = step_of(one, inputs={"g_": {0: 1000.0}, "m": torch.tensor(10_000.0)})
    program = Program("Test", "", (), (), tuple(Input(n, x.type) for n, x in inputs.items()), {}, node)
    np.testing.assert_allclose(take(program, step).cells[0].weights, X + [[11_110], [11_120]])


@pytest.mark.parametrize(("given", "words"), [({}, "supply it"), ({"e": np.ones(7)}, r"\(7,\)"), ({"e": "text"}, "numbers are needed")])
def test_inputs_that_do_not_fit(given, words):
    one = cell(X)
    one.inputs = given
    with pytest.raises(StepError, match=rf"parameter `p0`.*input `e`.*{words}"):
        take(rule(ir.input_("e", Type("real", ELEMENT))), step_of(one))


def test_reports_are_plain_numbers():
    step = take(rule(W, reports={"n": norm(G, MODEL), "lr": LR, "late": make("gt", (T, const(3)))}), two_groups(lr=0.5))
    assert step.reports == {"n": pytest.approx(math.hypot(5, 12, 84)), "lr": 0.5, "late": False}
    assert [type(v) for v in step.reports.values()] == [float, float, bool]


def test_weights_to_evaluate_with_come_from_what_is_stored():
    s = stored(ELEMENT)
    program = rule(ir.sub(W, G), evaluation=ir.add(W, ir.mul(s, LR)), s=(ELEMENT, const(1), ir.add(s, const(1))))
    step = step_of(cell([1.0, 2.0], [1.0, 1.0], lr=10.0))
    take(program, step)
    found = BACKEND.compile(program, "safe").evaluation(step)
    assert found[0].tolist() == [20, 21]
    assert step.cells[0].weights.tolist() == [0, 1]
    step.cells[0].gradient = None
    assert BACKEND.compile(program, "safe").evaluation(step)[0].tolist() == [20, 21]


def test_without_eval_the_stored_weights_are_evaluated():
    step = step_of(cell([1.0, 2.0]))
    found = BACKEND.compile(rule(W), "safe").evaluation(step)[0]
    assert found.tolist() == [1, 2]
    assert found is not step.cells[0].weights


# ------------------------------------------------------------------------------------------------------------ draws


@pytest.mark.parametrize("extent", SHAPES, ids=str)
def test_draws_run_over_the_elements_of_their_extent(extent):
    one = cell(np.zeros((2, 4, 3)), t=6, index=3)
    take(rule(ir.random("normal", 11, extent)), step_of(one, seed=99))
    expected = philox.draw("normal", SHAPES[extent], 6, 11, 99, 3)
    assert np.array_equal(one.weights, np.broadcast_to(expected, (2, 4, 3)))


def test_draws_per_group_and_model_have_their_own_streams():
    step = step_of(cell([0.0], t=2), cell([0.0], t=9, index=1, group=1), seed=5)
    take(rule(ir.random("uniform", 7, GROUP)), step)
    expected = [philox.draw("uniform", (), t, 7, 5, 0xFFFFFFFF - group).item() for t, group in ((2, 0), (9, 1))]
    assert [c.weights.item() for c in step.cells] == expected
    take(rule(ir.random("uniform", 7, MODEL)), step)
    assert [c.weights.item() for c in step.cells] == [philox.draw("uniform", (), 9, 7, 5, 0xFFFFFFFF).item()] * 2


def test_one_draw_is_one_value_however_often_it_is_read():
    z = ir.random("normal", 1)
    assert np.all(value(ir.sub(z, z)) == 0)
    assert np.all(value(ir.sub(z, ir.random("normal", 2))) != 0)


# ----------------------------------------------------------------------------------------------- torch, number types

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_tensors_of_every_type_are_rounded_once(dtype):
    source = torch.Generator().manual_seed(0)
    w = torch.randn(4, 3, generator=source).to(dtype).requires_grad_()
    g = torch.randn(4, 3, generator=source).to(dtype)
    start = w.detach().double().numpy().copy()
    m = stored(ELEMENT, "m")
    new = ir.add(ir.mul(const(0.9), m), G)
    one = Cell(w, g, {}, {"lr": 1e-3}, 1, facts((4, 3)), 0, 0)
    take(rule(ir.sub(W, ir.mul(LR, new)), m=(ELEMENT, const(0), new), n=(TENSOR, const(0), norm(G, TENSOR))), step_of(one))
    exact = torch.tensor(start - 1e-3 * g.double().numpy())
    assert torch.equal(w.detach(), exact.to(dtype))
    assert w.requires_grad
    expected = torch.float64 if dtype == torch.float64 else torch.float32
    assert one.state["m"].dtype == one.state["n"].dtype == expected
    assert torch.equal(one.state["m"], g.to(expected))
    assert one.state["n"].shape == ()


def test_numpy_float16_has_float32_states_and_numpy_types_are_kept():
    for dtype, kept in ((np.float16, np.float32), (np.float32, np.float32), (np.float64, np.float64)):
        one = Cell(np.ones(3, dtype), np.ones(3, dtype), {}, {}, 1, facts((3,)), 0, 0)
        take(rule(ir.sub(W, G), s=(ELEMENT, const(0.1), stored(ELEMENT))), step_of(one))
        assert (one.weights.dtype, one.state["s"].dtype) == (dtype, kept)


def test_tensor_states_of_truth_and_whole_numbers():
    flag = stored(MODEL, "flag", kind="bool")
    count = ir.state("n", Type("int", TENSOR))
    states = (State("flag", flag.type, FALSE), State("n", count.type, const(2**40)))
    updates = {"flag": make("not", (flag,)), "n": ir.add(count, const(1))}
    one = Cell(torch.ones(2, dtype=torch.bfloat16), torch.ones(2), {}, {}, 1, facts((2,)), 0, 0)
    step = take(Program("Test", "", (), states, (), updates, W), step_of(one))
    assert step.model["flag"].dtype == torch.bool
    assert bool(step.model["flag"])
    assert one.state["n"].dtype == torch.int64
    assert one.state["n"].item() == 2**40 + 1


def test_tensors_that_are_not_contiguous_share_memory_or_are_sparse():
    base = torch.arange(6.0).reshape(2, 3)
    g = torch.sparse_coo_tensor(torch.tensor([[0], [1]]), torch.tensor([2.0]), (3, 2), check_invariants=True)
    one = Cell(base.T, g, {}, {}, 1, facts((3, 2)), 0, 0)
    take(rule(ir.sub(W, G)), step_of(one))
    assert base.tolist() == [[0, 1, 2], [1, 4, 5]]


def test_points_and_evaluation_weights_are_tensors_like_the_parameters():
    w = torch.ones(2, dtype=torch.bfloat16)
    one = Cell(w, torch.ones(2), {}, {}, 1, facts((2,)), 0, 0)
    ask = Recorder()
    program = rule(make("grad", (ir.add(W, const(1)),)), evaluation=ir.div(W, const(3)))
    step = take(program, step_of(one, grad=ask))
    assert ask.points[0][0].dtype == torch.bfloat16
    found = BACKEND.compile(program, "safe").evaluation(step)[0]
    assert torch.equal(found, (w.double() / 3).bfloat16())


def test_numpy_and_torch_give_the_same():
    rng = np.random.default_rng(0)
    w, g = rng.normal(size=(2, 3, 4)), rng.normal(size=(2, 3, 4))
    program = rule(ir.sub(W, ir.mul(ir.random("normal", 1), norm(G, ROW))), s=(COL, const(0), reduce("mean", G, COL)))
    one, other = cell(w, g), cell(torch.tensor(w), torch.tensor(g))
    take(program, step_of(one))
    take(program, step_of(other))
    assert np.array_equal(one.weights, other.weights.numpy())
    assert np.array_equal(one.state["s"], other.state["s"].numpy())


# ---------------------------------------------------------------------------------------------- nothing is half done


def snapshot(step: Step) -> list[Any]:
    holders = [*(c.state for c in step.cells), *step.groups.values(), step.model]
    return [[np.array(c.weights) for c in step.cells], [{k: np.array(v) for k, v in h.items()} for h in holders], dict(step.reports)]


def failing_steps() -> dict[str, tuple[Node, dict[str, Any]]]:
    def broken(points: list[Any]) -> list[Any]:
        raise RuntimeError("the closure failed")

    def interrupted(points: list[Any]) -> list[Any]:
        raise KeyboardInterrupt

    ask = make("grad", (ir.add(W, const(1)),))
    return {
        "no closure": (ask, {}), "closure fails": (ask, {"grad": broken}), "interrupted": (ask, {"grad": interrupted}),
        "a vector": (reduce("mean", W, ROW), {}), "no loss": (LOSS, {}), "no hyper": (ir.hyper("unknown"), {}),
        "no fact": (ir.fact("fan_in"), {}), "no input": (ir.input_("x", Type("real", MODEL)), {}),
    }  # fmt: skip


@pytest.mark.parametrize("case", failing_steps())
def test_an_error_leaves_everything_as_it_was(case):
    late, more = failing_steps()[case]
    m, k = stored(ELEMENT, "m"), stored(MODEL, "k")
    weights = ir.branch(make("gt", (T, const(1))), late, W)  # the first step is well
    program = rule(weights, reports={"k": k}, m=(ELEMENT, W, ir.add(m, G)), k=(MODEL, const(0), ir.add(k, const(1))))
    step = step_of(cell(X, X), cell([1.0], [2.0], index=1), **more)
    executable = BACKEND.compile(program, "safe")
    executable.prepare(step)
    executable.step(step)
    before = snapshot(step)
    for c in step.cells:
        c.t = 2
    step.reports.clear()
    before[2] = {}
    with pytest.raises((StepError, RuntimeError, KeyboardInterrupt)):
        executable.step(step)
    np.testing.assert_equal(snapshot(step), before)


def test_errors_name_the_parameter_and_what_is_missing():
    cases = {
        r"parameter `p0`: the hyper `lr` of rule `Test` has no value": (LR, cell([1.0])),
        r"parameter `p0`: `rows` is needed, and a parameter of shape \(1,\) has none": (ir.fact("rows"), cell([1.0])),
        r"parameter `p0`: the state `s` of rule `Test` is not there; call `prepare`": (stored(ELEMENT), cell([1.0])),
    }
    for words, (node, one) in cases.items():
        with pytest.raises(StepError, match=words):
            BACKEND.compile(rule(node), "safe").step(step_of(one))


def test_parameters_without_a_name_go_by_number():
    one = cell([1.0], index=7)
    names = {"": "^parameter 7:", "parameter 2 of group 0": "^parameter 2 of group 0:", "head.bias": "^parameter `head.bias`:"}
    for name, words in names.items():
        one.name = name
        with pytest.raises(StepError, match=words):
            BACKEND.compile(rule(LR), "safe").step(step_of(one))


def test_gradients_and_states_that_do_not_fit():
    with pytest.raises(StepError, match=r"p0.*gradient has shape \(3,\)"):
        BACKEND.compile(rule(G), "safe").step(step_of(cell([1.0], [1.0, 2.0, 3.0])))
    one = cell([1.0])
    one.gradient = None
    with pytest.raises(StepError, match=r"p0.*no gradient"):
        BACKEND.compile(rule(G), "safe").step(step_of(one))
    one = cell(X)
    one.state["s"] = np.ones((5, 1))
    with pytest.raises(StepError, match=r"p0.*state `s` has shape \(5, 1\) where \(2, 1\)"):
        BACKEND.compile(rule(stored(ROW)), "safe").step(step_of(one))


@pytest.mark.parametrize("weights", [np.ones(2, complex), torch.ones(2, dtype=torch.complex64)])
def test_complex_parameters_are_refused(weights):
    one = Cell(weights, weights, {}, {}, 1, facts((2,)), 0, 0, "z")
    with pytest.raises(StepError, match="parameter `z`: complex"):
        BACKEND.compile(rule(W), "safe").step(step_of(one))


def test_states_must_be_prepared():
    program = rule(W, s=(ELEMENT, const(0), G))
    with pytest.raises(StepError, match="`s` is not there"):
        BACKEND.compile(program, "safe").step(step_of(cell([1.0])))


def test_programs_that_are_not_well_formed_are_refused():
    assert BACKEND.refuses(rule(W, s=(ELEMENT, const(0), G))) == ""
    assert "per tensor" in BACKEND.refuses(rule(W, s=(TENSOR, const(0), G)))
    assert "not one number" in BACKEND.refuses(rule(W, reports={"n": norm(G, GROUP)}))


def test_undefined_results_are_stored_and_do_not_warn():
    one = cell([0.0, 1.0], [0.0, -1.0])
    take(rule(ir.add(ir.div(W, G), make("sqrt", (G,)))), step_of(one))
    assert np.isnan(one.weights).tolist() == [True, True]
