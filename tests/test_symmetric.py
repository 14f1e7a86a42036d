"""Symmetric products of matrices: which are known to be, and that half of one, mirrored, is the whole."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from stepping import finite, shapes_for
from test_torch_backend import STEADY, assert_same, compare, some, train

import optlang
from optlang import ir
from optlang.backends.outputs import Output
from optlang.backends.torch import multiplied
from optlang.backends.torch.code import generate
from optlang.backends.torch.loading import load
from optlang.backends.torch.products import symmetric
from optlang.ir import Program

TYPES = (torch.float64, torch.float32, torch.bfloat16)
SHAPES = ((5, 7), (7, 5), (6, 6), (3,), (1, 4), (2, 3, 5))
RULES = [name for name in STEADY if isinstance(program := optlang.Rule(name).program, Program)
         and any(node.op == "matmul" and node in symmetric(ir.walk(program.roots())) for node in ir.walk(program.roots()))]  # fmt: skip


@pytest.fixture
def strips(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two rows, of any matrix that is not one of a batch."""
    monkeypatch.setattr(multiplied, "STRIP", 2)
    monkeypatch.setattr(multiplied, "HALVED_FROM", (1, 1))


@given(rows=st.integers(0, 9), inner=st.integers(0, 6), dtype=st.sampled_from(TYPES), seed=st.integers(0, 99))
@settings(max_examples=60)
def test_half_of_a_product_mirrored_is_the_product(rows: int, inner: int, dtype: torch.dtype, seed: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(multiplied, "STRIP", 2)
        patch.setattr(multiplied, "HALVED_FROM", (1, 1))
        x = torch.randn(1, rows, inner, generator=torch.Generator().manual_seed(seed)).to(dtype)
        close = {"rtol": 1e-2, "atol": 2e-2} if dtype == torch.bfloat16 else {"rtol": 1e-5, "atol": 1e-5}
        a = multiplied.product(x, x.mT, symmetric=True)
        torch.testing.assert_close(a, x @ x.mT, **close)
        p = multiplied.added(a, a, a, -4.8, 2.0, symmetric=True)
        torch.testing.assert_close(p.double(), -4.8 * a.double() + 2.0 * (a.double() @ a.double()), rtol=2e-2, atol=0.3 if rows else 0)
        assert all(torch.equal(x[0, 2:, :2], x[0, :2, 2:].T) for x in (a, p))


@pytest.mark.parametrize("threads", [4, 16])
def test_strips_are_the_same_for_any_number_of_threads(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    x = some(1, 512, 520)
    alone = multiplied.product(x, x.mT, symmetric=True)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    assert torch.equal(multiplied.product(x, x.mT, symmetric=True), alone)


@pytest.mark.usefixtures("strips")
@pytest.mark.parametrize("special", [torch.nan, torch.inf])
def test_what_is_not_finite_goes_where_it_would(special: float) -> None:
    x = torch.randn(1, 7, 3, generator=torch.Generator().manual_seed(0))
    x[0, 4, 1] = special
    torch.testing.assert_close(multiplied.product(x, x.mT, symmetric=True), x @ x.mT, equal_nan=True)


def test_large_matrices_are_halved_where_nobody_traces(monkeypatch: pytest.MonkeyPatch) -> None:
    halved: list[tuple[int, ...]] = []
    by_half = multiplied._by_half
    monkeypatch.setattr(multiplied, "_by_half", lambda a, *more: halved.append(tuple(a.shape)) or by_half(a, *more))
    for shape in ((1, 400, 700), (2, 400, 700), (1, 100, 3000), (1, 400, 600)):
        multiplied.product(x := torch.ones(shape), x.mT, symmetric=True)
    assert halved == [(400, 700)]
    multiplied.product(x := torch.ones(1, 400, 700, requires_grad=True), x.mT, symmetric=True).sum().backward()
    torch.vmap(lambda y: multiplied.product(y, y.mT, symmetric=True))(torch.ones(2, 1, 400, 700))
    assert len(halved) == 1 and x.grad is not None


@pytest.mark.parametrize(
    ("product", "is_symmetric"),
    [
        ("g @ g.T", True), ("g.T @ g", True), ("g @ w.T", False), ("g.T @ w", False), ("(g*w) @ g.T", False), ("g @ g.T @ g", False),
        ("(g*norm(g per col)) @ g.T", True), ("(g*norm(g per row)) @ g.T", False), ("g.T @ (norm(g per row)*g)", True),
        ("g.T @ (g*norm(g per col))", False), ("(g/norm(g per col)) @ (2*g).T", True), ("(norm(g per col)/g) @ g.T", False),
        ("(g @ g.T) @ (g @ g.T)", True), ("(g @ g.T + 2*eye(rows)) @ (g @ g.T + 2*eye(rows))", True), ("(g @ g.T) @ (w @ w.T)", False),
        ("(g @ g.T*norm(g per row)) @ (g @ g.T)", False), ("exp(g @ g.T/norm(g per matrix)).T @ exp(g @ g.T/norm(g per matrix))", True),
        ("(g @ g.T + w @ g.T) @ (g @ g.T + w @ g.T)", False),
    ],
)  # fmt: skip
def test_what_is_known_to_be_symmetric(product: str, is_symmetric: bool) -> None:
    """The product that is computed last; numbers say the same."""
    text = f"rule R {{ hyper lr = 0.1 in (0, inf)  w' = w - lr*sum(abs({product}) per matrix)/9 }}"
    made = optlang.Rule(text).program
    assert isinstance(made, Program)
    last = [node for node in ir.walk(made.roots()) if node.op == "matmul"][-1]
    assert (last in symmetric(ir.walk([last]))) is is_symmetric
    code = generate("f", [Output(last)], double=True)
    source = torch.Generator().manual_seed(3)
    given = [torch.randn(1, 4, 4, generator=source, dtype=torch.float64) for _ in code.tensors]
    numbers = torch.full((len(code.slots),), 2.0, dtype=torch.float64)
    [found] = load(code)(*given, numbers, None, 4)
    assert torch.allclose(found, found.mT) is is_symmetric


@pytest.mark.usefixtures("strips")
@pytest.mark.parametrize("name", RULES)
def test_rules_take_the_steps_of_the_reference(name: str) -> None:
    compare(name, shapes_for(optlang.Rule(name).program, SHAPES), steps=5)


@pytest.mark.parametrize("name", ["graftedshampoo", "psgdkron", "shampoo", "soap"])
def test_others_take_the_steps_that_whole_products_take(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those with eigenvectors are too sensitive to compare them with the reference in every shape."""
    found = []
    for size in (2, 99):
        monkeypatch.setattr(multiplied, "STRIP", size)
        monkeypatch.setattr(multiplied, "HALVED_FROM", (size, 1))
        found.append(train(optlang.load(name, backend="torch"), [(6, 6), (5, 5)], 4))
    finite(*found[0][0])
    assert_same(*found, rtol=1e-6, atol=1e-6)


def test_there_are_such_rules() -> None:
    assert {"marsshampoo", "trustregionspectral"} <= set(RULES)
