"""Optimizers together with the rest of torch: torch.compile, distributed checkpoints, wrappers, torch's own errors. 5 seconds."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from sharded_runs import module_of
from torch import Tensor, nn

import optlang

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of modules that torch deprecates while it imports them
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_optimizer_state_dict, set_optimizer_state_dict

AdamW: Any = optlang.load("adamw")


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2))


def batch(seed: int) -> Tensor:
    return torch.randn(5, 4, generator=torch.Generator().manual_seed(seed))


def train(model: nn.Module, optimizer: Any, steps: range) -> None:
    for seed in steps:
        optimizer.zero_grad()
        (model(batch(seed)) ** 2).mean().backward()
        optimizer.step()


def same(one: nn.Module, other: nn.Module) -> bool:
    return all(torch.equal(p, q) for p, q in zip(one.parameters(), other.parameters(), strict=True))


# ---------------------------------------------------------------------------------------------------- torch.compile


@pytest.mark.parametrize("name", ["adamw", "muonwithadamw"])
def test_a_training_loop_may_be_compiled_with_its_optimizer(name: str) -> None:
    """The step is one operator in the graph around it, and nothing is traced anew."""
    cls: Any = optlang.load(name)
    plain, compiled = net(), net()
    one, other = (cls(model.named_parameters()) for model in (plain, compiled))
    frames: list[Any] = []

    def backend(graph: Any, inputs: Any) -> Any:
        frames.append(graph)
        return graph.forward

    step = torch.compile(lambda: other.step(), backend=backend)
    for seed in range(12):
        train(plain, one, range(seed, seed + 1))
        other.zero_grad()
        (compiled(batch(seed)) ** 2).mean().backward()
        step()
    assert same(plain, compiled)
    [graph] = frames
    assert [node.op for node in graph.graph.nodes].count("call_function") == 1


def test_parameters_of_a_compiled_model() -> None:
    plain, other = net(), net()
    compiled: Any = torch.compile(other, backend="aot_eager")
    train(plain, AdamW(plain.parameters()), range(3))
    train(compiled, AdamW(compiled.named_parameters()), range(3))
    torch.testing.assert_close(list(plain.parameters()), list(other.parameters()))


def test_large_parameters_are_compiled_although_the_step_is_not_traced(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch._dynamo.utils import counters

    from optlang.backends.torch import inductor_cache

    monkeypatch.setattr(inductor_cache, "name_of", lambda *_: "")  # a kernel from the disk has nothing to compile
    p = torch.ones(600, 600, requires_grad=True)
    optimizer: Any = optlang.loads("rule Large { hyper lr = 0.5 in (0, inf) w' = w - lr*g/(1 + abs(g)) }", backend="torch")([p])
    counters.clear()
    for _ in range(3):
        p.grad = torch.ones_like(p)
        optimizer.step()
    assert counters["stats"]["unique_graphs"] == 1
    assert torch.equal(p, torch.full_like(p, 0.25))


def test_a_thousand_steps_of_changing_settings_and_an_added_group_compile_nothing_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """OneCycleLR, which cycles the momentum, then ReduceLROnPlateau with another decay and betas each time, then more parameters."""
    from torch._dynamo.utils import counters

    from optlang.backends.torch import inductor_cache

    monkeypatch.setattr(inductor_cache, "name_of", lambda *_: "")
    params = [torch.ones(520, 520, requires_grad=True), torch.ones(7, requires_grad=True)]
    optimizer: Any = optlang.load("lion", backend="torch")(params, lr=1e-4)
    one_cycle, gradients = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-3, total_steps=501), [torch.ones_like(p) for p in params]
    betas = set()
    for step in range(1000):
        for p, gradient in zip(params, gradients, strict=True):
            p.grad = gradient
        optimizer.step()
        if step == 0:
            compiled = counters["stats"]["unique_graphs"]
            assert compiled > 0
        if step < 500:
            one_cycle.step()
        elif step == 500:
            plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=3)
        else:
            plateau.step(1.0)
            optimizer.param_groups[0].update(weight_decay=0.001 * (step % 7), betas=(0.9, 0.99 + 0.001 * (step % 5)))
        betas.add(optimizer.param_groups[0]["betas"])
        if step == 800:
            params.append(torch.ones(640, 450, requires_grad=True))
            gradients.append(torch.ones(640, 450))
            optimizer.add_param_group({"params": params[-1:], "lr": 1e-5})
    assert counters["stats"]["unique_graphs"] == compiled and len(betas) > 400
    assert {way.backend for way in optimizer.backends()} == {"torch"} and optimizer.state[params[-1]]["step"] == 199


# --------------------------------------------------------------------------------------------- distributed checkpoints


@pytest.mark.parametrize("flatten", [False, True])
@pytest.mark.parametrize("name", ["adamw", "lion", "muonwithadamw", "lookahead", "adafactor"])
def test_distributed_checkpoints(name: str, flatten: bool) -> None:
    """They take a step of size 0 with gradients of 0 to see the states: nothing may move. Then they load by name."""
    cls: Any = optlang.load(name)
    options = StateDictOptions(flatten_optimizer_state_dict=flatten)
    model, other = net(), net()
    optimizer, resumed = cls(model.named_parameters()), cls(other.named_parameters())
    train(model, optimizer, range(3))
    saved = copy.deepcopy(get_optimizer_state_dict(model, optimizer, options=options))
    other.load_state_dict(model.state_dict())
    set_optimizer_state_dict(other, resumed, saved, options=options)
    assert same(model, other)
    train(model, optimizer, range(3, 6))
    train(other, resumed, range(3, 6))
    assert same(model, other)


# ------------------------------------------------------------------------------------------------------------ wrappers


class Wrapped(torch.optim.Optimizer):
    """What training libraries put around an optimizer: its groups, states and step are those of the inner one."""

    def __init__(self, inner: Any) -> None:
        self.optimizer = inner

    @property
    def state(self) -> Any:  # type: ignore[override]
        return self.optimizer.state

    @property
    def param_groups(self) -> Any:  # type: ignore[override]
        return self.optimizer.param_groups

    @property
    def defaults(self) -> Any:  # type: ignore[override]
        return self.optimizer.defaults

    def step(self, closure: Any = None) -> Any:
        return self.optimizer.step(closure)

    def zero_grad(self, set_to_none: bool = True) -> None:
        self.optimizer.zero_grad(set_to_none)


def test_schedulers_and_loops_go_through_a_wrapper() -> None:
    models = net(), net()
    plain = AdamW(models[0].parameters(), lr=0.1)
    inner = AdamW(models[1].parameters(), lr=0.1)
    wrapped = Wrapped(inner)
    schedulers = [torch.optim.lr_scheduler.OneCycleLR(o, 0.1, total_steps=6) for o in (plain, wrapped)]
    for seed in range(5):
        for model, optimizer, scheduler in zip(models, (plain, wrapped), schedulers, strict=True):
            train(model, optimizer, range(seed, seed + 1))
            scheduler.step()
    assert same(*models)
    assert inner.param_groups[0]["betas"] == plain.param_groups[0]["betas"] != (0.9, 0.999)
    for p in models[1].parameters():
        assert float(wrapped.state[p]["step"]) == 5


def test_groups_may_be_replaced_and_shared() -> None:
    """Some libraries give an optimizer the groups of another, or other tensors in the same groups."""
    model = net()
    optimizer = AdamW([torch.zeros(1, requires_grad=True)])
    optimizer.param_groups = AdamW(model.parameters(), lr=0.0).param_groups
    train(model, optimizer, range(2))
    assert same(model, net())
    assert len(optimizer.state) == 4
    moved = [p.detach().clone().requires_grad_() for p in model.parameters()]
    optimizer.param_groups[0]["params"][:] = moved
    optimizer.param_groups[0]["lr"] = 0.1
    for p in moved:
        p.grad = torch.ones_like(p)
    optimizer.step()
    assert same(model, net())
    assert all((p < q).all() for p, q in zip(moved, model.parameters(), strict=True))
    assert [float(optimizer.state[p]["step"]) for p in moved] == [1] * 4


def in_rows(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> torch.nn.Parameter:
    """What DeepSpeed's ZeRO does: one row of the numbers of all parameters in the place of these."""
    row = torch.nn.Parameter(torch.cat([p.detach().flatten() for p in model.parameters()]))
    row.grad = torch.ones_like(row)
    optimizer.param_groups[0]["params"] = [row]
    return row


FLAT = {"adafactor": "compares elements", "prodigy": "compares elements", "muonwithadamw": "is in a route"}


@pytest.mark.parametrize("make", [optlang.load, lambda rule: module_of(rule)[optlang.Rule(rule).name]], ids=["loaded", "module"])
@pytest.mark.parametrize(("rule", "why"), FLAT.items())
def test_rows_of_numbers_in_the_place_of_parameters_are_refused_by_rules_that_look_at_shapes(
    rule: str, why: str, make: Callable[[str], Any]
) -> None:
    model = net()
    optimizer = make(rule)(model.named_parameters())
    row = in_rows(model, optimizer)
    before = row.detach().clone()
    with pytest.raises(ValueError, match=f"rows of numbers .* as DeepSpeed's ZeRO does: it {why}"):
        optimizer.step()
    assert torch.equal(row, before) and not optimizer.state


def test_rows_of_numbers_are_stepped_by_rules_that_go_element_by_element() -> None:
    models = net(), net()
    whole, parts = (AdamW(model.parameters(), lr=0.1) for model in models)
    row = in_rows(models[0], whole)
    for p in models[1].parameters():
        p.grad = torch.ones_like(p)
    for _ in range(3):
        whole.step()
        parts.step()
    assert torch.equal(row, torch.cat([p.detach().flatten() for p in models[1].parameters()]))


def test_a_step_that_is_replaced_on_the_object() -> None:
    """As gradient scalers of training libraries do, to see whether it was called."""
    model, calls = net(), []
    optimizer = AdamW(model.parameters())
    inner = optimizer.step
    optimizer.step = lambda *args, **kwargs: (calls.append(args), inner(*args, **kwargs))[1]
    train(model, optimizer, range(2))
    assert len(calls) == 2
    assert not same(model, net())


def test_averaged_models_and_inference_mode_around() -> None:
    model = net()
    optimizer = AdamW(model.parameters())
    averaged = torch.optim.swa_utils.AveragedModel(model)
    train(model, optimizer, range(2))
    averaged.update_parameters(model)
    with torch.no_grad():
        for p in model.parameters():
            p.grad = torch.ones_like(p)
        optimizer.step()
    assert all(p.requires_grad and p.is_leaf for p in model.parameters())


# --------------------------------------------------------------------------------------------------- torch's messages


@pytest.mark.parametrize(
    ("params", "kwargs", "kind", "message"),
    [
        ([torch.zeros(2, requires_grad=True)], {"lr": torch.tensor([0.1, 0.2])}, ValueError, "Tensor lr must be 1-element"),
        ([("a", torch.zeros(2, requires_grad=True)), torch.zeros(2)], {}, ValueError, "with/without names"),
        ([[torch.zeros(2, requires_grad=True)]], {}, TypeError, "can only optimize Tensors, but one of the params is list"),
        ([{"params": [torch.zeros(2)], "lr": -1.0}], {}, ValueError, "lr = -1.0 is outside its range"),
        (5, {}, TypeError, "not iterable"),
    ],
)
def test_wrong_parameters(params: Any, kwargs: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        AdamW(params, **kwargs)


def test_groups_with_and_without_names() -> None:
    optimizer = AdamW([("a", torch.zeros(2, requires_grad=True))])
    with pytest.raises(ValueError, match="with/without names"):
        optimizer.add_param_group({"params": [torch.zeros(2, requires_grad=True)]})
    assert len(optimizer.param_groups) == 1


# ------------------------------------------------------------------------------------------- parameters of other classes


class Halves(Tensor):
    """Numbers as twice what another tensor holds; it knows how to be copied, and nothing else: as torchao's weights in 8 bits."""

    halves: Tensor

    @staticmethod
    def __new__(cls, halves: Tensor) -> Any:
        return torch.Tensor._make_wrapper_subclass(cls, halves.shape, dtype=halves.dtype)  # type: ignore[attr-defined]

    def __init__(self, halves: Tensor) -> None:
        self.halves = halves

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.detach.default:
            return cls(args[0].halves)
        assert func is torch.ops.aten.copy_.default, func
        target, source = args
        value = source.halves * 2 if isinstance(source, Halves) else source
        target.halves.copy_(value / 2) if isinstance(target, Halves) else target.copy_(value)
        return target


@pytest.mark.parametrize("name", ["adamw", "muonwithadamw", "schedulefreeadamw"])
@pytest.mark.parametrize("rows", [3, 520])
def test_parameters_of_classes_without_memory_of_their_own_are_stepped_by_their_numbers(name: str, rows: int) -> None:
    """Kernels were told the address 0. Of 520 rows a kernel steps them. Gradients may be of such classes, too."""
    cls: Any = optlang.load(name)
    start = torch.randn(rows, 520, generator=torch.Generator().manual_seed(1))
    plain, wrapped = nn.Parameter(start.clone()), nn.Parameter(Halves(start / 2))
    optimizers = cls([("w", plain)]), cls([("w", wrapped)])
    for seed in range(4):
        gradient = torch.randn(rows, 520, generator=torch.Generator().manual_seed(seed + 2))
        plain.grad, wrapped.grad = gradient, Halves(gradient / 2)
        for optimizer in optimizers:
            optimizer.step()
    assert type(wrapped.data) is Halves and torch.equal(wrapped.data.halves * 2, plain)
    if name == "schedulefreeadamw":
        for optimizer in optimizers:
            optimizer.eval()
        assert torch.equal(wrapped.data.halves * 2, plain)
        optimizers[1].train()
        assert not torch.equal(wrapped.data.halves * 2, plain)
    with pytest.raises(ValueError, match="cannot step w with differentiable=True: it is a Halves"):
        cls([("w", wrapped)], differentiable=True)
