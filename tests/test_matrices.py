"""Matrices with sizes of their own: states, identities and draws of a shape, eigenvectors and orthonormal columns."""

from __future__ import annotations

import types
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from stepping import program
from torch import Tensor

import optlang
from optlang import lower, meaning
from optlang.backends.torch import ops as torch_ops
from optlang.errors import OptError, Source
from optlang.front import parser
from optlang.printing.rule_text import to_opt

RULE = """
rule Sketched {
  hyper lr = 0.1 in (0, inf)
  hyper int r = 2 in [1, inf)
  state l[rows, rows] = 0.1*eye(rows)
  state p[cols, r] = 0
  l' = 0.9*l + g @ g.T
  p' = eigenvectors(g.T @ g) @ eye(cols, r)
  q  = orthonormal(p + normal(cols, r) + descending(norm(g per col)) @ eye(cols, r))
  i  = inverse(l' + 5*eye(rows)) @ cos(places(rows))
  w' = w - lr*(l' @ g + g @ p' @ q.T + i*places(cols).T)
}
"""


def made(backend: str, text: str = RULE) -> Any:
    if backend != "module":
        return optlang.loads(text, backend=backend)
    module = types.ModuleType("sketched")
    exec(compile(optlang.build(text), "sketched.py", "exec"), module.__dict__)
    return module.Sketched


def steps(backend: str, text: str = RULE, **hypers: Any) -> tuple[Any, list[Tensor]]:
    source = torch.Generator().manual_seed(0)
    params = [torch.randn(shape, generator=source, dtype=torch.float64).requires_grad_() for shape in ((6, 4), (3, 5, 4))]
    optimizer = made(backend, text)(params, seed=3, **hypers)
    for _ in range(4):
        for p in params:
            p.grad = torch.randn(p.shape, generator=source, dtype=torch.float64)
        optimizer.step()
    return optimizer, params


@pytest.mark.parametrize("backend", ["torch", "cpp", "module"])
def test_all_backends_take_the_same_steps(backend: str) -> None:
    _, expected = steps("reference")
    optimizer, params = steps(backend)
    for p, wanted in zip(params, expected, strict=True):
        torch.testing.assert_close(p, wanted, rtol=1e-12, atol=1e-12)
    assert [tuple(optimizer.state[params[1]][name].shape) for name in ("l", "p")] == [(3, 5, 5), (3, 4, 2)]


def test_an_int_hyper_is_a_size() -> None:
    optimizer, params = steps("torch", r=3)
    assert optimizer.state[params[0]]["p"].shape == (4, 3)


def test_the_text_comes_back() -> None:
    _, expected = steps("reference")
    _, params = steps("reference", to_opt(program(RULE)))
    weights = [(a, b) for a, b in zip(params, expected, strict=True)]
    assert all(torch.isfinite(a).all() and a.shape == b.shape for a, b in weights)
    assert "state l[rows, rows] = 0.1 * eye(rows)" in to_opt(program(RULE))
    assert "state p[cols, 2] = 0" in to_opt(program(RULE))


CALLS = """
def mean_of(x) { state m = 0  m' = 0.5*m + 0.5*x  return m' }
rule R {
  when rows >= cols { u = mean_of(g) } else { u = 2*mean_of(g) }
  every 2 { v = mean_of(g) } else { v = 0 }
  w' = w - u - v
}
"""


@pytest.mark.parametrize("backend", ["reference", "torch", "cpp", "module"])
def test_the_memory_of_a_call_belongs_to_its_block(backend: str) -> None:
    module = types.ModuleType("made")
    exec(compile(optlang.build(CALLS), "made.py", "exec"), module.__dict__)
    cls = module.R if backend == "module" else optlang.loads(CALLS, backend=backend)
    p = torch.zeros(2, 3, dtype=torch.float64, requires_grad=True)
    optimizer = cls([p])
    for _ in range(3):
        p.grad = torch.ones(2, 3, dtype=torch.float64)
        optimizer.step()
    kept = {name: x.unique().item() for name, x in optimizer.state[p].items() if name.endswith(".m")}
    assert kept == {"u_2.m": 0.875, "v.m": 0.5}


MATRICES = st.tuples(st.integers(1, 4), st.integers(1, 6), st.integers(0, 1000))


def drawn(batch: int, rows: int, cols: int, seed: int) -> Any:
    return np.random.default_rng(seed).standard_normal((batch, rows, cols))


@settings(deadline=None)
@given(MATRICES)
def test_eigenvectors_diagonalise(sizes: tuple[int, int, int]) -> None:
    batch, n, seed = sizes
    x = drawn(batch, n, n + 1, seed)
    a = x @ x.swapaxes(-1, -2)
    v = meaning.eigenvectors(a)
    values = np.diagonal(v.swapaxes(-1, -2) @ a @ v, axis1=-2, axis2=-1)
    assert np.allclose(v.swapaxes(-1, -2) @ v, np.eye(n))
    assert np.allclose(v * values[:, None, :] @ v.swapaxes(-1, -2), a)
    assert (np.diff(values) <= 1e-9).all()
    assert (np.take_along_axis(v, np.abs(v).argmax(-2, keepdims=True), -2) > 0).all()
    assert np.allclose(torch_ops.eigenvectors(torch.from_numpy(a)).numpy(), v)


@settings(deadline=None)
@given(MATRICES, st.integers(0, 3))
def test_orthonormal_columns_span_the_same(sizes: tuple[int, int, int], more: int) -> None:
    batch, n, seed = sizes
    a = drawn(batch, n + more, n, seed)
    q = meaning.orthonormal(a)
    r = q.swapaxes(-1, -2) @ a
    assert np.allclose(q.swapaxes(-1, -2) @ q, np.eye(n))
    assert np.allclose(q @ r, a)
    assert np.allclose(r, np.triu(r)) and (np.diagonal(r, axis1=-2, axis2=-1) > 0).all()
    assert np.allclose(torch_ops.orthonormal(torch.from_numpy(a)).numpy(), q)


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=6))
def test_descending_is_a_stable_sort(values: list[int]) -> None:
    x = np.array([values], dtype=np.float64)
    tagged = sorted(range(len(values)), key=lambda place: -values[place])
    for p in (meaning.descending(x), torch_ops.descending(torch.from_numpy(x)).numpy()):
        assert (np.arange(len(values)) @ p == tagged).all() and (x @ p == -np.sort(-x)).all()


@settings(deadline=None)
@given(MATRICES)
def test_an_inverse_undoes(sizes: tuple[int, int, int]) -> None:
    batch, n, seed = sizes
    a = drawn(batch, n, n, seed) + 6 * np.eye(n)
    a[0, 0] = 0.0
    for found in (meaning.inverse(a), torch_ops.inverse(torch.from_numpy(a)).numpy()):
        assert np.isnan(found[0]).all() and np.allclose(found[1:] @ a[1:], np.eye(n))


@pytest.mark.parametrize("last", [2.0, 0.0, np.nan])
def test_an_inverse_of_a_triangle_undoes(last: float) -> None:
    """Solved for, not factored; the zeros of one that are only nearly there are not lost."""
    a = np.triu(drawn(2, 5, 5, 3)) + 6 * np.eye(5)
    a[0, 4, 4] = last
    nearly = a.copy()
    nearly[1, 4, 0] = 1e-3
    for one in (a, nearly):
        found, known = torch_ops.inverse(torch.from_numpy(one)).numpy(), meaning.inverse(one)
        np.testing.assert_allclose(found, known, atol=1e-12)
        assert np.isnan(found[0]).all() == (last != 2.0) and np.isfinite(found[1]).all()


@pytest.mark.parametrize("of", ["eigenvectors", "orthonormal", "inverse"])
def test_of_matrices_without_elements_there_are_none(of: str) -> None:
    a = np.zeros((2, 0, 0))
    for found in (getattr(meaning, of)(a), getattr(torch_ops, of)(torch.from_numpy(a)).numpy()):
        assert found.shape == (2, 0, 0)


@pytest.mark.parametrize("of", ["eigenvectors", "orthonormal", "inverse"])
def test_what_is_not_finite_is_not_a_number(of: str) -> None:
    a = np.stack([np.eye(3), np.diag([1.0, np.inf, 2.0])])
    for found in (getattr(meaning, of)(a), getattr(torch_ops, of)(torch.from_numpy(a)).numpy()):
        assert np.isfinite(found[0]).all() and np.isnan(found[1]).all()


def test_more_columns_than_rows_are_never_orthonormal() -> None:
    for found in (meaning.orthonormal(np.ones((2, 3))), torch_ops.orthonormal(torch.ones(2, 3)).numpy()):
        assert found.shape == (2, 3) and np.isnan(found).all()


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("state m[rows, lr] = 0  m' = m  w' = w - lr*g", "a whole number that is known"),
        ("state m[rows, 0] = 0  m' = m  w' = w - lr*g", "from 1 to 1000000"),
        ("state m[rows, 2] per row = 0  m' = m  w' = w - lr*g", "no `per`"),
        ("state m[rows, rows] = 0  m' = g  w' = w - lr*g", "declare `state m[rows, cols]`"),
        ("w' = w - lr*eigenvectors(g)", "square"),
        ("w' = w - lr*inverse(g)", "square"),
        ("w' = w - lr*g*places(rows, cols)", "one size"),
        ("w' = w - lr*g @ orthonormal(normal(2, 3))", "columns are longer"),
        ("w' = w - lr*g @ descending(g)", "one value per column"),
        ("w' = w - lr*g @ eye(rows, cols, rows)", "one size, or two"),
        ("w' = w - lr*g @ normal(rows)", "takes no arguments or two sizes, not 1"),
    ],
)
def test_mistakes(body: str, said: str) -> None:
    with pytest.raises(OptError) as caught:
        file, _ = parser.parse(Source(f"rule R {{ hyper lr = 0.1 in (0, inf)  {body} }}"))
        lower.lower(file, "R", {})
    assert said in str(caught.value)
