"""What generated modules refuse, each in the same words as torch or the loaded rule, with the optimizer as it was. 5 seconds."""

from __future__ import annotations

import copy
import io
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import lr_scheduler as schedulers

import optlang

TWICE = "rule AdamW { hyper lr = 0.1 in (0, inf) state m = 0 state v = 0 m' = m + g v' = v + 2*g w' = w - lr*(m' + v') }"
SHAPES = {"body.weight": (3, 2), "body.bias": (3,), "head": (2, 3)}


def module(rule: str) -> Any:
    """The class of the module of a rule."""
    space: dict[str, Any] = {"__name__": "generated"}
    exec(compile(optlang.build(rule), "generated.py", "exec"), space)
    return space[optlang.Rule(rule).name]


AdamW, MuonWithAdamW = module("adamw"), module("muonwithadamw")
KINDS = pytest.mark.parametrize("cls", [AdamW, MuonWithAdamW], ids=["rule", "route"])


def parameters(**renamed: str) -> list[tuple[str, Tensor]]:
    some = torch.Generator().manual_seed(0)
    named = {name: nn.Parameter(torch.randn(shape, generator=some)) for name, shape in SHAPES.items()}
    return [(renamed.get(name.replace(".", "_"), name), p) for name, p in named.items()]


def stepped(cls: Any, params: list[tuple[str, Tensor]] | None = None, steps: int = 2, **settings: Any) -> Any:
    optimizer = cls(params or parameters(), **settings)
    run(optimizer, steps)
    return optimizer


def run(optimizer: Any, steps: int = 2) -> list[Tensor]:
    """Some steps down a bowl, and the weights after them."""
    params = [p for group in optimizer.param_groups for p in group["params"]]
    for _ in range(steps):
        for p in params:
            p.grad = p.detach() - 1
        optimizer.step()
    return [p.detach() for p in params]


def refused(optimizer: Any, saved: Any, words: str) -> None:
    """Loading is refused, and nothing has changed."""
    before = copy.deepcopy(optimizer.state_dict())
    with pytest.raises(ValueError, match=words):
        optimizer.load_state_dict(saved)
    after = optimizer.state_dict()
    assert before["param_groups"] == after["param_groups"]
    torch.testing.assert_close(after["state"], before["state"], rtol=0, atol=0)


# -------------------------------------------------------------------------------------------------- settings and options


@KINDS
@pytest.mark.parametrize(
    ("given", "kind", "words"),
    [
        ({"maximize": 1}, TypeError, "maximize must be True or False, not 1"),
        ({"maximize": None}, TypeError, "maximize must be True or False, not None"),
        ({"differentiable": 0}, TypeError, "differentiable must be True or False, not 0"),
        ({"capturable": 0}, TypeError, "capturable must be True or False, not 0"),
        ({"foreach": "yes"}, TypeError, "foreach must be True, False or None, not 'yes'"),
        ({"fused": 1}, TypeError, "fused must be True, False or None, not 1"),
        ({"fused": True, "foreach": True}, RuntimeError, "`fused` and `foreach` cannot be `True` together"),
        ({"fused": True, "differentiable": True}, RuntimeError, "`fused` does not support `differentiable`"),
    ],
    ids=str,
)
def test_options_are_checked_as_torch_checks_them(cls: Any, given: dict[str, Any], kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=words):
        cls(parameters(), **given)
    with pytest.raises(kind, match=words):
        cls([{"params": parameters(), **given}])
    if given.get("differentiable"):
        return  # a step says first that parameters are leaves
    optimizer = stepped(cls)
    before = [p.detach().clone() for group in optimizer.param_groups for p in group["params"]]
    optimizer.param_groups[-1].update(given)
    with pytest.raises(kind, match=words):
        optimizer.step()
    assert all(torch.equal(p, q) for p, q in zip(before, (p for g in optimizer.param_groups for p in g["params"]), strict=True))


def test_a_seed_is_a_whole_number() -> None:
    with pytest.raises(TypeError, match="seed must be a number, not True"):
        module("rule R { w' = w - 0.1*g*uniform() }")(parameters(), seed=True)


@KINDS
@pytest.mark.parametrize(("wrong", "right"), [("weight_decy", "weight_decay"), ("maximise", "maximize"), ("Lr", "lr")])
def test_a_key_of_a_group_that_was_misspelled(cls: Any, wrong: str, right: str) -> None:
    with pytest.raises(TypeError, match=f"there is no setting '{wrong}'; did you mean '{right}'"):
        cls([{"params": parameters(), wrong: 0.1}])
    optimizer = cls(parameters()[:2])
    count = len(optimizer.param_groups)
    with pytest.raises(TypeError, match=f"did you mean '{right}'"):
        optimizer.add_param_group({"params": parameters()[2:], wrong: 0.1})
    assert len(optimizer.param_groups) == count


@KINDS
def test_other_keys_and_those_of_schedulers_are_left_alone(cls: Any) -> None:
    optimizer = cls([{"params": parameters(), "name": "all", "layer": 3, "lr": 0.25}])
    assert all(group["name"] == "all" and group["layer"] == 3 and group["lr"] == 0.25 for group in optimizer.param_groups)
    schedule = schedulers.OneCycleLR(optimizer, 0.1, total_steps=5, cycle_momentum=False)
    run(optimizer, 1)
    schedule.step()
    again = cls(optimizer.param_groups)
    assert [group["max_lr"] for group in again.param_groups] == [0.1] * len(optimizer.param_groups)


# -------------------------------------------------------------------------------------------------------- checkpoints


@KINDS
def test_states_of_another_rule_with_the_same_names_are_refused(cls: Any) -> None:
    optimizer = stepped(cls)
    other = copy.deepcopy(optimizer.state_dict())
    other["param_groups"][-1]["fingerprint"] = "0123456789ab"
    refused(optimizer, other, r"saved by another rule, whose equations have the fingerprint 0123456789ab, not [0-9a-f]{12}; if they mean")
    del other["param_groups"][-1]["fingerprint"]
    optimizer.load_state_dict(other)
    twice = stepped(module(TWICE)).state_dict()
    refused(stepped(AdamW), twice, "group 0: saved by another rule")


def test_groups_of_a_route_by_other_rules_are_refused() -> None:
    optimizer = stepped(MuonWithAdamW)
    saved = copy.deepcopy(optimizer.state_dict())
    saved["param_groups"][0]["rule"] = "AdamW"
    refused(optimizer, saved, "group 0: saved by rule AdamW, here it is Muon")


@KINDS
def test_parameters_that_are_called_otherwise_are_refused(cls: Any) -> None:
    optimizer, other = stepped(cls), stepped(cls, parameters(body_bias="neck.bias"))
    refused(optimizer, other.state_dict(), "neck.bias was saved where body.bias is here; delete `param_names`")
    saved = copy.deepcopy(other.state_dict())
    for group in saved["param_groups"]:
        del group["param_names"]
    optimizer.load_state_dict(saved)


@KINDS
def test_parameters_in_another_order_are_found_by_their_names(cls: Any) -> None:
    one = stepped(cls, parameters()[::-1])
    weights = {name: p for group in one.param_groups for name, p in zip(group["param_names"], group["params"], strict=True)}
    other = cls([(name, nn.Parameter(weights[name].detach().clone())) for name in SHAPES])
    order = [group["param_names"] for group in other.param_groups]
    other.load_state_dict(one.state_dict())
    assert [group["param_names"] for group in other.param_groups] == order
    run(one)
    run(other)
    for group in other.param_groups:
        assert all(torch.equal(p, weights[name]) for name, p in zip(group["param_names"], group["params"], strict=True))


@KINDS
@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
def test_what_torch_puts_before_names_is_no_part_of_them(cls: Any, prefix: str) -> None:
    wrapped = stepped(cls, [(prefix + name, p) for name, p in parameters()])
    optimizer = cls(parameters())
    optimizer.load_state_dict(wrapped.state_dict())
    assert len(optimizer.state) == 3


@KINDS
def test_states_of_another_model_are_refused(cls: Any) -> None:
    others = [(name, nn.Parameter(torch.ones(*p.shape[:-1], 5))) for name, p in parameters()]
    refused(stepped(cls), stepped(cls, others).state_dict(), r"body.weight: \w+ has shape \(3, 5\), not \(3, 2\)")
    with pytest.raises(ValueError, match="different number of parameter groups|doesn't match the size"):
        stepped(cls).load_state_dict(stepped(cls, parameters()[:2]).state_dict())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda saved: saved["state"][0].pop("m"), "body.weight: its state lacks m"),
        (lambda saved: saved["state"][0].pop("step"), "body.weight: its state lacks step"),
        (lambda saved: saved["state"][0].update(step=torch.tensor(-1.0)), "body.weight: step is -1.0, not a number of updates"),
        (lambda saved: saved["state"][0].update(step=torch.tensor(torch.nan)), "body.weight: step is nan"),
        (lambda saved: saved["state"][0].update(step=torch.tensor([1.0, 2.0])), r"body.weight: step has shape \(2,\), not \(\)"),
        (lambda saved: saved["state"][0].update(m="a text"), "body.weight: m is str, not a tensor"),
        (lambda saved: saved["param_groups"][0].pop("lr"), "group 0: the saved group lacks lr; write into it what it was trained with"),
        (lambda saved: saved["param_groups"].append(saved["param_groups"][0]), "different number of parameter groups"),
        (lambda saved: saved["state"].update({0: [1]}), "no state dict of an optimizer: its `state` has no dictionary for each parameter"),
        (lambda saved: saved.pop("state"), "no state dict of an optimizer: its `state`"),
        (lambda saved: saved.pop("param_groups"), "no state dict of an optimizer: its `param_groups` are no dictionaries with `params`"),
        (lambda saved: saved["param_groups"][0].pop("params"), "no state dict of an optimizer: its `param_groups`"),
    ],
)
def test_a_state_dict_that_lacks_something_is_refused(change: Any, words: str) -> None:
    optimizer = stepped(AdamW)
    saved = copy.deepcopy(optimizer.state_dict())
    change(saved)
    refused(optimizer, saved, words)


@pytest.mark.parametrize(
    ("rule", "key", "change", "words"),
    [
        ("muonwithadamw", 0, lambda state: state.pop("b"), "body.weight: its state lacks b"),
        ("muonwithadamw", 2, lambda state: state.pop("v"), "head: its state lacks v"),
        ("muonwithadamw", 2, lambda state: state.update(m=torch.zeros(1)), r"head: m has shape \(1,\), not \(2, 3\)"),
        ("adafactor", 0, lambda state: state.pop("c"), "body.weight: its state lacks c"),
        ("adafactor", 0, lambda state: state.update(r=torch.zeros(3)), r"body.weight: r has shape \(3,\), not \(3, 1\)"),
        ("adafactor", 1, lambda state: state.pop("s"), "body.bias: its state lacks s"),
        ("prodigy", 0, lambda state: state.pop("d"), "body.weight: its state lacks d"),
    ],
)
def test_states_of_one_branch_are_looked_for_where_it_holds(rule: str, key: int, change: Any, words: str) -> None:
    """Under a rule of a route, for a matrix or a vector, and those of the whole model: in the words of the loaded rule."""
    optimizer = stepped(module(rule))
    saved = copy.deepcopy(optimizer.state_dict())
    change(saved["state"][key])
    refused(optimizer, saved, words)


@pytest.mark.parametrize("rule", ["adamw", "muonwithadamw", "adafactor"])
def test_states_saved_as_integers_are_numbers_again(rule: str) -> None:
    """As the loaded rule takes them."""
    ended = []
    for cls in (module(rule), optlang.load(rule)):
        optimizer = stepped(cls)
        saved = copy.deepcopy(optimizer.state_dict())
        for state in saved["state"].values():
            state.update({key: int(x) if key == "step" else (100 * x).long() for key, x in state.items()})
        optimizer.load_state_dict(saved)
        ended.append(run(optimizer))
    for p, q in zip(*ended, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-6, atol=1e-7)


def test_what_a_tool_keeps_beside_a_parameter_before_its_first_step() -> None:
    """As timm's Lookahead beside those that are frozen; it is saved and loaded, too."""
    optimizer = AdamW(parameters())
    [first, *_] = optimizer.param_groups[0]["params"]
    optimizer.state[first]["slow"] = torch.ones(2)
    optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    run(optimizer)
    assert optimizer.state[first]["step"] == 2 and torch.equal(optimizer.state[first]["slow"], torch.ones(2))


def test_a_file_that_is_cut_short_leaves_the_optimizer_as_it_was() -> None:
    optimizer, file = stepped(AdamW), io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    before = copy.deepcopy(optimizer.state_dict())
    for kept in (0.0, 0.3, 0.9):
        with pytest.raises((RuntimeError, EOFError)):
            optimizer.load_state_dict(torch.load(io.BytesIO(file.getvalue()[: int(kept * file.tell())]), weights_only=True))
    torch.testing.assert_close(optimizer.state_dict()["state"], before["state"], rtol=0, atol=0)


@pytest.mark.parametrize("rule", ["adamw", "lion", "muonwithadamw", "lookahead", "soap", "schedulefreeadamw"])
def test_fingerprints_are_those_of_the_loaded_rule(rule: str) -> None:
    matrices = [(name, p) for name, p in parameters() if rule != "soap" or name == "body.weight"]
    cls: Any = optlang.load(rule)
    ours, theirs = module(rule)(matrices).state_dict(), cls(matrices).state_dict()
    assert [group["fingerprint"] for group in ours["param_groups"]] == [group["fingerprint"] for group in theirs["param_groups"]]


@pytest.mark.parametrize(("rule", "to_module"), [("adamw", True), ("adamw", False), ("muonwithadamw", True), ("muonwithadamw", False)])
def test_checkpoints_go_from_module_to_loaded_rule_and_back(rule: str, to_module: bool) -> None:
    """A loaded route keeps Muon's momentum as `betas`, beside those of AdamW."""
    made: list[Any] = [optlang.load(rule, backend="torch"), module(rule)]
    first, then = made if to_module else made[::-1]
    optimizer = stepped(first)
    other = then([(name, nn.Parameter(p.detach().clone())) for group in optimizer.param_groups
                  for name, p in zip(group["param_names"], group["params"], strict=True)])  # fmt: skip
    other.load_state_dict(optimizer.state_dict())
    for p, q in zip(run(optimizer), run(other), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("cls", [AdamW, MuonWithAdamW, optlang.load("adamw")], ids=["rule", "route", "loaded"])
def test_states_that_a_tool_has_saved_as_halves_are_wide_again(cls: Any) -> None:
    """As Ultralytics saves all that is not called as in torch's Adam. In float16 small squares are 0, and so is eps: 0/0."""
    optimizer = cls(parameters())
    saved = copy.deepcopy(stepped(cls, steps=3).state_dict())
    for state in saved["state"].values():
        state.update({key: value.half() for key, value in state.items() if key != "step"})
    optimizer.load_state_dict(saved)
    kept = [x for state in optimizer.state.values() for x in state.values() if torch.is_tensor(x)]
    assert kept and all(x.dtype == torch.float32 for x in kept)
    for p in optimizer.state:
        p.grad = torch.full_like(p, 1e-5)
    optimizer.step()
    assert all(p.isfinite().all() for p in optimizer.state)


def test_other_lengths_of_a_loop_are_not_signed_and_go_on() -> None:
    """The equations of seven turns are not those of five, and a module knows the fingerprint of those alone that it was made with."""
    saved = stepped(MuonWithAdamW, Muon={"steps": 7}).state_dict()
    assert ["fingerprint" in group for group in saved["param_groups"]] == [False, True]
    saved["param_groups"][0]["momentum"] = saved["param_groups"][0].pop("betas")[0]  # as older modules kept it
    for cls in (MuonWithAdamW, optlang.load("muonwithadamw")):
        optimizer: Any = cls(parameters())
        optimizer.load_state_dict(saved)
        run(optimizer)
        assert [optimizer.param_groups[0][key] for key in ("steps", "betas")] == [7, (0.95,)]
    assert "fingerprint" not in MuonWithAdamW(parameters()).param_groups[0]
