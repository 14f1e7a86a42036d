"""Checkpoints that know their rule and their parameters, and those of other optimizers. 15 seconds."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from typing import Any

import pytest
import torch
from stepping import finite
from tensors import some, through_a_file
from torch import Tensor, nn

import optlang
from optlang import library
from optlang.printing.fingerprint import fingerprint_of

Params = list[tuple[str, Tensor]]
ADAMW = library.find("adamw").text


def parameters(dtype: torch.dtype = torch.float32, *more: tuple[str, tuple[int, ...]]) -> Params:
    return [(n, some(*shape, seed=i, dtype=dtype).requires_grad_()) for i, (n, shape) in enumerate([("a", (3, 4)), ("b", (4,)), *more])]


def run(optimizer: Any, params: Params, steps: range) -> None:
    """Some steps down a bowl, with noise of each step; the closure is one where the rule needs it."""

    def loss_at(step: int) -> Tensor:
        for _, p in params:
            p.grad = None
        loss = sum((p.float() ** 2).sum() + (p * some(*p.shape, seed=step, dtype=p.dtype)).float().sum() for _, p in params)
        loss.backward()  # type: ignore[union-attr]
        return loss  # type: ignore[return-value]

    for step in steps:
        for wanted in [i.name for case in getattr(optimizer, "cases", ()) for i in case.program.inputs]:
            optimizer.inputs[wanted] = {p: some(*p.shape, seed=step) ** 2 for _, p in params}
        if getattr(optimizer, "asks_again", False):
            optimizer.step(lambda step=step: loss_at(step))
        else:
            loss_at(step)
            optimizer.step()


def same(one: Params, other: Params) -> bool:
    finite(*(p for _, p in one))
    return all(torch.equal(p, q) for (_, p), (_, q) in zip(one, other, strict=True))


# ------------------------------------------------------------------------------------------------------- every rule


def taken(cls: Any, params: Params) -> Params:
    """The parameters that a rule takes: of those for matrices the matrices."""
    given = copy.deepcopy(params)
    try:
        run(cls(given), given, range(1))
    except (ValueError, RuntimeError) as problem:
        assert "matri" in str(problem) or "rank >= 2" in str(problem)
        return [(n, p) for n, p in params if p.ndim == 2]
    return params


COARSE = ["adamw", "lion", "muonwithadamw", "schedulefreeadamw", "adafactor", "sam", "sophiah", "gravity"]
EVERY = [(name, torch.float32) for name in library.names()] + [(name, torch.bfloat16) for name in COARSE]


@pytest.mark.parametrize(("name", "dtype"), EVERY, ids=str)
def test_every_rule_goes_on_bit_by_bit(name: str, dtype: torch.dtype) -> None:
    cls: Any = optlang.load(name)
    params = taken(cls, parameters(dtype))
    optimizer = cls(params)
    run(optimizer, params, range(3))
    others = [(n, p.detach().clone().requires_grad_()) for n, p in params]
    resumed = cls(others)
    resumed.load_state_dict(through_a_file(optimizer.state_dict()))
    (copied, copied_params) = copy.deepcopy((optimizer, params))
    (thawed, thawed_params) = pickle.loads(pickle.dumps((optimizer, params)))
    for o, ps in ((optimizer, params), (resumed, others), (copied, copied_params), (thawed, thawed_params)):
        run(o, ps, range(3, 7))
    assert same(params, others)
    assert same(params, copied_params)
    assert same(params, thawed_params)
    for (_, p), (_, q) in zip(params, others, strict=True):
        assert optimizer.state[p].keys() == resumed.state[q].keys()
        assert optimizer.state[p]["step"].dtype == torch.float32
        assert optimizer.state[p]["step"].shape == ()
        for key, value in optimizer.state[p].items():
            assert resumed.state[q][key].dtype == value.dtype
            assert torch.equal(resumed.state[q][key].nan_to_num(), value.nan_to_num()), key


@pytest.mark.parametrize("kind", ["loaded", "module"])
@pytest.mark.parametrize("name", ["sam", "sophiah", "marsadamwexact"])
def test_a_step_of_size_0_without_a_closure_makes_the_states(name: str, kind: str) -> None:
    """Distributed checkpoints take one to see which states there are, also of rules that cannot step without a closure."""
    cls: Any = optlang.load(name)
    if kind == "module":
        space: dict[str, Any] = {"__name__": "module"}
        exec(compile(optlang.build(name), "module", "exec"), space)
        cls = space[cls.__name__]
        cls.asks_again = True
    params = parameters()
    optimizer = cls(params, lr=torch.tensor(0.0))
    for _, p in params:
        p.grad = torch.zeros_like(p)
    optimizer.step(closure=None)
    stepped = cls(others := parameters())
    run(stepped, others, range(1))
    for (_, p), (_, q) in zip(params, others, strict=True):
        assert optimizer.state[p].keys() == stepped.state[q].keys()
    assert same(params, parameters())
    optimizer.param_groups[0]["lr"] = 0.1
    with pytest.raises(RuntimeError, match="asks the model (more than once a step|again)"):
        optimizer.step()


# ----------------------------------------------------------------------------------------------------- fingerprints


def stepped(text: str, name: str = "") -> dict[str, Any]:
    params = parameters()
    optimizer: Any = optlang.loads(text, name or None)(params)
    run(optimizer, params, range(2))
    return through_a_file(optimizer.state_dict())  # type: ignore[no-any-return]


def test_rules_have_fingerprints_of_their_own() -> None:
    names = ["adam", "adamw", "adabelief", "amsgrad", "sgd", "momentum", "nesterov", "lion", "signum", "muon", "schedulefreeadamw"]
    found = {fingerprint_of(optlang.Rule(name).program) for name in names}  # type: ignore[arg-type]
    assert len(found) == len(names)


def test_fingerprints_are_the_same_in_every_process() -> None:
    code = "import optlang, optlang.printing.fingerprint as f; print(f.fingerprint_of(optlang.Rule('sophiah').program))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": "7"}).stdout
    assert found.strip() == fingerprint_of(optlang.Rule("sophiah").program)  # type: ignore[arg-type]


def test_another_rule_is_refused_with_what_differs() -> None:
    saved = stepped(ADAMW)
    params = parameters()
    optimizer: Any = optlang.loads(ADAMW.replace("u + weight_decay*w", "u + 2*weight_decay*w"))(params)
    with pytest.raises(ValueError) as problem:
        optimizer.load_state_dict(saved)
    words = str(problem.value)
    assert "does not fit AdamW; nothing was loaded:" in words
    assert f"group 0: saved by another rule (its fingerprint is {saved['param_groups'][0]['fingerprint']}, here it is" in words
    assert "    - w' = w - lr * (u + weight_decay * w)\n    + w' = w - lr * (u + 2 * weight_decay * w)" in words
    assert "beta1" not in words
    assert not optimizer.state
    del saved["param_groups"][0]["fingerprint"]
    optimizer.load_state_dict(saved)
    assert len(optimizer.state) == 2


OTHERWISE_WRITTEN = {
    "names of equations": ADAMW.replace("u  =", "step_of_adam  =").replace("(u ", "(step_of_adam "),
    "defaults": ADAMW.replace("= 1e-3 ", "= 1 "),
    "ranges": ADAMW.replace("in [0, inf)", ""),
    "name and text": ADAMW.replace('AdamW "', 'My "Changed '),
}


@pytest.mark.parametrize("what", OTHERWISE_WRITTEN)
def test_what_changes_no_step_is_no_other_rule(what: str) -> None:
    assert OTHERWISE_WRITTEN[what] != ADAMW
    optimizer: Any = optlang.loads(OTHERWISE_WRITTEN[what])(parameters())
    optimizer.load_state_dict(stepped(ADAMW))
    assert len(optimizer.state) == 2


def test_values_that_shape_the_program_are_those_of_the_checkpoint() -> None:
    params = parameters()
    optimizer: Any = optlang.load("muonwithadamw")(params, Muon={"steps": 2})
    run(optimizer, params, range(2))
    others: Any = optlang.load("muonwithadamw")(parameters())
    others.load_state_dict(optimizer.state_dict())
    assert others.param_groups[0]["steps"] == 2


def test_live_groups_are_left_alone() -> None:
    params = parameters()
    optimizer: Any = optlang.load("adamw")(params)
    optimizer.load_state_dict(optimizer.state_dict())
    assert "fingerprint" not in optimizer.param_groups[0]
    optimizer.param_groups[0]["lr"] = -1.0  # whoever saves before a failing step is not stopped
    assert optimizer.state_dict()["param_groups"][0]["fingerprint"]


# ------------------------------------------------------------------------------------------------------------- names


def loaded(saved_names: tuple[str, str], names: tuple[str, str]) -> Any:
    cls: Any = optlang.load("adamw")
    one, other = ([(n, p) for n, (_, p) in zip(given, parameters(), strict=True)] for given in (saved_names, names))
    optimizer, resumed = cls(one), cls(other)
    run(optimizer, one, range(1))
    resumed.load_state_dict(optimizer.state_dict())
    return resumed


def test_parameters_that_are_called_otherwise_are_refused() -> None:
    with pytest.raises(ValueError) as problem:
        loaded(("body.weight", "body.bias"), ("head.weight", "body.bias"))
    for line in ("body.weight: saved, but not a parameter here", "head.weight: not in what was saved", "delete `param_names`"):
        assert line in str(problem.value)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
def test_what_torch_puts_before_names_is_no_part_of_them(prefix: str) -> None:
    resumed = loaded((f"{prefix}a", f"{prefix}b"), ("a", "b"))
    assert len(resumed.state) == 2


def test_with_names_on_one_side_it_goes_by_place() -> None:
    cls: Any = optlang.load("adamw")
    named, bare = cls(parameters()), cls([p for _, p in parameters()])
    bare.load_state_dict(named.state_dict())
    assert bare.param_groups[0]["param_names"] == ["a", "b"]
    cls(parameters()).load_state_dict(cls([p for _, p in parameters()]).state_dict())


def test_things_that_hooks_keep_beside_the_states() -> None:
    optimizer: Any = optlang.load("schedulefreesgd")(parameters())
    optimizer.state["seen"] = 3
    run(optimizer, parameters(), range(1))
    optimizer.eval()
    optimizer.train()
    again: Any = optlang.load("schedulefreesgd")(parameters())
    again.load_state_dict(optimizer.state_dict())
    assert again.state["seen"] == 3
    assert copy.deepcopy(again).state["seen"] == 3


# --------------------------------------------------------------------------------------------- of other optimizers


def lion(params: Any, **settings: Any) -> Any:
    from lion_pytorch import Lion

    return Lion(params, **settings)


OTHERS: dict[str, tuple[str, Any, dict[str, Any]]] = {
    "Adam": ("adam", torch.optim.Adam, {}),
    "Adam with decay": ("adam", torch.optim.Adam, {"weight_decay": 0.1, "betas": (0.8, 0.9), "lr": 0.01}),
    "AdamW": ("adamw", torch.optim.AdamW, {"eps": 1e-3, "maximize": True}),
    "AdamW without decay as Adam": ("adam", torch.optim.AdamW, {"weight_decay": 0.0}),
    "Adam, amsgrad": ("amsgrad", torch.optim.Adam, {"amsgrad": True}),
    "SGD": ("sgd", torch.optim.SGD, {"lr": 0.1, "weight_decay": 0.1}),
    "SGD, momentum": ("momentum", torch.optim.SGD, {"lr": 0.1, "momentum": 0.8}),
    "SGD, nesterov": ("nesterov", torch.optim.SGD, {"lr": 0.1, "momentum": 0.8, "nesterov": True}),
    "Lion": ("lion", lion, {"lr": 0.01, "weight_decay": 0.1}),
}


@pytest.mark.parametrize("other", OTHERS)
def test_checkpoints_of_other_optimizers_go_on_with_our_rule(other: str) -> None:
    name, theirs, settings = OTHERS[other]
    if theirs is lion:
        pytest.importorskip("lion_pytorch")
    params = [(n, p.detach().double().requires_grad_()) for n, p in parameters()]
    optimizer = theirs([p for _, p in params], **settings)
    run(optimizer, params, range(4))
    saved = through_a_file(optimizer.state_dict())
    before = copy.deepcopy(saved)
    others = [(n, p.detach().clone().requires_grad_()) for n, p in params]
    cls: Any = optlang.load(name)
    ours = cls(others)
    ours.load_state_dict(saved)
    torch.testing.assert_close(saved, before, rtol=0, atol=0)
    assert ours.param_groups[0]["lr"] == optimizer.param_groups[0]["lr"]
    run(optimizer, params, range(4, 8))
    run(ours, others, range(4, 8))
    for (_, p), (_, q) in zip(params, others, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("other", OTHERS)
def test_other_optimizers_go_on_with_our_checkpoints(other: str) -> None:
    name, theirs, settings = OTHERS[other]
    if theirs is lion:
        pytest.importorskip("lion_pytorch")
    if theirs is torch.optim.AdamW and name == "adam":
        settings = settings | {"weight_decay": 0.0}
    params = [(n, p.detach().double().requires_grad_()) for n, p in parameters()]
    own = {key: value for key, value in settings.items() if key not in ("amsgrad", "nesterov")}
    cls: Any = optlang.load(name)
    ours = cls(params, **own)
    run(ours, params, range(4))
    others = [(n, p.detach().clone().requires_grad_()) for n, p in params]
    optimizer = theirs([p for _, p in others])
    optimizer.load_state_dict(through_a_file(optlang.torch_state_dict(ours)))
    run(optimizer, others, range(4, 8))
    run(ours, params, range(4, 8))
    for (_, p), (_, q) in zip(params, others, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-12, atol=1e-12)


def test_states_in_fewer_bits_go_back_as_numbers() -> None:
    ours: Any = optlang.load("adamw", state="int8")(params := parameters())
    run(ours, params, range(2))
    states = optlang.torch_state_dict(ours)["state"]
    assert [{*state} for state in states.values()] == [{"step", "exp_avg", "exp_avg_sq"}] * len(params)
    for state, (_, p) in zip(states.values(), params, strict=True):
        assert state["exp_avg"].shape == p.shape and state["exp_avg"].dtype == torch.float32


@pytest.mark.parametrize(("make", "kind", "words"), [
    (lambda: optlang.load("adabelief")(parameters()), ValueError, "torch has no optimizer with the steps of AdaBelief"),
    (lambda: optlang.load("muonwithadamw")(parameters()), ValueError, "torch has no optimizer with the steps of MuonWithAdamW"),
    (lambda: optlang.load("adamw")([torch.ones(2, dtype=torch.complex64, requires_grad=True)]), ValueError, "complex"),
    (lambda: torch.optim.SGD([torch.ones(2)]), TypeError, "not SGD"),
])  # fmt: skip
def test_what_torch_cannot_go_on_with(make: Any, kind: Any, words: str) -> None:
    with pytest.raises(kind, match=words):
        optlang.torch_state_dict(make())


def test_a_rule_with_fewer_settings_is_another_rule_first_of_all() -> None:
    saved = stepped(library.find("lion").text)
    optimizer: Any = optlang.load("adamw")(parameters())
    with pytest.raises(ValueError, match="group 0: saved by another rule") as problem:
        optimizer.load_state_dict(saved)
    assert "    - rule Lion {\n    + rule AdamW {\n" in str(problem.value)
    assert str(problem.value).endswith("group 0: lacks eps")


@pytest.mark.parametrize(
    ("name", "theirs", "settings", "words"),
    [
        ("adamw", torch.optim.Adam, {"weight_decay": 0.1}, "saved with decoupled_weight_decay=False, but AdamW takes the steps of"),
        ("momentum", torch.optim.SGD, {"momentum": 0.9, "dampening": 0.5}, "group 0: saved with dampening=0.5"),
        ("momentum", torch.optim.SGD, {"momentum": 0.9, "nesterov": True}, "group 0: saved with nesterov=True"),
        ("sgd", torch.optim.SGD, {"momentum": 0.9}, "saved with momentum=0.9, but SGD takes the steps of momentum=0"),
        ("adamw", torch.optim.AdamW, {"amsgrad": True}, "saved with amsgrad=True, but AdamW takes the steps of amsgrad=False"),
        ("lion", torch.optim.AdamW, {}, "a: lacks m"),
        ("adabelief", torch.optim.AdamW, {}, "a: has exp_avg, exp_avg_sq, which AdaBelief does not keep"),
        ("muonwithadamw", torch.optim.AdamW, {}, "1 parameter groups, the optimizer 2"),
    ],
)
def test_other_steps_are_refused(name: str, theirs: Any, settings: dict[str, Any], words: str) -> None:
    params = parameters()
    optimizer = theirs([p for _, p in params], lr=0.1, **settings)
    run(optimizer, params, range(1))
    ours: Any = optlang.load(name)(parameters())
    with pytest.raises(ValueError, match="nothing was loaded") as problem:
        ours.load_state_dict(optimizer.state_dict())
    assert words in str(problem.value)
    assert not ours.state


def test_a_rule_that_only_has_the_name_is_not_taken_for_the_librarys() -> None:
    params = parameters()
    optimizer = torch.optim.AdamW([p for _, p in params])
    run(optimizer, params, range(1))
    ours: Any = optlang.loads(ADAMW.replace("m' = beta1*m + (1 - beta1)*g", "m' = beta1*m + g"))(parameters())
    with pytest.raises(ValueError, match="a: lacks m, v"):
        ours.load_state_dict(optimizer.state_dict())


def test_heavyballs_means_have_no_bias() -> None:
    """Its states as HeavyBall 3 writes them: by the views of a parameter, divided by what is missing to a mean."""
    params = parameters()
    reference: Any = optlang.load("adamw")(params, lr=0.01, betas=(0.8, 0.9))
    run(reference, params, range(3))
    state = {}
    for number, (_, p) in enumerate(params):
        kept = reference.state[p]
        means = {"update_by_adam_exp_avg_0": kept["m"] / (1 - 0.8**3), "update_by_adam_exp_avg_sq_0": kept["v"] / (1 - 0.9**3)}
        state[number] = {0: {**means, "is_initialized": {0}} | ({"step": torch.tensor(3)} if number == 0 else {})}
    group = {"lr": 0.01, "betas": (0.8, 0.9), "eps": 1e-8, "weight_decay": 0.01, "caution": False, "mars": False, "ecc": None,
             "step_count": torch.tensor(3), "warmup_steps": 0, "params": [0, 1]}  # fmt: skip
    saved = {"state": state, "param_groups": [group], "heavyball": {"inner_group": {}}}
    others = [(n, p.detach().clone().requires_grad_()) for n, p in params]
    ours: Any = optlang.load("adamw")(others)
    ours.load_state_dict(saved)
    assert "mars" not in ours.param_groups[0]
    run(reference, params, range(3, 6))
    run(ours, others, range(3, 6))
    for (_, p), (_, q) in zip(params, others, strict=True):
        torch.testing.assert_close(p, q)
    saved["param_groups"] = [group | {"mars": True}]
    with pytest.raises(ValueError, match="group 0: saved with mars=True"):
        ours.load_state_dict(saved)


def test_a_run_of_heavyball_goes_on() -> None:
    heavyball = pytest.importorskip("heavyball")
    heavyball.utils.compile_mode = None
    params = parameters()
    optimizer = heavyball.AdamW([p for _, p in params], lr=0.01, weight_decay=0.1)
    run(optimizer, params, range(4))
    others = [(n, p.detach().clone().requires_grad_()) for n, p in params]
    ours: Any = optlang.load("adamw")(others)
    ours.load_state_dict(optimizer.state_dict())
    run(optimizer, params, range(4, 8))
    run(ours, others, range(4, 8))
    for (_, p), (_, q) in zip(params, others, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-6)


def test_a_whole_run_of_torch_is_taken_over_by_changing_one_line() -> None:
    """The checkpoint of a model with its scheduler; only the class of the optimizer is another one."""
    torch.manual_seed(0)
    models = [nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 1)) for _ in range(2)]
    data = some(16, 4, seed=9)

    def train(model: nn.Module, optimizer: Any, scheduler: Any, steps: int) -> None:
        for _ in range(steps):
            optimizer.zero_grad()
            (model(data) ** 2).mean().backward()
            optimizer.step()
            scheduler.step()

    made = [torch.optim.AdamW(models[0].parameters(), lr=0.01), optlang.load("adamw")(models[1].parameters())]
    schedulers = [torch.optim.lr_scheduler.OneCycleLR(o, 0.1, total_steps=12) for o in made]
    train(models[0], made[0], schedulers[0], 5)
    for old, new in ((models[0], models[1]), (made[0], made[1]), (schedulers[0], schedulers[1])):
        new.load_state_dict(copy.deepcopy(old.state_dict()))
    for model, optimizer, scheduler in zip(models, made, schedulers, strict=True):
        train(model, optimizer, scheduler, 5)
    torch.testing.assert_close(list(models[0].parameters()), list(models[1].parameters()))
