"""Settings of generated modules: checked, named and given as in torch, and those that shape a rule."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from generated_module import load, run, same
from torch import nn

import optlang


def test_settings_are_checked_and_named_as_in_torch() -> None:
    cls = load(optlang.build("adamw"), "AdamW")
    p = nn.Parameter(torch.ones(2))
    assert cls([p], betas=(0.5, 0.6)).param_groups[0]["betas"] == (0.5, 0.6)
    with pytest.raises(ValueError, match="beta1 is outside"):
        cls([p], beta1=1.5)
    assert cls([{"params": [p], "beta1": 0.3}]).param_groups[0]["betas"] == (0.3, 0.999)
    by_place, theirs = cls([p], 0.02, (0.5, 0.6), 1e-6, 0.3), torch.optim.AdamW([p], 0.02, (0.5, 0.6), 1e-6, 0.3)
    assert all(by_place.defaults[key] == theirs.defaults[key] for key in ("lr", "betas", "eps", "weight_decay"))
    for wrong in (0.9, (0.9,), (0.9, 0.99, 0.999)):
        with pytest.raises(TypeError, match="betas is a pair"):
            cls([p], 0.02, wrong)
        with pytest.raises(TypeError, match="betas is a pair"):
            cls([{"params": [p], "betas": wrong}])
    with pytest.raises(TypeError, match="centered must be True or False, not 1"):
        load(optlang.build("rmsprop"), "RMSprop")([p], centered=1)
    optimizer = cls([p])
    optimizer.param_groups[0]["lr"] = -1.0
    p.grad = torch.ones(2)
    with pytest.raises(ValueError, match="lr is outside"):
        optimizer.step()
    assert p.tolist() == [1, 1]


@pytest.mark.parametrize(
    ("wrong", "kind", "message"),
    [
        ({"lr": True}, TypeError, "lr must be a number, not True"),
        ({"betas": (0.9, False)}, TypeError, "beta2 must be a number, not False"),
        ({"lr": -1e-9}, ValueError, r"lr is outside \(0, inf\): -1e-09"),
        ({"weight_decay": float("nan")}, ValueError, "weight_decay is outside"),
        ({"beta1": 1.0}, ValueError, "beta1 is outside"),
    ],
)
def test_wrong_settings_are_refused_and_leave_no_group(wrong: dict[str, Any], kind: type[Exception], message: str) -> None:
    cls = load(optlang.build("adamw"), "AdamW")
    p, q = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    with pytest.raises(kind, match=message):
        cls([p], **wrong)
    with pytest.raises(kind, match=message):
        cls([{"params": [p], **wrong}])
    optimizer = cls([p])
    with pytest.raises(kind, match=message):
        optimizer.add_param_group({"params": [q], **wrong})
    assert len(optimizer.param_groups) == 1


def test_whole_numbers_and_unbounded_ones_are_no_truths_either() -> None:
    text = "rule R { hyper int k = 2 in [1, 9] hyper a = 1 w' = w - 0.1*a*k*g }"
    cls = load(optlang.build(text), "R")
    for name in ("k", "a"):
        with pytest.raises(TypeError, match=f"{name} must be a number, not True"):
            cls([nn.Parameter(torch.ones(2))], **{name: True})
    assert cls([nn.Parameter(torch.ones(2))], k=1, a=0).param_groups[0]["a"] == 0


def test_unknown_settings_and_parameters_given_twice_are_refused_as_by_torch() -> None:
    cls = load(optlang.build("adamw"), "AdamW")
    p = nn.Parameter(torch.ones(2))
    with pytest.raises(TypeError, match="unexpected keyword argument 'weight_decy'"):
        cls([p], weight_decy=0.1)
    with pytest.warns(UserWarning, match="a parameter group with duplicate parameters"):
        cls([p, p])
    with pytest.raises(ValueError, match="some parameters appear in more than one parameter group"):
        cls([{"params": [p]}, {"params": [p]}])
    with pytest.raises(TypeError, match="params argument given to the optimizer should be an iterable of Tensors or dicts"):
        cls(p)


def test_a_rule_for_matrices_says_so() -> None:
    with pytest.raises(ValueError, match=r"Muon takes matrices, not a parameter of shape \(3,\)"):
        load(optlang.build("muon"), "Muon")([nn.Parameter(torch.ones(3))])


def test_a_setting_may_bring_a_state_later() -> None:
    """`centered` of RMSprop is switched on between two steps."""
    results = []
    for cls in (load(optlang.build("rmsprop"), "RMSprop"), optlang.load("rmsprop", backend="reference")):
        p = nn.Parameter(torch.ones(3, dtype=torch.float64))
        optimizer = cls([p])
        for centered in (False, True, True, False, True):
            optimizer.param_groups[0]["centered"] = centered
            p.grad = p.detach() ** 2
            optimizer.step()
        results.append(p.detach())
    torch.testing.assert_close(*results, rtol=1e-13, atol=0)


def test_another_hyper_that_shapes_the_program_is_fixed() -> None:
    text = "rule R { hyper int k = 3 in [1, inf) state h[k] = 0 h' = push(h, g) w' = w - 0.1*mean(h') }"
    p = nn.Parameter(torch.eye(2))
    with pytest.raises(ValueError, match="k was fixed at 3"):
        load(optlang.build(text), "R")([p], k=2)
    load(optlang.build(text, baked={"k": 2}), "R")([p])


def test_rates_may_be_tensors_of_one_element_and_old_checkpoints_have_no_maximize() -> None:
    cls = load(optlang.build("adamw"), "AdamW")
    same(run(cls, lr=torch.tensor(0.01, dtype=torch.float64))[0], run(cls, lr=0.01)[0])
    rate = torch.tensor([0.01], dtype=torch.float64)
    same(run(cls, lr=rate, betas=(torch.tensor([0.8]), 0.9))[0], run(cls, lr=0.01, betas=(torch.tensor(0.8), 0.9))[0])
    held = cls([nn.Parameter(torch.ones(2))], lr=rate).param_groups[0]
    rate.fill_(0.5)
    assert held["lr"].item() == 0.5
    prodigy, params = load(optlang.build("prodigy"), "Prodigy"), [nn.Parameter(torch.ones(2)) for _ in range(2)]
    for p in params:
        p.grad = torch.ones(2)
    prodigy([{"params": [p], "lr": torch.tensor(1.0), "betas": (torch.tensor(0.9), torch.tensor(0.99))} for p in params]).step()
    assert params[0].tolist() == params[1].tolist() != [1, 1]
    with pytest.raises(ValueError, match="Tensor lr must be 1-element"):
        cls([nn.Parameter(torch.ones(2))], lr=torch.tensor([0.1, 0.1]))
    with pytest.raises(ValueError, match="Tensor betas must be 1-element"):
        cls([nn.Parameter(torch.ones(2))], betas=(0.9, torch.tensor([0.1, 0.1])))
    _, optimizer = run(cls, steps=1)
    saved = optimizer.state_dict()
    del saved["param_groups"][0]["maximize"]
    optimizer.load_state_dict(saved)
    optimizer.step()
    assert optimizer.param_groups[0]["maximize"] is False
