"""Rows of the table of `references` for matrix, factored, low-rank, learned and zeroth-order rules."""

from __future__ import annotations

import builtins
import contextlib
import importlib
import itertools
import sys
import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial, partialmethod
from importlib.machinery import PathFinder
from pathlib import Path
from types import MappingProxyType
from typing import Any
from unittest import mock

import by_hand_matrix as hand
import pytorch_optimizer as po
import torch
from by_hand import by_hand
from came_pytorch import CAME  # type: ignore[import-untyped]
from closed_loop import AT_REST, EVERYTHING, STILL, Maker, Params, Problem
from pytorch_optimizer.optimizer import scion
from pytorch_optimizer.optimizer.shampoo import LayerWiseGrafting
from pytorch_optimizer.optimizer.utils.galore import GaLoreProjector
from pytorch_optimizer.optimizer.utils.matrix import zero_power_via_newton_schulz_5
from references import ADAM, BETAS, MATRICES, TORCH, Both, FullPrecision, Row, Setting, gradient, of, plain
from torch import Tensor

import optlang
from optlang import philox
from optlang.ir import walk

LACKING = ("galore_torch", "lomo_optim", "apollo_torch")  # packages that need more than is installed
PARTS = ("utils", "utils.versions", "utils.logging", "integrations", "integrations.deepspeed")


@contextlib.contextmanager
def _without_transformers() -> Iterator[None]:
    """Parts of transformers that packages ask for and do not need stand in for all of it, which takes seconds to import."""
    real = {name: module for name, module in sys.modules.items() if name.split(".")[0] == "transformers"}
    fake = {name: types.ModuleType(name) for name in ("transformers", *(f"transformers.{part}" for part in PARTS))}
    fake["transformers.utils.versions"].require_version = lambda text: None  # type: ignore[attr-defined]
    fake["transformers.integrations.deepspeed"].is_deepspeed_zero3_enabled = lambda: False  # type: ignore[attr-defined]
    fake["transformers.utils"].logging = fake["transformers.utils.logging"]  # type: ignore[attr-defined]
    for name in real:
        del sys.modules[name]
    sys.modules.update(fake)
    yield
    for name in [name for name in sys.modules if name.split(".")[0] in ("transformers", *LACKING)]:
        del sys.modules[name]  # whoever asks for them next may need all of them
    sys.modules.update(real)


def _part(package: str, module: str) -> Any:
    """A module of a package without the others, which need more than is installed."""
    spec = PathFinder.find_spec(package)
    assert spec is not None and spec.submodule_search_locations
    sys.modules.setdefault(package, types.ModuleType(package)).__path__ = [str(Path(next(iter(spec.submodule_search_locations))))]
    return importlib.import_module(f"{package}.{module}")


with _without_transformers():
    Adafactor = _part("galore_torch", "adafactor").Adafactor
    GaLoreAdamW = _part("galore_torch", "adamw").AdamW
    AdaLomo = _part("lomo_optim", "adalomo").AdaLomo
    random_projector = _part("apollo_torch", "random_projector")
    APOLLOAdamW = _part("apollo_torch", "apollo").AdamW
with mock.patch.object(torch, "compile", lambda function: function):
    kron = importlib.import_module("kron_torch.kron")
Kron, precond_update_prob_schedule = kron.Kron, kron.precond_update_prob_schedule
GradientProjector = random_projector.GradientProjector

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


class Lines:
    """pytorch_optimizer's SCION by rows or columns, matrix by matrix, in our units: its norms of columns are root mean squares, and its
    eps is no setting. `whole`: each tensor is one row."""

    def __init__(self, params: dict[str, Tensor], norm: Any, kind: scion.LMONorm, whole: bool = False) -> None:
        self.pairs = [(p, torch.nn.Parameter(p.detach().view(1, -1) if whole else p.detach())) for p in params.values()]
        self.parts = [self._part(x, norm, kind) for _, x in self.pairs]

    @staticmethod
    def _part(x: Tensor, norm: Any, kind: scion.LMONorm) -> Patched:
        size = x.shape[0] ** 0.5 if kind == scion.LMONorm.COL else 1.0
        base = po.SCION([x], lr=0.03, momentum=0.2, weight_decay=0.1, constraint=False, scale=1 / size, foreach=False, norm_type=kind,
                        norm_kwargs={"normalized": False})  # fmt: skip
        return Patched(base, (norm, "lmo", partialmethod(norm.lmo, eps=0.1 / size)))

    def zero_grad(self) -> None:
        for p, _ in self.pairs:
            p.grad = None

    def step(self) -> None:
        for (p, x), part in zip(self.pairs, self.parts, strict=True):
            x.grad = gradient(p).view(x.shape)
            part.step()


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


# --------------------------------------------------------------------------------------------- matrices and low rank


class Patched:
    """An optimizer some of whose surroundings are others during a step."""

    def __init__(self, base: Any, *others: Any) -> None:
        self.base, self.others, self.t = base, others, 0
        self.zero_grad = base.zero_grad

    def step(self) -> None:
        self.t += 1
        with contextlib.ExitStack() as stack:
            for target, name, value in self.others:
                stack.enter_context(mock.patch.object(target, name, value))
            self.base.step()


def singular(x: Tensor, full_matrices: bool = True) -> tuple[Tensor, Tensor, Tensor]:
    """torch's decomposition, of each pair of vectors the one whose larger element is positive that ours returns."""
    u, s, vh = SVD(x, full_matrices=False)
    short = vh.mT if x.shape[0] >= x.shape[1] else u
    signs = short.gather(0, short.abs().argmax(0, keepdim=True)).sign()
    return u * signs, s, vh * signs.mT


SVD = torch.linalg.svd
EXACT = ((torch.linalg, "svd", singular), (Tensor, "float", Tensor.double))


def low_rank(cls: Any, scale: float, others: Sequence[Any] = (), more: Mapping[str, Any] = MappingProxyType({}), **settings: Any) -> Maker:
    projection = {"rank": 2, "update_proj_gap": 3, "scale": scale, "proj_type": "std", **more}

    def make(params: dict[str, Tensor], problem: Problem) -> Patched:
        return Patched(cls([{"params": list(params.values()), **projection}], **{**TORCH, **settings}), *EXACT, *others)

    return make


def a_step_early(self: Any, x: Tensor, step: int) -> Any:
    """pytorch_optimizer refreshes at steps k, 2k, …; the authors after them."""
    return PROJECT(self, x, step - 1)


PROJECT = GaLoreProjector.project


def places_of_draws(rule: str) -> dict[Any, int]:
    """Where the draws of a rule stand, by the sides of what is drawn: rows, columns or a number, "r"."""
    draws = {node.type.extent: node.value[1] for node in walk(optlang.Rule(rule).program.roots()) if node.op == "random"}
    return {(x.rows, x.cols if isinstance(x.cols, str) else "r"): place for x, place in draws.items()}


class Sketching(Patched):
    """APOLLO of its authors, given our projections."""

    def __init__(self, params: Params, rule: str, **settings: Any) -> None:
        places = places_of_draws(rule)

        def ours(projector: Any, x: Tensor, rank: int, type: str, seed: int) -> Tensor:
            short, place = min(x.shape), places["cols" if type == "right" else "rows", "r"]
            drawn = torch.from_numpy(philox.draw("normal", (short, rank), self.t, place, 0, seed - 1)) / rank**0.5
            return drawn.mT if type == "right" else drawn

        others = ((GradientProjector, "get_orthogonal_matrix", ours), (random_projector, "next_seed", lambda seed: seed))
        super().__init__(APOLLOAdamW([{"params": params, "update_proj_gap": 3, "proj_type": "std", "proj": "random", **settings}], **TORCH),
                         *EXACT, *others)  # fmt: skip


class Whitened(Patched):
    """kron-torch in float64, given our draws."""

    def __init__(self, params: Params, **settings: Any) -> None:
        schedule = precond_update_prob_schedule(min_prob=0.49, decay=0.62, flat_start=4.9)
        schedule._compiled = False
        base = Kron(params, lr=0.03, b1=0.8, weight_decay=0.1, preconditioner_update_probability=schedule, precond_lr=0.2,
                    precond_init_scale=1.7, precond_dtype=torch.float64)  # fmt: skip
        [(_, place)] = {node.value for node in walk(optlang.Rule("psgdkron").program.roots()) if node.op == "random"}
        turns = itertools.cycle(range(len(params)))

        def ours(x: Tensor) -> Tensor:
            return torch.from_numpy(philox.draw("normal", tuple(x.shape), self.t, place, 0, next(turns)))

        super().__init__(base, (torch, "randn_like", ours), (Tensor, "float", Tensor.double), (builtins, "print", lambda *text: None))


@dataclass
class Started:
    """`by_hand.dion`, each parameter with the start that ours draws."""

    settings: Mapping[str, Any]

    def __call__(self, params: dict[str, Tensor], problem: Problem) -> Both:
        places = places_of_draws("dion")

        def maker(index: int, p: Tensor) -> Any:
            def start(shape: tuple[int, int]) -> Any:
                short, r = min(shape), self.settings["r"]
                side = "cols" if shape[0] >= shape[1] else "rows"
                return philox.draw("normal", (short, min(short, r)), 1, places[side, "r" if r < short else side], 0, index)

            return by_hand(hand.dion, start=start, **self.settings)({"": p}, problem)

        return Both(*(maker(index, p) for index, p in enumerate(params.values())))


class Chosen(Started):
    """`by_hand.frugal`, each parameter with the columns that ours draws."""

    def __call__(self, params: dict[str, Tensor], problem: Problem) -> Both:
        [place] = places_of_draws("frugalcolumns").values()

        def maker(index: int, p: Tensor) -> Any:
            def columns(t: int, count: int) -> Any:
                return (-philox.draw("uniform", (1, count), t, place, 0, index)[0]).argsort()

            return by_hand(hand.frugal, columns=columns, **self.settings)({"": p}, problem)

        return Both(*(maker(index, p) for index, p in enumerate(params.values())))


def soap(params: dict[str, Tensor], problem: Problem) -> Patched:
    base = po.SOAP(list(params.values()), shampoo_beta=0.7, precondition_frequency=3, **{**TORCH, "betas": (0.8, 0.9)})
    return Patched(base, (torch, "float32", torch.float64))


def shampoo(params: dict[str, Tensor], problem: Problem, **settings: Any) -> Any:
    return po.ScalableShampoo(
        list(params.values()), lr=0.03, betas=BETAS, weight_decay=0.1, start_preconditioning_step=8, preconditioning_compute_steps=3,
        shape_interpretation=False, graft_type=LayerWiseGrafting.RMSPROP, diagonal_eps=1e-2, matrix_eps=0.1, use_svd=True, **settings,
    )  # fmt: skip


# ----------------------------------------------------------------------------------------------------- the table

SUBSPACE: dict[str, Setting] = {**ADAM, "r": 2, "period": 3}
GRAFTED: dict[str, Setting] = {**ADAM, "ridge": 0.1, "start": 8, "period": 3}
SIDES = ("matrix", "wide", "square")
FRUGAL: dict[str, Any] = {**SUBSPACE, "scale": 0.7, "rest": 0.3}
DESCENT: dict[str, Any] = {
    **ADAM, "r": 2, "scale": 0.7, "rate": 0.05, "beta3": 0.7, "beta4": 0.8, "subspace_eps": 0.1, "subspace_decay": 0.2,
}  # fmt: skip
TRION: dict[str, Any] = {"lr": 0.03, "momentum": 0.8, "weight_decay": 0.1, "r": 2, "steps": 4}
KRON: dict[str, Setting] = {"lr": 0.03, "momentum": 0.8, "fit": 0.2, "initial": 1.7, "flat": 4.9, "decay": 0.62, "least": 0.49,
                            "weight_decay": 0.1}  # fmt: skip
DION: dict[str, Any] = {"lr": 0.03, "momentum": 0.8, "eps": 0.1, "weight_decay": 0.1, "r": 2}

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
    Row("trustregionfrobenius", {**TRUST, "eps": 0.1}, lambda params, _: Lines(params, scion.Row, scion.LMONorm.ROW, whole=True)),
    Row("trustregionrows", {**TRUST, "eps": 0.1}, lambda params, _: Lines(params, scion.Row, scion.LMONorm.ROW), shapes=MATRICES),
    Row("trustregioncolumns", {**TRUST, "eps": 0.1}, lambda params, _: Lines(params, scion.Col, scion.LMONorm.COL), shapes=MATRICES),
    Row("scion", SCION, scion_by("AUTO", constraint=True), "constrained",
        shapes=(*EVERYTHING, "tower", *AT_REST)),
    Row("scion", {**SCION, "constrained": False}, scion_by("AUTO"), "free"),
    Row("scionsign", SCION, scion_by("SIGN", constraint=True), "normalized", shapes=MATRICES),
    Row("scionsign", {**SCION, "constrained": False, "normalized": False}, scion_by("SIGN", norm_kwargs={"normalize": False}), "free",
        shapes=MATRICES),
    Row("scionrows", SCION, scion_by("ROW", constraint=True), "normalized", shapes=MATRICES),
    Row("scionrows", {**SCION, "constrained": False, "normalized": False}, scion_by("ROW", norm_kwargs={"normalized": False}), "free",
        shapes=MATRICES),
    Row("scioncolumns", {**SCION, "normalized": True}, scion_by("COL", constraint=True, norm_kwargs={"normalized": True}), "normalized",
        shapes=MATRICES),
    Row("scioncolumns", {**SCION, "constrained": False}, scion_by("COL"), "free", shapes=MATRICES),
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
    Row("shampoo", {"lr": 0.05, "eps": 0.1}, plain(po.Shampoo, lr=0.05, matrix_eps=0.1), shapes=MATRICES),
    Row("graftedshampoo", GRAFTED, shampoo, "nesterov", shapes=MATRICES),
    Row("graftedshampoo", {**GRAFTED, "nesterov": False}, partial(shampoo, nesterov=False), "plain", shapes=MATRICES),
    Row("soap", {**ADAM, "beta2": 0.9, "beta3": 0.7, "period": 3}, soap,
        shapes=("square", "patch")),  # of other matrices the first basis is not decided by their gradient
    Row("galore", {**SUBSPACE, "scale": 0.7}, low_rank(GaLoreAdamW, 0.7, no_deprecation_warning=True), shapes=SIDES),
    Row("fira", {**SUBSPACE, "scale": 0.7},
        low_rank(po.Fira, 0.7, [(GaLoreProjector, "project", a_step_early)], {"projection_type": "std"}), shapes=SIDES),
    Row("frugal", FRUGAL, by_hand(hand.frugal, columns=None, signs=True, **FRUGAL), "signs", shapes=SIDES),
    Row("frugal", {**FRUGAL, "signs": False}, by_hand(hand.frugal, columns=None, signs=False, **FRUGAL), "gradient", shapes=SIDES),
    Row("frugalcolumns", FRUGAL, Chosen({**FRUGAL, "signs": True}), "signs", shapes=SIDES),
    Row("frugalcolumns", {**FRUGAL, "signs": False}, Chosen({**FRUGAL, "signs": False}), "gradient", shapes=SIDES),
    Row("onlinesubspacedescent", DESCENT, by_hand(hand.online_subspace_descent, **DESCENT), shapes=SIDES),
    Row("subspacemomentum", SUBSPACE, by_hand(hand.subspace_momentum, **SUBSPACE), shapes=SIDES),
    *(Row("dion", {**DION, "r": r}, Started({**DION, "r": r}), f"r = {r}", shapes=("zero", "tall", *SIDES, *STILL)) for r in (2, 1, 3)),
    Row("dctadamw", {**SUBSPACE, "feedback": True},
        by_hand(hand.dct_adamw, rotate=True, feedback=True, **SUBSPACE), "rotated", shapes=SIDES),
    Row("dctadamw", {**SUBSPACE, "rotate": False},
        by_hand(hand.dct_adamw, rotate=False, feedback=False, **SUBSPACE), "still", shapes=SIDES),
    Row("dctadamw", {**SUBSPACE, "r": 3},
        by_hand(hand.dct_adamw, rotate=True, feedback=False, **{**SUBSPACE, "r": 3}), "r = 3", shapes=("zero", "narrow", *SIDES)),
    *(Row("trion", {**TRION, "r": r}, by_hand(hand.trion, match_rms=False, **{**TRION, "r": r}), f"r = {r}",
          shapes=("zero", "narrow", "broad", *SIDES, *STILL)) for r in (2, 1, 3)),
    Row("trion", {**TRION, "match_rms": True}, by_hand(hand.trion, match_rms=True, **TRION), "rms", shapes=SIDES),
    Row("psgdkron", KRON, plain(Whitened), shapes=("matrix", "vector", "one", "zero", "square", "wide")),
    Row("apollo", {**SUBSPACE, "scale": 1.5},
        lambda params, _: Sketching(list(params.values()), "apollo", rank=2, scale=1.5, scale_type="channel"), "channels", shapes=SIDES),
    Row("apollo", {**SUBSPACE, "scale": 1.5, "whole": True},
        lambda params, _: Sketching(list(params.values()), "apollo", rank=2, scale=1.5, scale_type="tensor"), "whole", shapes=SIDES),
    Row("apollomini", {**of("APOLLO", {k: v for k, v in SUBSPACE.items() if k not in ("r", "lr")}), "lr": 0.03, "scale": 1.5},
        lambda params, _: Sketching(list(params.values()), "apollomini", rank=1, scale=1.5, scale_type="tensor"), shapes=SIDES),
)  # fmt: skip
