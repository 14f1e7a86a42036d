"""The trusted references: for every rule of the library, another implementation that takes the same steps.

One row a comparison: our rule with its settings (all, off their defaults), and how to build the other side.
"""

from __future__ import annotations

import importlib
import math
import sys
import types
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.machinery import PathFinder
from itertools import count
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytorch_optimizer as po
import schedulefree  # type: ignore[import-untyped]
import torch
from adabelief_pytorch import AdaBelief  # type: ignore[import-untyped]
from closed_loop import AT_REST, EVERYTHING, STILL, Maker, Params, Problem, Reader
from dog import PolynomialDecayAverager  # type: ignore[import-untyped]
from lion_pytorch import Lion  # type: ignore[import-untyped]
from pytorch_optimizer.optimizer.grokfast import gradfilter_ema
from torch import Tensor
from torch.optim import lr_scheduler
from torch.optim.swa_utils import AveragedModel, get_ema_avg_fn, get_swa_avg_fn

Setting = float | int | bool


def _timm(module: str) -> Any:
    """A module of timm without the rest of the package, which needs torchvision."""
    spec = PathFinder.find_spec("timm")
    assert spec is not None and spec.submodule_search_locations
    root = Path(next(iter(spec.submodule_search_locations)))
    for name in ("timm", "timm.optim", "timm.utils"):
        package = sys.modules.setdefault(name, types.ModuleType(name))
        package.__path__ = [str(root.joinpath(*name.split(".")[1:]))]
        package.__spec__ = spec if name == "timm" else package.__spec__  # others ask whether it is installed
    return importlib.import_module(f"timm.{module}")


Lamb = _timm("optim.lamb").Lamb
adaptive_clip_grad = _timm("utils.agc").adaptive_clip_grad


@dataclass(frozen=True)
class Row:
    """One comparison. `text` is a rule written out, for what the library has as a definition, not as a rule.

    `early`: a setting that must not matter before that step: the branch without it came first.
    """

    rule: str
    ours: Mapping[str, Setting]
    theirs: Maker
    label: str = ""
    text: str = ""
    tolerance: float = 1e-12
    steps: int = 20
    shapes: tuple[str, ...] = EVERYTHING
    coupled: bool = True
    closure: bool = False
    average: Reader | None = None  # the reference's weights to evaluate with
    early: tuple[str, int] | None = None
    inputs: Callable[[Problem, int], Mapping[str, Params]] | None = None  # what the rule asks the loop for, at steps from 0
    loop: Callable[[Any], Any] | None = None  # what the loop around our optimizer does with its reports
    idle: tuple[int, ...] = ()  # of the problem
    offset: float = 0

    @property
    def id(self) -> str:
        return f"{self.rule}-{self.label}" if self.label else self.rule

    @property
    def problem(self) -> Problem:
        return Problem(self.shapes, coupled=self.coupled, idle=self.idle, offset=self.offset)


def plain(cls: Any, **settings: Any) -> Maker:
    """The reference as it comes."""
    return lambda params, problem: cls(list(params.values()), **settings)


# ------------------------------------------------------------------------ references that need a helping hand


class Before:
    """An optimizer whose gradients are changed in place before each step."""

    def __init__(self, base: torch.optim.Optimizer, change: Callable[[Params], object]) -> None:
        self.base, self.change = base, change
        self.params: Params = [p for group in base.param_groups for p in group["params"]]
        self.zero_grad, self.param_groups = base.zero_grad, base.param_groups

    def step(self) -> None:
        self.change(self.params)
        self.base.step()


class Paced:
    """An optimizer whose step sizes are set anew before each step, as schedulers do: none at first, then less and less."""

    SHARES = (0.0, 1.0, 0.6, 0.8)

    def __init__(self, base: Any) -> None:
        self.base, self.steps = base, count()
        self.first = [group["lr"] for group in base.param_groups]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.base, name)

    def step(self, *closure: Any) -> None:
        share = self.SHARES[next(self.steps) % len(self.SHARES)]
        for group, first in zip(self.base.param_groups, self.first, strict=True):
            group["lr"] = first * share
        self.base.step(*closure)


def paced(make: Maker) -> Maker:
    return lambda params, problem: Paced(make(params, problem))


def changed(change: Callable[[], Callable[[Params], object]]) -> Maker:
    """SGD on changed gradients; `change()` gives a fresh change, which may remember things."""
    return lambda params, problem: Before(torch.optim.SGD(list(params.values()), lr=0.05), change())


def gradient(p: Tensor) -> Tensor:
    assert p.grad is not None
    return p.grad


def clip_to_quantile(f: float) -> Callable[[Params], object]:
    def apply(params: Params) -> None:
        for p in params:
            limit = torch.quantile(gradient(p).abs(), 1 - f).item()
            gradient(p).clamp_(-limit, limit)

    return apply


def autoclip(q: float, window: int) -> Callable[[Params], object]:
    """Norms clipped by torch to the percentile that numpy finds among the last ones."""
    seen: deque[float] = deque(maxlen=window)

    def apply(params: Params) -> None:
        seen.append(torch.cat([gradient(p).flatten() for p in params]).norm().item())
        torch.nn.utils.clip_grad_norm_(params, float(np.percentile(seen, 100 * q)))

    return apply


class Model(torch.nn.Module):
    """What those references want that take a model."""

    def __init__(self, params: Sequence[Tensor]) -> None:
        super().__init__()
        self.all = torch.nn.ParameterList(params)


def grokfast(alpha: float, gain: float) -> Callable[[Params], object]:
    memory: list[Any] = [None]

    def apply(params: Params) -> None:
        model = Model(params)
        for copy, p in zip(model.all, params, strict=True):
            copy.grad = p.grad  # the same storage, changed in place
        memory[0] = gradfilter_ema(model, memory[0], alpha=alpha, lamb=gain)

    return apply


class Averaging:
    """SGD, with an average of the weights that is updated after each step."""

    def __init__(self, params: Params, averager: Callable[[torch.nn.Module], Any]) -> None:
        self.base = torch.optim.SGD(params, lr=0.05)
        self.model = Model([torch.nn.Parameter(p.detach()) for p in params])  # the same storage
        self.averager = averager(self.model)
        self.zero_grad = self.base.zero_grad

    def step(self) -> None:
        self.base.step()
        if isinstance(self.averager, AveragedModel):
            self.averager.update_parameters(self.model)
        else:
            self.averager.step()


def averaged(optimizer: Averaging) -> Params:
    copy = getattr(optimizer.averager, "av_model", optimizer.averager)
    return list(copy.parameters())


def averaging(averager: Callable[[torch.nn.Module], Any]) -> Maker:
    return lambda params, problem: Averaging(list(params.values()), averager)


class TwoPass:
    """SAM by hand: the gradient at the worst point near the weights, for torch's AdamW at the weights."""

    def __init__(self, base: torch.optim.Optimizer, rho: float) -> None:
        self.base, self.rho = base, rho
        self.params: Params = [p for group in base.param_groups for p in group["params"]]
        self.zero_grad = base.zero_grad

    def step(self, closure: Callable[[], Tensor]) -> None:
        closure()
        home = [p.detach().clone() for p in self.params]
        length = torch.cat([gradient(p).flatten() for p in self.params]).norm()
        with torch.no_grad():
            for p in self.params:
                p.add_(gradient(p) * (self.rho / (length + 1e-12)))
        closure()
        with torch.no_grad():
            for p, start in zip(self.params, home, strict=True):
                p.copy_(start)
        self.base.step()


class GivenHessian:
    """An optimizer of pytorch_optimizer, handed the exact diagonal, or what is made of it, on the steps where it would estimate it."""

    def __init__(self, params: Params, problem: Problem, period: int, cls: Any = po.SophiaH,
                 change: Callable[[Tensor], Tensor] = torch.clone, **settings: Any) -> None:  # fmt: skip
        self.base = cls(params, update_period=period, **settings)
        self.problem, self.period, self.change, self.count = problem, period, change, 0
        self.zero_grad = self.base.zero_grad

    def step(self, closure: Callable[[], Tensor]) -> None:
        closure()
        refresh = self.count % self.period == 0
        self.base.step(hessian=[self.change(h) for h in self.problem.hessian(self.count)] if refresh else None)
        self.count += 1


class FullPrecision:
    """torch's Muon without its cast to bfloat16, which would drown every other difference."""

    def __init__(self, params: Params, **settings: Any) -> None:
        self.base: Any = torch.optim.Muon(params, **settings)
        self.zero_grad = self.base.zero_grad

    def step(self) -> None:
        with mock.patch.object(Tensor, "bfloat16", Tensor.clone):
            self.base.step()


class Both:
    """Two optimizers side by side."""

    def __init__(self, *parts: Any) -> None:
        self.parts = parts

    def zero_grad(self) -> None:
        for part in self.parts:
            part.zero_grad()

    def step(self) -> None:
        for part in self.parts:
            part.step()


def muon_and_adamw(params: dict[str, Tensor], problem: Problem, **settings: Any) -> Both:
    matrices = [p for name, p in params.items() if p.ndim == 2 and "embed" not in name]
    others = [p for name, p in params.items() if p.ndim != 2 or "embed" in name]
    muon = FullPrecision(matrices, **settings, **TORCH_MUON)
    return Both(muon, torch.optim.AdamW(others, **{**TORCH, "weight_decay": 0.2}))


def schedule_free(params: dict[str, Tensor], problem: Problem, warmup: int = 6) -> Any:
    optimizer = schedulefree.AdamWScheduleFree(
        list(params.values()), lr=0.03, betas=BETAS, eps=1e-2, weight_decay=0.1, warmup_steps=warmup, r=0.5,
        weight_lr_power=1.5, foreach=False,
    )  # fmt: skip
    optimizer.train()
    return optimizer


def schedule_free_average(optimizer: Any) -> Params:
    optimizer.eval()
    return [p for group in optimizer.param_groups for p in group["params"]]


# -------------------------------------------------------------------------------------------------- the table

BETAS = (0.8, 0.95)
ADAM: dict[str, Setting] = {"lr": 0.03, "beta1": 0.8, "beta2": 0.95, "eps": 1e-2, "weight_decay": 0.1}
TORCH: dict[str, Any] = {"lr": 0.03, "betas": BETAS, "eps": 1e-2, "weight_decay": 0.1}
MUON: dict[str, Setting] = {"lr": 0.03, "momentum": 0.9, "weight_decay": 0.1, "steps": 4}
TORCH_MUON: dict[str, Any] = {"lr": 0.03, "momentum": 0.9, "weight_decay": 0.1, "ns_steps": 4}
MATRICES = ("matrix", "zero", "tall", *STILL)


def of(name: str, settings: Mapping[str, Setting]) -> dict[str, Setting]:
    """Settings of a called rule, or of a rule of a route."""
    return {f"{name}.{key}": value for key, value in settings.items()}


def fast(name: str) -> dict[str, Setting]:
    """The settings of a called AdamW that its caller leaves open."""
    return of(name, {key: value for key, value in ADAM.items() if key != "lr"})


SGD: dict[str, Setting] = {"lr": 0.03, "momentum": 0.8, "weight_decay": 0.1}
RMS: dict[str, Setting] = {"lr": 0.02, "alpha": 0.9, "eps": 1e-2, "momentum": 0.5, "weight_decay": 0.1}
LARS: dict[str, Setting] = {"lr": 0.5, "momentum": 0.8, "trust": 0.02, "weight_decay": 0.1}
PO_LARS: dict[str, Any] = {
    "lr": 0.5, "momentum": 0.8, "trust_coefficient": 0.02, "weight_decay": 0.1, "foreach": False,
}  # fmt: skip

RULES: tuple[Row, ...] = (
    Row("sgd", {"lr": 0.05, "weight_decay": 0.1}, plain(torch.optim.SGD, lr=0.05, weight_decay=0.1)),
    Row("momentum", SGD, plain(torch.optim.SGD, **SGD)),
    Row("nesterov", SGD, plain(torch.optim.SGD, nesterov=True, **SGD)),
    Row("signsgd", {"lr": 0.02, "weight_decay": 0.1},
        plain(po.SignSGD, lr=0.02, momentum=0.0, weight_decay=0.1)),
    Row("signum", SGD, plain(po.SignSGD, **SGD)),
    Row("lion", {"lr": 0.02, "beta1": 0.8, "beta2": 0.95, "weight_decay": 0.1},
        plain(Lion, lr=0.02, betas=BETAS, weight_decay=0.1)),
    # steps at both limits, and gradients that keep, change and lose their sign
    Row("rprop", {"lr": 0.02, "eta_minus": 0.4, "eta_plus": 1.5, "step_min": 4e-3, "step_max": 0.05},
        plain(torch.optim.Rprop, lr=0.02, etas=(0.4, 1.5), step_sizes=(4e-3, 0.05))),
    Row("adagrad", {"lr": 0.1, "lr_decay": 0.1, "initial": 0.2, "eps": 1e-2, "weight_decay": 0.1},
        plain(torch.optim.Adagrad, lr=0.1, lr_decay=0.1, initial_accumulator_value=0.2, eps=1e-2,
              weight_decay=0.1)),
    Row("rmsprop", {**RMS, "centered": True}, plain(torch.optim.RMSprop, centered=True, **RMS), "centered"),
    Row("rmsprop", RMS, plain(torch.optim.RMSprop, **RMS), "plain"),
    Row("adadelta", {"lr": 0.5, "rho": 0.8, "eps": 1e-2, "weight_decay": 0.1},
        plain(torch.optim.Adadelta, lr=0.5, rho=0.8, eps=1e-2, weight_decay=0.1)),
    Row("adam", ADAM, plain(torch.optim.Adam, **TORCH)),
    Row("adamw", ADAM, plain(torch.optim.AdamW, **TORCH)),
    Row("amsgrad", ADAM, plain(torch.optim.Adam, amsgrad=True, **TORCH)),
    Row("adamax", ADAM, plain(torch.optim.Adamax, **TORCH)),
    Row("nadam", {**ADAM, "momentum_decay": 0.3}, plain(torch.optim.NAdam, momentum_decay=0.3, **TORCH), "coupled"),
    Row("nadam", {**ADAM, "momentum_decay": 0.3, "decoupled": True},
        plain(torch.optim.NAdam, momentum_decay=0.3, decoupled_weight_decay=True, **TORCH), "decoupled"),
    # eps belongs to the rectified branch alone; with beta2 = 0.95 that branch begins at step 6
    Row("radam", ADAM, plain(torch.optim.RAdam, **TORCH), "coupled", early=("eps", 6)),
    Row("radam", {**ADAM, "decoupled": True}, plain(torch.optim.RAdam, decoupled_weight_decay=True, **TORCH), "decoupled",
        early=("eps", 6)),
    Row("adabelief", ADAM, plain(AdaBelief, rectify=False, print_change_log=False, **TORCH)),
    Row("lamb", ADAM, plain(Lamb, max_grad_norm=None, **TORCH)),
    Row("lars", {**LARS, "nesterov": True}, plain(po.LARS, nesterov=True, **PO_LARS), "nesterov"),
    Row("lars", LARS, plain(po.LARS, **PO_LARS), "plain"),
    Row("adafactor",
        {"lr": 0.4, "beta2_decay": -0.6, "eps1": 0.1, "eps2": 0.2, "d": 1.1, "weight_decay": 0.1},
        plain(torch.optim.Adafactor, lr=0.4, beta2_decay=-0.6, eps=(0.1, 0.2), d=1.1, weight_decay=0.1)),
    Row("muon", MUON, plain(FullPrecision, **TORCH_MUON), "original", shapes=MATRICES),
    Row("muon", {**MUON, "nesterov": False, "match_rms": True},
        plain(FullPrecision, nesterov=False, adjust_lr_fn="match_rms_adamw", **TORCH_MUON),
        "rms", shapes=MATRICES),
    Row("muonwithadamw", {**of("Muon", MUON), **of("AdamW", {**ADAM, "weight_decay": 0.2})}, muon_and_adamw, "original",
        shapes=(*EVERYTHING, "embed", "tall", *STILL)),
    Row("muonwithadamw", {**of("Muon", {**MUON, "nesterov": False, "match_rms": True}), **of("AdamW", {**ADAM, "weight_decay": 0.2})},
        partial(muon_and_adamw, nesterov=False, adjust_lr_fn="match_rms_adamw"), "rms", shapes=(*EVERYTHING, "embed")),
    # their clip at ±p of m / max(h, eps) is p times ours at ±1, so their lr is ours / p, their decay ours * p
    Row("sophiah",
        {"lr": 0.05, "beta1": 0.8, "beta2": 0.7, "rho": 0.5, "eps": 0.05, "weight_decay": 0.2, "k": 3},
        lambda params, problem: GivenHessian(
            list(params.values()), problem, period=3,
            lr=0.1, betas=(0.8, 0.7), p=0.5, eps=0.1, weight_decay=0.1),
        coupled=False, closure=True),
    Row("sam", {"lr": 0.03, "rho": 0.3, **fast("AdamW")},
        lambda params, _: TwoPass(torch.optim.AdamW(list(params.values()), **TORCH), rho=0.3), closure=True),
    Row("lookahead", {"lr": 0.03, "k": 3, "a": 0.3, **fast("fast")},
        lambda params, _: po.Lookahead(torch.optim.AdamW(list(params.values()), **TORCH), k=3, alpha=0.3)),
    Row("schedulefreeadamw", {**ADAM, "warmup": 6, "r": 0.5, "weight_lr_power": 1.5}, schedule_free, "warmup",
        average=schedule_free_average),
    Row("schedulefreeadamw", {**ADAM, "r": 0.5, "weight_lr_power": 1.5}, paced(partial(schedule_free, warmup=0)), "paced",
        average=schedule_free_average, loop=Paced),
)  # fmt: skip


def probe(imports: str, body: str) -> str:
    """A rule over SGD that uses a definition of the standard library."""
    return (
        f"from std import {imports}\nfrom sgd import SGD\nrule Probe {{ hyper lr = 0.05 in (0, inf) {body} }}"
    )


def transform(call: str) -> str:
    return probe(call.split("(")[0], f"w' = SGD(g = {call}, lr = lr)")


def average(call: str) -> str:
    return probe(call.split("(")[0], f"w' = SGD(lr = lr)  eval = {call}")


EMA = get_ema_avg_fn(0.7)  # type: ignore[no-untyped-call]
MEAN = get_swa_avg_fn()  # type: ignore[no-untyped-call]


def swa(avg_fn: Any) -> Callable[[torch.nn.Module], Any]:
    return lambda model: AveragedModel(model, avg_fn=avg_fn)


def centralize(params: Params) -> None:
    for p in params:
        po.centralize_gradient(gradient(p))


DEFINITIONS: tuple[Row, ...] = (
    Row("clip_global", {}, changed(lambda: lambda params: torch.nn.utils.clip_grad_norm_(params, 3.0)),
        text=transform("clip_global(g, 3.0)")),
    Row("clip_value", {}, changed(lambda: lambda params: torch.nn.utils.clip_grad_value_(params, 0.2)),
        text=transform("clip_value(g, 0.2)")),
    Row("clip_quantile", {}, changed(lambda: clip_to_quantile(0.3)), text=transform("clip_quantile(g, 0.3)")),
    Row("autoclip", {}, changed(lambda: autoclip(0.3, 7)), text=transform("autoclip(g, 0.3, 7)")),
    Row("agc", {}, changed(lambda: lambda params: adaptive_clip_grad(params, 0.3, 0.2)),
        text=transform("agc(g, 0.3, 0.2)"), shapes=(*EVERYTHING, *AT_REST)),
    Row("centralize", {}, changed(lambda: centralize), text=transform("centralize(g)")),
    Row("grokfast", {}, changed(lambda: grokfast(0.7, 1.5)), text=transform("grokfast(g, 0.7, 1.5)")),
    Row("weights_ema", {}, averaging(swa(EMA)),
        text=average("weights_ema(w', 0.7)"), average=averaged),
    Row("weights_mean", {}, averaging(swa(MEAN)),
        text=average("weights_mean(w')"), average=averaged),
    Row("weights_polynomial", {}, averaging(lambda model: PolynomialDecayAverager(model, gamma=3.0)),
        text=average("weights_polynomial(w', 3.0)"), average=averaged),
    Row("debias", {"lr": 0.05}, plain(torch.optim.Adam, lr=0.05, betas=BETAS, eps=1e-2), text="""
        from std import ema, debias
        rule Probe {
          hyper lr = 0.1 in (0, inf)
          state m = 0
          state v = 0
          m' = ema(m, g, 0.8)
          v' = ema(v, g^2, 0.95)
          w' = w - lr*debias(m', 0.8)/(sqrt(debias(v', 0.95)) + 1e-2)
        }"""),
)  # fmt: skip


# -------------------------------------------------------------------------------------------------- schedules

HORIZON = 45  # steps compared; longer than most schedules below, so that their tails are too


@dataclass(frozen=True)
class Schedule:
    """A schedule of the standard library and the values that it must take at steps 1, 2, …"""

    name: str
    call: str
    values: Callable[[], list[float]]
    horizon: int = HORIZON


def stepped(
    make: Callable[[torch.optim.Optimizer], Any], steps: int, read: str, **settings: Any
) -> list[float]:
    """What one of torch's schedulers, or one written for torch, makes of a setting of SGD."""
    optimizer = torch.optim.SGD([torch.zeros(1)], **{"lr": 0.7, **settings})
    scheduler = make(optimizer)
    values = []
    for step in range(steps):
        values.append(float(optimizer.param_groups[0][read]))
        optimizer.step()
        if step + 1 < steps:
            scheduler.step()
    return values


def torch_schedule(
    cls: Any, horizon: int = HORIZON, read: str = "lr", **settings: Any
) -> Callable[[], list[float]]:
    return lambda: stepped(lambda optimizer: cls(optimizer, **settings), horizon, read, momentum=0.5)


def formula(value: Callable[[int], float], horizon: int = HORIZON) -> Callable[[], list[float]]:
    """For schedules that no package has: the published formula, of the step from 1."""
    return lambda: [value(t) for t in range(1, horizon + 1)]


def linear_then_cosine(optimizer: torch.optim.Optimizer) -> Any:
    up = lr_scheduler.LinearLR(optimizer, start_factor=0.1, total_iters=10)
    down = lr_scheduler.CosineAnnealingLR(optimizer, T_max=30, eta_min=0.07)
    return lr_scheduler.SequentialLR(optimizer, [up, down], milestones=[10])


def wsd(shape: str, end: float = 0.0) -> Callable[[], list[float]]:
    return torch_schedule(po.get_wsd_schedule, num_warmup_steps=8, num_stable_steps=12, num_decay_steps=15,
                          min_lr_ratio=end, cooldown_type=shape)  # fmt: skip


def wsd_tail(t: int) -> float:
    """The exponential decay of IBM's scheduler, which ends at its floor."""
    k, end, e = t - 1, 0.1, math.e
    x = (k - 20) / 15
    tail = (1 - end) * e / (e - 1) * math.exp(-x) + (end * e - 1) / (e - 1)
    return 0.7 * (k / 8 if k < 8 else 1 if k < 20 else tail if k < 35 else end)


def power_law(t: int) -> float:
    def rate(tokens: float) -> float:
        return min(0.4, 4.6 * math.pow(tokens, -0.51))

    k = t - 1
    return k / 6 * rate(6 * 10) if k <= 6 else rate(k * 10)


def half_cosine(x: float) -> float:
    return (1 + math.cos(math.pi * x)) / 2


def cosine_power(t: int) -> float:
    now, first, last = (3 ** (half_cosine(s / 40) + 1) for s in (t, 1, 40))
    return 0.01 + (0.7 - 0.01) * (now - last) / (first - last)


ONECYCLE: dict[str, Any] = {
    "max_lr": 0.7, "total_steps": 40, "pct_start": 0.3, "div_factor": 10, "final_div_factor": 50,
    "base_momentum": 0.8, "max_momentum": 0.9,
}  # fmt: skip
STRAIGHT = {**ONECYCLE, "anneal_strategy": "linear", "three_phase": True}
CYCLIC: dict[str, Any] = {"base_lr": 0.1, "max_lr": 0.7, "step_size_up": 5, "step_size_down": 8}

SCHEDULES: tuple[Schedule, ...] = (
    Schedule("constant", "constant(t, 0.7, 0.4, 7)",
             torch_schedule(lr_scheduler.ConstantLR, factor=0.4, total_iters=7)),
    Schedule("linear_warmup", "linear_warmup(t, 0.7, 12, 0.2)",
             torch_schedule(lr_scheduler.LinearLR, start_factor=0.2, total_iters=12)),
    Schedule("linear_decay", "linear_decay(t, 0.7, 30, 0.1)",
             torch_schedule(lr_scheduler.LinearLR, start_factor=1.0, end_factor=0.1, total_iters=30)),
    Schedule("polynomial_decay", "polynomial_decay(t, 0.7, 30, 1.7)",
             torch_schedule(lr_scheduler.PolynomialLR, total_iters=30, power=1.7)),
    # torch's turns up again after T_max, ours stays at the end
    Schedule("cosine", "cosine(t, 0.7, 40, 0.1)",
             torch_schedule(lr_scheduler.CosineAnnealingLR, horizon=41, T_max=40, eta_min=0.07), horizon=41),
    Schedule("warmup_cosine", "warmup_cosine(t, 0.7, 10, 40, 0.1, 0.1)",
             lambda: stepped(linear_then_cosine, 41, "lr"), horizon=41),
    Schedule("sgdr", "sgdr(t, 0.7, 3, 3, 0.1)",  # restarts after 3, 12 and 39 steps
             torch_schedule(lr_scheduler.CosineAnnealingWarmRestarts, T_0=3, T_mult=3, eta_min=0.07)),
    Schedule("sgdr_same", "sgdr(t, 0.7, 7, 1, 0.1)",
             torch_schedule(lr_scheduler.CosineAnnealingWarmRestarts, T_0=7, T_mult=1, eta_min=0.07)),
    Schedule("wsd", "wsd(t, 0.7, 8, 12, 15)", wsd("linear")),
    Schedule("wsd_sqrt", "wsd_sqrt(t, 0.7, 8, 12, 15)", wsd("1-sqrt")),
    Schedule("wsd_square", "wsd_square(t, 0.7, 8, 12, 15)", wsd("1-square")),
    Schedule("wsd_cosine", "wsd_cosine(t, 0.7, 8, 12, 15, 0.1)", wsd("cosine", 0.1)),
    Schedule("wsd_exponential", "wsd_exponential(t, 0.7, 8, 12, 15, 0.1)", formula(wsd_tail)),
    Schedule("power_law", "power_law(t, 0.4, 6, 10)", formula(power_law)),
    Schedule("cyclic", "cyclic(t, 0.7, 0.1, 5, 8)",
             torch_schedule(lr_scheduler.CyclicLR, mode="triangular", **CYCLIC)),
    Schedule("cyclic_halving", "cyclic_halving(t, 0.7, 0.1, 5, 8)",
             torch_schedule(lr_scheduler.CyclicLR, mode="triangular2", **CYCLIC)),
    Schedule("cyclic_exponential", "cyclic_exponential(t, 0.7, 0.1, 5, 8, 0.95)",
             torch_schedule(lr_scheduler.CyclicLR, mode="exp_range", gamma=0.95, **CYCLIC)),
    Schedule("onecycle", "onecycle(t, 0.7, 40, 0.3, 10, 50)",
             torch_schedule(lr_scheduler.OneCycleLR, horizon=40, **ONECYCLE), horizon=40),
    Schedule("onecycle_momentum", "onecycle_momentum(t, 40, 0.3, 0.8, 0.9)",
             torch_schedule(lr_scheduler.OneCycleLR, horizon=40, read="momentum", **ONECYCLE), horizon=40),
    Schedule("onecycle_linear", "onecycle_linear(t, 0.7, 40, 0.3, 10, 50)",
             torch_schedule(lr_scheduler.OneCycleLR, horizon=40, **STRAIGHT), horizon=40),
    Schedule("onecycle_linear_momentum", "onecycle_linear_momentum(t, 40, 0.3, 0.8, 0.9)",
             torch_schedule(lr_scheduler.OneCycleLR, horizon=40, read="momentum", **STRAIGHT), horizon=40),
    Schedule("cosine_power", "cosine_power(t, 0.7, 40, 3, 0.01)", formula(cosine_power, 40), horizon=40),
    Schedule("cosine_power_one", "cosine_power(t, 0.7, 40, 1, 0.01)", horizon=40,
             values=formula(lambda t: 0.01 + 0.69 * half_cosine(t / 40) / half_cosine(1 / 40), 40)),
    Schedule("inverse_sqrt", "inverse_sqrt(t, 0.7, 9)",
             formula(lambda t: 0.7 * t / 9 if t < 9 else 0.7 * math.sqrt(9 / t))),
    Schedule("inverse_sqrt_width", "inverse_sqrt_width(t, 64, 9)",
             formula(lambda t: 1 / math.sqrt(64) * min(1 / math.sqrt(t), t / math.sqrt(9) ** 3))),
    Schedule("inverse_sqrt_t5", "inverse_sqrt_t5(t, 20)", formula(lambda t: 1 / math.sqrt(max(t, 20)))),
    Schedule("explore_exploit", "explore_exploit(t, 0.7, 40, 0.3)",
             formula(lambda t: 0.7 * max(0.0, min(1.0, (40 - t) / 12)))),
    Schedule("warmup_explore_exploit", "warmup_explore_exploit(t, 0.7, 8, 40, 0.3)",
             formula(lambda t: 0.7 * max(0.0, min(1.0, t / 8, (40 - t) / 12)))),
)  # fmt: skip
