"""Functions that multiply matrices, in halves: torch multiplies, kernels compute what is before and behind, and steps are the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import random_products
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from stepping import finite, program, shapes_for
from test_torch_backend import STEADY, assert_same, some, train
from torch import Tensor
from torch_pairs import Pair, tensors

import optlang
from optlang import ir
from optlang.analysis import live_states
from optlang.backends.cpp import BACKEND
from optlang.backends.cpp.kernels import CppFunctions
from optlang.backends.kernels import functions, halves
from optlang.backends.torch import ops
from optlang.ir import Program

MATRICES = [
    name for name in STEADY if isinstance(made := optlang.Rule(name).program, Program)
    and any(node.op == "matmul" for node in ir.walk(made.all_roots())) and not made.uses("grad")
]  # fmt: skip
SHAPES = ((5, 7), (7, 5), (6, 6), (2, 3, 5), (1, 4), (0, 3))
LENGTHS = "rule R { hyper lr = 0.1 in (0, inf) state l[rows, rows] = 0  state m = 0  l' = l + g @ g.T  m' = 0.9*m + l' @ g"
DRAWN = f"{LENGTHS}  z = normal()  w' = w - lr*(m' + 0.01*((z @ z.T) @ z + z*norm(m' per row)))}}"

ITERATED = """rule R {
  hyper lr = 0.1 in (0, inf)  state m = 0
  m' = 0.9*m + g*abs(g)  x = m'/norm(m' per matrix)  y = 2*x - x @ x.T @ x  z = 2*y - y @ y.T @ y  w' = w - lr*z
}"""

CHOOSING = f"{LENGTHS}  x = where(g.T < 0.2, g.T, 0.5*m'.T)  y = where(norm(g.T per row) < 2, x @ l', g.T)  w' = w - lr*(m' + y.T)}}"
WINDOWED = f"{LENGTHS}  state h[2] = nan  h' = push(h, g)  x = sum(where(h' < 0.1, h', nan))  w' = w - lr*(x + l' @ max(h') + m')}}"


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[halves.Halves]:
    """What is made in halves, as small matrices are, too."""
    found: list[halves.Halves] = []

    def finding(*given: Any) -> halves.Halves | None:
        one = halves.halves(*given)
        found.extend([one] if one else [])
        return one

    monkeypatch.setattr(functions, "is_small", lambda bound, compiled: False)
    monkeypatch.setattr(functions, "halves", finding)
    return found


def sides(text: str, shapes: Sequence[tuple[int, ...]], steps: int, dtype: torch.dtype, **options: Any) -> list[Any]:
    load = optlang.loads if "{" in text else optlang.load
    return [train(load(text, backend=backend, **options), shapes, steps, dtype) for backend in ("cpp", "torch")]


@pytest.mark.parametrize("name", MATRICES)
def test_rules_take_the_steps_of_whole_functions(name: str, made: list[halves.Halves]) -> None:
    shapes = shapes_for(optlang.Rule(name).program, SHAPES)
    both = sides(name, shapes, 4, torch.float64)
    finite(*both[0][0])
    assert_same(*both)
    assert made


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("products", ["fp32", "bf16"])
@pytest.mark.parametrize("text", [DRAWN, "fira", "muon", "graftedshampoo"])
def test_in_other_types(text: str, products: str, dtype: torch.dtype, made: list[halves.Halves]) -> None:
    close = 3e-2 if dtype == torch.bfloat16 or products == "bf16" else 1e-4
    assert_same(*sides(text, ((6, 9), (9, 6)), 3, dtype, products=products), rtol=close, atol=close)
    assert made


class Lying(Pair):
    """Gradients whose memory is in another order than that of weights, or of which a column is all that there is."""

    def gradient(self, like: Tensor) -> Tensor:
        found = super().gradient(like)
        return found.mT.contiguous().mT if self.taken.cells[0].t % 2 else found[..., :1].expand_as(found) if found.numel() else found


@given(random_products.rules(), st.sampled_from([torch.float64, torch.float32, torch.bfloat16, torch.float16]), st.booleans())
@settings(max_examples=25)
def test_random_rules(text: str, dtype: torch.dtype, lying: bool) -> None:
    rule = live_states.without_dead(program(text))
    weights = tensors(((3, 4), (4, 3), (2, 3, 2), (1, 4), (2, 0), (2, 1, 3, 2)), dtype)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(functions, "is_small", lambda bound, compiled: False)
        executable = BACKEND.compile(rule, "safe")
        pair = (Lying if lying else Pair)(rule, [x.mT.contiguous().mT if lying else x for x in weights], executable=executable)
        for _ in range(2):
            pair.step()


@pytest.mark.parametrize("text", [CHOOSING, WINDOWED])
def test_what_no_kernel_has_a_place_for(text: str, made: list[halves.Halves]) -> None:
    """Truths are not transposed, and windows are torch's."""
    assert_same(*sides(text, ((4, 6), (6, 4), (2, 3, 5)), 3, torch.float64))
    assert made


@pytest.mark.parametrize("backend", ["cpp", "torch"])
@pytest.mark.parametrize("text", [CHOOSING, "adamw", "lamb", "muon"])
def test_gradients_of_another_type(text: str, backend: str, made: list[halves.Halves]) -> None:
    """They are numbers as all others; their squares are not of their type."""
    found = []
    for one in (backend, "reference"):
        weights = torch.nn.Parameter(some(6, 4, dtype=torch.float32))
        weights.grad_dtype = torch.float16
        optimizer: Any = (optlang.loads if "{" in text else optlang.load)(text, backend=one)([weights])
        for step in range(2):
            weights.grad = 300 * some(6, 4, seed=step, dtype=torch.float16)
            optimizer.step()
        found.append(weights.detach())
    finite(*found)
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-4)
    assert bool(made) == (backend == "cpp" and text in (CHOOSING, "muon"))


def test_what_kernels_cannot_reach_goes_the_torch_way(made: list[halves.Halves], monkeypatch: pytest.MonkeyPatch) -> None:
    """As on another device, also after parameters of the same kind that they can reach."""
    monkeypatch.setattr(CppFunctions, "fits", lambda self, bound: bound.weights.shape == (4, 6))
    weights = [torch.nn.Parameter(some(*shape)) for shape in ((4, 6), (6, 4))]
    optimizer: Any = optlang.loads(LENGTHS + "  w' = w - lr*m'}", backend="cpp")(weights)
    for one in weights:
        one.grad = torch.ones_like(one)
    optimizer.step()
    here, there = str(optimizer.backends()).splitlines()[1:]
    assert made and "behind products" in here and "behind products" not in there


def test_what_kernels_are_given_and_what_they_hand_out(made: list[halves.Halves]) -> None:
    train(optlang.loads(DRAWN, backend="cpp"), ((4, 6), (4, 6)), 1)
    one = made[0]
    assert one.ahead is None  # a draw alone is sooner drawn by torch than by a kernel
    assert "ops.draw" in one.first.text and one.first.written == ()
    assert [str(node.type) for node in one.given] == ["real per element"] * 3  # l' @ g, the draws and what they are multiplied to
    assert [one.whole.tensors[place].value for place in one.targets] == ["l"]


def test_what_products_need_is_computed_ahead(made: list[halves.Halves]) -> None:
    train(optlang.loads(ITERATED, backend="cpp"), ((6, 4), (4, 6)), 1)
    assert all(one.ahead and {node.op for node in one.first.tensors} == {"input"} for one in made)
    assert [len(one.given) for one in made] == [2]  # the last term and the last product, not what led there


def test_nothing_is_turned_but_factors(made: list[halves.Halves]) -> None:
    """Of a wide matrix Fira computes all with the transposed gradient."""
    train(optlang.load("fira", backend="cpp"), ((130, 140), (130, 140)), 2)
    assert made and not any(".contiguous()" in one.first.text for one in made)


def test_without_memory_for_products_nothing_is_written(made: list[halves.Halves], monkeypatch: pytest.MonkeyPatch) -> None:
    weights = torch.nn.Parameter(some(4, 6))
    optimizer: Any = optlang.loads(DRAWN.replace("0.01", "0.02"), backend="cpp")([weights])

    def step() -> None:
        weights.grad = some(4, 6, seed=1)
        optimizer.step()

    step()
    before = [weights.detach().clone(), *(x.clone() for x in optimizer.state[weights].values() if isinstance(x, torch.Tensor))]

    def fails(*_: Any) -> Any:
        raise MemoryError

    monkeypatch.setattr(CppFunctions, "launch", fails)
    with pytest.raises(MemoryError):
        step()
    after = [weights.detach(), *(x for x in optimizer.state[weights].values() if isinstance(x, torch.Tensor))]
    assert made and all(map(torch.equal, before, after))


def test_small_matrices_go_through_torch_together() -> None:
    weights = [torch.nn.Parameter(some(4, 6)), torch.nn.Parameter(some(520, 512))]
    optimizer: Any = optlang.loads(LENGTHS + "  w' = w - lr*m'}", backend="cpp")(weights)
    for one in weights:
        one.grad = some(*one.shape, seed=1)
    optimizer.step()
    small, large = str(optimizer.backends()).splitlines()[1:]
    assert "behind products" in large and "behind products" not in small


@given(rows=st.integers(1, 6), cols=st.integers(1, 5), turned=st.booleans(), right=st.booleans(),
       kind=st.sampled_from(["upper", "full", "singular", "infinite"]), seed=st.integers(0, 99))  # fmt: skip
@settings(max_examples=80)
def test_what_is_solved_for_is_a_product_with_the_inverse(rows: int, cols: int, turned: bool, right: bool, kind: str, seed: int) -> None:
    a = some(1, rows, rows, seed=seed) + 3 * torch.eye(rows, dtype=torch.float64)
    a = a if kind == "full" else a.triu()
    a[0, 0, 0] = {"singular": 0.0, "infinite": torch.inf}.get(kind, float(a[0, 0, 0]))
    b = some(1, *((cols, rows) if right else (rows, cols)), seed=seed + 1)
    inverse = ops.inverse(a).mT if turned else ops.inverse(a)
    found = ops.solved(a, b, turned=turned, right=right)
    torch.testing.assert_close(found, b @ inverse if right else inverse @ b, equal_nan=True, rtol=1e-6, atol=1e-6)
    assert found.isnan().all() == (kind in ("singular", "infinite"))
