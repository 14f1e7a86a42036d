"""Rows of the table of `references` for the rules of reductions: layer-wise norms, distances, the loss, other points, rounds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import by_hand_reductions as hand
import pytorch_optimizer as po
import torch
from adamp import AdamP  # type: ignore[import-untyped]
from by_hand import Array
from by_hand_reductions import all_by_hand
from closed_loop import EVERYTHING, Maker, Problem
from dadaptation import DAdaptSGD  # type: ignore[import-untyped]
from dog import DoG, LDoG  # type: ignore[import-untyped]
from dowg import CDoWG, DoWG  # type: ignore[import-untyped]
from references import ADAM, TORCH, Row, plain
from sgd_sai import SGD_sai  # type: ignore[import-untyped]
from torch import Tensor

import optlang
from optlang import philox
from optlang.ir import Program, walk

SEVERAL = tuple(name for name in EVERYTHING if name != "one")  # tensors of more than one number
DELTA: dict[str, Any] = {"delta": 0.95, "wd_ratio": 0.3}
SGDP: dict[str, Any] = {"lr": 0.03, "momentum": 0.8, "dampening": 0.2, "eps": 1e-2, "weight_decay": 0.1, **DELTA}
DOG: dict[str, Any] = {"lr": 0.8, "reps_rel": 3e-2, "eps": 5.0, "weight_decay": 0.1}
A_DOG: dict[str, Any] = {"lr": 0.8, "reps_rel": 3e-2, "eps": 1.0}
ADAPT: dict[str, Any] = {"lr": 0.8, "momentum": 0.3, "weight_decay": 0.1, "d0": 0.05}
SPS: dict[str, Any] = {"lr": 0.15, "c": 0.7, "f_star": 1.5, "eps": 0.5}
SMOOTH: dict[str, Any] = {"lr": 0.03, "c": 0.7, "gamma": 3.0, "batches": 10, "eps": 0.5}
ALIG: dict[str, Any] = {"lr": 0.18, "momentum": 0.5}
SANIA: dict[str, Any] = {"beta2": 0.9, "eps": 0.02}
METRIC: dict[str, Any] = {"lr": 0.2, "momentum": 0.8, "xi": 0.3, "beta": 0.7, "weight_decay": 0.1}
METRIC_RMS: dict[str, Any] = {"beta2": 0.95, "eps": 0.1}
SGDHD: dict[str, Any] = {"lr": 0.02, "lr_lr": 0.01, "momentum": 0.5, "weight_decay": 0.1}
ADAMHD: dict[str, Any] = {**ADAM, "lr_lr": 0.01}
FED: dict[str, Any] = {"lr": 0.03, "low": -0.6, "high": 2.0}
CLIENTS: dict[str, Any] = {"lr": 0.8, "client": 0.12, "low": 0.118, "high": 0.127}
OASIS: dict[str, Any] = {"lr": 0.05, "beta2": 0.8, "alpha": 0.2, "samples": 3}
SAI: dict[str, Any] = {"lr": 0.02, "momentum": 0.8, "eps": 1e-2, "weight_decay": 0.1}



def from_distance(first: float, **settings: Any) -> Maker:
    """The author's CDoWG, told the first squared distance."""

    def make(params: dict[str, Tensor], problem: Problem) -> Any:
        optimizer = CDoWG(list(params.values()), **settings)
        for p in params.values():
            optimizer.state[p]["rt2"] = torch.full_like(p, first)
        return optimizer

    return make


def signs(rule: str) -> Callable[[int, int, int, tuple[int, ...]], Array]:
    """Our draws of ±1 in the order in which they are written."""
    program = optlang.Rule(rule).lowered({"samples": 3})
    assert isinstance(program, Program)
    sites = [node.value[1] for node in walk(program.roots()) if node.op == "random"]
    return lambda number, t, place, shape: philox.draw("rademacher", shape, t, sites[number], 0, place)


class Told:
    """An optimizer that is told the loss, and does not evaluate the batch."""

    def __init__(self, base: Any) -> None:
        self.base = base
        self.zero_grad = base.zero_grad

    def step(self, closure: Callable[[], Tensor]) -> None:
        loss = closure().item()
        self.base.step(lambda: loss)


class Clients:
    """Rounds of clients with one step each, whose size is what the server told them."""

    def __init__(self, server: Any) -> None:
        self.server = server
        self.zero_grad = server.zero_grad

    def step(self) -> None:
        size = self.server.reports.get("client_lr", 0.1)
        for group in self.server.param_groups:
            for p in group["params"]:
                p.grad.mul_(float(size))
        self.server.step()


RULES: tuple[Row, ...] = (
    Row("adamp", {**ADAM, **DELTA}, plain(AdamP, **TORCH, **DELTA), "plain"),
    Row("adamp", {**ADAM, **DELTA, "nesterov": True}, plain(AdamP, nesterov=True, **TORCH, **DELTA), "nesterov"),
    Row("sgdp", SGDP, plain(po.SGDP, **SGDP), "plain"),
    Row("sgdp", {**SGDP, "nesterov": True}, plain(po.SGDP, nesterov=True, **SGDP), "nesterov"),
    Row("sgdsai", SAI, plain(SGD_sai, **SAI), "theirs", shapes=SEVERAL),
    Row("sgdsai", SAI, all_by_hand(hand.sgd_sai, **SAI), "one"),
    Row("dog", DOG, plain(DoG, **DOG)),
    Row("ldog", DOG, plain(LDoG, **DOG)),
    Row("adog", A_DOG, all_by_hand(hand.accelerated_dog, **A_DOG)),
    Row("dowg", {"eps": 0.01}, plain(DoWG, eps=0.01)),
    Row("cdowg", {"eps": 1e-2, "first": 0.01}, from_distance(0.01, eps=1e-2)),
    Row("dadaptsgd", {**ADAPT, "growth": 1.2}, plain(DAdaptSGD, growth_rate=1.2, **ADAPT), "capped"),
    Row("dadaptsgd", ADAPT, plain(DAdaptSGD, **ADAPT), "free"),
    Row("sps", SPS, all_by_hand(hand.polyak, **SPS), closure=True),
    Row("spssmooth", SMOOTH, all_by_hand(hand.smooth_polyak, **SMOOTH), closure=True),
    Row("alig", ALIG, lambda params, _: Told(po.AliG(list(params.values()), max_lr=0.18, momentum=0.5)), "theirs",
        closure=True, tolerance=1e-6),  # its norm is in float32
    Row("alig", {**ALIG, "eps": 0.5}, all_by_hand(hand.ali_g, eps=0.5, **ALIG), "eps", closure=True),
    Row("saniaadam", SANIA, all_by_hand(hand.sania, rooted=False, **SANIA), "squares", closure=True),
    Row("saniaadam", {**SANIA, "rooted": True}, all_by_hand(hand.sania, rooted=True, **SANIA), "roots", closure=True),
    Row("saniaadagrad", {"eps": 0.02}, all_by_hand(hand.sania, rooted=False, beta2=None, eps=0.02), "squares", closure=True),
    Row("saniaadagrad", {"eps": 0.02, "rooted": True}, all_by_hand(hand.sania, rooted=True, beta2=None, eps=0.02), "roots", closure=True),
    Row("inducedmetric", METRIC, all_by_hand(hand.induced_metric, kind="plain", **METRIC)),
    Row("inducedmetriclog", METRIC, all_by_hand(hand.induced_metric, kind="log", **METRIC), closure=True),
    Row("inducedmetricrms", {**METRIC, **METRIC_RMS}, all_by_hand(hand.induced_metric, kind="rms", **METRIC, **METRIC_RMS)),
    Row("sgdhd", SGDHD, all_by_hand(hand.sgd_hd, nesterov=False, multiplicative=False, **SGDHD), "plain"),
    Row("sgdhd", {**SGDHD, "nesterov": True, "multiplicative": True},
        all_by_hand(hand.sgd_hd, nesterov=True, multiplicative=True, **SGDHD), "multiplicative"),
    Row("adamhd", ADAMHD, all_by_hand(hand.adam_hd, multiplicative=False, **ADAMHD), "plain"),
    Row("adamhd", {**ADAMHD, "multiplicative": True}, all_by_hand(hand.adam_hd, multiplicative=True, **ADAMHD), "multiplicative"),
    Row("oasis", OASIS, all_by_hand(hand.oasis, draw=signs("oasis"), **OASIS), closure=True),
    Row("oasismomentum", {**OASIS, "beta1": 0.8}, all_by_hand(hand.oasis_momentum, beta1=0.8, draw=signs("oasismomentum"), **OASIS),
        closure=True),
    Row("fedhyperg", FED, all_by_hand(hand.fed_hyper_g, **FED)),
    Row("fedhypersl", CLIENTS, all_by_hand(hand.fed_hyper_sl, **CLIENTS), loop=Clients),
)
