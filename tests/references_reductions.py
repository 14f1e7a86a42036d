"""Rows of the table of `references` for the rules of reductions: layer-wise norms, distances, the loss, other points, rounds."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from itertools import count
from typing import Any

import by_hand_reductions as hand
import numpy as np
import pytorch_optimizer as po
import torch
from adamp import AdamP  # type: ignore[import-untyped]
from by_hand import Array
from by_hand_reductions import all_by_hand
from closed_loop import AT_REST, EVERYTHING, SHAPES, Maker, Params, Problem
from dadaptation import DAdaptSGD  # type: ignore[import-untyped]
from dog import DoG, LDoG  # type: ignore[import-untyped]
from dowg import CDoWG, DoWG  # type: ignore[import-untyped]
from pytorch_optimizer.optimizer.grokfast import gradfilter_ma
from references import (
    ADAM,
    TORCH,
    Before,
    GivenHessian,
    Model,
    Row,
    average,
    averaged,
    averaging,
    changed,
    fast,
    gradient,
    of,
    plain,
    probe,
    transform,
)
from references_elementwise import OnNorms, site
from sgd_sai import SGD_sai  # type: ignore[import-untyped]
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

import optlang
from optlang import philox
from optlang.ir import Program, walk

SEVERAL = tuple(name for name in EVERYTHING if name != "one")  # tensors of more than one number
DELTA: dict[str, Any] = {"delta": 0.95, "wd_ratio": 0.3}
SGDP: dict[str, Any] = {"lr": 0.03, "momentum": 0.8, "dampening": 0.2, "eps": 1e-2, "weight_decay": 0.1, **DELTA}
DOG: dict[str, Any] = {"lr": 0.8, "reps_rel": 3e-2, "eps": 5.0, "weight_decay": 0.1}
LONG: dict[str, Any] = {"lr": 1.2, "reps_rel": 3e-2, "eps": 0.1}  # first steps are longer than the first distance
A_DOG: dict[str, Any] = {"lr": 0.8, "reps_rel": 3e-2, "eps": 1.0}
U_DOG: dict[str, Any] = {"lr": 0.8, "reps_rel": 0.2, "eps": 1.0}
ADAPT: dict[str, Any] = {"lr": 0.8, "momentum": 0.3, "weight_decay": 0.1, "d0": 0.05}
SPS: dict[str, Any] = {"lr": 0.15, "c": 0.7, "f_star": 1.5, "eps": 0.5}
SMOOTH: dict[str, Any] = {"lr": 0.03, "c": 0.7, "gamma": 5.0, "batches": 10, "eps": 0.5}
ALIG: dict[str, Any] = {"lr": 0.18, "momentum": 0.5}
SANIA: dict[str, Any] = {"beta2": 0.9, "eps": 0.02}
METRIC: dict[str, Any] = {"lr": 0.2, "momentum": 0.8, "xi": 0.3, "beta": 0.7, "weight_decay": 0.1}
METRIC_RMS: dict[str, Any] = {"beta2": 0.95, "eps": 0.1}
SGDHD: dict[str, Any] = {"lr": 0.02, "lr_lr": 0.01, "momentum": 0.5, "weight_decay": 0.1}
ADAMHD: dict[str, Any] = {**ADAM, "lr_lr": 0.01}
FED: dict[str, Any] = {"lr": 0.03, "low": -0.6, "high": 2.0}
ONE_CLIENT: dict[str, Any] = {"lr": 0.1, "momentum": 0.6, "share": 4.0, "growth": 1.04, "low": 0.92, "high": 1.15}
CLIENTS: dict[str, Any] = {"lr": 0.8, "client": 0.12, "low": 0.118, "high": 0.127}
OASIS: dict[str, Any] = {"lr": 0.05, "beta2": 0.97, "alpha": 0.02, "samples": 3}
GAM: dict[str, Any] = {"near": 0.1, "rho": 0.4, "beta0": 0.3, "beta1": 0.7, "gamma": 0.5}
ENTROPY: dict[str, Any] = {"lr": 0.8, "inner_lr": 0.03, "steps": 4, "decay": 0.6}
ROUND: dict[str, Any] = {"gamma": 0.5, "scoping": 0.2, "noise": 0.01, "momentum": 0.5, "weight_decay": 0.1}
QSR: dict[str, Any] = {"lr": 0.2, "alpha": 0.2315, "fewest": 2, "warmup": 4, "total": 18}
GGPO: dict[str, Any] = {"sigma": 0.4, "beta": 0.3}
DAO: dict[str, Any] = {"lr": 0.02, "beta1": 0.9, "beta2": 0.95, "omega": 0.7, "eps": 0.1, "limit": 4.0, "period": 7, "period_u": 4,
                       "period_v": 5}
BATCHES: dict[str, Any] = {"lr": 0.1, "eps": 0.1, "eta": 0.5, "first": 40}
NORMED: dict[str, Any] = {**BATCHES, "lr": 0.5, "first": 24}
RANGER: dict[str, Any] = {**ADAM, "beta0": 0.7, "beta2": 0.9, "share": 0.3, "least": 0.2, "total": 17, "rise": 0.4, "down": 0.35, "k": 3,
                          "a": 0.4}
SOON: dict[str, Any] = {name: x for name, x in RANGER.items() if name != "rise"} | {"beta2": 0.4}  # which ends the warm-up
VELOCITY = partial(torch.optim.SGD, lr=0.03, momentum=0.8, weight_decay=0.1)
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
    return lambda number, t, place, shape: philox.draw("rademacher", shape, t, sites[(number + 1) % 4], 0, place)


def normals(rule: str) -> Callable[[int, int, tuple[int, ...]], Array]:
    """The one draw of our rule."""
    place = site(rule)
    return lambda t, index, shape: philox.draw("normal", shape, t, place, 0, index)


def informed(change: Callable[..., Array], **settings: Any) -> Maker:
    return lambda params, problem: hand.Informed(torch.optim.AdamW(list(params.values()), **TORCH), change, **settings)


def outcome(optimizer: Any) -> Params:
    """The mean of all x of U-DoG, which it returns."""
    mean = np.average(optimizer.memory["x"][1:], axis=0, weights=optimizer.memory["omega"])
    return [torch.from_numpy(part) for part in hand.Batch(optimizer.params, None).parts(mean)]


def factors(problem: Problem, step: int) -> list[tuple[Tensor, ...]]:
    """B, A and their gradients, of rank 2, beside each matrix."""
    source = torch.Generator().manual_seed(step)
    sizes = [((m, 2), (2, n), (m, 2), (2, n)) for m, n in (SHAPES[name] for name in problem.shapes)]
    return [tuple(0.5 * torch.randn(size, generator=source) for size in four) for four in sizes]


def products(problem: Problem, step: int) -> dict[str, Params]:
    """What the factors add to each matrix, and what their gradients tell of its gradient."""
    four = factors(problem, step)
    return {"product": [b @ a for b, a, _, _ in four], "slope": [slope_b @ a + b @ slope_a for b, a, slope_b, slope_a in four]}


def given_hessian(params: dict[str, Tensor], problem: Problem, **settings: Any) -> GivenHessian:
    return GivenHessian(list(params.values()), problem, 1, po.AdaHessian, **TORCH, **settings)


def by_kernels(diagonal: Tensor) -> Tensor:
    """What the authors of AdaHessian make of the diagonal for a convolution: one number for each of its kernels."""
    return diagonal.abs().mean((2, 3), keepdim=True).expand_as(diagonal) if diagonal.ndim == 4 else diagonal


def homes(optimizer: Any) -> Params:
    return [torch.from_numpy(part) for part in hand.Batch(optimizer.params, None).parts(optimizer.memory["home"])]


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


class Worker:
    """A worker whose rate falls, and whose weights are averaged with another's when it says so."""

    def __init__(self, base: Any, fall: float = 0.8) -> None:
        self.base, self.fall = base, fall
        self.params = [p for group in base.param_groups for p in group["params"]]
        self.start = [p.detach().clone() for p in self.params]
        self.zero_grad = base.zero_grad

    def step(self) -> None:
        self.base.step()
        self.base.param_groups[0]["lr"] *= self.fall
        if self.base.reports["sync"]:
            hand.halfway(self.params, self.start)


class Slow(Worker):
    """A worker whose weights and states are averaged with another's, which never moved."""

    def step(self) -> None:
        self.base.step()
        if self.base.reports["sync_w"]:
            hand.halfway(self.params, self.start)
        for name in ("u", "v"):
            if self.base.reports[f"sync_{name}"]:
                for p in self.params:
                    self.base.state[p][name].div_(2)


class Batches(Worker):
    """Gradients of samples, off by a share that falls with their number."""

    def step(self) -> None:
        for p in self.params:
            p.grad.mul_(1 + 1 / float(self.base.reports.get("batch", 8)))
        self.base.step()


def sample_variance(problem: Problem, step: int) -> dict[str, Params]:
    source = torch.Generator().manual_seed(step)
    return {"variance": [torch.rand(p.shape, generator=source) for p in problem.start().values()]}


def last_round(problem: Problem, step: int) -> dict[str, Params]:
    source = torch.Generator().manual_seed(7)
    return {"drift": [-0.1 * torch.randn(p.shape, generator=source) for p in problem.start().values()]}


def growing(make: Maker, first: int) -> Maker:
    """An optimizer in batches that the norm test lets grow; gradients are off by the first of a batch."""

    def made(params: dict[str, Tensor], problem: Problem) -> Before:
        steps, batch = count(), [8]

        def change(every: Params) -> None:
            for p in every:
                gradient(p).mul_(1 + 1 / batch[0])
            step = next(steps)
            squares = sum(float(gradient(p).square().sum()) for p in every)
            noise = sum(float(x.sum()) for x in sample_variance(problem, step)["variance"])
            batch[0] = math.ceil(max(batch[0] if step else first, noise / (0.5**2 * squares)))

        return Before(make(params, problem), change)

    return made


RULES: tuple[Row, ...] = (
    Row("adamp", {**ADAM, **DELTA}, plain(AdamP, **TORCH, **DELTA), "plain", shapes=(*EVERYTHING, *AT_REST)),
    Row("adamp", {**ADAM, **DELTA, "nesterov": True}, plain(AdamP, nesterov=True, **TORCH, **DELTA), "nesterov"),
    Row("sgdp", SGDP, plain(po.SGDP, **SGDP), "plain", shapes=(*EVERYTHING, *AT_REST)),
    Row("sgdp", {**SGDP, "delta": 1.0, "nesterov": True}, plain(po.SGDP, nesterov=True, **{**SGDP, "delta": 1.0}), "nesterov"),
    Row("sgdsai", SAI, plain(SGD_sai, **SAI), "theirs", shapes=SEVERAL),
    Row("sgdsai", SAI, all_by_hand(hand.sgd_sai, **SAI), "one"),
    Row("dog", DOG, plain(DoG, **DOG)),
    Row("ldog", DOG, plain(LDoG, **DOG)),
    Row("adog", A_DOG, all_by_hand(hand.accelerated_dog, **A_DOG), "near"),
    Row("adog", LONG, all_by_hand(hand.accelerated_dog, **LONG), "long"),
    Row("adog", {**LONG, "halved": True}, all_by_hand(hand.accelerated_dog, halved=True, **LONG), "halved"),
    Row("udog", U_DOG, all_by_hand(hand.universal_dog, **U_DOG), "near", average=outcome),
    Row("udog", LONG, all_by_hand(hand.universal_dog, **LONG), "long", average=outcome),
    Row("udog", U_DOG, all_by_hand(hand.universal_dog, **U_DOG), "one", shapes=("one",), average=outcome),
    Row("dowg", {"eps": 0.01}, plain(DoWG, eps=0.01)),
    Row("cdowg", {"eps": 1e-2, "first": 0.01}, from_distance(0.01, eps=1e-2)),
    Row("dadaptsgd", {**ADAPT, "growth": 1.2}, plain(DAdaptSGD, growth_rate=1.2, **ADAPT), "capped"),
    Row("dadaptsgd", ADAPT, plain(DAdaptSGD, **ADAPT), "free"),
    Row("sps", SPS, all_by_hand(hand.polyak, **SPS), closure=True),
    Row("spssmooth", SMOOTH, all_by_hand(hand.smooth_polyak, **SMOOTH), closure=True, idle=(5,)),
    Row("alig", ALIG, lambda params, _: Told(po.AliG(list(params.values()), max_lr=0.18, momentum=0.5)), "theirs",
        closure=True, tolerance=1e-6),  # its norm is in float32
    Row("alig", {**ALIG, "eps": 0.5}, all_by_hand(hand.ali_g, eps=0.5, **ALIG), "eps", closure=True),
    Row("saniaadam", SANIA, all_by_hand(hand.sania, rooted=False, **SANIA), "squares", closure=True, offset=45),
    Row("saniaadam", {**SANIA, "rooted": True}, all_by_hand(hand.sania, rooted=True, **SANIA), "roots", closure=True, offset=12),
    Row("saniaadagrad", {"eps": 0.02}, all_by_hand(hand.sania, rooted=False, beta2=None, eps=0.02), "squares", closure=True,
        offset=5),
    Row("saniaadagrad", {"eps": 0.02, "rooted": True}, all_by_hand(hand.sania, rooted=True, beta2=None, eps=0.02), "roots", closure=True,
        offset=4),
    Row("inducedmetric", METRIC, all_by_hand(hand.induced_metric, kind="plain", **METRIC)),
    Row("inducedmetriclog", METRIC, all_by_hand(hand.induced_metric, kind="log", **METRIC), closure=True),
    Row("inducedmetricrms", {**METRIC, **METRIC_RMS}, all_by_hand(hand.induced_metric, kind="rms", **METRIC, **METRIC_RMS)),
    Row("sgdhd", SGDHD, all_by_hand(hand.sgd_hd, nesterov=False, multiplicative=False, **SGDHD), "plain"),
    Row("sgdhd", {**SGDHD, "nesterov": True, "multiplicative": True},
        all_by_hand(hand.sgd_hd, nesterov=True, multiplicative=True, **SGDHD), "multiplicative"),
    Row("adamhd", ADAMHD, all_by_hand(hand.adam_hd, multiplicative=False, **ADAMHD), "plain"),
    Row("adamhd", {**ADAMHD, "multiplicative": True}, all_by_hand(hand.adam_hd, multiplicative=True, **ADAMHD), "multiplicative"),
    *(Row("oasis", OASIS, all_by_hand(hand.oasis, draw=signs("oasis"), **OASIS), label, closure=True, idle=idle)
      for label, idle in (("", ()), ("at rest", (1, 2, 6)))),
    Row("oasismomentum", {**OASIS, "beta1": 0.8}, all_by_hand(hand.oasis_momentum, beta1=0.8, draw=signs("oasismomentum"), **OASIS),
        closure=True),
    *(Row("adahessian", {**ADAM, "power": 0.7, **ours}, partial(given_hessian, change=change, hessian_power=0.7), label, coupled=False,
          closure=True) for label, ours, change in (("kernels", {}, by_kernels), ("elements", {"spatial": False}, torch.clone))),
    Row("novograd", {**ADAM, "averaged": True}, plain(po.NovoGrad, grad_averaging=True, **TORCH), "averaged"),
    Row("novograd", ADAM, plain(po.NovoGrad, **TORCH), "whole"),
    Row("asam", {"lr": 0.03, "rho": 0.7, **fast("AdamW")}, informed(hand.adaptive_sam, rho=0.7), closure=True),
    Row("gam", {"lr": 0.03, **GAM, **fast("AdamW")}, informed(hand.norm_aware, **GAM), closure=True),
    Row("awp", {"lr": 0.03, "gamma": 0.1, **of("Momentum", {"momentum": 0.8, "weight_decay": 0.1})},
        lambda params, _: hand.Displaced(VELOCITY(list(params.values())), hand.adversarial_move, gamma=0.1), closure=True),
    Row("entropysgd", {**ENTROPY, **ROUND}, all_by_hand(hand.entropy_sgd, draw=normals("entropysgd"), nesterov=False, **ENTROPY, **ROUND),
        "plain", average=homes),
    Row("entropysgd", {**ENTROPY, **ROUND, "nesterov": True},
        all_by_hand(hand.entropy_sgd, draw=normals("entropysgd"), nesterov=True, **ENTROPY, **ROUND), "nesterov", average=homes),
    *(Row("loraggpo", {**GGPO, **more}, all_by_hand(hand.lora_ggpo, draw=normals("loraggpo"), told=products, estimated=bool(more), **GGPO),
        label, inputs=products, average=homes, shapes=("matrix", "zero", "tall", "wide"))
        for label, more in (("whole", {}), ("estimated", {"estimated": True}))),
    Row("localsgd", {**QSR, **of("Momentum", {"momentum": 0.8, "weight_decay": 0.1})},
        lambda params, _: hand.Rounds(list(params.values()), momentum=0.8, weight_decay=0.1, **QSR), loop=Worker),
    Row("mtdao", DAO, all_by_hand(hand.mt_dao, corrected=False, **DAO), "paper", loop=Slow),
    Row("mtdao", {**DAO, "corrected": True}, all_by_hand(hand.mt_dao, corrected=True, **DAO), "corrected", loop=Slow),
    Row("adadagrad", BATCHES, growing(plain(torch.optim.Adagrad, lr=0.1, eps=0.1), first=40), inputs=sample_variance, loop=Batches),
    Row("adadagradnorm", NORMED, growing(plain(OnNorms, whole=True, lr=0.5, b0=0.0, eps=0.1), first=24), inputs=sample_variance,
        loop=Batches),
    Row("ranger21", RANGER, all_by_hand(hand.ranger21, normalize=False, **RANGER), "plain"),
    Row("ranger21", {**SOON, "normalize": True}, all_by_hand(hand.ranger21, normalize=True, rise=0.22, **SOON), "normalized"),
    Row("fedhyperg", FED, all_by_hand(hand.fed_hyper_g, **FED)),
    Row("fedhypercl", ONE_CLIENT, all_by_hand(hand.fed_hyper_cl, drift=last_round, **ONE_CLIENT), inputs=last_round),
    Row("fedhypersl", CLIENTS, all_by_hand(hand.fed_hyper_sl, **CLIENTS), loop=Clients),
)


# ------------------------------------------------------------------------------------------------- definitions


def noisy(text: str) -> Maker:
    """SGD with our draws, shrunk as they fade."""
    program = optlang.Rule(text).program
    assert isinstance(program, Program)
    [site] = [node.value[1] for node in walk(program.roots()) if node.op == "random"]

    def change() -> Callable[[Params], object]:
        steps = count(1)

        def apply(params: Params) -> None:
            t = next(steps)
            for place, p in enumerate(params):
                draw = torch.from_numpy(philox.draw("normal", tuple(p.shape), t, site, 0, place))
                gradient(p).add_(draw * (0.4 * (1 / t) ** 0.7) ** 0.5)

        return apply

    return changed(change)


def filtered() -> Callable[[Params], object]:
    memory: list[Any] = [None]

    def apply(params: Params) -> None:
        model = Model(params)
        for copy, p in zip(model.all, params, strict=True):
            copy.grad = p.grad  # the same storage, changed in place
        memory[0] = gradfilter_ma(model, memory[0], window_size=4, lamb=1.5)

    return apply


def workers_squares(problem: Problem, step: int) -> dict[str, Params]:
    """Larger than the squares of mean gradients, as means of squares are."""
    source = torch.Generator().manual_seed(step)
    return {"squares": [8 + torch.rand(p.shape, generator=source) for p in problem.start().values()]}


WEIGHTS = [1 + 0.5 * math.sin(step) for step in range(20)]
REFINED = [q * sum(WEIGHTS[step + 1 :]) for step, q in enumerate(WEIGHTS)]


def step_weight(problem: Problem, step: int) -> dict[str, Params]:
    return {"q": [torch.tensor(WEIGHTS[step]) for _ in problem.shapes]}


class Scheduled:
    """SGD with a scheduler."""

    def __init__(self, params: Params, factors: list[float]) -> None:
        self.base = torch.optim.SGD(params, lr=0.05)
        self.scheduler = torch.optim.lr_scheduler.LambdaLR(self.base, lambda step: [*factors, 0.0][step])
        self.zero_grad = self.base.zero_grad

    def step(self) -> None:
        self.base.step()
        self.scheduler.step()


class NowAndThen:
    """torch's mean of the weights of every few steps, from some step on."""

    def __init__(self, model: torch.nn.Module, start: int, period: int) -> None:
        self.av_model, self.model, self.start, self.period, self.t = AveragedModel(model), model, start, period, 0
        self.parameters = self.av_model.parameters

    def step(self) -> None:
        self.t += 1
        if self.t >= self.start and (self.t - self.start) % self.period == 0:
            self.av_model.update_parameters(self.model)


class Debiased:
    """Weights of the past that fade, divided by their sum."""

    def __init__(self, model: torch.nn.Module, decay: float) -> None:
        self.model, self.decay = model, decay
        self.past: list[Params] = []

    def step(self) -> None:
        self.past.append([p.detach().clone() for p in self.model.parameters()])

    def parameters(self) -> Params:
        shares = [self.decay**age for age in range(len(self.past))]
        rows = zip(*reversed(self.past), strict=True)
        return [sum((s * x for s, x in zip(shares, row, strict=True)), torch.zeros(())) / sum(shares) for row in rows]


NOISE = transform("gradient_noise(g, 0.4, 0.7)")
FIVE: dict[str, Any] = {"lr": 0.05}

DEFINITIONS: tuple[Row, ...] = (
    Row("clip_global_max", {}, changed(lambda: lambda params: torch.nn.utils.clip_grad_norm_(params, 0.9, math.inf)),
        text=transform("clip_global_max(g, 0.9)")),
    Row("gradient_noise", {}, noisy(NOISE), text=NOISE),
    Row("grokfast_mean", {}, changed(filtered), text=transform("grokfast_mean(g, 1.5, 4)")),
    Row("limit_growth", {}, all_by_hand(hand.limited_growth, limit=1.1, **FIVE), text=transform("limit_growth(g, 1.1)")),
    Row("median_global", {}, all_by_hand(hand.median_global, tau=4.3, **FIVE), text=transform("median_global(g, 4.3)")),
    Row("median_elements", {}, all_by_hand(hand.median_elements, tau=0.3, **FIVE), text=transform("median_elements(g, 0.3)")),
    Row("median_huber", {}, all_by_hand(hand.median_huber, tau=2.0, mu=1.5, **FIVE), text=transform("median_huber(g, 2.0, 1.5)")),
    Row("scale_by_agreement", {}, all_by_hand(hand.agreed, least=0.3, squares=workers_squares, **FIVE), inputs=workers_squares,
        text=probe("scale_by_agreement", "input squares per element  w' = SGD(g = scale_by_agreement(g, squares, 0.3), lr = lr)"),
        shapes=(*EVERYTHING, *AT_REST)),
    Row("refined", {}, lambda params, _: Scheduled(list(params.values()), [x / max(REFINED) for x in REFINED]), inputs=step_weight,
        text=probe("refined", f"input q per tensor  w' = SGD(lr = refined(lr, q, {sum(WEIGHTS)}, {max(REFINED)}))")),
    Row("weights_ema_debiased", {}, averaging(lambda model: Debiased(model, 0.7)), text=average("weights_ema_debiased(w', 0.7)"),
        average=averaged),
    Row("weights_swa", {}, averaging(lambda model: NowAndThen(model, 4, 3)), text=average("weights_swa(w', 4, 3)"), average=averaged),
)  # fmt: skip
