"""Rows of the table of `references` for the kin of Muon and for what else came into use with it."""

from __future__ import annotations

import contextlib
from functools import partial
from typing import Any
from unittest import mock

import adam_atan2_pytorch  # type: ignore[import-untyped]
import adv_optm  # type: ignore[import-untyped]
import pytorch_optimizer as po
import torch
from closed_loop import AT_REST, EVERYTHING, Maker, Params, Problem
from pytorch_optimizer.optimizer.muon import adamuon, base, normuon
from pytorch_optimizer.optimizer.utils.matrix import zero_power_via_newton_schulz_5
from references import ADAM, BETAS, MATRICES, MUON, TORCH, TORCH_MUON, Both, FullPrecision, Paced, Row, Setting, _timm, of, paced, plain
from references_matrix import EXACT, Patched
from torch import Tensor

LegacyAdamW = _timm("optim.adamw").AdamWLegacy

WIDE: tuple[Any, ...] = ((torch, "float32", torch.float64), (torch, "bfloat16", torch.float64), (Tensor, "float", Tensor.double))


def po_muon(module: Any, cls: Any, *, margin: float = 1.0, **settings: Any) -> Maker:
    """A kin of pytorch_optimizer's Muon without its cast to bfloat16. `margin`: of the norm before the iteration."""
    exact = partial(zero_power_via_newton_schulz_5, dtype=torch.float64, safety_factor=margin)

    def make(params: dict[str, Tensor], problem: Problem) -> Patched:
        base = cls([{"params": list(params.values()), "use_muon": True}], foreach=False, **settings)
        return Patched(base, (module, "zero_power_via_newton_schulz_5", exact))

    return make


def adv(cls: Any, **settings: Any) -> Maker:
    """An optimizer of adv_optm that casts nothing."""

    def make(params: dict[str, Tensor], problem: Problem) -> Patched:
        with contextlib.ExitStack() as stack:
            for target, name, value in WIDE:
                stack.enter_context(mock.patch.object(target, name, value))
            base = cls(list(params.values()), stochastic_rounding=False, **settings)
        return Patched(base, *WIDE)

    return make


def normuon_and_adamw(params: dict[str, Tensor], problem: Problem) -> Both:
    """What has two dimensions and is no embedding to NorMuon, the rest to AdamW."""
    matrices = {name: p for name, p in params.items() if p.ndim == 2 and "embed" not in name}
    others = [p for name, p in params.items() if name not in matrices]
    return Both(po_muon(normuon, po.NorMuon, **THEIR_NOR)(matrices, problem), torch.optim.AdamW(others, **{**TORCH, "weight_decay": 0.2}))


def splus_average(optimizer: Patched) -> Params:
    optimizer.base.eval()
    return [p for group in optimizer.base.param_groups for p in group["params"]]


def apart(x: Tensor) -> tuple[Tensor, Tensor]:
    """torch's eigenvectors, the largest element of each positive, as ours returns them."""
    values, vectors = EIGH(x)
    return values, vectors * vectors.gather(0, vectors.abs().argmax(0, keepdim=True)).sign()


class Cautious:
    """An optimizer around torch's Muon, whose decay is left to us: of weights that its step makes smaller."""

    def __init__(self, params: Params, weight_decay: float, **settings: Any) -> None:
        self.base, self.params, self.decay = FullPrecision(params, weight_decay=0.0, **settings), params, settings["lr"] * weight_decay
        self.zero_grad = self.base.zero_grad

    def step(self) -> None:
        before = [p.detach().clone() for p in self.params]
        self.base.step()
        with torch.no_grad():
            for p, w in zip(self.params, before, strict=True):
                p.sub_(self.decay * w * ((w - p) * w > 0))


class OldMean(po.BCOS):  # type: ignore[misc]
    """pytorch_optimizer's BCOS, whose estimate sees the mean of the step before, as the authors' does: it has changed in place by then."""

    def compute_v(self, grad: Tensor, m: Tensor, beta: float, beta2: float | None) -> Any:
        return super().compute_v(grad, (m - (1 - beta) * grad) / beta, beta, beta2)


class Spiking(Patched):
    """adv_optm's AdamW with Kourkoutas-β, a tensor a layer; this step's norms and the warm-up of the authors' code by hand."""

    def __init__(self, params: Params, warmup: int, **settings: Any) -> None:
        make = adv(adv_optm.AdamW_adv, kourkoutas_beta=True, layer_key_fn=id, **settings)
        super().__init__(make({str(i): p for i, p in enumerate(params)}, Problem()).base, *WIDE)
        self.params, self.warmup, self.helper = params, warmup, self.base.kourkoutas_helper
        self.middle = (settings["betas"][1] + settings["beta2_min"]) / 2
        self.dynamic, self.helper.get_beta2 = self.helper.get_beta2, self.beta2
        self.measure, self.helper.accumulate_gradient_sq_norm = self.helper.accumulate_gradient_sq_norm, lambda p, grad: None
        self.base.register_step_pre_hook(self.measured)

    def beta2(self, p: Tensor, group: dict[str, Any]) -> Any:
        return self.middle if self.t <= self.warmup else self.dynamic(p, group)

    def measured(self, *_: Any) -> None:
        if not self.helper.layer_state:
            self.helper.prepare_step(0, self.params[0].device)  # makes what norms are added to
        for p in self.params:
            self.measure(p, p.grad)


EIGH = torch.linalg.eigh
SQUARES = ("square", "patch")  # of other matrices the first basis is not decided by their gradient
THEIR_MUON: dict[str, Any] = {"lr": 0.03, "momentum": 0.9, "weight_decay": 0.1}
NOR: dict[str, Setting] = {**MUON, "beta2": 0.7, "eps": 1e-2}
THEIR_NOR: dict[str, Any] = {**THEIR_MUON, "beta2": 0.7, "eps": 1e-2, "ns_steps": 4}
ADA: dict[str, Setting] = {"lr": 0.03, "momentum": 0.8, "beta2": 0.7, "weight_decay": 0.1, "steps": 4}
THEIR_ADA: dict[str, Any] = {"lr": 0.03, "betas": (0.8, 0.7), "eps": 0.1, "weight_decay": 0.1, "ns_steps": 4, "use_muon": True}
CAUTIOUS: dict[str, Any] = {"lr": 0.03, "beta1": 0.9, "weight_decay": 0.3, "cautious_wd": True, "ns_steps": 4, "use_muon": True}
NOR_CAUTIOUS: dict[str, Setting] = {"lr": 0.03, "momentum": 0.9, "beta2": 0.7, "weight_decay": 0.3, "steps": 4, "nesterov": False,
                                    "match_rms": True, "cautious": True}  # fmt: skip
THEIR_CAUTIOUS: dict[str, Any] = {**CAUTIOUS, "normuon_variant": True, "beta2_normuon": 0.7, "normuon_eps": 1e-10, "nesterov": False}
SPAM: dict[str, Any] = {"gamma1": 0.6, "gamma2": 0.8, "theta": 0.7}
GRAD: dict[str, Any] = {"lr": 0.03, "momentum": 0.7, "eps": 1e-2, "weight_decay": 0.1}
SPLUS: dict[str, Setting] = {"lr": 0.2, "beta1": 0.8, "beta2": 0.7, "beta3": 0.9, "weight_decay": 0.1, "vectors": 0.05, "period": 3}
THEIR_SPLUS: dict[str, Any] = {"lr": 0.2, "betas": (0.8, 0.7), "ema_rate": 0.9, "weight_decay": 0.1, "nonstandard_constant": 0.05,
                               "inverse_steps": 3, "eps": 0.0, "foreach": False}  # fmt: skip

RULES: tuple[Row, ...] = (
    Row("normuon", NOR, po_muon(normuon, po.NorMuon, **THEIR_NOR), "code", shapes=MATRICES),
    Row("normuon", {**NOR, "nesterov": False, "match_rms": True},
        po_muon(normuon, po.NorMuon, nesterov=False, update_scale="match_rms", **THEIR_NOR), "paper", shapes=MATRICES),
    # its eps is added to the sizes of rows alone
    Row("normuon", NOR_CAUTIOUS, adv(adv_optm.Muon_adv, **THEIR_CAUTIOUS), "cautious", shapes=MATRICES, tolerance=1e-11),
    Row("normuonwithadamw", {**of("NorMuon", NOR), **of("AdamW", {**ADAM, "weight_decay": 0.2})}, normuon_and_adamw, "code",
        shapes=("matrix", "vector", "conv", "one", "zero", "embed")),
    Row("normuonwithadamw", of("NorMuon", NOR_CAUTIOUS), adv(adv_optm.Muon_adv, **THEIR_CAUTIOUS), "cautious", shapes=MATRICES,
        tolerance=1e-11),
    Row("muonpolarexpress", {**THEIR_MUON}, po_muon(base, po.Muon, margin=1.01, ns_coeffs="polar_express", **THEIR_MUON), "original",
        shapes=MATRICES),
    Row("muonpolarexpress", {**THEIR_MUON, "nesterov": False, "match_rms": True},
        po_muon(base, po.Muon, margin=1.01, ns_coeffs="polar_express", nesterov=False, use_adjusted_lr=True, **THEIR_MUON), "rms",
        shapes=MATRICES),
    Row("adamuon", {**ADA, "eps": 0.1}, adv(adv_optm.AdaMuon_adv, **THEIR_ADA), "signs", shapes=MATRICES),
    Row("adamuon", {**ADA, "eps": 0.1, "signs": False, "nesterov": False},
        adv(adv_optm.AdaMuon_adv, nesterov=False, kappa_p=2.0, auto_projection=False, **THEIR_ADA), "plain", shapes=MATRICES),
    # theirs corrects the squares, which only eps sees
    Row("adamuon", {**ADA, "signs": False, "nesterov": False},
        po_muon(adamuon, po.AdaMuon, lr=0.03, betas=(0.8, 0.7), eps=1e-8, weight_decay=0.1, ns_steps=4), "authors",
        shapes=MATRICES, tolerance=1e-8),
    Row("cautiousdecayadamw", {**ADAM, "weight_decay": 0.3},
        adv(adv_optm.AdamW_adv, cautious_wd=True, **{**TORCH, "weight_decay": 0.3})),
    Row("cautiousdecaylion", {"lr": 0.02, "beta1": 0.8, "beta2": 0.95, "weight_decay": 0.3},
        adv(adv_optm.Lion_adv, lr=0.02, betas=BETAS, weight_decay=0.3, cautious_wd=True)),
    Row("cautiousdecaymuon", {**MUON, "weight_decay": 0.3}, adv(adv_optm.Muon_adv, rms_rescaling=False, **CAUTIOUS), "nesterov",
        shapes=MATRICES),
    Row("cautiousdecaymuon", {**MUON, "weight_decay": 0.3, "nesterov": False},
        adv(adv_optm.Muon_adv, rms_rescaling=False, nesterov=False, **CAUTIOUS), "plain", shapes=MATRICES),
    Row("cautiousdecaymuon", {**MUON, "weight_decay": 0.3, "match_rms": True},
        plain(Cautious, adjust_lr_fn="match_rms_adamw", **{**TORCH_MUON, "weight_decay": 0.3}), "rms", shapes=MATRICES),
    Row("splus", SPLUS, lambda params, _: Patched(po.SPlus(list(params.values()), **THEIR_SPLUS), (torch.linalg, "eigh", apart), *WIDE),
        "squares", shapes=(*SQUARES, "vector", "conv"), average=splus_average),
    Row("conda", {**ADAM, "scale": 0.7, "period": 3},
        lambda params, _: Patched(po.Conda(list(params.values()), update_proj_gap=3, scale=0.7, foreach=False, **TORCH), *EXACT),
        shapes=("matrix", "square", "wide")),
    Row("stablespam", {**ADAM, **SPAM, "period": 6},
        plain(po.StableSPAM, update_proj_gap=6, **SPAM, **TORCH), shapes=(*EVERYTHING, *AT_REST)),
    # theirs adds eps to lr
    Row("madgrad", GRAD, plain(po.MADGRAD, foreach=False, **{**GRAD, "lr": 0.03 - 1e-2}), "coupled"),
    Row("madgrad", {**GRAD, "decoupled": True},
        plain(po.MADGRAD, weight_decouple=True, foreach=False, **{**GRAD, "lr": 0.03 - 1e-2}), "decoupled"),
    # AdEMAMix whose fast mean is the gradient, and whose slow one has the weight of a sum; that of pytorch_optimizer corrects twice
    Row("simplifiedademamix", {**ADAM, "beta2": 0.9, "alpha": 2.0},
        plain(po.AdEMAMix, lr=0.03 * 2, betas=(0.0, 0.9, 0.8), alpha=1 / (1 - 0.8) / 2, eps=1e-2, weight_decay=0.1 / 2,
              weight_decouple=True)),
    Row("asgd", {"lr": 0.1, "lambd": 0.2, "alpha": 0.6, "t0": 5, "weight_decay": 0.1},
        plain(torch.optim.ASGD, lr=0.1, lambd=0.2, alpha=0.6, t0=5, weight_decay=0.1),
        average=lambda optimizer: [s["ax"] for s in optimizer.state.values()]),
    Row("adamc", {**ADAM, "peak": 0.03}, paced(plain(LegacyAdamW, corrected_weight_decay=True, **TORCH)), loop=Paced),
    Row("adamatan2", {"lr": 0.03, "beta1": 0.8, "beta2": 0.95, "a": 1.1, "b": 0.7, "weight_decay": 0.1},
        plain(adam_atan2_pytorch.AdamAtan2, lr=0.03, betas=BETAS, a=1.1, b=0.7, weight_decay=0.1)),
    Row("ano", ADAM, plain(po.Ano, **TORCH), "Ano"),
    Row("ano", {"lr": 0.03, "beta2": 0.95, "eps": 1e-2, "weight_decay": 0.1, "logarithmic": True},
        plain(po.Ano, logarithmic_schedule=True, **TORCH), "Anolog"),
    Row("bcos", {"lr": 0.03, "beta": 0.8, "beta2": 0.9, "eps": 1e-2, "weight_decay": 0.2},
        plain(OldMean, lr=0.03, beta=0.8, beta2=0.9, simple_cond=True, eps=1e-2, weight_decay=0.2, foreach=False)),
    Row("kourkoutas", {"lr": 0.03, "beta1": 0.8, "beta2_max": 0.95, "beta2_min": 0.5, "alpha": 0.6, "tiny": 1e-2, "eps": 1e-2,
                       "weight_decay": 0.1, "warmup": 3},
        lambda params, _: Spiking(list(params.values()), 3, lr=0.03, betas=BETAS, beta2_min=0.5, ema_alpha=0.6, tiny_spike=1e-2, eps=1e-2,
                                  weight_decay=0.1)),
)  # fmt: skip
