"""Constructor and groups as torch has them: the options of every optimizer, and momentum where schedulers cycle it. 3 seconds."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.optim import lr_scheduler as schedulers

import optlang

AdamW: Any = optlang.load("adamw")
MuonWithAdamW: Any = optlang.load("muonwithadamw")
TWO = "from momentum import Momentum from sgd import SGD route Two { when rank == 2 use Momentum() otherwise use SGD() }"
OPTIONS = {"maximize": False, "foreach": None, "capturable": False, "differentiable": False, "fused": None}


def parameters() -> list[tuple[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    return [(name, torch.randn(shape, generator=generator).requires_grad_()) for name, shape in (("a", (3, 4)), ("b", (4,)))]


def run(optimizer: Any, scheduler: Any = None, steps: int = 6) -> list[Any]:
    """Some steps with gradients that are the parameters themselves; what the groups held before each."""
    seen = []
    for _ in range(steps):
        seen.append([dict(group) for group in optimizer.param_groups])
        for group in optimizer.param_groups:
            for p in group["params"]:
                p.grad = p.detach().clone()
        optimizer.step()
        if scheduler is not None:
            scheduler.step()
    return seen


# ----------------------------------------------------------------------------------------------------------- options


@pytest.mark.parametrize("name", ["adamw", "muonwithadamw", "schedulefreesgd", "gravity"])
def test_options_have_torchs_names_and_defaults(name: str) -> None:
    cls: Any = optlang.load(name)
    signature = inspect.signature(cls).parameters
    theirs = inspect.signature(torch.optim.AdamW).parameters
    for option, value in OPTIONS.items():
        assert signature[option].default is value is theirs[option].default
        assert signature[option].kind is inspect.Parameter.KEYWORD_ONLY
        assert f"\n{option} (default {value}): " in cls.__doc__
    optimizer = cls(parameters())
    assert all(group[option] is value for group in [optimizer.defaults, *optimizer.param_groups] for option, value in OPTIONS.items())


def test_settings_by_place_are_those_of_torch() -> None:
    optimizer = AdamW(parameters(), 0.01, (0.8, 0.9), 1e-6, 0.3)
    theirs = torch.optim.AdamW(parameters(), 0.01, (0.8, 0.9), 1e-6, 0.3)
    assert all(optimizer.defaults[key] == theirs.defaults[key] for key in ("lr", "betas", "eps", "weight_decay"))
    assert AdamW(parameters(), 0.01, 0.8, 0.9).defaults["betas"] == (0.8, 0.9)
    assert inspect.signature(AdamW).parameters["betas"].default == (0.9, 0.999)
    with pytest.raises(TypeError, match="betas is a pair"):
        AdamW(parameters(), 0.01, (0.8, 0.9, 0.3))


def test_a_list_of_parameters_that_is_a_module() -> None:
    listed = torch.nn.ParameterList(p for _, p in parameters())
    assert len(AdamW(listed).param_groups[0]["params"]) == 2
    with pytest.raises(TypeError, match="not Linear"):
        AdamW(torch.nn.Linear(2, 2))


@pytest.mark.parametrize("option", ["foreach", "fused"])
def test_ways_of_stepping_change_no_number(option: str) -> None:
    found = []
    for value in (None, False, True):
        params = parameters()
        run(AdamW(params, **{option: value}))
        found.append([p for _, p in params])
    assert all(torch.equal(p, q) for other in found[1:] for p, q in zip(found[0], other, strict=True))


@pytest.mark.parametrize(
    ("given", "kind", "words"),
    [
        ({"maximize": None}, TypeError, "AdamW: maximize must be True or False, not None"),
        ({"maximize": 1}, TypeError, "maximize must be True or False, not 1"),
        ({"foreach": "yes"}, TypeError, "foreach must be True, False or None, not 'yes'"),
        ({"fused": 0}, TypeError, "fused must be True, False or None, not 0"),
        ({"differentiable": None}, TypeError, "differentiable must be True or False"),
        ({"capturable": True, "differentiable": True}, RuntimeError, "AdamW: `capturable` does not support `differentiable`"),
        ({"fused": True, "foreach": True}, RuntimeError, "`fused` and `foreach` cannot be `True` together"),
        ({"fused": True, "differentiable": True}, RuntimeError, "`fused` does not support `differentiable`"),
        ({"foreech": True}, TypeError, "AdamW has no setting `foreech`"),
    ],
)
def test_options_that_cannot_be_had(given: dict[str, Any], kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=words):
        AdamW(parameters(), **given)
    with pytest.raises(kind, match=words):
        AdamW([{"params": parameters(), **given}])
    if "foreech" not in given:
        optimizer = AdamW(parameters())
        optimizer.param_groups[0].update(given)
        before = [p.clone() for p in optimizer.param_groups[0]["params"]]
        with pytest.raises(kind, match=words):
            run(optimizer, steps=1)
        assert all(torch.equal(p, q) for p, q in zip(optimizer.param_groups[0]["params"], before, strict=True))


@pytest.mark.parametrize("name", ["adamw", "lion", "momentum"])
def test_each_group_goes_its_own_way(name: str) -> None:
    cls: Any = optlang.load(name)
    (_, up), (_, down) = parameters()
    before = up.detach().clone(), down.detach().clone()
    optimizer = cls([{"params": [up], "maximize": True, "lr": torch.tensor([0.25])}, {"params": [down]}], lr=0.1, weight_decay=0.0)
    run(optimizer, steps=1)
    assert bool((up.abs() > before[0].abs()).all())
    assert bool((down.abs() < before[1].abs()).all())
    optimizer.param_groups[0]["maximize"] = False
    now = up.detach().clone()
    optimizer.param_groups[1]["lr"] = 0
    still = down.detach().clone()
    run(optimizer, steps=3)
    assert not torch.equal(up, now)
    assert torch.equal(down, still)


@pytest.mark.parametrize("option", ["foreach", "capturable", "differentiable", "fused"])
def test_hypers_are_not_called_like_options(option: str) -> None:
    with pytest.raises((ValueError, optlang.OptError), match=f"a hyper cannot be called `{option}`"):
        optlang.loads(f"rule R {{ hyper {option} = 2 in (0, inf) w' = w - {option}*g }}")


def test_an_option_of_a_checkpoint_is_how_it_was_made_and_not_how_it_goes_on() -> None:
    saved = AdamW(parameters(), foreach=True, maximize=True).state_dict()
    saved["param_groups"][0]["capturable"] = True
    optimizer = AdamW(parameters())
    optimizer.load_state_dict(saved)
    kept = {name: optimizer.param_groups[0][name] for name in OPTIONS}
    assert kept == {**OPTIONS, "maximize": True}


def test_a_checkpoint_without_options_is_one_of_before() -> None:
    saved = AdamW(parameters()).state_dict()
    for name in OPTIONS:
        del saved["param_groups"][0][name]
    optimizer = AdamW(parameters())
    optimizer.load_state_dict(saved)
    assert {name: optimizer.param_groups[0][name] for name in OPTIONS} == OPTIONS


# ---------------------------------------------------------------------------------------------------------- betas

CYCLES: dict[str, Callable[[Any], Any]] = {
    "OneCycleLR": lambda o: schedulers.OneCycleLR(o, 0.01, total_steps=8, base_momentum=0.8, max_momentum=0.9),
    "CyclicLR": lambda o: schedulers.CyclicLR(o, 1e-3, 1e-2, 3, base_momentum=0.8, max_momentum=0.9),
}


@pytest.mark.parametrize("cycle", CYCLES)
def test_schedulers_cycle_the_momentum_of_every_rule_of_a_route(cycle: str) -> None:
    """They look for `betas` in the defaults and then write them into every group: also that of Muon, which has one number."""
    optimizer = MuonWithAdamW(parameters())
    assert "betas" in optimizer.defaults
    seen = run(optimizer, CYCLES[cycle](optimizer))
    momenta = [[group["betas"][0] for group in groups] for groups in seen]
    assert all(one == other for one, other in momenta)
    assert len({one for one, _ in momenta}) > 3
    assert [len(group["betas"]) for group in optimizer.param_groups] == [1, 2]


def test_the_momentum_that_is_cycled_is_that_of_the_rule() -> None:
    one, other = MuonWithAdamW(parameters()), MuonWithAdamW(parameters())
    for step in range(4):
        one.param_groups[0]["betas"] = (0.5 + 0.1 * step,)
        other.param_groups[0]["momentum"] = 0.5 + 0.1 * step
        run(one, steps=1)
        run(other, steps=1)
    assert torch.equal(one.param_groups[0]["params"][0], other.param_groups[0]["params"][0])
    assert one.param_groups[0]["betas"] == other.param_groups[0]["betas"]
    assert "momentum" not in other.param_groups[0]


def test_momentum_in_a_route_without_betas() -> None:
    cls: Any = optlang.loads(TWO, "Two")
    optimizer = cls(parameters())
    assert optimizer.defaults["momentum"] == 0.9
    assert "betas" not in optimizer.defaults
    seen = run(optimizer, CYCLES["OneCycleLR"](optimizer))
    assert len({groups[0]["momentum"] for groups in seen}) > 3
    again = cls(optimizer.param_groups)
    assert again.param_groups[0]["momentum"] == optimizer.param_groups[0]["momentum"]


def test_betas_of_a_group_go_to_the_rules_that_have_them() -> None:
    optimizer = MuonWithAdamW([{"params": parameters(), "betas": (0.7, 0.8)}])
    assert [group["betas"] for group in optimizer.param_groups] == [(0.95,), (0.7, 0.8)]
    again = MuonWithAdamW(optimizer.param_groups)
    assert [group["betas"] for group in again.param_groups] == [(0.95,), (0.7, 0.8)]
    optimizer.param_groups[0]["betas"] = 0.5
    with pytest.raises(TypeError, match=r"Muon: betas is \(momentum,\), not 0.5"):
        run(optimizer, steps=1)


def test_a_checkpoint_of_a_route_that_kept_the_momentum_by_its_name() -> None:
    saved = MuonWithAdamW(parameters()).state_dict()
    del saved["param_groups"][0]["betas"]
    saved["param_groups"][0]["momentum"] = 0.5
    optimizer = MuonWithAdamW(parameters())
    optimizer.load_state_dict(saved)
    run(optimizer, steps=1)
    assert optimizer.param_groups[0]["betas"] == (0.5,)


def test_rules_without_momentum_say_so_to_schedulers_as_in_torch() -> None:
    optimizer: Any = optlang.load("sgd")(parameters())
    with pytest.raises(ValueError, match="momentum"):
        schedulers.OneCycleLR(optimizer, 0.1, total_steps=5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(optimizer, schedulers.OneCycleLR(optimizer, 0.1, total_steps=8, cycle_momentum=False))


# ------------------------------------------------------------------------------------------------------ torch's words


def test_names_for_all_parameters_or_for_none() -> None:
    (name, p), (_, q) = parameters()
    for given in ([(name, p), q], [q, (name, p)]):
        with pytest.raises(ValueError, match="all optimizer params should be with/without names. Some param names are missing"):
            AdamW(given)
    with pytest.raises(ValueError, match="all optimizer param groups should be with/without names. cannot add param group with names"):
        AdamW([{"params": [q]}, {"params": [(name, p)]}])


def test_a_parameter_twice() -> None:
    (_, p), _ = parameters()
    with pytest.raises(ValueError, match="some parameters appear in more than one parameter group"):
        AdamW([{"params": p}, {"params": p}])
    with pytest.warns(UserWarning, match="a parameter group with duplicate parameters"):
        AdamW([p, p])
    with pytest.raises(TypeError, match="params argument given to the optimizer should be an iterable of Tensors or dicts"):
        AdamW(p)


@pytest.mark.parametrize("name", ["lr", "beta1", "beta2"])
def test_numbers_in_tensors_have_one_element(name: str) -> None:
    for value in (torch.tensor(0.5), torch.tensor([0.5])):
        params, others = parameters(), parameters()
        run(AdamW(params, **{name: value}))
        run(AdamW(others, **{name: 0.5}))
        assert all(torch.equal(p, q) for (_, p), (_, q) in zip(params, others, strict=True))
    with pytest.raises(ValueError, match=f"Tensor {name} must be 1-element"):
        AdamW(parameters(), **{name: torch.tensor([0.5, 0.5])})
