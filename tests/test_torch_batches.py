"""Parameters of one shape in one call: the same steps as one after the other, whatever the rule, its states and its settings."""

from __future__ import annotations

import platform
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from stepping import finite, is_ambiguous, shapes_for
from torch import Tensor

import optlang
from optlang import ir
from optlang.backends.outputs import Output
from optlang.backends.torch import batches as torch_batches
from optlang.backends.torch import loading
from optlang.backends.torch.code import generate
from optlang.backends.torch.functions import Functions
from optlang.backends.torch.writer import HEAVY

LIBRARY = sorted(p.stem for p in (Path(__file__).parent.parent / "library").rglob("*.opt") if p.stem != "std")


def programs(name: str) -> list[ir.Program]:
    made = optlang.Rule(name).program
    return [case.program for case in made.cases] if isinstance(made, ir.Routing) else [made]


MATRICES = [  # and no closure is needed
    n for n in LIBRARY
    if any(node.op in HEAVY for p in programs(n) for node in ir.walk(p.all_roots())) and not any(p.uses("grad") for p in programs(n))
]  # fmt: skip
SHAPES = [(3, 4)] * 3 + [(4, 3), (2, 3, 4), (3, 4), (4, 3), (2, 3, 4), (5,), (5,), (0, 3), (0, 3)]
DRAWS = "rule D { hyper lr = 0.1 in (0, inf) q = orthonormal(normal(rows, rows))  w' = w - lr*(q @ g)*uniform(per tensor) }"


def train(what: str, shapes: Sequence[tuple[int, ...]], backend: str = "torch", steps: int = 3, dtype: torch.dtype = torch.float64,
          **options: Any) -> list[Any]:  # fmt: skip
    """Weights and states; half of the parameters are in a group with another lr."""
    load = optlang.loads if "{" in what else optlang.load
    draws = torch.Generator().manual_seed(0)
    params = [torch.randn(s, generator=draws, dtype=torch.float64).to(dtype).requires_grad_() for s in shapes]
    named = [(f"p{i}", p) for i, p in enumerate(params)]
    rules = [] if "{" in what else programs(what)
    group = {"lr": 0.003} if all("lr" in {h.name for h in p.hypers} for p in rules) and len(rules) < 2 else {}
    optimizer: Any = load(what, backend=backend, **options)([{"params": named[::2]}, {"params": named[1::2], **group}])
    for _ in range(steps):
        for p in params:
            p.grad = torch.randn(p.shape, generator=draws, dtype=torch.float64).to(dtype)
        optimizer.step()
    finite(*params)
    return [(p.detach(), dict(optimizer.state[p])) for p in params]


def one_by_one(monkeypatch: pytest.MonkeyPatch, *arguments: Any, **options: Any) -> list[Any]:
    with monkeypatch.context() as patch:
        patch.setattr(torch_batches, "LARGEST", 0)
        return train(*arguments, **options)


@pytest.fixture
def sizes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many parameters each batch had."""
    found: list[int] = []
    real = torch_batches.mapped
    monkeypatch.setattr(torch_batches, "mapped", lambda code, function, together, *given: (
        found.append(len(together[0])), real(code, function, together, *given))[1])  # fmt: skip
    return found


def test_there_are_such_rules() -> None:
    assert {"muon", "soap", "shampoo", "galore", "dion", "psgdkron", "scion"} <= set(MATRICES)


@pytest.mark.parametrize("name", MATRICES)
def test_library(name: str, sizes: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = shapes_for(optlang.Rule(name).program, SHAPES)
    together = train(name, shapes)
    assert max(sizes) >= 3
    torch.testing.assert_close(together, one_by_one(monkeypatch, name, shapes), rtol=1e-11, atol=1e-12, equal_nan=True)


@pytest.mark.parametrize("name", [n for n in MATRICES if not any(is_ambiguous(p) for p in programs(n))])
def test_they_are_the_steps_of_the_reference(name: str) -> None:
    shapes = shapes_for(optlang.Rule(name).program, SHAPES)
    sides = [[w for w, _ in train(name, shapes, backend)] for backend in ("cpp", "reference")]
    torch.testing.assert_close(*sides, rtol=1e-9, atol=1e-10)


def test_one_call_for_each_shape(sizes: list[int]) -> None:
    train("muon", [(8, 4)] * 100 + [(4, 8)] * 50 + [(3, 3)], steps=1)
    assert sizes == [100, 50]


def test_batches_are_no_larger_than_memory_allows(sizes: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_batches, "LARGEST", 3 * 32)
    train("muon", [(8, 4)] * 7, steps=1)
    assert sizes == [3, 3]  # and one alone


def test_each_parameter_has_its_own_draws_sums_and_settings(sizes: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    together = train(DRAWS, [(4, 4)] * 6)
    assert sizes == [6] * 3
    assert len({float(w.sum()) for w, _ in together}) == 6
    torch.testing.assert_close(together, one_by_one(monkeypatch, DRAWS, [(4, 4)] * 6), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(together, train(DRAWS, [(4, 4)] * 6, "reference"), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("options", [{"state": "int8"}, {"state": "bf16"}, {"weights": "stochastic"}, {"weights": "compensated"}])
def test_storage(options: dict[str, Any], sizes: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    shapes, dtype = [(40, 60)] * 4, torch.bfloat16 if "weights" in options else torch.float32
    together = train("muon", shapes, dtype=dtype, **options)
    assert max(sizes) == 4
    torch.testing.assert_close(together, one_by_one(monkeypatch, "muon", shapes, dtype=dtype, **options), rtol=1e-2, atol=1e-3)


def test_other_orders_in_memory_and_types_of_number(sizes: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """What is transposed in memory joins; what is of another type does not."""

    def steps() -> list[Tensor]:
        draws = torch.Generator().manual_seed(0)
        params = [torch.randn(6, 5, generator=draws) for _ in range(4)]
        params = [params[0], params[1].T.contiguous().T, params[2].T.contiguous().T, params[3].double(), params[0].double() + 1]
        optimizer: Any = optlang.load("muon")([p.requires_grad_() for p in params])
        for p in params:
            p.grad = torch.ones_like(p) * p.detach().cos()
        optimizer.step()
        return [p.detach() for p in params]

    together = steps()
    assert sizes == [3, 2]
    with monkeypatch.context() as patch:
        patch.setattr(torch_batches, "LARGEST", 0)
        torch.testing.assert_close(together, steps(), rtol=1e-5, atol=1e-6)


def test_autograd_sees_that_weights_changed() -> None:
    params = [torch.randn(3, 4, requires_grad=True) for _ in range(3)]
    losses = [(p**2).sum() for p in params]
    for p in params:
        p.grad = torch.ones_like(p)
    optlang.load("muon")(params).step()
    for loss in losses:
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            loss.backward()


def test_products_are_not_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their time is that of the products, and the compiler would take ten seconds."""
    monkeypatch.setattr(torch, "compile", lambda *_, **__: pytest.fail("torch.compile was called"))
    params = [torch.randn(600, 512, requires_grad=True)]
    params[0].grad = torch.ones_like(params[0])
    optlang.load("muon", backend="torch")(params).step()


def test_values_are_freed_behind_their_last_use() -> None:
    x = ir.make("mul", (ir.W, ir.G))
    code = generate("f", [Output(ir.make("add", (ir.make("mul", (x, x)), x)), ir.W)])
    seen = loading.load(code, frees=True).__code__.co_code
    assert len(seen) > len(loading.load(code).__code__.co_code)
    w, g = torch.full((3,), 2.0), torch.full((3,), 3.0)
    loading.load(code, frees=True)(w, g, torch.zeros(0), None, 0)
    assert torch.equal(w, torch.full((3,), 42.0))


def test_small_parameters_go_through_a_compiled_function_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """A call for each of 300 would take 300 times as long as one; once it comes again, nothing is gathered but gradients."""
    sizes, call = [], Functions.call

    def counted(self: Functions, code: Any, tensors: Any, s: Any, counter: Any, first: int, compiled: bool) -> Any:
        sizes.append((tensors[0].numel(), compiled))
        return call(self, code, tensors, s, counter, first, False)

    monkeypatch.setattr(Functions, "call", counted)
    params = [torch.ones(4).requires_grad_() for _ in range(300)] + [torch.ones(1 << 18).requires_grad_()]
    optimizer = optlang.load("adamw", backend="torch")(params)  # type: ignore[call-arg]
    for p in params:
        p.grad = torch.ones_like(p)
    optimizer.step()
    assert sizes == [(1200, True), (1 << 18, True)]
    assert all(torch.equal(p, params[-1][:4]) for p in params[:-1])


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="of glibc's memory")
def test_steps_find_the_memory_of_the_last_one() -> None:
    """Not page by page anew: a temporary of half a million numbers is 512 pages, and a step makes some ten of each matrix."""
    text = """
import resource, torch, optlang
p = [torch.nn.Parameter(torch.randn(512, 1024)) for _ in range(3)]
for one in p:
    one.grad = torch.randn(512, 1024)
optimizer = optlang.load("muon", products="bf16")(p)
for _ in range(4):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    optimizer.step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 2048  # 6,000 without
