"""Settings of optimizers: by name and by place, in groups, changed later; their kinds and ranges. 2 seconds."""

from __future__ import annotations

import inspect
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import optlang
from optlang.runtime.groups.options import OPTIONS

INF, NAN = float("inf"), float("nan")
AdamW: Any = optlang.load("adamw")
Momentum: Any = optlang.load("momentum")
KINDS: Any = optlang.loads(
    "rule Kinds { hyper lr = 0.5 in (0, inf) hyper int k = 2 in [1, 9] hyper bool flip = false"
    " every k { w' = w - lr*where(flip, -1, 1)*g } }"
)  # fmt: skip


def parameter(*values: float) -> torch.Tensor:
    return torch.tensor(values or (1.0, 2.0), dtype=torch.float64, requires_grad=True)


def stepped(optimizer: Any, *parameters: torch.Tensor) -> list[list[float]]:
    """The parameters after a step with gradients of 1."""
    for p in parameters:
        p.grad = torch.ones_like(p)
    optimizer.step()
    return [p.tolist() for p in parameters]


# ------------------------------------------------------------------------------------------------ as Python sees it


def test_signature_name_and_text() -> None:
    signature = inspect.signature(AdamW)
    assert list(signature.parameters) == ["params", "lr", "beta1", "beta2", "eps", "weight_decay", "betas", *OPTIONS]
    assert signature.parameters["lr"].default == 1e-3
    assert signature.parameters["maximize"].kind is inspect.Parameter.KEYWORD_ONLY
    assert AdamW.__name__ == "AdamW"
    assert issubclass(AdamW, torch.optim.Optimizer)
    assert "2019" in AdamW.__doc__ or "2017" in AdamW.__doc__
    for name in ("lr", "beta1", "weight_decay"):
        assert f"\n{name} (real, in " in AdamW.__doc__


def test_tools_that_make_optimizers_from_files_find_each_setting_once_in_the_constructor() -> None:
    """LightningCLI gives all that it finds; two names of one number would contradict each other when one of them is changed."""
    names = [name for name in inspect.signature(AdamW.__init__).parameters if name != "self"]
    settings = {p.name: p.default for p in inspect.signature(AdamW).parameters.values() if p.name in names}
    assert names[:4] == ["params", "lr", "eps", "weight_decay"] and "beta1" not in names
    optimizer = AdamW([torch.ones(2, requires_grad=True)], **{name: settings[name] for name in names[1:]} | {"betas": (0.8, 0.9)})
    assert optimizer.param_groups[0]["betas"] == (0.8, 0.9)
    assert inspect.signature(optlang.load("muonwithadamw").__init__).parameters.keys() > {"self", "params", "Muon", "AdamW"}


def test_only_a_rule_that_draws_has_a_seed() -> None:
    drawing: Any = optlang.loads("rule D { hyper lr = 1 in (0, inf) w' = w - lr*g*rademacher() }")
    assert inspect.signature(drawing).parameters["seed"].default == 0
    assert drawing([parameter()], seed=3).param_groups[0]["seed"] == 3
    with pytest.raises(TypeError, match="seed"):
        AdamW([parameter()], seed=3)


def test_settings_of_a_called_rule_have_two_names() -> None:
    lookahead: Any = optlang.load("lookahead")
    parameters = inspect.signature(lookahead).parameters
    assert list(parameters) == ["params", "lr", "k", "a", "beta1", "beta2", "eps", "weight_decay", "betas", *OPTIONS]
    assert parameters["beta1"].kind is inspect.Parameter.KEYWORD_ONLY
    optimizer = lookahead([parameter()], **{"fast.eps": 0.5, "beta1": 0.25})
    assert optimizer.param_groups[0]["fast.eps"] == 0.5
    assert optimizer.param_groups[0]["betas"] == (0.25, 0.999)  # where schedulers look
    assert optimizer.param_groups[0]["lr"] == 1e-3
    with pytest.raises(TypeError, match=r"`eps` and `fast\.eps` are the same setting, given twice"):
        lookahead([parameter()], **{"fast.eps": 0.5, "eps": 0.25})


CALLED = "rule Inner { hyper lr = 1 in (0, inf) hyper beta1 = 0.5 in [0, 1) hyper beta2 = 0.5 in [0, 1) w' = w - lr*(beta1 + 10*beta2)*g }"


def test_the_step_size_of_a_called_rule_is_where_schedulers_write() -> None:
    cls: Any = optlang.loads(f"{CALLED} rule R {{ w' = Inner() }}", "R")
    p = parameter(0.0)
    optimizer = cls([p], lr=2.0, betas=(0.25, 0.0))
    assert {k: v for k, v in optimizer.param_groups[0].items() if k not in ("params", *OPTIONS)} == {"lr": 2.0, "betas": (0.25, 0.0)}
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5**step)
    assert stepped(optimizer, p) == [[-0.5]]
    scheduler.step()
    assert stepped(optimizer, p) == [[-0.75]]
    fresh = cls([p])
    torch.optim.lr_scheduler.OneCycleLR(fresh, 1.0, total_steps=10)
    assert fresh.param_groups[0]["betas"] == (0.95, 0.5)


@pytest.mark.parametrize("change", [{"Inner.lr": 1.0, "Inner.beta1": 0.5}, {"lr": 1.0, "beta1": 0.5}, {"betas": (0.5, 0.0), "lr": 1.0}])
def test_a_setting_written_later_by_any_of_its_names(change: dict[str, Any]) -> None:
    cls: Any = optlang.loads(f"{CALLED} rule R {{ w' = Inner() }}", "R")
    p = parameter(0.0)
    optimizer = cls([{"params": [p], "Inner.beta2": 0.0}], lr=4.0)
    optimizer.param_groups[0].update(change)
    assert stepped(optimizer, p) == [[-0.5]]
    assert optimizer.param_groups[0].keys() == {"params", "lr", "betas", *OPTIONS}


def test_two_called_rules_keep_their_settings_apart() -> None:
    cls: Any = optlang.loads(f"{CALLED} rule R {{ a = Inner() b = Inner() w' = (a + b)/2 }}", "R")
    assert list(inspect.signature(cls).parameters) == ["params", *OPTIONS]
    group = cls([parameter()], **{"a.lr": 0.5}).param_groups[0]
    assert (group["a.lr"], group["b.lr"], group["a.beta1"]) == (0.5, 1.0, 0.5)
    with pytest.raises(TypeError, match=r"no setting `lr`; did you mean `[ab]\.lr`"):
        cls([parameter()], lr=0.1)


@pytest.mark.parametrize("name", ["lambda", "self", "class", "closure"])
def test_settings_may_have_names_that_mean_something_in_python(name: str) -> None:
    cls: Any = optlang.loads(f"rule R {{ hyper {name} = 1 in [0, 9] hyper b = 2 w' = w - {name}*b*g }}")
    assert ("lambda" in inspect.signature(cls).parameters) is False
    p = parameter(0.0)
    assert stepped(cls([p], **{name: 3.0}), p) == [[-6.0]]
    with pytest.raises(ValueError, match=f"{name} = 10"):
        cls([p], **{name: 10})


# ------------------------------------------------------------------------------------------------------ given how


def test_by_place_as_in_the_signature() -> None:
    group = AdamW([parameter()], 0.1, 0.5, 0.75, 1e-3, 0.0).param_groups[0]
    assert (group["lr"], group["betas"], group["eps"], group["weight_decay"]) == (0.1, (0.5, 0.75), 1e-3, 0.0)


def test_too_many_by_place_and_twice() -> None:
    with pytest.raises(TypeError, match="at most 5 settings by place, not 6"):
        AdamW([parameter()], 0.1, 0.5, 0.75, 1e-3, 0.0, True)
    with pytest.raises(TypeError, match="`lr` twice"):
        AdamW([parameter()], 0.1, lr=0.2)


def test_betas_wherever_a_pair_is_natural() -> None:
    p, q = parameter(), parameter()
    optimizer = AdamW([{"params": [p]}, {"params": [q], "betas": (0.1, 0.2)}], betas=(0.5, 0.75))
    assert [g["betas"] for g in optimizer.param_groups] == [(0.5, 0.75), (0.1, 0.2)]
    assert AdamW([{"params": [p], "beta1": 0.3}], beta2=0.5).param_groups[0]["betas"] == (0.3, 0.5)
    for wrong in (0.9, (0.9,), (0.9, 0.99, 0.999), None):
        with pytest.raises(TypeError, match="betas is a pair like"):
            AdamW([p], betas=wrong)
        optimizer.param_groups[1]["betas"] = wrong
        with pytest.raises(TypeError, match=r"betas is a pair like .*\(group 1\)"):
            optimizer.step()


@pytest.mark.parametrize("given", [{"beta1": 0.25, "betas": (0.5, 0.75)}, {"betas": (0.5, 0.75), "beta1": 0.25}])
def test_betas_and_another_beta1_are_refused(given: Any) -> None:
    p = parameter(1.0)
    for make in (lambda: AdamW([p], **given), lambda: AdamW([{"params": [p], **given}])):
        with pytest.raises(ValueError, match=r"`betas` gives beta1 = 0\.5, `beta1` gives 0\.25; leave one out"):
            make()
    assert AdamW([p], betas=(0.5, 0.75), beta1=0.5).param_groups[0]["betas"] == (0.5, 0.75)
    optimizer = AdamW([p])
    with pytest.raises(ValueError, match="leave one out"):
        optimizer.add_param_group({"params": [parameter(2.0)], **given})
    assert len(optimizer.param_groups) == 1


def test_a_beta1_written_into_a_group_counts() -> None:
    p = parameter(1.0)
    optimizer = AdamW([p])
    optimizer.param_groups[0].update(beta1=0.25, betas=(0.5, 0.75))
    stepped(optimizer, p)
    assert optimizer.param_groups[0]["betas"] == (0.25, 0.75)


@pytest.mark.parametrize("change", [lambda g: g.update(betas=(0.0, 0.0)), lambda g: g.update(beta1=0.0, beta2=0.0)])
def test_betas_changed_later(change: Any) -> None:
    """Without memory, Adam's step is lr in every direction, whatever came before."""
    p = parameter(1.0)
    optimizer = AdamW([p], lr=0.25, eps=0.0, weight_decay=0.0)
    p.grad = torch.full_like(p, -3)
    optimizer.step()
    change(optimizer.param_groups[0])
    [[after]] = stepped(optimizer, p)
    assert after == pytest.approx(1.0 + 0.25 - 0.25)
    assert optimizer.param_groups[0]["betas"] == (0.0, 0.0)
    assert "beta1" not in optimizer.param_groups[0]


def test_parameters_are_those_of_a_model() -> None:
    with pytest.raises(TypeError, match=r"AdamW takes the parameters of a model, not nothing: `AdamW\(model.named_parameters\(\)\)`"):
        AdamW(lr=0.1)
    with pytest.raises(TypeError, match=r"AdamW takes the parameters of a model, not Linear"):
        AdamW(torch.nn.Linear(2, 2))
    p = parameter()
    assert AdamW(params=[p], lr=0.5).param_groups[0]["params"] == [p]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"learning_rate": 1}, "no setting `learning_rate`"),
        ({"weigth_decay": 1}, "did you mean `weight_decay`"),
        ({"beta": 1}, "did you mean `beta"),
        ({"zzz": 1}, "its settings are lr, beta1, beta2, eps, weight_decay$"),
        ({"amsgrad": True}, r'`amsgrad` is a rule of its own: `optlang.load\("amsgrad"\)`'),
        ({"state": "int8"}, r"`state` is said where a rule is loaded: `optlang.load\(…, state=…\)`"),
    ],
)
def test_unknown_settings(given: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        AdamW([parameter()], **given)


def test_groups_refuse_misspellings_and_keep_foreign_keys() -> None:
    with pytest.raises(TypeError, match="did you mean `weight_decay`"):
        AdamW([{"params": [parameter()], "weight_decy": 1.0}])
    for key in ("note", "initial_lr", "max_momentum", "swa_lr"):
        for rule in (AdamW, Momentum):
            assert rule([{"params": [parameter()], key: 1.0}]).param_groups[0][key] == 1.0


# ---------------------------------------------------------------------------------------------- kinds and ranges

OUTSIDE = [
    ("lr", -1e-9), ("lr", INF), ("lr", NAN), ("beta1", 1.0), ("beta1", -0.1), ("beta2", 1.5), ("eps", -1.0), ("weight_decay", NAN),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), OUTSIDE)
def test_ranges_at_construction_and_of_groups(name: str, value: float) -> None:
    p = parameter()
    with pytest.raises(ValueError, match=rf"AdamW: {name} = .* is outside its range"):
        AdamW([p], **{name: value})
    with pytest.raises(ValueError, match=rf"AdamW: {name} = .* is outside its range"):
        AdamW([{"params": [p], name: value}])
    optimizer = AdamW([p])
    with pytest.raises(ValueError, match=name):
        optimizer.add_param_group({"params": [parameter()], name: value})
    assert len(optimizer.param_groups) == 1


@pytest.mark.parametrize(("name", "value"), OUTSIDE)
def test_ranges_of_settings_changed_later_before_anything_moves(name: str, value: float) -> None:
    p, q = parameter(), parameter()
    optimizer = AdamW([{"params": [p]}, {"params": [q]}])
    stepped(optimizer, p, q)
    before = [p.tolist(), q.tolist(), optimizer.state[p]["m"].tolist(), float(optimizer.state[p]["step"])]
    optimizer.param_groups[1][name] = value
    with pytest.raises(ValueError, match=rf"{name} = .* is outside its range .*\(group 1\)"):
        stepped(optimizer, p, q)
    assert before == [p.tolist(), q.tolist(), optimizer.state[p]["m"].tolist(), float(optimizer.state[p]["step"])]


def test_a_step_size_of_0_is_no_step() -> None:
    p = parameter(1.0, 2.0)
    assert stepped(AdamW([p], lr=0), p) == [[1.0, 2.0]]


@pytest.mark.parametrize("value", ["0.1", None, [0.1], True, 1j])
def test_numbers_are_numbers(value: Any) -> None:
    with pytest.raises(TypeError, match="lr must be a number"):
        AdamW([parameter()], lr=value)


@pytest.mark.parametrize("name", ["lr", "k", "flip"])
def test_tensors_of_one_element(name: str) -> None:
    for wrong in (torch.ones(2), torch.ones(0)):
        with pytest.raises(ValueError, match=f"Kinds: Tensor {name} must be 1-element, not of shape"):
            KINDS([parameter()], **{name: wrong})


def test_a_setting_that_was_taken_out_of_a_group() -> None:
    optimizer = AdamW([parameter()])
    del optimizer.param_groups[0]["eps"]
    with pytest.raises(ValueError, match=r"AdamW: the setting 'eps' is gone \(group 0\)"):
        optimizer.step()


@pytest.mark.parametrize("value", [2.5, INF, NAN, True, "3"])
def test_whole_numbers_are_whole(value: Any) -> None:
    with pytest.raises(TypeError, match="k must be a whole number"):
        KINDS([parameter()], k=value)


@pytest.mark.parametrize("value", [3, 3.0, torch.tensor(3)])
def test_whole_numbers_of_any_type(value: Any) -> None:
    p = parameter(1.0)
    optimizer = KINDS([p], k=value)
    assert [stepped(optimizer, p)[0][0] for _ in range(3)] == [1.0, 1.0, 0.5]


@pytest.mark.parametrize("value", [1, 0.0, "true", None])
def test_truths_are_truths(value: Any) -> None:
    with pytest.raises(TypeError, match="flip must be True or False"):
        KINDS([parameter()], flip=value)


def test_a_truth_may_change_later() -> None:
    p = parameter(1.0)
    optimizer = KINDS([p], k=1)
    stepped(optimizer, p)
    optimizer.param_groups[0]["flip"] = True
    assert stepped(optimizer, p) == [[1.0]]


def test_a_step_size_in_a_tensor_stays_a_tensor_and_is_read_anew() -> None:
    p, lr = parameter(1.0), torch.tensor(0.5)
    optimizer = optlang.load("sgd")([p], lr=lr)  # type: ignore[call-arg]
    assert stepped(optimizer, p) == [[0.5]]
    lr.fill_(0.25)
    assert stepped(optimizer, p) == [[0.25]]
    assert optimizer.param_groups[0]["lr"] is lr
    lr.fill_(-1)
    with pytest.raises(ValueError, match=r"lr = -1\.0 is outside"):
        stepped(optimizer, p)


def test_numpy_numbers() -> None:
    import numpy as np

    p = parameter(1.0)
    assert stepped(KINDS([p], lr=np.float32(0.5), k=np.int64(1), flip=np.bool_(True)), p) == [[1.5]]


def test_default_settings_are_those_of_the_rule() -> None:
    defaults = AdamW([parameter()]).defaults
    assert defaults["betas"] == (0.9, 0.999)
    assert defaults["lr"] == 1e-3
    assert math.isclose(defaults["eps"], 1e-8)


# ---------------------------------------------------------------------------------------------------------- names

TAKEN = [("state", name) for name in ("step", "weights_in_training")]
TAKEN += [("hyper", name) for name in ("params", "param_names", "maximize", "seed", "betas")]


@pytest.mark.parametrize(("kind", "name"), TAKEN)
def test_names_that_every_optimizer_has(kind: str, name: str) -> None:
    equation = f"{name}' = {name} + 1" if kind == "state" else ""
    text = f"rule R {{ {kind} {name} = 1 {equation} w' = w - {name}*g }}"
    [finding] = optlang.check(text)
    assert (finding.code, finding.message) == ("N04", f"a {kind} cannot be called `{name}`")


def test_below_the_top_such_names_meet_nothing() -> None:
    text = "rule Inner { hyper seed = 2 state step = 0 step' = step + 1 w' = w - seed*step'*g } rule R { w' = Inner() }"
    assert [d.code for d in optlang.check(text)] == ["N04", "N04"]  # those of Inner by itself
    text = "def counted(x) { state step per tensor = 0 step' = step + 1 return x*step' } rule R { w' = w - counted(g) }"
    p = parameter(0.0)
    optimizer: Any = optlang.loads(text)([p])
    stepped(optimizer, p)
    assert stepped(optimizer, p) == [[-3.0]]
    assert {name: float(value) for name, value in optimizer.state[p].items()} == {"step": 2, "counted.step": 2}


# ---------------------------------------------------------------------------------------------------------- tables

NETWORK: Any = optlang.loads(
    "rule Network { hyper weights[3, 2] = 0 in [-9, 9] \"of two values and 1\" state m = 0 m' = m + g"
    " w' = w - dense(weights, 1, g, m') - 10*dense(weights, 2, g, m') }\nrule Outer { w' = Network(g = 2*g) }", "Outer"
)  # fmt: skip
WEIGHTS = [[1.0, 0.0], [2.0, 0.5], [3.0, 0.25]]


@pytest.mark.parametrize("given", [WEIGHTS, torch.tensor(WEIGHTS), np.array(WEIGHTS, dtype=np.float32)], ids=["lists", "tensor", "array"])
@pytest.mark.parametrize("name", ["weights", "Network.weights"])
def test_a_table_is_given_at_once(given: Any, name: str) -> None:
    p = parameter(0.0)
    optimizer = NETWORK([p], **{name: given})
    assert stepped(optimizer, p) == [[-(1 * 2 + 2 * 2 + 3) - 10 * (0.5 * 2 + 0.25)]]
    assert optimizer.param_groups[0]["Network.weights[2,2]"] == 0.5


def test_a_table_comes_from_a_file_and_goes_into_groups_and_checkpoints(tmp_path: Path) -> None:
    np.save(tmp_path / "weights.npy", np.array(WEIGHTS))
    p, q = parameter(0.0), parameter(0.0)
    optimizer = NETWORK([{"params": [p], "weights": tmp_path / "weights.npy"}, {"params": [q]}])
    assert [group["Network.weights[3,1]"] for group in optimizer.param_groups] == [3.0, 0.0]
    optimizer.param_groups[1]["weights"] = WEIGHTS
    both = stepped(optimizer, p, q)
    assert both[0] == both[1] != [0.0]
    other = NETWORK([{"params": [parameter(0.0)]}, {"params": [parameter(0.0)]}])
    other.load_state_dict(optimizer.state_dict())
    assert other.param_groups[1]["Network.weights[2,1]"] == 2.0
    assert "weights (table of 3 × 2 numbers; default 0): of two values and 1" in str(NETWORK.__doc__)
    assert "weights" in inspect.signature(NETWORK).parameters


@pytest.mark.parametrize(("given", "error", "words"), [
    ([[1.0, 2.0]], ValueError, "a table of 3 × 2 numbers, not of shape (1, 2)"), (object(), TypeError, "a table of numbers, not object"),
    (10.0, ValueError, "outside its range"), ([[1.0], [2.0, 3.0]], TypeError, "a table of numbers, not list"),
    (torch.ones(3, 2, dtype=torch.complex64), TypeError, "a table of numbers, not Tensor"), (NAN, ValueError, "outside its range"),
])  # fmt: skip
def test_a_wrong_table(given: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=re.escape(words)):
        NETWORK([parameter()], weights=given)


def test_an_unknown_name_beside_tables() -> None:
    with pytest.raises(TypeError, match="did you mean `weights`"):
        NETWORK([parameter()], wieghts=1.0)
