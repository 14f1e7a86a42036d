"""Gradient release: the steps are those taken after backward, and only a gradient or two is there at a time. 8 seconds."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import optlang

LINEAR = ["momentum", "signum", "sgdw", "trustregionspectral", "scion", "tiger"]
RELEASED = ["adamw", "lion", "lamb", "adafactor", "sgd", "muonwithadamw", "schedulefreeadamw", "tiger"]


def net(depth: int = 4) -> nn.Sequential:
    torch.manual_seed(0)
    layers = [layer for i in range(depth) for layer in (nn.Linear(6, 6, bias=i > 0), nn.Tanh())]
    return nn.Sequential(*layers).double()


def matrices() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8, bias=False), nn.Tanh(), nn.Linear(8, 6, bias=False)).double()


def loss_of(model: nn.Module, seed: int) -> Tensor:
    x = torch.randn(5, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return F.mse_loss(model(x), x.flip(1))


def compare(one: nn.Module, other: nn.Module, **tolerance: float) -> None:
    for (name, p), q in zip(one.named_parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(p, q, msg=lambda text, name=name: f"{name}: {text}", **(tolerance or {"rtol": 0, "atol": 0}))


@pytest.mark.parametrize("rule", RELEASED)
@pytest.mark.parametrize("backend", ["auto", "torch"])
def test_the_steps_are_those_after_backward(rule: str, backend: str) -> None:
    ours, theirs = net(), net()
    cls: Any = optlang.load(rule, backend=backend)
    released, ordinary = cls(ours.named_parameters()), cls(theirs.named_parameters())
    optlang.release_gradients(released)
    schedules = [torch.optim.lr_scheduler.StepLR(o, 2, 0.5) for o in (released, ordinary)]
    for seed in range(5):
        loss_of(ours, seed).backward()
        assert all(p.grad is None for p in ours.parameters())
        ordinary.zero_grad()
        loss_of(theirs, seed).backward()
        for optimizer, schedule in zip((released, ordinary), schedules, strict=True):
            optimizer.step()  # of the released one it finds nothing to do
            schedule.step()
    compare(ours, theirs)
    assert all(released.state[p]["step"] == 5 for p in ours.parameters())


def test_only_a_gradient_or_two_is_there_at_a_time() -> None:
    model = net(depth=12)
    seen: list[int] = []
    for p in model.parameters():  # before ours, so that the gradient that has just come is counted
        p.register_post_accumulate_grad_hook(lambda _: seen.append(sum(q.grad.numel() for q in model.parameters() if q.grad is not None)))
    optlang.release_gradients(optlang.load("adamw")(model.parameters()))
    loss_of(model, 0).backward()
    whole = sum(p.numel() for p in model.parameters())
    assert len(seen) == 23 and max(seen) <= 36 + 6 < whole / 10


@pytest.mark.parametrize("rule", LINEAR)
def test_gradients_add_up_in_the_states_of_linear_rules(rule: str) -> None:
    ours, theirs = matrices(), matrices()
    cls: Any = optlang.load(rule)
    with_decay = {"weight_decay": 0.1} if rule in ("momentum", "signum", "sgdw") else {}
    released, ordinary = (cls(model.parameters(), lr=0.05, **with_decay) for model in (ours, theirs))
    release = optlang.release_gradients(released, accumulate=True)
    for step in range(4):
        before = copy.deepcopy(ours.state_dict())
        for part in range(3):
            (loss_of(ours, 10 * step + part) / 3).backward()
            (loss_of(theirs, 10 * step + part) / 3).backward()
            assert all(p.grad is None for p in ours.parameters())
        assert all(torch.equal(value, before[name]) for name, value in ours.state_dict().items())
        released.step()
        ordinary.step()
        ordinary.zero_grad()
    compare(ours, theirs, rtol=1e-12, atol=1e-13)
    assert all(released.state[p]["step"] == 4 for p in ours.parameters())
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        for name, value in ordinary.state[q].items():
            torch.testing.assert_close(released.state[p][name], value, rtol=1e-12, atol=1e-13)
    release.remove()


def test_a_setting_decides_whether_a_rule_is_linear() -> None:
    """Muon with Nesterov's step reads the gradient once more; without, its momentum is all that it reads."""
    muon: Any = optlang.load("muon")
    with pytest.raises(ValueError, match="Muon cannot accumulate gradients in its states: its new weights read the gradient itself"):
        optlang.release_gradients(muon(matrices().parameters()), accumulate=True)
    ours, theirs = matrices(), matrices()
    released, ordinary = (muon(model.parameters(), nesterov=False) for model in (ours, theirs))
    optlang.release_gradients(released, accumulate=True)
    for seed in range(4):
        loss_of(ours, seed).backward()
        loss_of(theirs, seed).backward()
    released.step()
    ordinary.step()
    compare(ours, theirs, rtol=1e-9, atol=1e-10)


NONLINEAR = {
    "m' = m + g^2  w' = w - m'": "its state `m` is not linear in the gradient: it takes `pow` of it",
    "m' = m + abs(g)  w' = w - m'": "it takes `abs` of it",
    "m' = m + w*g  w' = w - m'": "what a gradient adds to its state `m` depends on the weights",
    "m' = m + m*g  w' = w - m'": "what a gradient adds to its state `m` depends on the state `m`",
    "m' = m + where(g > 0, g, 0)  w' = w - m'": "it takes `gt` of it",
    "m' = m + g/sum(g)  w' = w - m'": "it takes `div` of it",
    "m' = m + g  w' = w - m' - g": "its new weights read the gradient itself, not through new states alone",
    "m' = m + g  w' = w - m' - m": "its new weights read the state `m` itself, not through new states alone",
}  # fmt: skip


@pytest.mark.parametrize("equations", NONLINEAR)
def test_rules_that_cannot_take_a_gradient_in_parts(equations: str) -> None:
    optimizer = optlang.loads(f"rule R {{ state m = 0 {equations} }}")(net().parameters())
    with pytest.raises(ValueError, match=f"R cannot accumulate gradients in its states: .*{NONLINEAR[equations].replace('`', '.')}"):
        optlang.release_gradients(optimizer, accumulate=True)
    assert optimizer.released is None  # type: ignore[attr-defined]
    optlang.release_gradients(optimizer)  # one gradient, one step is no trouble


@pytest.mark.parametrize(
    "equation",
    ["m' = 0.5*m - 2*(g/4)  w' = w + m'", "m' = m + t*g + mean(g)*numel + w  w' = w - m'/(1 + abs(m'))",
     "when t == 1 { m' = g } else { m' = m + g/(1 + 0.1*t) }  w' = w - 0.1*sign(m')"],
)  # fmt: skip
def test_linear_is_what_is_linear_however_it_is_written(equation: str) -> None:
    cls: Any = optlang.loads(f"rule R {{ state m = 0 {equation} }}", backend="torch")
    ours, theirs = net(), net()
    released, ordinary = cls(ours.parameters()), cls(theirs.parameters())
    optlang.release_gradients(released, accumulate=True)
    for step in range(3):
        for part in range(2):
            loss_of(ours, 5 * step + part).backward()
            loss_of(theirs, 5 * step + part).backward()
        released.step()
        ordinary.step()
        ordinary.zero_grad()
    compare(ours, theirs, rtol=1e-10, atol=1e-11)


REFUSED = {
    "rule R { w' = w - g/norm(g per model) }": "R cannot step inside backward, parameter by parameter: it has values per group or model",
    "rule R { w' = w - grad(w + g) }": "it asks the model again",
    "rule R { w' = w - loss*g }": "it asks the model again",
}


@pytest.mark.parametrize("text", REFUSED)
def test_rules_that_need_all_gradients_at_once(text: str) -> None:
    with pytest.raises(ValueError, match=REFUSED[text]):
        optlang.release_gradients(optlang.loads(text)(net().parameters()))


def test_other_optimizers_and_twice() -> None:
    with pytest.raises(TypeError, match="by optimizers of rules, not by SGD"):
        optlang.release_gradients(torch.optim.SGD(net().parameters()))
    optimizer: Any = optlang.load("sgd")(net().parameters())
    release = optlang.release_gradients(optimizer)
    with pytest.raises(ValueError, match="SGD releases its gradients already"):
        optlang.release_gradients(optimizer)
    release.remove()
    for option in ("differentiable", "capturable"):
        other: Any = optlang.load("sgd")(net().parameters(), **{option: True})
        with pytest.raises(ValueError, match=f"SGD is {option}"):
            optlang.release_gradients(other)


def test_removing_it_and_saving_are_not_for_the_middle_of_a_step() -> None:
    model = net()
    optimizer: Any = optlang.load("momentum")(model.parameters())
    release = optlang.release_gradients(optimizer, accumulate=True)
    loss_of(model, 0).backward()
    for interrupted in (release.remove, optimizer.state_dict):
        with pytest.raises(RuntimeError, match=r"gradients that have not moved its weights yet: call `step\(\)` before"):
            interrupted()
    optimizer.step()
    saved = optimizer.state_dict()
    release.remove()
    loss_of(model, 1).backward()
    assert all(p.grad is not None for p in model.parameters())
    optimizer.load_state_dict(saved)


def test_parameters_that_are_frozen_or_come_later_are_stepped_as_ever() -> None:
    model, late = net(), nn.Linear(6, 6).double()
    model[0].weight.requires_grad_(False)
    optimizer: Any = optlang.load("adamw")(model.parameters())
    optlang.release_gradients(optimizer)
    optimizer.add_param_group({"params": late.parameters(), "lr": 0.1})
    before = late.weight.clone()
    loss_of(nn.Sequential(model, late), 0).backward()
    assert late.weight.grad is not None and model[2].weight.grad is None
    optimizer.step()
    assert not torch.equal(late.weight, before) and optimizer.state[model[2].weight]["step"] == 1


def test_a_step_that_fails_inside_backward_leaves_its_parameter_as_it_was() -> None:
    model = net()
    text = "rule R { state m = 0 m' = m + g when rank >= 1 { k = rows } else { k = 1 } w' = w - k*m' }"
    optimizer: Any = optlang.loads(text)(model.parameters())
    optlang.release_gradients(optimizer)
    bias = model[-2].bias.clone()
    with pytest.raises(RuntimeError, match="R: parameter . of group 0: `rows` is needed"):
        loss_of(model, 0).backward()
    assert torch.equal(model[-2].bias, bias) and model[-2].bias not in optimizer.state


def test_several_processes_are_refused_also_where_they_meet_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """As when a released model goes into DistributedDataParallel afterwards: every process would step by its own gradients."""
    distributed = pytest.importorskip("torch.distributed")
    if not distributed.is_available():
        pytest.skip("torch was built without processes that work together")
    model = net()
    optimizer: Any = optlang.load("adamw")(model.parameters())
    release = optlang.release_gradients(optimizer)
    before = [p.detach().clone() for p in model.parameters()]
    monkeypatch.setattr(distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(distributed, "get_world_size", lambda: 2)
    with pytest.raises(RuntimeError, match=r"AdamW cannot step inside backward with several processes: .*: call `remove\(\)`"):
        loss_of(model, 0).backward()
    assert all(map(torch.equal, model.parameters(), before)) and not optimizer.state
    release.remove()
    with pytest.raises(ValueError, match="AdamW cannot step inside backward with several processes: gradients are not yet"):
        optlang.release_gradients(optimizer)
    assert optimizer.released is None
