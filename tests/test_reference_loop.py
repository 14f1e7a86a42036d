"""The reference interpreter and the training loop: what that gives, draws, number types, and errors that leave all as it was."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from nodes_by_hand import LR, SHAPES, Recorder, X, first_weights, norm, reduce, rule, stored, two_groups, value
from stepping import cell, facts, step_of, take

from optlang import ir, philox
from optlang.backends.base import Cell, Step, StepError
from optlang.backends.reference import BACKEND
from optlang.ir import FALSE, LOSS, G, Input, Node, Program, State, T, W, const, make
from optlang.ops import CALLS
from optlang.types import COL, ELEMENT, GROUP, MODEL, ROW, TENSOR, Type

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
