"""One value per what, against values computed by hand: reductions, matrices, runs of elements."""

from __future__ import annotations

import math

import numpy as np
import pytest
from rules_by_text import MATRIX, VECTOR, close, drawn, expression, run
from stepping import Loop, program

from optlang.backends.base import StepError

pytestmark = pytest.mark.usefixtures("undefined")


# ------------------------------------------------------------------------------------------- extents and reductions


def plain(reduction, x, axis):
    return {
        "sum": lambda: x.sum(axis, keepdims=True), "mean": lambda: x.mean(axis, keepdims=True),
        "max": lambda: x.max(axis, keepdims=True), "min": lambda: x.min(axis, keepdims=True),
        "norm": lambda: np.sqrt((x**2).sum(axis, keepdims=True)), "rms": lambda: np.sqrt((x**2).mean(axis, keepdims=True)),
        "var": lambda: x.var(axis, ddof=1, keepdims=True), "std": lambda: x.std(axis, ddof=1, keepdims=True),
        "count": lambda: np.ones_like(x).sum(axis, keepdims=True),
    }[reduction]()  # fmt: skip


AXES = {"per row": -1, "per col": -2, "per matrix": (-2, -1), "": None, "per tensor": None, "per group": None, "per model": None}
REDUCTIONS = ["sum", "mean", "max", "min", "norm", "rms", "var", "std", "count"]


@pytest.mark.parametrize("per", AXES)
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_reductions_at_every_extent(reduction, per):
    x = drawn(2, 4, 3)
    close(expression(f"{reduction}(w {per})", x), np.broadcast_to(plain(reduction, x, AXES[per]), x.shape))


@pytest.mark.parametrize("per", AXES)
def test_dot_and_quantile_at_every_extent(per):
    x, g = drawn(2, 2, 4, 3)
    close(expression(f"dot(w, g {per})", x, g), np.broadcast_to((x * g).sum(AXES[per], keepdims=True), x.shape))
    close(expression(f"quantile(w, 0.3 {per})", x), np.broadcast_to(np.quantile(x, 0.3, AXES[per], keepdims=True), x.shape))


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_reductions_over_groups_and_the_model(reduction):
    xs = [MATRIX, VECTOR, np.array([2.0, 7.0])]
    for per, parts in (("model", [[0, 1, 2]] * 3), ("group", [[0], [1, 2], [1, 2]])):
        found = run(f"rule R {{ w' = {reduction}(w per {per}) }}", *xs, groups=[0, 4, 4]).step()
        for one, part in zip(found, parts, strict=True):
            together = np.concatenate([xs[i].ravel() for i in part])
            close(one.ravel()[0], plain(reduction, together, None).item())


def test_a_reduction_takes_what_its_operand_has_one_of():
    x = drawn(2, 4, 3)
    rows = x.sum(-1, keepdims=True)
    close(expression("mean(sum(w per row) per matrix)", x), np.broadcast_to(rows.mean(-2, keepdims=True), x.shape))
    close(expression("count(sum(w per row))", x).ravel()[0], 8)
    found = run("rule R { w' = mean(sum(w) per model) }").step()
    close(found[1][0], (MATRIX.sum() + VECTOR.sum()) / 2)
    close(run("rule R { w' = sum(numel per model) }").step()[0][0, 0], 17)


def test_smaller_values_broadcast_to_larger_ones():
    loop = run("""rule R {
      state m per model = 1  state k per group = 1  state r per row = 1  state c per col = 1  state x per matrix = 1  state n per tensor = 1
      m' = m + 1   k' = k + m'   n' = n + k'   x' = x + n'   r' = r + x'   c' = c + x'
      w' = w*r'*c' + n'
    }""", np.ones((2, 2)), np.ones((1, 3)), groups=[0, 1])  # fmt: skip
    found = loop.step()
    k = 1 + 2
    n, x, r = 1 + k, 1 + 1 + k, 1 + 1 + 1 + k
    for one in found:
        assert np.all(one == r * r + n)
    assert (loop.state("m").shape, loop.state("k").shape, loop.state("n").shape) == ((), (), ())
    assert [loop.state(s).shape for s in "rcx"] == [(2, 1), (1, 2), (1, 1)]
    assert loop.state("x")[0, 0] == x
    assert set(loop.taken.model) == {"m"}
    assert all(set(states) == {"k"} for states in loop.taken.groups.values())


def test_model_values_read_the_hypers_that_groups_agree_on():
    text = "rule R { hyper lr = 0.1  state d per model = 0  d' = d + lr*norm(g per model)  w' = w - d' }"
    loop = run(text, groups=[0, 1])
    loop.step(MATRIX, VECTOR)
    close(loop.state("d"), 0.1 * math.sqrt((MATRIX**2).sum() + (VECTOR**2).sum()))
    loop.cells[1].hypers = {"lr": 0.2}
    with pytest.raises(StepError, match=r"`lr`.*same value"):
        loop.step(MATRIX, VECTOR)


# --------------------------------------------------------------------------------------------------------- matrices


def test_matrices_are_the_trailing_two_dimensions():
    x = drawn(2, 3, 4, 3)
    close(expression("w @ w.T @ w", x), x @ np.swapaxes(x, -1, -2) @ x)
    close(expression("(w @ w.T + 0.5*eye(rows)) @ w", x), (x @ np.swapaxes(x, -1, -2) + 0.5 * np.eye(4)) @ x)
    close(expression("w @ (w.T @ w + eye(cols))", x), x @ (np.swapaxes(x, -1, -2) @ x + np.eye(3)))


def test_as_matrix_makes_one_matrix_of_a_convolution():
    x = drawn(4, 3, 2, 2)
    flat = x.reshape(4, 12)
    close(expression("as_param(as_matrix(w)/norm(as_matrix(w) per row))", x),
          (flat / np.linalg.norm(flat, axis=1, keepdims=True)).reshape(x.shape))  # fmt: skip
    close(expression("as_param(as_matrix(w) @ as_matrix(w).T @ as_matrix(w))", x), (flat @ flat.T @ flat).reshape(x.shape))


@pytest.mark.parametrize("text", ["w @ w.T @ w", "mean(w per row)", "w.T", "as_param(as_matrix(w))"])
def test_a_vector_is_no_matrix(text):
    with pytest.raises(StepError, match=r"parameter `p0` has shape \(5,\).*rank 2"):
        expression("sum(w.T)" if text == "w.T" else text, VECTOR)


# ------------------------------------------------------------------------------------------------------------- runs


@pytest.mark.parametrize(("shape", "length"), [((4, 3, 2, 2), 12), ((5, 6), 10), ((7,), 7), ((13,), 1), ((), 1), ((1, 30), 10)])
def test_values_of_elements_that_follow_each_other(shape, length):
    x = np.array(drawn(*shape))
    runs = x.reshape(-1, length)
    for text, expected in (
        ("w/(1 + norm(w per 12))", runs / (1 + np.linalg.norm(runs, axis=1, keepdims=True))),
        ("w - mean(w per 12)", runs - runs.mean(1, keepdims=True)),
        ("where(w > quantile(w, 0.3 per 12), max(w per 12), count(w per 12))",
         np.where(runs > np.quantile(runs, 0.3, axis=1, keepdims=True), runs.max(1, keepdims=True), length)),
        ("w*sum(norm(w per 12) per tensor)", runs * np.linalg.norm(runs, axis=1).sum()),
    ):  # fmt: skip
        close(expression(text, x), expected.reshape(shape))


def test_a_state_of_runs_by_a_setting_and_a_function():
    text = """def squares(x, n) = sum(x^2 per n)
    rule R { hyper int k = 3 in [1, 9]  state v per k = mean(w per k)  state h[2] per 2 = 1
      v' = v + squares(g, k)  h' = push(h, norm(v' per model))  w' = w - v' - mean(h') }"""
    w, g = drawn(2, 2, 6)
    for k in (3, 5):
        length = {3: 3, 5: 4}[k]
        loop = Loop(program(text, k=k), w)
        v = w.reshape(-1, length).mean(1) + (g.reshape(-1, length) ** 2).sum(1)
        close(loop.step(g)[0], (w.reshape(-1, length) - v[:, None]).reshape(w.shape) - (1 + np.linalg.norm(v)) / 2)
        close(loop.state("v"), v[:, None])
