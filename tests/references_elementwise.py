"""Rows of the table of `references` for the rules that go element by element: sign methods, accumulators, the Adam family."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from functools import partial
from itertools import chain
from typing import Any
from unittest import mock

import by_hand as hand
import numpy as np
import pytorch_optimizer as po
import schedulefree  # type: ignore[import-untyped]
import torch
from adopt import ADOPT  # type: ignore[import-untyped]
from adv_optm.util.lion_k import _get_lion_k_update  # type: ignore[import-untyped]
from by_hand import by_hand
from closed_loop import AT_REST, EVERYTHING, Maker, Params, Problem
from core_optimizer import CoRe  # type: ignore[import-untyped]
from dadaptation import DAdaptAdam  # type: ignore[import-untyped]
from lion_pytorch import Lion  # type: ignore[import-untyped]
from optimi import StableAdamW
from prodigyopt import Prodigy  # type: ignore[import-untyped]
from pytorch_optimizer.optimizer import mars
from pytorch_optimizer.optimizer.utils.matrix import zero_power_via_newton_schulz_5
from qhoptim.pyt import QHAdam  # type: ignore[import-untyped]
from references import (
    ADAM,
    BETAS,
    MATRICES,
    RMS,
    SGD,
    TORCH,
    Before,
    Paced,
    Row,
    Setting,
    _timm,
    fast,
    gradient,
    paced,
    plain,
    schedule_free_average,
)  # fmt: skip
from sophia_opt import SophiaG  # type: ignore[import-untyped]
from torch import Tensor

import optlang
from optlang import philox
from optlang.ir import walk

RMSpropTF = _timm("optim.rmsprop_tf").RMSpropTF
NAdamW = _timm("optim.nadamw").NAdamW
LegacyAdamW = _timm("optim.adamw").AdamWLegacy
LaProp = _timm("optim.laprop").LaProp
Mars = _timm("optim.mars").Mars

# ------------------------------------------------------------------------------------------ draws of our rules


def site(rule: str) -> int:
    """Where the one draw of a rule stands."""
    [draw] = {node.value for node in walk(optlang.Rule(rule).program.roots()) if node.op == "random"}
    return int(draw[1])


def scale_of(rule: str) -> Callable[[int], float]:
    """The exponential draw per model of each step."""
    place = site(rule)
    return lambda t: float(philox.draw("exponential", (1,), t, place, 0, philox.MODEL_STREAM)[0])


class OnNorms:
    """torch's Adagrad on the norm of each tensor, or of all together: what it does to a norm is done along the gradient."""

    def __init__(self, params: Params, whole: bool, lr: float, b0: float, eps: float) -> None:
        self.teams, self.param_groups = [params] if whole else [[p] for p in params], [{"params": params}]
        self.norms = [torch.zeros(1, requires_grad=True) for _ in self.teams]
        self.base = torch.optim.Adagrad(self.norms, lr=lr, initial_accumulator_value=b0**2, eps=eps)

    def zero_grad(self) -> None:
        for p in chain(*self.teams):
            p.grad = None

    @torch.no_grad()
    def step(self) -> None:
        before = [norm.clone() for norm in self.norms]
        for norm, team in zip(self.norms, self.teams, strict=True):
            norm.grad = torch.cat([gradient(p).flatten() for p in team]).norm().reshape(1)
        self.base.step()
        for norm, start, team in zip(self.norms, before, self.teams, strict=True):
            for p in team:
                p.add_(gradient(p) * ((norm - start) / gradient(norm)))


class FirstVelocity(Before):
    """An optimizer of pytorch_optimizer whose velocities start with our draws."""

    def __init__(self, base: Any, spread: float) -> None:
        place = site("gravity")
        super().__init__(base, lambda params: None)
        for index, p in enumerate(self.params):
            start = philox.draw("normal", tuple(p.shape), 1, place, 0, index)
            base.state[p]["v"] = spread * torch.from_numpy(start)


class Scaled:
    """An optimizer whose lr is multiplied by another number each step."""

    def __init__(self, base: torch.optim.Optimizer, draw: Callable[[int], float]) -> None:
        self.base, self.draw, self.t = base, draw, 0
        self.lr = base.param_groups[0]["lr"]
        self.zero_grad = base.zero_grad

    def step(self) -> None:
        self.t += 1
        self.base.param_groups[0]["lr"] = self.lr * self.draw(self.t)
        self.base.step()


# ------------------------------------------------------------------------------------------------- the others


class Mapped:
    """The author's Lion with another map for its sign."""

    def __init__(self, params: Params, change: Callable[[Tensor], Tensor], **settings: Any) -> None:
        self.base = Lion(params, **settings)
        self.change = change
        self.zero_grad = self.base.zero_grad

    def step(self) -> None:
        with mock.patch.object(Tensor, "sgn_", self.change):
            self.base.step()


def mapped(change: Callable[[Tensor], Tensor]) -> Maker:
    return lambda params, problem: Mapped(list(params.values()), change, lr=0.02, betas=BETAS, weight_decay=0.1)


def largest(share: float) -> Callable[[Tensor], Tensor]:
    def change(c: Tensor) -> Tensor:
        chosen = torch.zeros_like(c).flatten()
        places = c.flatten().abs().topk(int(np.ceil(share * c.numel()))).indices
        chosen[places] = 1.0
        return chosen.reshape(c.shape) * torch.sign(c)

    return change


class Predicting:
    """An optimizer that gets the gradient of weights `ahead` steps further along its last update."""

    def __init__(self, base: torch.optim.Optimizer, ahead: float, update: Callable[[dict[str, Any]], Tensor]) -> None:
        self.base, self.ahead, self.update = base, ahead, update
        self.params: Params = [p for group in base.param_groups for p in group["params"]]
        self.zero_grad = base.zero_grad

    def step(self, closure: Callable[[], Tensor]) -> None:
        home = [p.detach().clone() for p in self.params]
        with torch.no_grad():
            for p in self.params:
                if memory := self.base.state[p]:
                    p.sub_(self.ahead * self.base.param_groups[0]["lr"] * self.update(memory))
        closure()
        with torch.no_grad():
            for p, start in zip(self.params, home, strict=True):
                p.copy_(start)
        self.base.step()


def schedule_free_sgd(params: dict[str, Tensor], problem: Problem, warmup: int = 6) -> Any:
    optimizer = schedulefree.SGDScheduleFree(
        list(params.values()), lr=0.1, momentum=0.8, weight_decay=0.1, warmup_steps=warmup, r=0.5, weight_lr_power=1.5, foreach=False
    )
    optimizer.train()
    return optimizer


def last_adam_update(s: dict[str, Any]) -> Tensor:
    t = float(s["step"])
    m, v = s["exp_avg"] / (1 - BETAS[0] ** t), s["exp_avg_sq"] / (1 - BETAS[1] ** t)
    return m / (v.sqrt() + 1e-2)


def by_subset(params: dict[str, Tensor], problem: Problem) -> Any:
    """Subsets as long as the last dimension; vectors as they are."""
    groups = [{"params": [p], "sn": p.ndim > 1, "subset_size": p.shape[-1]} for p in params.values()]
    return po.AdamWSN(groups, **TORCH)


class Settling:
    """pytorch_optimizer's SWATS with the paper's test of whether the rate has settled."""

    def __init__(self, params: Params, tol: float, **settings: Any) -> None:
        self.base, self.tol = po.SWATS(params, **settings), tol
        self.zero_grad = self.base.zero_grad

    def step(self) -> None:
        def settled(mean: Tensor, rate: Tensor, rtol: float) -> bool:
            return bool((mean - rate).abs() < self.tol)

        with mock.patch.object(Tensor, "allclose", settled):
            self.base.step()


class SampledCurvature:
    """The author's SophiaG, which takes the sampled gradients from where the others are."""

    def __init__(self, params: Params, problem: Problem, period: int, batch: int, **settings: Any) -> None:
        self.base, self.params, self.problem = SophiaG(params, **settings), params, problem
        self.period, self.batch, self.count = period, batch, 0
        self.zero_grad = self.base.zero_grad

    def step(self) -> None:
        if self.count % self.period == 0:
            kept = [p.grad for p in self.params]
            for p, sampled in zip(self.params, self.problem.hessian(self.count), strict=True):
                p.grad = sampled
            self.base.update_hessian()
            for p, g in zip(self.params, kept, strict=True):
                p.grad = g
        self.base.step(bs=self.batch)
        self.count += 1


def squares(problem: Problem, step: int) -> dict[str, Params]:
    """For a batch of 3, as if the diagonal of the Hessian were the sampled gradient."""
    return {"curvature": [3 * sampled**2 for sampled in problem.hessian(step)]}


class Quiet(Before):
    """An optimizer that calls torch in ways of old."""

    def step(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.base.step()


def quiet(cls: Any, **settings: Any) -> Maker:
    return lambda params, problem: Quiet(cls(list(params.values()), **settings), lambda params: None)


class Full(Before):
    """pytorch_optimizer's MARS without its cast to bfloat16."""

    def __init__(self, base: torch.optim.Optimizer) -> None:
        super().__init__(base, lambda params: None)

    def step(self) -> None:
        with mock.patch.object(mars, "zero_power_via_newton_schulz_5", partial(zero_power_via_newton_schulz_5, dtype=torch.float64)):
            self.base.step()


class OldWeights:
    """An optimizer that compares gradients: it is told that of this batch at the weights before."""

    def __init__(self, base: Any, name: str) -> None:
        self.base, self.name = base, name
        self.params: Params = [p for group in base.param_groups for p in group["params"]]
        self.before = [p.detach().clone() for p in self.params]
        self.zero_grad = base.zero_grad

    def step(self, closure: Callable[[], Tensor]) -> None:
        now = [p.detach().clone() for p in self.params]
        self._to(self.before)
        closure()
        for p in self.params:
            if self.base.state[p]:
                self.base.state[p][self.name] = gradient(p).clone()
        self._to(now)
        closure()
        self.base.step()
        self.before = now

    def _to(self, weights: Params) -> None:
        with torch.no_grad():
            for p, w in zip(self.params, weights, strict=True):
                p.copy_(w)


def exact_shampoo(params: dict[str, Tensor], problem: Problem) -> OldWeights:
    """pytorch_optimizer's MARS, told the gradients at the last weights from the first step on."""
    inner: Any = Full(po.MARS(list(params.values()), **{**PO_MARS, "mars_type": "shampoo", "eps": 1e-30}))
    inner.param_groups, inner.state = inner.base.param_groups, inner.base.state
    for p in params.values():
        p.grad = torch.zeros_like(p)
    for group in inner.param_groups:
        inner.base.init_group(group)
    return OldWeights(inner, "last_grad")


def schedule_free_radam(silent: bool) -> Maker:
    def make(params: dict[str, Tensor], problem: Problem) -> Any:
        settings = {"lr": 0.03, "betas": BETAS, "eps": 1e-2, "weight_decay": 0.1, "r": 0.5, "weight_lr_power": 1.5}
        optimizer = schedulefree.RAdamScheduleFree(list(params.values()), silent_sgd_phase=silent, foreach=False, **settings)
        optimizer.train()
        return optimizer

    return make


def decayed_first(params: dict[str, Tensor], problem: Problem) -> Before:
    """LaProp without its decay, after AdamW's."""
    base = LaProp(list(params.values()), **{**TORCH, "weight_decay": 0.0})

    def decay(all_: Params) -> None:
        for p in all_:
            p.data.mul_(1 - base.param_groups[0]["lr"] * 0.1)

    return Before(base, decay)


def undecayed(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if name != "weight_decay"}


LION: dict[str, Setting] = {"lr": 0.02, "beta1": 0.8, "beta2": 0.95, "weight_decay": 0.1}
SCALED: dict[str, Any] = {"lr": 0.03, "momentum": 0.8, "weight_decay": 0.1}
BOUND: dict[str, Setting] = {**ADAM, "final_lr": 0.2, "gamma": 0.1}
THEIR_BOUND: dict[str, Any] = {**TORCH, "final_lr": 0.2, "gamma": 0.1, "weight_decouple": False}
MARS: dict[str, Setting] = {"lr": 0.03, "beta1": 0.8, "gamma": 0.2, "weight_decay": 0.1}
THEIR_MARS: dict[str, Any] = {**TORCH, "gamma": 0.2, "optimize_1d": True}
PO_MARS: dict[str, Any] = {**THEIR_MARS, "mars_type": "lion"}
CORE: dict[str, Any] = {"lr": 0.02, "step_min": 5e-3, "step_max": 0.05, "eta_minus": 0.6, "eta_plus": 1.3, "beta1a": 0.6,
                        "beta1b": 0.8, "beta1c": 7.0, "weight_decay": 0.3}
THEIR_CORE: dict[str, Any] = {"lr": 0.02, "step_sizes": (5e-3, 0.05), "etas": (0.6, 1.3), "eps": 1e-2, "weight_decay": 0.3,
                              "foreach": False}
INNA: dict[str, Any] = {"lr": 0.03, "alpha": 0.5, "beta": 0.7, "sigma": 0.9, "eps": 1e-2, "weight_decay": 0.1}
PRODIGY: dict[str, Setting] = {**ADAM, "lr": 0.8, "d0": 1e-2, "coefficient": 1.3, "growth": 1.04}
THEIR_PRODIGY: dict[str, Any] = {**TORCH, "lr": 0.8, "d0": 1e-2, "d_coef": 1.3, "growth_rate": 1.04}
ADAPT: dict[str, Setting] = {**ADAM, "lr": 0.8, "d0": 1e-2, "growth": 1.04}
THEIR_ADAPT: dict[str, Any] = {**TORCH, "lr": 0.8, "d0": 1e-2, "growth_rate": 1.04}
NORM: dict[str, Any] = {"lr": 0.5, "b0": 0.5, "eps": 0.1}

OPTIMISTIC: dict[str, Any] = {"lr": 0.03, "beta1": 0.8, "beta2": 0.95, "eps": 1e-2}

RULES: tuple[Row, ...] = (
    Row("sgdw", SGD, plain(po.SGDW, **SGD), "plain"),
    Row("sgdw", {**SGD, "nesterov": True}, plain(po.SGDW, nesterov=True, **SGD), "nesterov"),
    Row("gravity", {"lr": 0.2, "alpha": 0.05, "beta": 0.8},
        lambda params, _: FirstVelocity(po.Gravity(list(params.values()), lr=0.2, alpha=0.05, beta=0.8), 0.05 / 0.2)),
    Row("randomscaledmomentum", SCALED,
        by_hand(hand.randomly_scaled, draw=scale_of("randomscaledmomentum"), **SCALED)),
    Row("randomscaledadamw", {"lr": 0.03, **fast("full")},
        lambda params, _: Scaled(torch.optim.AdamW(list(params.values()), **TORCH), scale_of("randomscaledadamw"))),
    Row("xgradmomentum", {**SGD, "ahead": 2.0},
        lambda params, _: Predicting(torch.optim.SGD(list(params.values()), **SGD), 2.0, lambda s: s["momentum_buffer"]),
        closure=True),
    Row("tiger", {"lr": 0.02, "beta": 0.8, "weight_decay": 0.1}, plain(po.Tiger, lr=0.02, beta=0.8, weight_decay=0.1)),
    Row("powersign", {"lr": 0.05, "base": 2.0, "beta": 0.8, "f": 0.7},
        by_hand(hand.power_sign, lr=0.05, base=2.0, beta=0.8, f=0.7)),
    Row("addsign", {"lr": 0.05, "alpha": 1.3, "beta": 0.8, "f": 0.7},
        by_hand(hand.add_sign, lr=0.05, alpha=1.3, beta=0.8, f=0.7)),
    Row("lionp", {**LION, "p": 1.5}, mapped(lambda c: _get_lion_k_update(c, 1.5, auto_scale=False)), "between",
        shapes=(*EVERYTHING, *AT_REST)),
    Row("lionp", {**LION, "p": 3.0}, mapped(lambda c: _get_lion_k_update(c, 3.0, auto_scale=False)), "beyond"),
    Row("lionhuber", {**LION, "threshold": 0.05}, mapped(lambda c: torch.nn.functional.hardtanh(c / 0.05))),
    Row("liondeadzone", {**LION, "threshold": 0.05},
        mapped(lambda c: torch.sign(torch.nn.functional.hardshrink(c, 0.05)))),
    Row("liontopk", {**LION, "share": 0.3}, mapped(largest(0.3))),
    Row("cautiouslion", LION,
        lambda params, _: po.Lion([{"params": list(params.values()), "cautious": True}], lr=0.02, betas=BETAS, weight_decay=0.1)),
    Row("adagradnorm", {**NORM, "whole": False}, plain(OnNorms, whole=False, **NORM), "tensor"),
    Row("adagradnorm", NORM, plain(OnNorms, whole=True, **NORM), "whole"),
    *(Row("adagradsubsetnorm", {"lr": 0.1, "k": k, "initial": 0.2, "eps": 1e-2},
        by_hand(hand.adagrad_subset_norm, k=k, lr=0.1, initial=0.2, eps=1e-2), f"k = {k}") for k in (4, 7)),
    Row("adagradsubsetnormlines", {"lr": 0.1, "initial": 0.2, "eps": 1e-2},
        by_hand(hand.adagrad_subset_norm, k=0, lr=0.1, initial=0.2, eps=1e-2)),
    *(Row("adamwsubsetnorm", {**ADAM, "k": k}, lambda params, _, k=k: po.AdamWSN(
        [{"params": list(params.values()), "sn": True}], subset_size=k, **TORCH), f"k = {k}", shapes=EVERYTHING[:3]) for k in (1, 4, 7)),
    Row("adamwsubsetnorm", {**ADAM, "k": 26}, by_hand(hand.adamw_subset_norm, k=26, **ADAM), "whole"),
    Row("adamwsubsetnormlines", ADAM, by_subset, "theirs", shapes=("matrix", "vector", "conv", "one", "embed")),
    Row("adamwsubsetnormlines", ADAM, by_hand(hand.adamw_subset_norm, k=0, **ADAM), "columns"),
    Row("rmsproptf", {**RMS, "alpha": 0.8}, plain(RMSpropTF, **{**RMS, "alpha": 0.8}), "plain"),
    Row("rmsproptf", {**RMS, "alpha": 0.8, "centered": True},
        plain(RMSpropTF, **{**RMS, "alpha": 0.8}, centered=True), "centered"),
    Row("nadamw", ADAM, plain(NAdamW, **TORCH)),
    Row("yogi", {**ADAM, "initial": 1e-3}, plain(po.Yogi, weight_decouple=False, initial_accumulator=1e-3, **TORCH)),
    Row("adabound", BOUND, paced(plain(po.AdaBound, **THEIR_BOUND)), loop=Paced),
    Row("amsbound", BOUND, paced(plain(po.AdaBound, ams_bound=True, **THEIR_BOUND)), loop=Paced),
    Row("adamomentum", ADAM, by_hand(hand.ada_momentum, **ADAM)),
    Row("diffgrad", ADAM, plain(po.DiffGrad, weight_decouple=False, **TORCH)),
    Row("grams", ADAM, plain(po.Grams, weight_decouple=True, **TORCH)),
    Row("cautiousadamw", ADAM,
        lambda params, _: po.AdEMAMix([{"params": list(params.values()), "cautious": True}], alpha=0.0, weight_decouple=True,
                                      **{**TORCH, "betas": (*BETAS, 0.9)}), "paper"),
    Row("cautiousadamw", {**ADAM, "by_mean": True}, plain(LegacyAdamW, caution=True, **TORCH), "mean"),
    Row("ademamix", {**ADAM, "beta3": 0.9, "alpha": 3.0, "warmup": 12},
        plain(po.AdEMAMix, alpha=3.0, t_alpha_beta3=12, weight_decouple=True, **{**TORCH, "betas": (*BETAS, 0.9)}), "schedule"),
    Row("ademamix", {**ADAM, "beta3": 0.9, "alpha": 3.0},
        plain(po.AdEMAMix, alpha=3.0, weight_decouple=True, **{**TORCH, "betas": (*BETAS, 0.9)}), "constant"),
    Row("adan", {**ADAM, "beta3": 0.9}, plain(po.Adan, weight_decouple=False, **{**TORCH, "betas": (*BETAS, 0.9)}), "proximal"),
    Row("adan", {**ADAM, "beta3": 0.9, "proximal": False},
        plain(po.Adan, weight_decouple=True, **{**TORCH, "betas": (*BETAS, 0.9)}), "decoupled"),
    Row("adopt", {**ADAM, "eps": 0.2}, quiet(ADOPT, **{**TORCH, "eps": 0.2}), "coupled"),
    Row("adopt", {**ADAM, "eps": 0.2, "decoupled": True}, quiet(ADOPT, decouple=True, **{**TORCH, "eps": 0.2}), "decoupled"),
    Row("qhadam", {**ADAM, "nu1": 0.7, "nu2": 0.8}, quiet(QHAdam, nus=(0.7, 0.8), **TORCH), "coupled"),
    Row("qhadam", {**ADAM, "nu1": 0.7, "nu2": 0.8, "decoupled": True},
        quiet(QHAdam, nus=(0.7, 0.8), decouple_weight_decay=True, **TORCH), "decoupled"),
    # timm's decay is times lr
    Row("laprop", {**ADAM, "weight_decay": 0.02}, plain(LaProp, **{**TORCH, "weight_decay": 0.02 / 0.03}), "fixed"),
    Row("laprop", {**ADAM, "as_adamw": True}, paced(decayed_first), "as_adamw", loop=Paced),
    Row("stableadamw", ADAM, plain(StableAdamW, foreach=False, triton=False, **TORCH)),
    Row("marsadamw", {**MARS, "beta2": 0.95, "eps": 1e-2, "anew": False}, plain(Mars, **THEIR_MARS)),
    Row("marsadamwexact", {**MARS, "beta2": 0.95, "eps": 1e-2},
        lambda params, _: OldWeights(Mars(list(params.values()), **THEIR_MARS), "last_grad"), closure=True),
    Row("marslion", MARS, plain(po.MARS, **PO_MARS), "anew"),
    Row("marslion", {**MARS, "anew": False}, plain(Mars, mars_type="lion", **THEIR_MARS), "paper"),
    Row("marslionexact", MARS,
        lambda params, _: OldWeights(Mars(list(params.values()), mars_type="lion", **THEIR_MARS), "last_grad"), closure=True),
    Row("marsshampoo", MARS,
        lambda params, _: Full(po.MARS(list(params.values()), **{**PO_MARS, "mars_type": "shampoo", "eps": 1e-30})), "anew",
        shapes=MATRICES),
    Row("marsshampoo", {**MARS, "anew": False}, by_hand(hand.mars_shampoo, **MARS), "paper", shapes=MATRICES),
    Row("core", {**CORE, "beta2": 0.95, "eps": 1e-2}, plain(CoRe, betas=(0.6, 0.8, 7.0, 0.95), **THEIR_CORE), "plain"),
    Row("core", {**CORE, "signs": True}, plain(CoRe, betas=(0.6, 0.8, 7.0, -1.0), **THEIR_CORE), "signs"),
    Row("corefrozen", {**CORE, "beta2": 0.95, "eps": 1e-2, "history": 5, "frozen": 0.27},
        plain(CoRe, betas=(0.6, 0.8, 7.0, 0.95), score_history=5, frozen=0.27, **THEIR_CORE)),
    Row("innaprop", INNA, by_hand(hand.inna_prop, **INNA)),
    Row("sophiag", {"lr": 0.05, "beta1": 0.8, "beta2": 0.7, "rho": 0.5, "weight_decay": 0.2, "k": 3},
        lambda params, problem: SampledCurvature(list(params.values()), problem, period=3, batch=3, lr=0.05, betas=(0.8, 0.7),
                                                 rho=0.5, weight_decay=0.2), inputs=squares),
    Row("adamcm", {**ADAM, "capacity": 3, "fade": 0.9},
        by_hand(hand.critical_momenta, hand.sum_of_norms, capacity=3, fade=0.9, **ADAM)),
    Row("optimisticamsgrad", OPTIMISTIC, by_hand(hand.optimistic_amsgrad, coded=False, **OPTIMISTIC), "paper"),
    Row("optimisticamsgrad", {**OPTIMISTIC, "coded": True}, by_hand(hand.optimistic_amsgrad, coded=True, **OPTIMISTIC), "coded"),
    Row("xgradadamw", {**ADAM, "ahead": 2.0},
        lambda params, _: Predicting(torch.optim.AdamW(list(params.values()), **TORCH), 2.0, last_adam_update), closure=True),
    # the rate comes this close to its mean, but not much closer, some steps before it settles
    Row("swats", {**ADAM, "tol": 0.0071}, lambda params, _: hand.WholeSwats(list(params.values()), tol=0.0071, **ADAM), "model"),
    Row("swats", undecayed(ADAM),
        lambda params, _: hand.WholeSwats(list(params.values()), tol=1e-9, weight_decay=0.0, **undecayed(ADAM)), "idle", idle=(0,)),
    Row("swats", {**ADAM, "tol": 0.018}, lambda params, _: Settling(list(params.values()), 0.018, **TORCH), "one", shapes=("matrix",)),
    Row("schedulefreesgd", {"lr": 0.1, "momentum": 0.8, "weight_decay": 0.1, "warmup": 6, "r": 0.5, "weight_lr_power": 1.5},
        schedule_free_sgd, "warmup", average=schedule_free_average),
    Row("schedulefreesgd", {"lr": 0.1, "momentum": 0.8, "weight_decay": 0.1, "r": 0.5, "weight_lr_power": 1.5},
        paced(partial(schedule_free_sgd, warmup=0)), "paced", average=schedule_free_average, loop=Paced),
    Row("schedulefreeradam", {**ADAM, "r": 0.5, "weight_lr_power": 1.5}, schedule_free_radam(True), "silent",
        average=schedule_free_average),
    Row("schedulefreeradam", {**ADAM, "r": 0.5, "weight_lr_power": 1.5, "silent": False}, schedule_free_radam(False), "sgd",
        average=schedule_free_average),
    Row("marsshampooexact", MARS, exact_shampoo, closure=True, shapes=MATRICES),
    Row("fromage", {"lr": 0.03}, plain(po.Fromage, lr=0.03)),
    Row("qhm", {"lr": 0.03, "momentum": 0.8, "nu": 0.6, "weight_decay": 0.1},
        plain(po.QHM, lr=0.03, momentum=0.8, nu=0.6, weight_decay=0.1)),
    Row("prodigy", {**PRODIGY, "corrected": True}, plain(Prodigy, use_bias_correction=True, **THEIR_PRODIGY), "corrected"),
    # theirs does not count a step before which no gradient was; ours counts every step, which only `corrected` sees
    Row("prodigy", PRODIGY, plain(Prodigy, **THEIR_PRODIGY), "idle", idle=(0,)),
    Row("prodigy", {**PRODIGY, "decoupled": False, "safeguard": True},
        plain(Prodigy, decouple=False, safeguard_warmup=True, **THEIR_PRODIGY), "coupled"),
    Row("dadaptadam", ADAPT, plain(DAdaptAdam, **THEIR_ADAPT), "plain"),
    Row("dadaptadam", undecayed(ADAPT), plain(DAdaptAdam, **undecayed(THEIR_ADAPT)), "idle", idle=(0,)),
    Row("dadaptadam", {**ADAPT, "corrected": True}, plain(DAdaptAdam, use_bias_correction=True, **THEIR_ADAPT), "corrected"),
)  # fmt: skip
