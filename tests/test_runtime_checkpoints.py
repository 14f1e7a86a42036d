"""Checkpoints: runs that go on bit by bit, state dicts that do not fit, and weights to evaluate with. 5 seconds."""

from __future__ import annotations

import copy
import io
from typing import Any

import pytest
import torch
from tensors import some, through_a_file
from torch import Tensor

import optlang
from optlang.runtime.checkpoints.fitting import TRAINING

AdamW: Any = optlang.load("adamw")
ScheduleFree: Any = optlang.load("schedulefreeadamw")
WINDOWED = """
rule Windowed {
  hyper lr = 0.1 in (0, inf)
  state total per group = 0
  state seen[3] per model = nan
  state far per tensor = 0
  state moving = false
  n = norm(g per model)
  total' = total + norm(g per group)
  seen' = push(seen, n)
  far' = max(far, max(abs(g)))
  moving' = moving or g > 1
  w' = w - lr*where(moving', 2, 1)*g/(1 + mean(seen') + total' + far')*uniform()
}
"""


def start(dtype: torch.dtype = torch.float32) -> list[Tensor]:
    return [some(3, 4, dtype=dtype).requires_grad_(), some(5, seed=1, dtype=dtype).requires_grad_()]


def run(optimizer: Any, params: list[Tensor], steps: range) -> None:
    """Some steps with gradients of their own; one parameter has none in every third."""
    for step in steps:
        for number, p in enumerate(params):
            p.grad = None if (step + number) % 3 == 0 else some(*p.shape, seed=10 * step + number, dtype=p.dtype)
        optimizer.step()


def halves(cls: Any, params: list[Tensor]) -> Any:
    """Each parameter in a group of its own."""
    return cls([{"params": [p]} for p in params])


# ---------------------------------------------------------------------------------------------------- going on

RULES = ["adamw", "lion", "adafactor", "lamb", "muonwithadamw", "schedulefreeadamw", "lookahead", "rprop", "gravity", WINDOWED]


@pytest.mark.parametrize(("backend", "dtype"), [
    *(("auto", dtype) for dtype in (torch.float32, torch.bfloat16, torch.float64)), ("torch", torch.float32), ("reference", torch.float64),
])  # fmt: skip
@pytest.mark.parametrize("rule", RULES, ids=lambda text: text.split("{")[0].split()[-1])
def test_a_resumed_run_is_the_same_run(rule: str, backend: str, dtype: torch.dtype) -> None:
    cls: Any = optlang.loads(rule, backend=backend) if "{" in rule else optlang.load(rule, backend=backend)
    params = start(dtype)
    optimizer = halves(cls, params) if "{" in rule else cls([("a.weight", params[0]), ("b.bias", params[1])])
    run(optimizer, params, range(5))
    saved = through_a_file(optimizer.state_dict())
    others = [p.detach().clone().requires_grad_() for p in params]
    resumed = halves(cls, others) if "{" in rule else cls([("a.weight", others[0]), ("b.bias", others[1])])
    resumed.load_state_dict(saved)
    for p, q in zip(params, others, strict=True):
        for name, value in optimizer.state[p].items():
            assert resumed.state[q][name].dtype == value.dtype
            assert torch.equal(resumed.state[q][name].nan_to_num(), value.nan_to_num())
    run(optimizer, params, range(5, 12))
    run(resumed, others, range(5, 12))
    for p, q in zip(params, others, strict=True):
        assert torch.equal(p, q)
        for name, value in optimizer.state[p].items():
            assert torch.equal(resumed.state[q][name].nan_to_num(), value.nan_to_num()), name


def test_settings_and_schedulers_are_saved_with_the_states() -> None:
    params = start()
    optimizer = AdamW(params, betas=(0.5, 0.6))
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=20)
    run(optimizer, params, range(1, 3))
    scheduler.step()
    saved = copy.deepcopy((optimizer.state_dict(), scheduler.state_dict()))
    again = AdamW(start())
    scheduler_again = torch.optim.lr_scheduler.OneCycleLR(again, 0.1, total_steps=20)
    again.load_state_dict(saved[0])
    scheduler_again.load_state_dict(saved[1])
    scheduler.step()
    scheduler_again.step()
    for key in ("lr", "betas", "max_lr", "eps"):
        assert again.param_groups[0][key] == optimizer.param_groups[0][key]


def test_the_saved_seed_counts() -> None:
    cls: Any = optlang.loads("rule D { hyper lr = 1 in (0, inf) w' = w - lr*normal() }")
    params, others = start(), start()
    optimizer, other = cls(params, seed=5), cls(others)
    run(optimizer, params, range(1))
    other.load_state_dict(optimizer.state_dict())
    run(optimizer, params, range(1, 3))
    with torch.no_grad():
        others[1].copy_(start()[1])
    assert other.param_groups[0]["seed"] == 5
    with pytest.raises(TypeError, match="seed must be a whole number"):
        cls(params, seed=1.5)
    with pytest.raises(ValueError, match="seeds .*one seed"):
        cls([{"params": [params[0]], "seed": 1}, {"params": [params[1]]}])


def test_streams_of_draws_belong_to_parameters() -> None:
    """A parameter draws the same whether others have gradients or not, and in whichever group it is."""
    cls: Any = optlang.loads("rule D { hyper lr = 1 in (0, inf) w' = uniform() }")
    one, two = start(), start()
    for params, optimizer in ((one, cls(one)), (two, halves(cls, two))):
        params[1].grad = torch.zeros(5)
        params[0].grad = torch.zeros(3, 4) if params is one else None
        optimizer.step()
    assert torch.equal(one[1], two[1])
    assert not torch.equal(one[0].flatten()[:5], one[1])


def test_another_number_type_is_taken_over() -> None:
    """From float64 to bfloat16: states become float32, as if they had been kept beside bfloat16 from the start."""
    params = start(torch.float64)
    optimizer = AdamW(params)
    run(optimizer, params, range(1, 3))
    others = start(torch.bfloat16)
    other = AdamW(others)
    other.load_state_dict(optimizer.state_dict())
    assert other.state[others[0]]["m"].dtype == torch.float32
    assert torch.equal(other.state[others[0]]["m"], optimizer.state[params[0]]["m"].float())
    assert other.state[others[0]]["step"].dtype == torch.float32


def test_loaded_states_are_copies() -> None:
    params = start()
    optimizer = AdamW(params)
    run(optimizer, params, range(1, 2))
    saved = optimizer.state_dict()
    kept = copy.deepcopy(saved)
    again = AdamW(start())
    again.load_state_dict(saved)
    run(again, [p for g in again.param_groups for p in g["params"]], range(1, 3))
    assert torch.equal(saved["state"][0]["m"], kept["state"][0]["m"])


def test_inputs_outlive_loading() -> None:
    cls: Any = optlang.loads("rule R { input x per model w' = w - x*g }")
    params = start()
    optimizer = cls(params)
    optimizer.inputs["x"] = 2.0
    run(optimizer, params, range(1, 2))
    optimizer.load_state_dict(optimizer.state_dict())
    run(optimizer, params, range(1, 2))


def test_hooks_of_loading() -> None:
    optimizer = AdamW(start())
    seen: list[str] = []

    def renamed(o: Any, state: Any) -> Any:
        seen.append("before")
        return {"state": {}, "param_groups": state["groups"]}

    optimizer.register_load_state_dict_pre_hook(renamed)
    optimizer.register_load_state_dict_post_hook(lambda o: seen.append("after"))
    optimizer.load_state_dict({"groups": AdamW(start(), lr=0.5).state_dict()["param_groups"]})
    assert seen == ["before", "after"]
    assert optimizer.param_groups[0]["lr"] == 0.5


# ------------------------------------------------------------------------------------------------ shared states


def shared_of(optimizer: Any, params: list[Tensor], name: str) -> set[int]:
    return {id(optimizer.state[p][name]) for p in params if name in optimizer.state[p]}


def test_states_per_model_are_one_after_loading_and_for_new_groups() -> None:
    text = "rule R { hyper lr = 0.1 in (0, inf) state n per model = 0 n' = n + 1 w' = w - lr*n'*g }"
    cls: Any = optlang.loads(text)
    params = start()
    optimizer = cls(params)
    run(optimizer, params, range(4))
    assert len(shared_of(optimizer, params, "n")) == 1
    optimizer.load_state_dict(through_a_file(optimizer.state_dict()))
    run(optimizer, params, range(3, 4))  # only the second one
    run(optimizer, params, range(2, 3))  # only the first one
    assert float(optimizer.state[params[0]]["n"]) == float(optimizer.state[params[1]]["n"]) == 6
    late = some(2).requires_grad_()
    optimizer.add_param_group({"params": [late]})
    params[0].grad = params[1].grad = None
    late.grad = torch.ones(2)
    optimizer.step()
    assert float(optimizer.state[late]["n"]) == 7
    assert len(shared_of(optimizer, [*params, late], "n")) == 1


def test_states_per_group() -> None:
    text = "rule R { hyper lr = 0.1 in (0, inf) state n per group = 0 n' = n + sum(abs(g) per group) w' = w - lr*n'*g }"
    cls: Any = optlang.loads(text)
    params = [torch.zeros(1, requires_grad=True) for _ in range(3)]
    optimizer = cls([{"params": params[:2]}, {"params": params[2:]}])
    for p, x in zip(params, (1.0, 2.0, 4.0), strict=True):
        p.grad = torch.tensor([x])
    optimizer.step()
    optimizer.load_state_dict(optimizer.state_dict())
    optimizer.step()
    assert [float(optimizer.state[p]["n"]) for p in params] == [6, 6, 8]


# ------------------------------------------------------------------------------------------------ what does not fit


def contents(optimizer: Any) -> Any:
    """Everything that a file would hold, as bytes, with the weights."""
    file = io.BytesIO()
    torch.save((optimizer.state_dict(), [p.detach() for g in optimizer.param_groups for p in g["params"]]), file)
    return file.getvalue()


def stepped() -> Any:
    params = start()
    optimizer = AdamW([("a", params[0]), ("b", params[1])])
    run(optimizer, params, range(1, 2))
    return optimizer


def broken(state: Any, **changes: Any) -> Any:
    state["state"][0].update(changes)
    return state


def unmarked(state: Any) -> Any:
    """As somebody else would have saved it: without the fingerprint of the rule."""
    state["param_groups"][0].pop("fingerprint")
    return state


MISFITS: dict[str, tuple[Any, list[str]]] = {
    "nothing": (lambda s: None, ["not a state dict of AdamW"]),
    "weights": (lambda s: {"layer.weight": torch.zeros(2)}, ["needs the entries `state` and `param_groups`"]),
    "groups": (lambda s: s | {"param_groups": s["param_groups"] * 2}, ["2 parameter groups, the optimizer 1"]),
    "group": (lambda s: s | {"param_groups": ["a"]}, ["group 0"]),
    "count": (lambda s: s | {"param_groups": [s["param_groups"][0] | {"params": [0]}]}, ["group 0: 1 parameters, the optimizer has 2"]),
    "keys": (lambda s: s["param_groups"][0].update(params=[[0], [1]]) or s, ["group 0: `params` are not keys of states"]),
    "lacks": (lambda s: s["state"][0].pop("m") is None or s, ["a: lacks m"]),
    "extra": (lambda s: broken(unmarked(s), exp_avg=torch.zeros(3, 4)), ["a: has exp_avg, which AdamW does not keep"]),
    "shape": (lambda s: broken(s, m=torch.zeros(4, 3)), [r"a: m has shape (4, 3), not (3, 4)"]),
    "several": (lambda s: broken(s, m=torch.zeros(2), v=torch.zeros(1)), ["a: m has shape", "a: v has shape"]),
    "kind": (lambda s: broken(s, m="zero"), ["a: m is str, not a tensor"]),
    "step": (lambda s: broken(s, step=torch.tensor(-1.5)), ["a: step is -1.5, not a number of updates"]),
    "huge": (lambda s: broken(s, step=10**400), ["a: step is 1000", "not a number of updates"]),
    "nan": (lambda s: broken(s, step=torch.tensor(float("nan"))), ["a: step is nan"]),
    "setting": (lambda s: s["param_groups"][0].pop("eps") is None or s, ["group 0: lacks eps"]),
    "range": (lambda s: s["param_groups"][0].update(lr=-1.0) or s, ["lr = -1.0 is outside its range"]),
    "states": (lambda s: s | {"state": []}, ["`state` is not a dictionary"]),
    "state": (lambda s: s | {"state": {0: 5}}, ["a: its state is int, not a dictionary"]),
    "more": (lambda s: s["state"].update({7: {}}) or s, ["states of 1 parameters that the optimizer does not have"]),
    "half": (lambda s: broken(s, weights_in_training=torch.zeros(3, 4)), ["has weights_in_training"]),
}


@pytest.mark.parametrize("misfit", MISFITS)
def test_what_does_not_fit_is_listed_and_nothing_is_loaded(misfit: str) -> None:
    change, words = MISFITS[misfit]
    optimizer = stepped()
    before = contents(optimizer)
    with pytest.raises(ValueError) as problem:
        optimizer.load_state_dict(change(copy.deepcopy(stepped().state_dict())))
    for part in words:
        assert part in str(problem.value)
    assert "AdamW" in str(problem.value)
    assert contents(optimizer) == before


def test_what_tools_keep_beside_the_states_comes_back_as_it_was() -> None:
    """As timm's Lookahead keeps its slow weights there, in bfloat16 beside parameters in bfloat16."""
    params = start()
    module: dict[str, Any] = {}
    exec(optlang.build("adamw", to="module"), module)
    for cls in (AdamW, module["AdamW"]):
        optimizer, resumed = cls(params), cls(params)
        run(optimizer, params, range(1, 2))
        optimizer.state[params[0]] |= {"slow": torch.ones(3, 4, dtype=torch.bfloat16), "since": 5}
        resumed.load_state_dict(through_a_file(optimizer.state_dict()))
        run(optimizer, params, range(2, 4))
        found = resumed.state[params[0]]
        assert found["since"] == 5 and found["slow"] is not optimizer.state[params[0]]["slow"]
        assert torch.equal(found["slow"], torch.ones(3, 4, dtype=torch.bfloat16)) and found["slow"].dtype == torch.bfloat16


# ------------------------------------------------------------------------------------------------------------- names


def named(optimizer_of: Any, *names: str) -> tuple[Any, dict[str, Tensor]]:
    """An optimizer of parameters of one shape, which only names tell apart."""
    params = {name: some(3, seed=ord(name[0])).requires_grad_() for name in names}
    return optimizer_of(list(params.items())), params


def test_parameters_in_another_order_get_their_own_states() -> None:
    optimizer, params = named(AdamW, "a", "b", "c")
    run(optimizer, list(params.values()), range(1, 3))
    other, theirs = named(AdamW, "c", "a", "b")
    other.load_state_dict(through_a_file(optimizer.state_dict()))
    for name in "abc":
        assert torch.equal(other.state[theirs[name]]["m"], optimizer.state[params[name]]["m"])
    assert other.param_groups[0]["param_names"] == ["c", "a", "b"]
    broken_one = optimizer.state_dict()
    broken_one["state"][0]["m"] = torch.zeros(2)
    with pytest.raises(ValueError, match="a: m has shape"):
        other.load_state_dict(broken_one)


def test_parameters_that_changed_their_groups() -> None:
    def grouped(*groups: str) -> Any:
        return AdamW([{"params": [(name, some(3).requires_grad_()) for name in names]} for names in groups])

    saved = grouped("ab", "c").state_dict()
    with pytest.raises(ValueError, match=r"(?s)nothing was loaded.*c: saved in group 1, here it is in group 0.*b: saved in group 0, here"):
        grouped("ac", "b").load_state_dict(saved)


def test_settings_saved_under_other_names() -> None:
    """By an optimizer whose group was written into after its last step."""
    lookahead: Any = optlang.load("lookahead")
    optimizer = lookahead(start())
    saved = optimizer.state_dict()
    saved["param_groups"][0]["beta1"] = 0.5
    saved["param_groups"][0]["eps"] = saved["param_groups"][0].pop("fast.eps")
    optimizer.load_state_dict(saved)
    run(optimizer, [p for g in optimizer.param_groups for p in g["params"]], range(1, 2))
    assert optimizer.param_groups[0]["betas"] == (0.5, 0.999)
    assert optimizer.param_groups[0]["fast.eps"] == 1e-8
    saved["param_groups"][0]["fast.beta2"] = 1.0
    with pytest.raises(ValueError, match=r"group 0: Lookahead: fast.beta2 = 1.0 is outside its range"):
        optimizer.load_state_dict(saved)


def test_long_lists_are_cut() -> None:
    params = [torch.zeros(2, requires_grad=True) for _ in range(30)]
    optimizer = AdamW(params)
    saved = optimizer.state_dict()
    saved["state"] = {i: {"step": torch.tensor(1.0)} for i in range(30)}
    with pytest.raises(ValueError, match=r"(?s)and 18 more$"):
        optimizer.load_state_dict(saved)


def test_the_rules_of_a_route_must_agree() -> None:
    cls: Any = optlang.load("muonwithadamw")
    optimizer = cls([("a", start()[0]), ("b", start()[1])])
    saved = optimizer.state_dict()
    saved["param_groups"][0]["rule"], saved["param_groups"][1]["rule"] = "AdamW", "Muon"
    with pytest.raises(ValueError, match="group 0: saved by rule AdamW, here it is Muon"):
        optimizer.load_state_dict(saved)


# ------------------------------------------------------------------------------------------- weights to evaluate with


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("backend", ["torch", "reference"])
def test_evaluation_and_back_exactly(dtype: torch.dtype, backend: str) -> None:
    params = start(dtype)
    idle = some(2, seed=3, dtype=dtype).requires_grad_()
    optimizer: Any = optlang.load("schedulefreeadamw", backend=backend)([*params, idle], lr=0.5)
    optimizer.eval()  # before the first step there is nothing to change
    optimizer.train()
    run(optimizer, params, range(1, 6))
    training = [p.detach().clone() for p in params]
    optimizer.eval()
    evaluating = [p.detach().clone() for p in params]
    optimizer.eval()
    assert all(torch.equal(p, e) and not torch.equal(p, t) for p, e, t in zip(params, evaluating, training, strict=True))
    assert torch.equal(idle, some(2, seed=3, dtype=dtype))
    optimizer.train()
    optimizer.train()
    assert all(torch.equal(p, t) for p, t in zip(params, training, strict=True))
    assert all(TRAINING not in state for state in optimizer.state.values())
    optimizer.train(False)
    assert torch.equal(params[0], evaluating[0])


def test_no_step_while_evaluating() -> None:
    params = start()
    optimizer = ScheduleFree(params)
    run(optimizer, params, range(1, 2))
    optimizer.eval()
    before = params[0].detach().clone()
    with pytest.raises(RuntimeError, match=r"call `optimizer.train\(\)`"):
        run(optimizer, params, range(1, 2))
    assert torch.equal(params[0], before)


def test_a_checkpoint_of_evaluation_goes_on_in_training() -> None:
    params = start(torch.bfloat16)
    optimizer = ScheduleFree(params, lr=0.5)
    run(optimizer, params, range(1, 3))
    optimizer.eval()
    others = [p.detach().clone().requires_grad_() for p in params]  # the model saved then
    resumed = ScheduleFree(others)
    resumed.load_state_dict(through_a_file(optimizer.state_dict()))
    for o, ps in ((optimizer, params), (resumed, others)):
        o.train()
        run(o, ps, range(4, 6))
    assert all(torch.equal(p, q) for p, q in zip(params, others, strict=True))


def test_only_rules_with_evaluation_have_modes() -> None:
    assert not hasattr(AdamW, "eval")
    assert hasattr(ScheduleFree, "eval")


# ------------------------------------------------------------------------------------------------------- describe


def test_describe_says_what_and_how_much() -> None:
    params = start(torch.bfloat16)
    optimizer = AdamW([{"params": [params[0]]}, {"params": [params[1]], "lr": 0.5}])
    assert "group 0: 1 parameters, 12 elements; 0 of 96 bytes of state: m, v; lr=0.001, beta1=0.9" in optimizer.describe()
    run(optimizer, params, range(1, 2))
    run(optimizer, params, range(2, 3))
    first, second, *groups = optimizer.describe().splitlines()
    assert first == "AdamW: Loshchilov & Hutter 2019, arXiv:1711.05101"
    assert second == "backend auto, safe math"
    assert "12 elements; 96 bytes of state: m, v; lr=0.001" in groups[0]
    assert "5 elements; 40 bytes of state: m, v; lr=0.5" in groups[1]


def test_describe_counts_shared_states_once_and_names_rules() -> None:
    params = start()
    optimizer = halves(optlang.loads("rule R { state n per model = 0 n' = n + 1 w' = w - n'*g }"), params)
    run(optimizer, params, range(1, 2))
    run(optimizer, params, range(4, 5))
    assert [line.split("elements; ")[1].split(";")[0] for line in optimizer.describe().splitlines()[2:]] == ["4 bytes of state: n"] * 2
    muon: Any = optlang.load("muonwithadamw")
    text = muon([("a", start()[0]), ("b", start()[1])]).describe()
    assert "group 0 Muon: 1 parameters, 12 elements; 0 of 48 bytes of state: b; lr=0.02" in text
    assert "nesterov=True" in text
    assert "1 parameters, 3 elements; no states; lr=" in optlang.load("sgd")([some(3).requires_grad_()]).describe()  # type: ignore[attr-defined]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("rule", ["adamw", "adafactor", WINDOWED])
def test_bytes_foretold_are_those_that_come(rule: str, dtype: torch.dtype) -> None:
    params = start(dtype)
    optimizer: Any = (optlang.loads(rule) if "{" in rule else optlang.load(rule))(params)
    foretold = optimizer.describe().replace("0 of ", "")
    run(optimizer, params, range(1, 2))
    run(optimizer, params, range(5, 6))
    assert optimizer.describe() == foretold


@pytest.mark.parametrize("backend", ["reference", "torch", "cpp"])
@pytest.mark.parametrize("whole", [False, True])
def test_shared_states_of_a_block_that_is_off_are_not_there(backend: str, whole: bool) -> None:
    cls: Any = optlang.load("adagradnorm", backend=backend)
    params = start()
    optimizer = cls(params, whole=whole)
    run(optimizer, params, range(1, 3))
    assert {name for states in optimizer.state.values() for name in states} == {"step", "b" if whole else "c"}
    cls(start(), whole=whole).load_state_dict(optimizer.state_dict())
