"""The reference interpreter against values computed by hand or by plain NumPy: steps, reductions, choices, matrices."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from nodes_by_hand import LR, Recorder, X, first_weights, many_shapes, norm, numbers, reduce, rule, stored, two_groups, value
from stepping import cell, step_of, take

from optlang import ir
from optlang.backends.base import Step, StepError
from optlang.backends.reference import BACKEND
from optlang.ir import G, T, W, const, make
from optlang.types import COL, ELEMENT, GROUP, MATRIX, MODEL, ROW, TENSOR, Extent

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
