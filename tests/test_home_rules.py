"""What every optimizer owes a training loop, asked of rules of every kind. 10 seconds.

`make torch-suite` asks all rules, and more, those for matrices in a route with AdamW for vectors; OPTLANG_EVERYTHING=1 asks these
alone here, where parameters are matrices.
"""

from __future__ import annotations

import copy
import json
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from stepping import finite
from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

import optlang
from optlang import library
from optlang.ir import Routing

# Settings for a small bowl, where those that the rule was made for are not for a few steps there.
TUNED: dict[str, dict[str, Any]] = {
    "addsign": {"lr": 0.01}, "powersign": {"lr": 0.01}, "schedulefreesgd": {"lr": 0.01}, "gravity": {"lr": 0.1, "alpha": 0.0},
    "dadaptadam": {"d0": 1e-2, "growth": 1.1}, "prodigy": {"d0": 1e-2, "growth": 1.1},
}  # fmt: skip
SOME = [  # of every family and kind
    "adamw", "adabelief", "nadam", "radam", "adafactor", "lamb", "lars", "muon", "muonwithadamw", "momentum", "sgd", "gravity", "lion",
    "addsign", "rprop", "core", "signum", "lookahead", "sam", "schedulefreeadamw", "schedulefreesgd", "sophiag", "sophiah", "prodigy",
    "dadaptadam", "marsadamw", "yogi", "randomscaledadamw",
]  # fmt: skip
ROWS = json.loads((Path(__file__).parents[1] / "docs/torch-suite.json").read_text())["by rule"].values()
LEFT = [row["rule"] for row in ROWS if row["in a route with AdamW for vectors"]]
SHRINKING = {"scioncolumns", "scionrows", "scionsign", "unitadamw"}  # weights, at their own pace
MOVES_ON_ZEROS = {"yogi"} | SHRINKING  # the first mean of Yogi is not 0


def bowl(params: list[Tensor], scale: float = 1.0) -> Tensor:
    weight, bias = params
    x = torch.randn(5, generator=torch.Generator().manual_seed(3))
    return scale * ((weight @ x + bias.sum()) ** 2).sum()


def start() -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(shape, generator=generator).requires_grad_() for shape in ((4, 5), (1, 4))]


def optimizer_of(name: str, params: list[Tensor], **settings: Any) -> Any:
    """Without decay; a route gets names and keeps its settings."""
    cls: Any = optlang.load(name)
    if isinstance(cls.rule, Routing):
        return cls([(f"p{i}", p) for i, p in enumerate(params)])
    known = {*cls.cases[0].settings.hypers, *cls.cases[0].settings.naming.short}
    plain = {"weight_decay": 0.0} if "weight_decay" in known else {}
    return cls(params, **{**plain, **TUNED.get(name, {}), **settings})


def round_bowl(params: list[Tensor], scale: float = 1.0) -> Tensor:
    return scale * torch.stack([(p**2).sum() for p in params]).sum()


def stepped(optimizer: Any, params: list[Tensor], scale: float = 1.0, valley: Callable[..., Tensor] = bowl) -> float:
    """One step; the loss before it."""

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = valley(params, scale)
        loss.backward()
        return loss

    for wanted in [i.name for case in optimizer.cases for i in case.program.inputs]:
        optimizer.inputs[wanted] = {p: torch.ones_like(p) for p in params}
    loss = optimizer.step(closure)
    return float(loss.detach())


@pytest.fixture(params=[*SOME, *(n for n in LEFT if n not in SOME)] if "OPTLANG_EVERYTHING" in os.environ else [*SOME, "unitadamw"])
def name(request: Any) -> Any:
    return request.param


# --------------------------------------------------------------------------------------------------------- directions


def test_it_goes_down_and_with_maximize_up(name: str) -> None:
    for maximize in (False, True)[: 2 - (name in SHRINKING)]:
        params = start()
        optimizer = optimizer_of(name, params)
        for group in optimizer.param_groups:
            group["maximize"] = maximize
        losses = [stepped(optimizer, params) for _ in range(12)]
        assert losses[-1] > losses[0] if maximize else losses[-1] < losses[0], losses


def test_without_a_gradient_nothing_moves_and_nothing_is_counted(name: str) -> None:
    params = start()
    before = [p.detach().clone() for p in params]
    optimizer = optimizer_of(name, params)
    if not optimizer.asks_again:
        for wanted in [i.name for case in optimizer.cases for i in case.program.inputs]:
            optimizer.inputs[wanted] = {}
        optimizer.step()
        assert not optimizer.state
    if name not in MOVES_ON_ZEROS:
        stepped(optimizer, params, scale=0.0)
        if not isinstance(optimizer.rule, Routing):
            for p, q in zip(params, before, strict=True):
                torch.testing.assert_close(p.detach(), q, rtol=0, atol=1e-6)


# ------------------------------------------------------------------------------------------------ settings and states


def test_a_step_size_in_a_tensor_takes_the_same_steps(name: str) -> None:
    cls: Any = optlang.load(name)
    if isinstance(cls.rule, Routing) or "lr" not in cls.cases[0].settings.group_defaults():
        return
    lr = TUNED.get(name, {}).get("lr", cls.cases[0].settings.group_defaults()["lr"])
    found = []
    for value in (lr, torch.tensor(lr, dtype=torch.float64), torch.tensor([lr], dtype=torch.float64)):
        params = start()
        optimizer = optimizer_of(name, params, lr=value)
        for _ in range(3):
            stepped(optimizer, params)
        found.append(params)
    for p, *others in zip(*found, strict=True):
        finite(p)
        assert all(torch.equal(p, q) for q in others)


def test_checkpoints_of_older_versions_and_with_plain_numbers(name: str) -> None:
    """Without the options of today, and with counts that are no tensors."""
    params = start()
    optimizer = optimizer_of(name, params)
    stepped(optimizer, params)
    saved = copy.deepcopy(optimizer.state_dict())
    for group in saved["param_groups"]:
        for key in ("maximize", "foreach", "fused", "capturable", "differentiable", "fingerprint"):
            group.pop(key, None)
    for state in saved["state"].values():
        state["step"] = state["step"].item()
    del saved["rules"]
    again = optimizer_of(name, params)
    again.load_state_dict(saved)
    others = [p.detach().clone().requires_grad_() for p in params]
    copied = optimizer_of(name, others)
    copied.load_state_dict(optimizer.state_dict())
    stepped(again, params)
    stepped(copied, others)
    finite(*params)
    assert all(torch.equal(p, q) for p, q in zip(params, others, strict=True))
    assert repr(again).startswith(type(again).__name__)
    assert {k for k in vars(again) if k[0] != "_"} == {k for k in vars(copy.deepcopy(again)) if k[0] != "_"}


@pytest.mark.parametrize("name", library.names())
def test_every_state_is_there_after_a_first_step_of_size_0(name: str) -> None:
    """Distributed checkpoints take one, with gradients of 0, to see which states there are."""
    params = start()
    optimizer = optimizer_of(name, params)
    before = [p.detach().clone() for p in params]
    for group in optimizer.param_groups:
        if "lr" in group:
            group["lr"] = 0.0
    for p in params:
        p.grad = torch.zeros_like(p)
    optimizer.step(closure=None)
    for p, q in zip(params, before, strict=True):
        torch.testing.assert_close(p.detach(), q, rtol=0, atol=0)
    kept = {p: set(state) for p, state in optimizer.state.items()}
    assert len(kept) == 2
    stepped(optimizer, params)
    assert {p: set(state) for p, state in optimizer.state.items()} == kept


# -------------------------------------------------------------------------------------------------------------- hooks


@pytest.fixture
def calls() -> Iterator[list[str]]:
    seen: list[str] = []
    handles = [
        register_optimizer_step_pre_hook(lambda *_: seen.append("every, before")),
        register_optimizer_step_post_hook(lambda *_: seen.append("every, after")),
    ]
    yield seen
    for handle in handles:
        handle.remove()


def test_hooks_run_around_steps_in_torchs_order(calls: list[str]) -> None:
    params = start()
    optimizer = optimizer_of("adamw", params)
    optimizer.register_step_pre_hook(lambda *_: calls.append("before"))
    optimizer.register_step_post_hook(lambda *_: calls.append("after"))
    stepped(optimizer, params)
    assert calls == ["every, before", "before", "after", "every, after"]


def test_a_hook_may_change_the_state_dict_on_its_way_in_and_out() -> None:
    params = start()
    optimizer = optimizer_of("adamw", params)
    stepped(optimizer, params)
    optimizer.register_state_dict_post_hook(lambda o, state: {**state, "mine": 1})
    optimizer.register_load_state_dict_pre_hook(lambda o, state: {**state, "param_groups": [{**state["param_groups"][0], "lr": 0.5}]})
    saved = optimizer.state_dict()
    assert saved["mine"] == 1
    optimizer.load_state_dict(saved)
    assert optimizer.param_groups[0]["lr"] == 0.5
    assert saved["param_groups"][0]["lr"] != 0.5


def test_steps_show_in_profiles() -> None:
    params = start()
    optimizer = optimizer_of("lion", params)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        stepped(optimizer, params)
    assert "Optimizer.step#Lion.step" in {event.key for event in profile.key_averages()}


def test_losses_are_finite_all_along() -> None:
    """A loop of the plainest kind with the rule that most people will try first."""
    params = start()
    optimizer = optimizer_of("adamw", params, lr=0.1)
    losses = [stepped(optimizer, params) for _ in range(60)]
    assert all(math.isfinite(x) for x in losses)
    assert losses[-1] < 0.05 * losses[0]


@pytest.mark.parametrize("name", library.names())
def test_defaults_keep_small_matrices_numbers(name: str) -> None:
    """Also where sides are below a rank, a number of lines or a run of elements that a rule is made for."""
    draws = torch.Generator().manual_seed(1)
    params = [torch.randn(shape, generator=draws).requires_grad_() for shape in ((4, 4), (10, 64), (64, 10), (1, 1))]
    cls: Any = optlang.load(name)
    optimizer = cls([(f"p{i}", p) for i, p in enumerate(params)])
    for _ in range(60):
        stepped(optimizer, params, 0.1, round_bowl)
    finite(*params)


@pytest.mark.parametrize("backend", ["torch", "cpp"])
@pytest.mark.parametrize("name", ["adafactor", "adafactororiginal", "adalomo", "came"])
def test_factors_of_a_gradient_of_zeros_do_not_vanish_in_float32(name: str, backend: str) -> None:
    """The smallest mean per row times that per column is below all float32 numbers: the quotient comes first."""
    p = torch.ones(4, 3, requires_grad=True)
    optimizer: Any = optlang.load(name, backend=backend)([p])
    for _ in range(2):
        p.grad = torch.zeros_like(p)
        optimizer.step()
    assert torch.equal(p, torch.ones(4, 3))


@pytest.mark.parametrize(("name", "settings"), [("shampoo", {}), ("graftedshampoo", {"start": 1, "beta2": 1e-3, "period": 1})])
def test_rounding_does_not_make_eigenvalues_negative(name: str, settings: dict[str, Any]) -> None:
    """Large gradients of low rank hide the start of the diagonals in float32, and a mean that decays forgets it."""
    p = torch.zeros(4, 3, requires_grad=True)
    optimizer: Any = optlang.load(name)([p], **settings)
    for _ in range(20):
        p.grad = torch.outer(torch.tensor([1.0, -30.0, 7.0, 0.0]), torch.tensor([13.0, 0.0, -4.0]))
        optimizer.step()
    assert p.isfinite().all()
