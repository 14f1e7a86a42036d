"""Settings of generated modules: checked, named and given as in torch, and those that shape a rule."""

from __future__ import annotations

from typing import Any

import numpy as np
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


NETWORK = """rule Inner { hyper weights[3, 2] = 0 in [-9, 9] "of two values and 1" state m = 0 m' = m + g
  w' = w - dense(weights, 1, g, m') - 10*dense(weights, 2, g, m') - dense(weights, 2, t, 1) }
rule Network { w' = Inner(g = 2*g) }"""
WEIGHTS = [[1.0, 0.0], [2.0, 0.5], [3.0, 0.25]]


GIVEN = {"lists": WEIGHTS, "tuples": tuple(map(tuple, WEIGHTS)), "tensor": torch.tensor(WEIGHTS),
         "array": np.array(WEIGHTS, dtype=np.float32), "one for all": 0.5, "a whole one": -2}  # fmt: skip


@pytest.mark.parametrize("given", GIVEN.values(), ids=GIVEN)
@pytest.mark.parametrize("place", ["weights", "Inner.weights", "group", "later"])
def test_a_table_is_given_at_once(given: Any, place: str) -> None:
    results = []
    makers: list[Any] = [optlang.loads(NETWORK, "Network", backend="torch"), load(optlang.build(NETWORK, rule="Network"), "Network")]
    for made in makers:
        p = nn.Parameter(torch.tensor([[1.0, -2.0]]))
        settings = {place: given} if "weights" in place else {}
        optimizer = made([{"params": [p], "weights": given}] if place == "group" else [p], **settings)
        for step in range(3):
            if step == 1 and place == "later":
                optimizer.param_groups[0]["weights"] = given
            p.grad = torch.tensor([[0.5, 0.25]]) * (step + 1)
            optimizer.step()
        results.append(p.detach())
        again = made([nn.Parameter(torch.zeros(1, 2))])
        again.load_state_dict(optimizer.state_dict())
        assert again.state_dict()["param_groups"] == optimizer.state_dict()["param_groups"]
    torch.testing.assert_close(*results)


@pytest.mark.parametrize(
    ("wrong", "kind", "message"),
    [
        ([[1.0, 2.0]], ValueError, "weights is a table of 3 × 2 numbers: give a tensor, an array, lists in a list, or one number for all"),
        ([1.0, 2.0, 3.0], ValueError, "a table of 3 × 2 numbers"),
        ([[1.0, 2.0], [1.0], [1.0, 2.0]], ValueError, "a table of 3 × 2 numbers"),
        ("weights.npy", ValueError, "a table of 3 × 2 numbers: give a tensor"),
        (None, ValueError, "a table of 3 × 2 numbers"),
        (torch.ones(3, 2, 2), TypeError, "weights is a table of numbers, and holds others"),
        ([["1", 2], [3, 4], [5, 6]], TypeError, "weights is a table of numbers, and holds others"),
        (10.0, ValueError, r"weights is outside \[-9, 9\]"),
        ([[0, 0], [0, float("nan")], [0, 0]], ValueError, r"weights is outside \[-9, 9\]"),
    ],
)
def test_a_wrong_table_says_what_to_give(wrong: Any, kind: type[Exception], message: str) -> None:
    cls = load(optlang.build(NETWORK, rule="Network"), "Network")
    p = nn.Parameter(torch.ones(2, 2))
    with pytest.raises(kind, match=message):
        cls([p], weights=wrong)
    optimizer = cls([p])
    optimizer.param_groups[0]["weights"] = wrong
    p.grad = torch.ones(2, 2)
    with pytest.raises(kind, match=message):
        optimizer.step()
    with pytest.raises(TypeError, match=r"did you mean 'weights'"):
        cls([{"params": [p], "weights[1,1]": 1.0}])


def test_a_table_with_gradients_learns() -> None:
    """What trains a learned optimizer: gradients of its weights through its steps."""
    cls = load(optlang.build(NETWORK, rule="Network"), "Network")
    start = torch.tensor([[1.0, -2.0]], dtype=torch.float64)

    def trained(weights: Any) -> Any:
        p = start.clone().requires_grad_().clone()
        optimizer = cls([p], weights=weights, differentiable=True)
        for step in range(3):
            p.grad = (torch.tensor([[0.5, 0.25]], dtype=torch.float64) * (step + 1)).requires_grad_()
            optimizer.step()
        return p

    assert torch.autograd.gradcheck(trained, torch.tensor(WEIGHTS, dtype=torch.float64, requires_grad=True))


def test_a_table_stands_in_the_text_once() -> None:
    text = optlang.build("perparametermlp")
    assert text.count("_dense(first, ") == 4 and "first[" not in text
    assert "first: weights of the first layer: 28 features, 11 clocks, constants, a table of 40 × 4 numbers" in text
