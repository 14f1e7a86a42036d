"""What torch may ask of a generated module: its options, graphs, gradients of settings, autocast and torch.compile."""

from __future__ import annotations

import importlib
import inspect
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from generated_module import Net, load
from torch import Tensor, nn

import optlang


@pytest.mark.parametrize("name", ["mezo", "sam"])
def test_autocast_around_a_step_is_as_autocast_in_its_closure(name: str) -> None:
    """It keeps casts of weights, which are not those of other points."""
    cls, cast, found = load(optlang.build(name), optlang.Rule(name).name), torch.autocast("cpu", torch.bfloat16), []
    for around, inside in ((cast, nullcontext()), (nullcontext(), cast)):
        torch.manual_seed(0)
        net = Net(torch.float32)
        optimizer = cls(net.parameters(), lr=1e-2)

        def closure(net: nn.Module = net, optimizer: Any = optimizer, inside: Any = inside) -> Tensor:
            with inside:
                optimizer.zero_grad()
                loss: Tensor = net(torch.ones(1, 5)).square().sum()
                loss.backward()  # type: ignore[no-untyped-call]
            return loss

        for _ in range(2):
            with around:
                optimizer.step(closure)
        found.append([p.detach() for p in net.parameters()])
    assert all(map(torch.equal, *found))


@pytest.mark.parametrize("rule", ["adamw", "muonwithadamw", "sam"])
def test_options_are_those_of_torch(rule: str) -> None:
    """Names, order and defaults; what speeds torch up changes nothing, and what a module cannot have is refused when it is made."""
    cls = load(optlang.build(rule), optlang.Rule(rule).name)
    taken = inspect.signature(cls).parameters
    theirs = {"maximize": False, "foreach": None, "capturable": False, "differentiable": False, "fused": None}
    assert [(name, p.default) for name, p in taken.items() if name in theirs] == list(theirs.items())

    def made(**options: bool) -> tuple[Any, Tensor]:
        p = nn.Parameter(torch.eye(2))
        return cls([{"params": [("weight", p)], **options}]), p

    def weights(**options: bool) -> Tensor:
        optimizer, p = made(**options)

        def closure() -> Tensor:
            optimizer.zero_grad()
            loss = (p**2).sum()
            loss.backward()
            return loss

        for _ in range(2):
            closure()
            optimizer.step(closure)
        return p.detach()

    for option in ("foreach", "fused", *["capturable"] * (rule != "sam")):
        assert torch.equal(weights(**{option: True}), weights())


@pytest.mark.parametrize(
    ("rule", "why"),
    [("sam", "it asks the model again"), ("COUNTS", "its rates are computed on the host"),
     ("DEEP", "torch's functions for matrices wait for the device"), ("LATE", "torch's functions for matrices wait for the device")],
)  # fmt: skip
def test_what_no_graph_can_take_is_refused(rule: str, why: str) -> None:
    written = {"COUNTS": "w' = w - 0.1*g*cbrt(t)", "DEEP": "q = eigenvectors(g @ g.T) w' = w - 0.1*q @ g",
               "LATE": "state q = 0 every 3 { q' = orthonormal(g) } w' = w - 0.1*q'"}  # fmt: skip
    text = f"rule R {{ {written[rule]} }}" if rule in written else rule
    cls = load(optlang.build(text), optlang.Rule(text).name)
    with pytest.raises(ValueError, match=f"{optlang.Rule(text).name} of this file cannot be capturable: {why}"):
        cls([nn.Parameter(torch.ones(2, 2))], capturable=True)


def test_what_autograd_cannot_go_through_is_refused() -> None:
    with pytest.raises(ValueError, match="SAM cannot be differentiable: it asks the model again"):
        load(optlang.build("sam"), "SAM")([nn.Parameter(torch.ones(2))], differentiable=True)
    start = torch.ones(2, requires_grad=True)
    cls = load(optlang.build("adamw"), "AdamW")
    optimizer = cls([start], differentiable=True)
    start.grad = torch.ones(2)
    with pytest.raises(RuntimeError, match="differentiable: .*give clones of parameters"):
        optimizer.step()
    assert start.tolist() == [1, 1] and not optimizer.state
    with pytest.raises(RuntimeError, match="`capturable` does not support `differentiable`"):
        cls([start.clone()], differentiable=True, capturable=True)


def test_settings_of_routes_have_gradients() -> None:
    cls = load(optlang.build("muonwithadamw"), "MuonWithAdamW")

    def stepped(lr: Tensor, momentum: Tensor, beta: Tensor) -> Tensor:
        matrix, bias = torch.eye(2, dtype=torch.float64, requires_grad=True).clone(), torch.ones(2, requires_grad=True).double()
        settings = {"Muon": {"lr": lr, "momentum": momentum}, "AdamW": {"lr": lr, "betas": (beta, 0.9)}}
        optimizer = cls([("matrix", matrix), ("bias", bias)], differentiable=True, **settings)
        for step in range(2):
            matrix.grad, bias.grad = (torch.cos(step + torch.arange(p.numel()).double()).reshape(p.shape) for p in (matrix, bias))
            optimizer.step()
        return torch.cat([matrix.reshape(-1), bias])

    given = [torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in (0.1, 0.8, 0.7)]
    assert torch.autograd.gradcheck(stepped, given)


def test_functions_of_settings_have_gradients() -> None:
    text = """rule R { hyper a = 0.3 hyper b = 2 in [0, inf) hyper low = -0.5 hyper first = 0.2 state m = first
              w' = w - g*cbrt(a) - exp(a)*log(b)*w - clip(g, low, 0.25)*sqrt(b) - m + sin(a)*tanh(b) m' = m/2 + exp(b)*g^2 }"""
    given = {"a": -0.3, "b": 1.7, "low": -0.4, "first": 0.15}
    found = []
    for cls in (optlang.loads(text), load(optlang.build(text), "R")):
        settings = {name: torch.tensor(x, dtype=torch.float64, requires_grad=True) for name, x in given.items()}
        p = torch.tensor([1.0, 2.0, -3.0], dtype=torch.float64, requires_grad=True).clone()
        optimizer: Any = cls([p], differentiable=True, **settings)
        for step in range(2):
            p.grad = torch.tensor([0.7, -0.9, 0.1], dtype=torch.float64) * (step + 1)
            optimizer.step()
        found.append(torch.autograd.grad((p * p.detach().cos()).sum() + optimizer.state[p]["m"].sum(), [*settings.values()]))
    torch.testing.assert_close(found[1], found[0])


# With values of all parameters, which lie in cells; a quantile; numbers of settings alone; functions of the rate, and a report; products
# in some steps; norms per row; clipping by what was seen; a table; and bases
RULES_TO_COMPILE = ["dog", "liontopk", "psgdkron", "localsgd", "frugalcolumns", "normuon", "stablespam", "perparametermlp", "dion", "splus"]


@pytest.mark.parametrize("rule", RULES_TO_COMPILE)
def test_a_compiled_step_is_one_graph_or_none(rule: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / f"compiled_{rule}.py").write_text(optlang.build(rule))
    monkeypatch.syspath_prepend(tmp_path)
    cls = getattr(importlib.import_module(f"compiled_{rule}"), optlang.Rule(rule).name)
    torch._dynamo.reset()
    counts: list[int] = []
    results: list[Tensor] = []

    def counted(graph: Any, _: object) -> Any:
        counts.append(len(graph.graph.nodes))
        return graph

    for compiled in (False, True):
        p = nn.Parameter(torch.tensor([[1.0, 2.0], [3.0, 5.0]]))
        optimizer = cls([p])
        step = torch.compile(optimizer.step, backend=counted, fullgraph=rule not in ("dion", "splus")) if compiled else optimizer.step
        for k in range(6):
            p.grad = torch.cos(k + torch.arange(4.0)).reshape(2, 2)
            optimizer.param_groups[0]["lr"] *= 1 if k < 4 else 0.9
            (step if k > 1 else optimizer.step)()  # states are there, and the second step is like all others
        results.append(torch.cat([p.detach().reshape(-1), *(torch.as_tensor([x]) for x in getattr(optimizer, "reports", {}).values())]))
        assert len(counts) <= 2  # one of this rate, and one of any
    assert torch.equal(*results) and bool(counts) == (rule not in ("dion", "splus"))
