"""Generated modules saved and gone on with: pickles, checkpoints, and those of several processes."""

from __future__ import annotations

import importlib
import pickle
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from generated_module import Net, load, run
from torch import Tensor, nn

import optlang

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of modules that torch deprecates while it imports them
    from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict, set_optimizer_state_dict


@pytest.mark.parametrize("name", ["lion", "adafactor", "lookahead", "schedulefreeadamw"])
def test_a_module_is_pickled_and_copied(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / f"made_{name}.py").write_text(optlang.build(name))
    monkeypatch.syspath_prepend(tmp_path)
    net, optimizer = run(getattr(importlib.import_module(f"made_{name}"), optlang.Rule(name).name), steps=2)
    again = pickle.loads(pickle.dumps(optimizer))
    assert again.param_groups[0]["lr"] == optimizer.param_groups[0]["lr"]
    for p, q in zip(net.parameters(), again.param_groups[0]["params"], strict=True):
        assert torch.equal(p, q)
        assert all(torch.equal(v, again.state[q][k]) for k, v in optimizer.state[p].items())


@pytest.mark.parametrize("name", ["adamw", "adafactor", "schedulefreeadamw"])
def test_a_run_goes_on_from_a_checkpoint_bit_for_bit(name: str) -> None:
    cls = load(optlang.build(name), optlang.Rule(name).name)
    for dtype in (torch.float32, torch.bfloat16):
        net, optimizer = run(cls, dtype, 3)
        other = Net(dtype)
        other.load_state_dict(net.state_dict())
        copy = cls(other.parameters())
        copy.load_state_dict(optimizer.state_dict())
        for model, opt in ((net, optimizer), (other, copy)):
            opt.zero_grad()
            model(torch.ones(1, 5, dtype=dtype)).sum().backward()
            opt.step()
            opt.step()
        for p, q in zip(net.parameters(), other.parameters(), strict=True):
            assert torch.equal(p, q)
        states = [v for s in copy.state.values() for v in s.values() if isinstance(v, Tensor)]
        assert {v.dtype for v in states} == {torch.float32}


@pytest.mark.parametrize("name", ["saniaadam", "sam"])  # without a step size, and with one
def test_distributed_checkpoints_of_rules_that_ask_the_model(name: str) -> None:
    cls = load(optlang.build(name), optlang.Rule(name).name)
    nets = [Net(torch.float32) for _ in range(2)]
    first, second = (cls(net.named_parameters()) for net in nets)

    def train(net: nn.Module, optimizer: Any) -> None:
        def closure() -> Tensor:
            optimizer.zero_grad()
            loss: Tensor = net(torch.ones(1, 5)).square().sum()
            loss.backward()  # type: ignore[no-untyped-call]
            return loss

        for _ in range(3):
            optimizer.step(closure)

    train(nets[0], first)
    with pytest.raises(RuntimeError, match="asks the model again"):
        first.step()
    nets[1].load_state_dict(nets[0].state_dict())
    set_optimizer_state_dict(nets[1], second, get_optimizer_state_dict(nets[0], first))
    for net, optimizer in zip(nets, (first, second), strict=True):
        train(net, optimizer)
    assert all(torch.equal(p, q) for p, q in zip(nets[0].parameters(), nets[1].parameters(), strict=True))


ROUTED = "rule A { state m = 0 m' = m + g w' = w - 0.1*m' } rule B { input c per element state n = w n' = n + c*g w' = w - n' } "


@pytest.mark.parametrize("text", ["sophiag", "fedhypercl", "l2opa", ROUTED + "route R { when rank == 1 use A() otherwise use B() }"])
@pytest.mark.parametrize("made", [lambda text: load(optlang.build(text, "R" if " " in text else None), name_of(text)),
                                  lambda text: optlang.loads(text, "R") if " " in text else optlang.load(text)])  # fmt: skip
def test_distributed_checkpoints_of_rules_that_read_inputs(text: str, made: Any) -> None:
    """States are made without the inputs, and nothing moves; a step that has gradients asks for them."""
    nets = [Net(torch.float32) for _ in range(2)]
    optimizers = [made(text)(net.parameters()) for net in nets]

    def train(net: nn.Module, optimizer: Any) -> None:
        given = {p: torch.full_like(p, 0.3) for p in net.parameters()}
        for _ in range(2):
            optimizer.zero_grad()
            net(torch.ones(1, 5)).square().sum().backward()
            optimizer.inputs = dict.fromkeys(("c", "a", "p", "curvature", "drift"), given)
            optimizer.step()
        optimizer.inputs = {}

    train(nets[0], optimizers[0])
    nets[1].load_state_dict(nets[0].state_dict())
    before = [p.detach().clone() for p in nets[1].parameters()]
    set_optimizer_state_dict(nets[1], optimizers[1], get_optimizer_state_dict(nets[0], optimizers[0]))
    assert all(torch.equal(p, q) for p, q in zip(nets[1].parameters(), before, strict=True))
    for p, q in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        same_states(optimizers[0].state[p], optimizers[1].state[q])
    for net, optimizer in zip(nets, optimizers, strict=True):
        train(net, optimizer)
    assert all(torch.equal(p, q) for p, q in zip(nets[0].parameters(), nets[1].parameters(), strict=True))
    nets[1](torch.ones(1, 5)).sum().backward()
    with pytest.raises(RuntimeError, match="needs optimizer.inputs"):
        made(text)(nets[1].parameters()).step()


def name_of(text: str) -> str:
    return "R" if " " in text else optlang.Rule(text).name


def same_states(one: Any, other: Any) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.equal(torch.as_tensor(value), torch.as_tensor(other[name])), name


def test_states_of_another_rule_are_refused_before_anything_changes() -> None:
    _, lion = run(load(optlang.build("lion"), "Lion"), steps=1)
    _, theirs = run(torch.optim.AdamW, steps=1)
    _, optimizer = run(load(optlang.build("adafactor"), "Adafactor"), matrices=True, steps=1)
    net, adamw = run(load(optlang.build("adamw"), "AdamW"), steps=1)
    before = [value.clone() for p in net.parameters() for value in adamw.state[p].values()]
    for other, words in ((theirs, "this is a state of another rule: AdamW keeps no exp_avg"), (optimizer, "AdamW keeps no|another rule")):
        with pytest.raises(ValueError, match=words):
            adamw.load_state_dict(other.state_dict())
    with pytest.raises(ValueError, match="group 0: saved by another rule"):
        lion.load_state_dict(adamw.state_dict())
    assert all(torch.equal(x, y) for x, y in zip(before, (v for p in net.parameters() for v in adamw.state[p].values()), strict=True))
