"""`auto`: which backend steps which parameter, what it says about it, and several devices in one optimizer."""

from __future__ import annotations

import os
import types
from typing import Any

import pytest
import torch
from torch import Tensor

import optlang
from optlang.backends import auto, backend
from optlang.backends import torch as torch_backend
from optlang.backends.kernels import build
from optlang.backends.torch.functions import COMPILE_FROM
from optlang.runtime.groups.routing import Stepped

LARGE = (600, 500)
assert LARGE[0] * LARGE[1] > COMPILE_FROM


def taken(what: str, *shapes: tuple[int, ...], steps: int = 1, backend: str = "auto", **options: Any) -> tuple[Any, list[Tensor]]:
    draws = torch.Generator().manual_seed(0)
    params = [torch.randn(s, generator=draws).requires_grad_() for s in shapes]
    optimizer: Any = optlang.load(what, backend=backend, **options)([(f"p{i}", p) for i, p in enumerate(params)])
    for _ in range(steps):
        for p in params:
            p.grad = torch.randn(p.shape, generator=draws)
        optimizer.step()
    return optimizer, [p.detach() for p in params]


def ways(*arguments: Any, **options: Any) -> list[tuple[str, str]]:
    return [(one.backend, one.reason) for one in taken(*arguments, **options)[0].backends()]


@pytest.mark.parametrize("shape", [LARGE, (4,)])
def test_steps_on_the_cpu_are_cpp(shape: tuple[int, ...]) -> None:
    assert ways("adamw", shape, (5,), steps=5) == [("cpp", "one call for all parameters of a kind")] * 2


def test_rules_for_matrices_are_torch() -> None:
    [(name, reason)] = ways("muon", LARGE)
    assert name == "torch" and "has values real per cols×rows" in reason


def test_parameters_of_a_route_go_their_own_ways() -> None:
    optimizer, _ = taken("muonwithadamw", LARGE, (COMPILE_FROM,))
    assert [(one.parameter, one.backend) for one in optimizer.backends()] == [("p0", "torch"), ("p1", "cpp")]


@pytest.mark.parametrize(("rule", "shape"), [("adamw", LARGE), ("lion", (4,))])
def test_without_a_compiler_it_is_torch_and_says_why(rule: str, shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    def none(text: str, **flags: Any) -> Any:
        raise build.NoCompiler("there is no C++ compiler")

    monkeypatch.setattr(build, "library", none)
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    with pytest.warns(RuntimeWarning, match="steps with torch instead of C.., and slower: there is no C.. compiler"):
        assert ways(rule, shape, math="fast") == [("torch", "there is no C++ compiler")]


@pytest.mark.parametrize(
    ("name", "told"),
    [("cpp", ("cpp", "one call for all parameters of a kind")), ("reference", ("reference", "it was asked for")),
     ("torch", ("torch", "uncompiled, as steps of fewer than 262,144 elements are"))],
)  # fmt: skip
def test_backends_that_were_asked_for(name: str, told: tuple[str, str]) -> None:
    assert ways("lion", (3, 4), backend=name) == [told]


def test_from_which_size_on_it_would_be_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_backend.BACKEND, "compile_from", 1234)
    text = "rule R { hyper lr = 0.5 in (0, inf) w' = w - lr*g }"
    optimizer: Any = optlang.loads(text, backend="torch")([p := torch.ones(5, requires_grad=True)])
    p.grad = torch.ones(5)
    optimizer.step()
    assert optimizer.backends()[0].reason == "uncompiled, as steps of fewer than 1,234 elements are"


def test_what_has_not_been_stepped_says_so() -> None:
    params = [torch.ones(3, requires_grad=True) for _ in range(2)]
    optimizer: Any = optlang.load("sgd")(params)
    assert optimizer.backends()[0].backend == "none yet"
    params[1].grad = torch.ones(3)
    optimizer.step()
    assert [one.backend for one in optimizer.backends()] == ["none yet", "cpp"]
    params[0].grad, params[1].grad = params[1].grad, None
    optimizer.step()
    assert [one.backend for one in optimizer.backends()] == ["cpp", "cpp"]


def test_differentiable_steps() -> None:
    start = torch.ones(3, requires_grad=True)
    weights = start.clone()
    optimizer: Any = optlang.load("sgd")([weights], differentiable=True)
    weights.grad = torch.ones(3)
    optimizer.step()
    assert "autograd" in optimizer.backends()[0].reason


def test_printed_it_is_a_table() -> None:
    optimizer, _ = taken("adamw", (4,), (2, 3))
    lines = str(optimizer.backends()).splitlines()
    assert lines[0].split() == ["parameter", "shape", "backend", "reason"]
    assert lines[2].startswith("p1         2×3    cpp      one call for all")
    assert isinstance(optimizer.backends()[0], Stepped)


# ---------------------------------------------------------------------------------------------------------- devices


@pytest.mark.parametrize(("kind", "kernels"), [("cpu", "cpp"), ("cuda", "triton"), ("mps", ""), ("xpu", "")])
def test_the_choice_by_device(kind: str, kernels: str) -> None:
    """Asked with as much of a call as the choice looks at."""
    functions = auto.AutoFunctions()
    call: Any = types.SimpleNamespace(weights=types.SimpleNamespace(device=torch.device(kind)), tensors=[], is_packed=False)
    assert (functions.name_at(call) if functions.fits(call) else "") == kernels


@pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") != "1", reason="Triton does not interpret")
@pytest.mark.parametrize("rule", ["adamw", "lamb", "adagradnorm"])
def test_one_optimizer_on_several_devices(rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Vectors are taken for tensors on CUDA: Triton's interpreter steps them, beside matrices that C++ does."""
    pytest.importorskip("triton")
    from optlang.backends.triton import kernels

    def start(loaded: Any, *rest: Any) -> Any:
        started.append(type(loaded))
        return plain(loaded, *rest)

    started: list[type] = []
    plain = kernels.start
    monkeypatch.setattr(kernels, "start", start)
    monkeypatch.setattr(auto, "_is_on_cuda", lambda call: call.weights.ndim == 1)
    shapes = [LARGE, (700,), (30, 20), (5,)]
    optimizer, mixed = taken(rule, *shapes, steps=4)
    assert [one.backend for one in optimizer.backends()] == ["cpp", "triton", "cpp", "triton"]
    assert len(started) >= 4 and {*started} == {kernels.Loaded}
    for one, other in zip(mixed, taken(rule, *shapes, steps=4, backend="reference")[1], strict=True):
        torch.testing.assert_close(one, other, rtol=3e-5, atol=3e-6)


def test_where_triton_is_missing_steps_on_cuda_are_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(text: str) -> Any:
        raise ImportError("No module named 'triton'")

    from optlang.backends.triton import kernels

    monkeypatch.setattr(auto, "_is_on_cuda", lambda call: True)
    monkeypatch.setattr(kernels, "load", missing)
    monkeypatch.setattr(kernels.TritonFunctions, "fits", lambda self, call: True)
    with pytest.warns(RuntimeWarning, match="No module named 'triton'"):
        optimizer, weights = taken("lion", (40, 3))
    [(*_, name, reason)] = optimizer.backends()
    assert name == "torch" and "No module named 'triton'" in reason
    torch.testing.assert_close(weights, taken("lion", (40, 3), backend="reference")[1], rtol=1e-5, atol=1e-6)


def test_auto_is_a_backend_like_others() -> None:
    assert backend("auto") is auto.BACKEND
    with pytest.raises(KeyError):
        backend("none")
