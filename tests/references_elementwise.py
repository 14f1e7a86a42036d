"""Rows of the table of `references` for the rules that go element by element: sign methods, accumulators, the Adam family."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from unittest import mock

import by_hand as hand
import numpy as np
import pytorch_optimizer as po
import torch
from adv_optm.util.lion_k import _get_lion_k_update  # type: ignore[import-untyped]
from by_hand import by_hand
from closed_loop import Maker, Params, Problem
from lion_pytorch import Lion  # type: ignore[import-untyped]
from references import ADAM, BETAS, RMS, SGD, TORCH, Before, Row, Setting, _timm, fast, plain
from torch import Tensor

import optlang
from optlang import philox
from optlang.ir import walk

RMSpropTF = _timm("optim.rmsprop_tf").RMSpropTF

# ------------------------------------------------------------------------------------------ draws of our rules


def site(rule: str) -> int:
    """Where the one draw of a rule stands."""
    [draw] = {node.value for node in walk(optlang.Rule(rule).program.roots()) if node.op == "random"}
    return int(draw[1])


def scale_of(rule: str) -> Callable[[int], float]:
    """The exponential draw per model of each step."""
    place = site(rule)
    return lambda t: float(philox.draw("exponential", (1,), t, place, 0, philox.MODEL_STREAM)[0])


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


def by_subset(params: dict[str, Tensor], problem: Problem) -> Any:
    """Subsets as long as the last dimension; vectors as they are."""
    groups = [{"params": [p], "sn": p.ndim > 1, "subset_size": p.shape[-1]} for p in params.values()]
    return po.AdamWSN(groups, **TORCH)


LION: dict[str, Setting] = {"lr": 0.02, "beta1": 0.8, "beta2": 0.95, "weight_decay": 0.1}
SCALED: dict[str, Any] = {"lr": 0.03, "momentum": 0.8, "weight_decay": 0.1}
NORM: dict[str, Any] = {"lr": 0.5, "b0": 0.5, "eps": 0.1}

RULES: tuple[Row, ...] = (
    Row("sgdw", SGD, plain(po.SGDW, **SGD), "plain"),
    Row("sgdw", {**SGD, "nesterov": True}, plain(po.SGDW, nesterov=True, **SGD), "nesterov"),
    Row("gravity", {"lr": 0.2, "alpha": 0.05, "beta": 0.8},
        lambda params, _: FirstVelocity(po.Gravity(list(params.values()), lr=0.2, alpha=0.05, beta=0.8), 0.05 / 0.2)),
    Row("randomscaledmomentum", SCALED,
        by_hand(hand.randomly_scaled, draw=scale_of("randomscaledmomentum"), **SCALED)),
    Row("randomscaledadamw", {"lr": 0.03, **fast("AdamW")},
        lambda params, _: Scaled(torch.optim.AdamW(list(params.values()), **TORCH), scale_of("randomscaledadamw"))),
    Row("xgradmomentum", {**SGD, "ahead": 2.0},
        lambda params, _: Predicting(torch.optim.SGD(list(params.values()), **SGD), 2.0, lambda s: s["momentum_buffer"]),
        closure=True),
    Row("tiger", {"lr": 0.02, "beta": 0.8, "weight_decay": 0.1}, plain(po.Tiger, lr=0.02, beta=0.8, weight_decay=0.1)),
    Row("powersign", {"lr": 0.05, "base": 2.0, "beta": 0.8, "f": 0.7},
        by_hand(hand.power_sign, lr=0.05, base=2.0, beta=0.8, f=0.7)),
    Row("addsign", {"lr": 0.05, "alpha": 1.3, "beta": 0.8, "f": 0.7},
        by_hand(hand.add_sign, lr=0.05, alpha=1.3, beta=0.8, f=0.7)),
    Row("lionp", {**LION, "p": 1.5}, mapped(lambda c: _get_lion_k_update(c, 1.5, auto_scale=False)), "between"),
    Row("lionp", {**LION, "p": 3.0}, mapped(lambda c: _get_lion_k_update(c, 3.0, auto_scale=False)), "beyond"),
    Row("lionhuber", {**LION, "threshold": 0.05}, mapped(lambda c: torch.nn.functional.hardtanh(c / 0.05))),
    Row("liondeadzone", {**LION, "threshold": 0.05},
        mapped(lambda c: torch.sign(torch.nn.functional.hardshrink(c, 0.05)))),
    Row("liontopk", {**LION, "share": 0.3}, mapped(largest(0.3))),
    Row("cautiouslion", LION,
        lambda params, _: po.Lion([{"params": list(params.values()), "cautious": True}], lr=0.02, betas=BETAS, weight_decay=0.1)),
    Row("adagradnorm", {**NORM, "whole": False}, by_hand(hand.adagrad_norm, whole=False, **NORM), "tensor"),
    Row("adagradnorm", NORM, by_hand(hand.adagrad_norm, hand.all_squares, whole=True, **NORM), "whole"),
    Row("adagradsubsetnorm", {"lr": 0.1, "initial": 0.2, "eps": 1e-2},
        by_hand(hand.adagrad_subset_norm, lr=0.1, initial=0.2, eps=1e-2)),
    Row("adamwsubsetnorm", ADAM, by_subset, "theirs", shapes=("matrix", "vector", "conv", "one", "embed")),
    Row("adamwsubsetnorm", ADAM, by_hand(hand.adamw_subset_norm, **ADAM), "columns"),
    Row("rmsproptf", {**RMS, "alpha": 0.8}, plain(RMSpropTF, **{**RMS, "alpha": 0.8}), "plain"),
    Row("rmsproptf", {**RMS, "alpha": 0.8, "centered": True},
        plain(RMSpropTF, **{**RMS, "alpha": 0.8}, centered=True), "centered"),
)  # fmt: skip
