"""Rows of the table of `references` for the rules of reductions: layer-wise norms, distances, the loss, other points, rounds."""

from __future__ import annotations

from typing import Any

import by_hand as hand
import pytorch_optimizer as po
from adamp import AdamP  # type: ignore[import-untyped]
from by_hand import by_hand
from closed_loop import EVERYTHING
from references import ADAM, TORCH, Row, plain
from sgd_sai import SGD_sai  # type: ignore[import-untyped]

SEVERAL = tuple(name for name in EVERYTHING if name != "one")  # tensors of more than one number
DELTA: dict[str, Any] = {"delta": 0.95, "wd_ratio": 0.3}
SGDP: dict[str, Any] = {"lr": 0.03, "momentum": 0.8, "dampening": 0.2, "eps": 1e-2, "weight_decay": 0.1, **DELTA}
SAI: dict[str, Any] = {"lr": 0.02, "momentum": 0.8, "eps": 1e-2, "weight_decay": 0.1}

RULES: tuple[Row, ...] = (
    Row("adamp", {**ADAM, **DELTA}, plain(AdamP, **TORCH, **DELTA), "plain"),
    Row("adamp", {**ADAM, **DELTA, "nesterov": True}, plain(AdamP, nesterov=True, **TORCH, **DELTA), "nesterov"),
    Row("sgdp", SGDP, plain(po.SGDP, **SGDP), "plain"),
    Row("sgdp", {**SGDP, "nesterov": True}, plain(po.SGDP, nesterov=True, **SGDP), "nesterov"),
    Row("sgdsai", SAI, plain(SGD_sai, **SAI), "theirs", shapes=SEVERAL),
    Row("sgdsai", SAI, by_hand(hand.sgd_sai, **SAI), "one"),
)
