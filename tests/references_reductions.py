"""Rows of the table of `references` for the rules of reductions: layer-wise norms, distances, the loss, other points, rounds."""

from __future__ import annotations

from typing import Any

import by_hand_reductions as hand
import pytorch_optimizer as po
import torch
from adamp import AdamP  # type: ignore[import-untyped]
from by_hand_reductions import all_by_hand
from closed_loop import EVERYTHING, Maker, Problem
from dadaptation import DAdaptSGD  # type: ignore[import-untyped]
from dog import DoG, LDoG  # type: ignore[import-untyped]
from dowg import CDoWG, DoWG  # type: ignore[import-untyped]
from references import ADAM, TORCH, Row, plain
from sgd_sai import SGD_sai  # type: ignore[import-untyped]
from torch import Tensor

SEVERAL = tuple(name for name in EVERYTHING if name != "one")  # tensors of more than one number
DELTA: dict[str, Any] = {"delta": 0.95, "wd_ratio": 0.3}
SGDP: dict[str, Any] = {"lr": 0.03, "momentum": 0.8, "dampening": 0.2, "eps": 1e-2, "weight_decay": 0.1, **DELTA}
DOG: dict[str, Any] = {"lr": 0.8, "reps_rel": 3e-2, "eps": 5.0, "weight_decay": 0.1}
A_DOG: dict[str, Any] = {"lr": 0.8, "reps_rel": 3e-2, "eps": 1.0}
ADAPT: dict[str, Any] = {"lr": 0.8, "momentum": 0.3, "weight_decay": 0.1, "d0": 0.05}
SAI: dict[str, Any] = {"lr": 0.02, "momentum": 0.8, "eps": 1e-2, "weight_decay": 0.1}



def from_distance(first: float, **settings: Any) -> Maker:
    """The author's CDoWG, told the first squared distance."""

    def make(params: dict[str, Tensor], problem: Problem) -> Any:
        optimizer = CDoWG(list(params.values()), **settings)
        for p in params.values():
            optimizer.state[p]["rt2"] = torch.full_like(p, first)
        return optimizer

    return make


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
)
