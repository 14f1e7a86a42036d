"""Rows of the table of `references` for matrix, factored, low-rank, learned and zeroth-order rules."""

from __future__ import annotations

import importlib
import sys
import types
from functools import partial
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any
from unittest import mock

import by_hand_matrix as hand
import pytorch_optimizer as po
import torch
from by_hand import by_hand
from came_pytorch import CAME  # type: ignore[import-untyped]
from closed_loop import Maker, Params, Problem
from pytorch_optimizer.optimizer import scion
from pytorch_optimizer.optimizer.utils.matrix import zero_power_via_newton_schulz_5
from references import BETAS, MATRICES, FullPrecision, Row, Setting, plain
from torch import Tensor


def _stub(module: str, **contents: Any) -> None:
    """A part of transformers that a package asks for and does not need."""
    for name in (module.rpartition(".")[0], module):
        sys.modules.setdefault(name, types.ModuleType(name))
    sys.modules.setdefault("transformers", types.ModuleType("transformers"))
    for name, value in contents.items():
        setattr(sys.modules[module], name, value)


def _part(package: str, module: str) -> Any:
    """A module of a package without the others, which need more than is installed."""
    spec = PathFinder.find_spec(package)
    assert spec is not None and spec.submodule_search_locations
    sys.modules.setdefault(package, types.ModuleType(package)).__path__ = [str(Path(next(iter(spec.submodule_search_locations))))]
    return importlib.import_module(f"{package}.{module}")


_stub("transformers.utils.versions", require_version=lambda text: None)
_stub("transformers.utils.logging")
sys.modules["transformers.utils"].logging = sys.modules["transformers.utils.logging"]  # type: ignore[attr-defined]
_stub("transformers.integrations.deepspeed", is_deepspeed_zero3_enabled=lambda: False)
Adafactor = _part("galore_torch", "adafactor").Adafactor
AdaLomo = _part("lomo_optim", "adalomo").AdaLomo

# ------------------------------------------------------------------------------------------------- trust regions


def unscaled(params: dict[str, Tensor], problem: Problem) -> FullPrecision:
    """torch's Muon with coefficients that converge, its scale taken out of lr and put into the decay."""
    scales = {p: max(1.0, p.shape[0] / p.shape[1]) ** 0.5 for p in params.values()}
    groups: Any = [{"params": [p], "lr": 0.03 / s, "weight_decay": 0.1 * s} for p, s in scales.items()]
    return FullPrecision(groups, momentum=0.8, nesterov=False, ns_coefficients=(15 / 8, -10 / 8, 3 / 8), ns_steps=4)


class Wide:
    """pytorch_optimizer's SCION without its cast to bfloat16."""

    def __init__(self, params: dict[str, Tensor], **settings: Any) -> None:
        self.base = po.SCION(list(params.values()), foreach=False, **settings)
        self.zero_grad = self.base.zero_grad

    def step(self) -> None:
        exact = partial(zero_power_via_newton_schulz_5, dtype=torch.float64)
        with mock.patch.object(scion, "zero_power_via_newton_schulz_5", exact):
            self.base.step()


def scion_by(norm: str, **settings: Any) -> Maker:
    kind = getattr(scion.LMONorm, norm)
    return lambda params, problem: Wide(params, lr=0.02, momentum=0.3, scale=3.0, norm_type=kind, **settings)


# ------------------------------------------------------------------------------------------------------ factored


class Released:
    """lomo-optim's AdaLomo in float64 on the CPU, all gradients at once and not inside of the backward pass."""

    def __init__(self, params: Params, **settings: Any) -> None:
        with self._float64(), mock.patch.object(Tensor, "register_hook"), mock.patch.object(Tensor, "cuda", Tensor.clone):
            model = torch.nn.Module()
            for place, p in enumerate(params):
                model.register_parameter(f"p{place}", torch.nn.Parameter(p.detach()))  # the same storage
            self.base = AdaLomo(model, loss_scale=0, **settings)
        self.params, self.model = params, model

    @staticmethod
    def _float64() -> Any:
        return mock.patch.object(torch, "float32", torch.float64)

    def zero_grad(self) -> None:
        for p in self.params:
            p.grad = None

    def step(self) -> None:
        for inner, p in zip(self.model.parameters(), self.params, strict=True):
            inner.grad = p.grad
        self.base.step_num += 1
        with self._float64():
            self.base.grad_func(None)


# ----------------------------------------------------------------------------------------------------- the table

TRUST: dict[str, Any] = {"lr": 0.03, "momentum": 0.8, "weight_decay": 0.1}
SCION: dict[str, Setting] = {"lr": 0.02, "momentum": 0.3, "radius": 3.0}
FACTORED: dict[str, Setting] = {"beta2_decay": -0.6, "eps1": 0.1, "eps2": 0.2, "d": 0.7, "weight_decay": 0.1}
THEIR_FACTORED: dict[str, Any] = {"eps": (0.1, 0.2), "clip_threshold": 0.7, "decay_rate": -0.6, "weight_decay": 0.1}


def without(name: str, settings: dict[str, Setting]) -> dict[str, Setting]:
    return {key: value for key, value in settings.items() if key != name}


FLAT = ("matrix", "vector", "one", "zero", "embed")

RULES: tuple[Row, ...] = (
    Row("trustregionspectral", {**TRUST, "steps": 4}, unscaled, shapes=MATRICES),
    Row("trustregionmax", TRUST, plain(po.SignSGD, **TRUST)),
    Row("trustregionfrobenius", {**TRUST, "eps": 0.1}, by_hand(hand.frobenius, eps=0.1, **TRUST)),
    Row("trustregionrows", {**TRUST, "eps": 0.1}, by_hand(hand.rows, eps=0.1, **TRUST), shapes=MATRICES),
    Row("trustregioncolumns", {**TRUST, "eps": 0.1}, by_hand(hand.columns, eps=0.1, **TRUST), shapes=MATRICES),
    Row("scion", SCION, scion_by("AUTO", constraint=True), "constrained"),
    Row("scion", {**SCION, "constrained": False}, scion_by("AUTO"), "free"),
    Row("scionsign", SCION, scion_by("SIGN", constraint=True), "normalized", shapes=MATRICES),
    Row("scionsign", {**SCION, "constrained": False, "normalized": False}, scion_by("SIGN", norm_kwargs={"normalize": False}), "free",
        shapes=MATRICES),
    Row("scionrows", SCION, scion_by("ROW", constraint=True), "normalized", shapes=MATRICES),
    Row("scionrows", {**SCION, "constrained": False, "normalized": False}, scion_by("ROW", norm_kwargs={"normalized": False}), "free",
        shapes=MATRICES),
    Row("scioncolumns", SCION, scion_by("COL", constraint=True, norm_kwargs={"normalized": True}), "normalized", shapes=MATRICES),
    Row("scioncolumns", {**SCION, "constrained": False, "normalized": False}, scion_by("COL"), "free", shapes=MATRICES),
    Row("adafactororiginal", {**FACTORED, "lr": 0.3, "relative": False},
        plain(Adafactor, lr=0.3, relative_step=False, **THEIR_FACTORED), "absolute"),
    Row("adafactororiginal", {**without("eps2", FACTORED), "scaled": False, "averaged": True, "beta1": 0.8},
        plain(Adafactor, scale_parameter=False, beta1=0.8, **THEIR_FACTORED), "relative"),
    Row("adafactororiginal", {**FACTORED, "eps2": 2000.0, "warmup": True},
        plain(Adafactor, warmup_init=True, **{**THEIR_FACTORED, "eps": (0.1, 2000.0)}), "warmup"),
    Row("adalomo", {**FACTORED, "lr": 0.05}, plain(Released, lr=0.05, **THEIR_FACTORED), "authors", shapes=FLAT),
    Row("adalomo", {**FACTORED, "lr": 0.05}, plain(Adafactor, lr=0.05, relative_step=False, **THEIR_FACTORED), "as Adafactor"),
    Row("came", {"lr": 0.03, "beta1": 0.8, "beta2": 0.95, "beta3": 0.9, "eps1": 0.1, "eps2": 0.05, "d": 0.7, "weight_decay": 0.1},
        plain(CAME, lr=0.03, betas=(*BETAS, 0.9), eps=(0.1, 0.05), clip_threshold=0.7, weight_decay=0.1)),
    Row("sm3", {"lr": 0.05, "momentum": 0.8, "eps": 1e-2}, plain(po.SM3, lr=0.05, momentum=0.8, eps=1e-2), "sums", shapes=FLAT),
    Row("sm3", {"lr": 0.05, "momentum": 0.8, "beta": 0.9, "eps": 1e-2}, plain(po.SM3, lr=0.05, momentum=0.8, beta=0.9, eps=1e-2),
        "means", shapes=FLAT),
    Row("sm3", {"lr": 0.05, "momentum": 0.8, "beta": 0.9, "eps": 1e-2},
        by_hand(hand.sm3, lr=0.05, momentum=0.8, beta=0.9, eps=1e-2), "convolutions"),
)  # fmt: skip
