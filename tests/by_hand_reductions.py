"""Rules of reductions without a package to compare with: written from their papers, a plain NumPy step for all parameters at once.

All tensors are one long vector here, so that what a rule asks of the whole model is an expression of NumPy.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from by_hand import Array, Memory
from closed_loop import Maker, Problem
from torch import Tensor

Rule = Callable[[Array, Array, Memory, int, Any, "Batch"], Array]  # w, g, memory, t, settings, the batch: the new w


class Batch:
    """The batch of a step: its loss and gradient at any weights, and where the tensors lie in the vector."""

    def __init__(self, params: list[Tensor], closure: Callable[[], Tensor] | None) -> None:
        self.params, self.closure = params, closure
        self.ends = np.cumsum([p.numel() for p in params])[:-1]
        self.loss = float(closure().detach()) if closure else float("nan")

    def weights(self) -> Array:
        return np.concatenate([p.detach().numpy().ravel() for p in self.params])

    def gradient(self) -> Array:
        return np.concatenate([p.grad.numpy().ravel() for p in self.params if p.grad is not None])

    def move(self, x: Array) -> None:
        for p, part in zip(self.params, self.parts(x), strict=True):
            p.data.copy_(torch.from_numpy(part.copy()))

    def parts(self, x: Array) -> list[Array]:
        """The vector as the tensors that it is made of."""
        return [part.reshape(tuple(p.shape)) for p, part in zip(self.params, np.split(x, self.ends), strict=True)]

    def whole(self, parts: list[Array]) -> Array:
        return np.concatenate([part.ravel() for part in parts])

    def at(self, x: Array) -> tuple[float, Array]:
        """The loss and the gradient at other weights."""
        assert self.closure
        home = self.weights()
        self.move(x)
        loss, gradient = float(self.closure().detach()), self.gradient()
        self.move(home)
        return loss, gradient


    def curved(self, z: Array, problem: Problem, t: int) -> Array:
        """The Hessian times a vector, by torch."""
        vectors = tuple(torch.from_numpy(part) for part in self.parts(z))
        here = tuple(p.detach() for p in self.params)
        _, products = torch.autograd.functional.hvp(lambda *at: problem.loss(at, t - 1), here, vectors)  # type: ignore[no-untyped-call]
        return self.whole([product.numpy() for product in products])


class AllByHand:
    """Steps of a function of vectors."""

    def __init__(self, params: list[Tensor], rule: Rule, **settings: Any) -> None:
        self.params, self.rule, self.settings = params, rule, SimpleNamespace(**settings)
        self.memory: Memory = {}
        self.t = 0

    def zero_grad(self) -> None:
        for p in self.params:
            p.grad = None

    def step(self, closure: Callable[[], Tensor] | None = None) -> None:
        self.t += 1
        batch = Batch(self.params, closure)
        batch.move(self.rule(batch.weights(), batch.gradient(), self.memory, self.t, self.settings, batch))


def all_by_hand(rule: Rule, **settings: Any) -> Maker:
    """The rule finds `problem` among its settings."""
    return lambda params, problem: AllByHand(list(params.values()), rule, problem=problem, **settings)


# --------------------------------------------------------------------------------------------- layer-wise norms


def sgd_sai(w: Array, g: Array, s: Memory, t: int, h: Any, batch: Batch) -> Array:
    """Xu et al. 2024, where a single number has no spread. h: lr, momentum, eps, weight_decay."""
    if t == 1:
        s["m"] = g
        ratios = [np.linalg.norm(x) / ((np.std(x, ddof=1) + h.eps) if x.size > 1 else 1.0) for x in batch.parts(g)]
        s["size"] = batch.whole([np.full(x.size, ratio) for x, ratio in zip(batch.parts(g), ratios, strict=True)])
    else:
        s["m"] = h.momentum * s["m"] + (1 - h.momentum) * g
    return np.asarray(w * (1 - h.lr * h.weight_decay) - h.lr * s["size"] * s["m"])


# ---------------------------------------------------------------------------------------- without a learning rate


def accelerated_dog(w: Array, g: Array, s: Memory, t: int, h: Any, batch: Batch) -> Array:
    """Kreisler et al. 2024, algorithm 2, whose x is the weights, and its authors' later code. h: lr, reps_rel, eps."""
    if t == 1:
        s.update(start=w, z=w, r=[h.reps_rel * (1 + np.linalg.norm(w))], alpha=[1.0], squares=[])
    s["squares"].append((s["alpha"][-1] * np.linalg.norm(g)) ** 2)
    eta = h.lr * s["r"][-1] / (np.sqrt(sum(s["squares"])) + h.eps)
    y = w - eta * g
    s["z"] = s["z"] - s["alpha"][-1] * eta * g
    s["r"].append(max(s["r"][-1], np.linalg.norm(s["z"] - s["start"])))
    alpha = sum(s["r"]) / s["r"][-1]
    s["alpha"].append(max(1.0, 0.5 * alpha) if hasattr(h, "halved") else alpha)
    share = 1 / s["alpha"][-1] if hasattr(h, "halved") else s["alpha"][-1] / sum(s["alpha"])
    return np.asarray(share * s["z"] + (1 - share) * y)


def lora_ggpo(w: Array, g: Array, s: Memory, t: int, h: Any, batch: Batch) -> Array:
    """Chang et al. 2025, what is added to a frozen matrix in the forward pass. h: sigma, beta, estimated; draw, told."""
    s.setdefault("home", w)
    told, noise = h.told(h.problem, t - 1), []
    for place, home in enumerate(batch.parts(s["home"])):
        product, slope = (told[name][place].numpy() for name in ("product", "slope"))
        lengths = [math.hypot(np.mean([np.linalg.norm(row) for row in home]), np.linalg.norm(more)) if h.estimated
                   else np.linalg.norm(own + more) for own, more in zip(home, product, strict=True)]  # fmt: skip
        sizes = [h.sigma * length + h.beta * np.linalg.norm(row) ** 2 for length, row in zip(lengths, slope, strict=True)]
        noise.append(np.array(sizes)[:, None] / np.sqrt(len(home)) * h.draw(t, place, home.shape))
    return np.asarray(s["home"] + batch.whole(noise))


def universal_dog(w: Array, g: Array, s: Memory, t: int, h: Any, batch: Batch) -> Array:
    """Kreisler et al. 2024, algorithm 1 with the step sizes of section G.1: m at odd steps, g at even ones. h: lr, reps_rel, eps."""
    if t == 1:
        s.update(x=[w], y=[w], m=[], q=[], r=[h.reps_rel * (1 + np.linalg.norm(w))], omega=[], alpha=[])
    if t % 2:
        s["alpha"].append(sum(s["r"]) / s["r"][-1])
        s["omega"].append(s["alpha"][-1] * s["r"][-1])
        s["m"].append(g)
        s["x"].append(s["y"][-1] - _universal_size(s, h) * g)
        return np.average(s["x"][1:], axis=0, weights=s["omega"])
    s["q"].append((s["alpha"][-1] * np.linalg.norm(g - s["m"][-1])) ** 2)
    s["y"].append(s["y"][-1] - _universal_size(s, h) * g)
    s["r"].append(max(s["r"][-1], *(np.linalg.norm(s[name][-1] - s["x"][0]) for name in "xy")))
    return np.average([*s["x"][1:], s["y"][-1]], axis=0, weights=[*s["omega"], sum(s["r"])])


def _universal_size(s: Memory, h: Any) -> float:
    """alpha times eta: with as many differences as there are, Q up to this step or the one before."""
    largest = max((alpha * np.linalg.norm(m)) ** 2 for alpha, m in zip(s["alpha"], s["m"], strict=True))
    return float(h.lr * s["alpha"][-1] * s["r"][-1] / (np.sqrt(max(sum(s["q"]), largest)) + h.eps))


# ------------------------------------------------------------------------------------------------- the loss, slopes


def polyak(w: Array, g: Array, s: Memory, t: int, h: Any, batch: Batch) -> Array:
    """Loizou et al. 2021. h: lr, c, f_star, eps."""
    square = float(g @ g)
    if square**0.5 < 1e-8 or batch.loss < h.f_star:
        return w
    return np.asarray(w - min((batch.loss - h.f_star) / (h.c * square + h.eps), h.lr) * g)


def smooth_polyak(w: Array, g: Array, s: Memory, t: int, h: Any, batch: Batch) -> Array:
    """Loizou et al. 2021, with a step size that grows slowly. h: lr, c, gamma, batches, eps."""
    if np.linalg.norm(g) < 1e-8:
        return w
    grown = s.get("size", h.lr) * h.gamma ** (1 / h.batches)
    s["size"] = min(grown, batch.loss / (h.c * float(g @ g) + h.eps))
    return np.asarray(w - s["size"] * g)


def ali_g(w: Array, g: Array, s: Memory, t: int, h: Any, batch: Batch) -> Array:
    """Berrada et al. 2020. h: lr, momentum, eps."""
    size = min(batch.loss / (float(g @ g) + h.eps), h.lr)
    s["m"] = h.momentum * s.get("m", np.zeros_like(w)) - size * g
    return np.asarray(w - size * g + h.momentum * s["m"])


def sania(w: Array, g: Array, s: Memory, t: int, h: Any, batch: Batch) -> Array:
    """Abdukhakimov et al. 2023; `beta2` is None for Adagrad's metric. h: beta2, eps, rooted."""
    if h.beta2 is None:
        s["v"] = s.get("v", 0.0) + g * g
        metric = np.maximum(s["v"], h.eps)
    else:
        s["v"] = h.beta2 * s.get("v", 0.0) + (1 - h.beta2) * g * g
        metric = np.maximum(s["v"] / (1 - h.beta2**t), h.eps)
    if h.rooted:
        metric = np.sqrt(metric)
    squared = float(np.sum(g * g / metric))
    share = 1 - np.sqrt(1 - 2 * batch.loss / squared) if 2 * batch.loss <= squared else 1.0
    return np.asarray(w - share * g / metric)


def induced_metric(w: Array, g: Array, s: Memory, t: int, h: Any, batch: Batch) -> Array:
    """Harvey 2025. h: lr, momentum, xi, beta, weight_decay, kind; for "rms" also beta2, eps."""
    under: Array | float = 1.0
    if h.kind == "rms":
        s["v"] = h.beta2 * s.get("v", 0.0) + (1 - h.beta2) * g * g
        under = np.sqrt(s["v"] / (1 - h.beta2**t)) + h.eps
    s["e"] = h.beta * s.get("e", 0.0) + (1 - h.beta) * h.xi * float(np.sum(g * g / under))
    slope = s["e"] / (1 - h.beta**t)
    scale = batch.loss / (batch.loss**2 + slope) if h.kind == "log" else 1 / (1 + slope)
    s["m"] = h.momentum * s.get("m", 0.0) + (1 - h.momentum) * g
    return np.asarray(w * (1 - h.lr * h.weight_decay) - h.lr * scale * s["m"] / (1 - h.momentum**t) / under)


# ------------------------------------------------------------------------------------------------- hypergradients


def _hyper_step(s: Memory, g: Array, u: Array, h: Any) -> float:
    size = float(s.get("size", h.lr))
    slope = float(g @ u)
    if h.multiplicative:
        lengths = float(np.linalg.norm(g) * np.linalg.norm(u))
        s["size"] = size * (1 + h.lr_lr * (slope / lengths if lengths else 0.0))
    else:
        s["size"] = size + h.lr_lr * slope
    return float(s["size"])


def sgd_hd(w: Array, g: Array, s: Memory, t: int, h: Any, batch: Batch) -> Array:
    """Baydin et al. 2018. h: lr, lr_lr, momentum, weight_decay, nesterov, multiplicative."""
    g = g + h.weight_decay * w
    size = _hyper_step(s, g, s.get("u", np.zeros_like(g)), h)
    s["m"] = g if t == 1 else h.momentum * s["m"] + g
    s["u"] = g + h.momentum * s["m"] if h.nesterov else s["m"]
    return np.asarray(w - size * s["u"])


def adam_hd(w: Array, g: Array, s: Memory, t: int, h: Any, batch: Batch) -> Array:
    """Baydin et al. 2018. h: those of Adam, lr_lr, multiplicative."""
    g = g + h.weight_decay * w

    def direction(t: int) -> Array:
        return np.asarray(np.sqrt(1 - h.beta2**t) / (1 - h.beta1**t) * s["m"] / (np.sqrt(s["v"]) + h.eps))

    size = _hyper_step(s, g, direction(t - 1) if t > 1 else np.zeros_like(g), h)
    s["m"] = h.beta1 * s.get("m", 0.0) + (1 - h.beta1) * g
    s["v"] = h.beta2 * s.get("v", 0.0) + (1 - h.beta2) * g * g
    return np.asarray(w - size * direction(t))


def fed_hyper_g(w: Array, g: Array, s: Memory, t: int, h: Any, batch: Batch) -> Array:
    """Wang et al. 2023, the server; the clients' mean change is -g. h: lr, low, high."""
    change = -g
    s["sum"] = min(max(s.get("sum", 0.0) + float(change @ s.get("last", np.zeros_like(g))), h.low), h.high)
    s["last"] = change
    return np.asarray(w + h.lr * (1 + s["sum"]) * change)


def fed_hyper_sl(w: Array, g: Array, s: Memory, t: int, h: Any, batch: Batch) -> Array:
    """Wang et al. 2023; the clients' mean change is their step size times -g. h: lr, client, low, high."""
    change = -s.get("client", 0.1) * g  # the first step of the clients is their own
    s["sum"] = s.get("sum", 0.0) + float(change @ s.get("last", np.zeros_like(g)))
    s["last"] = change
    s["client"] = min(max(h.client * (1 + s["sum"]), h.low), h.high)
    return np.asarray(w + h.lr * change)


def fed_hyper_cl(w: Array, g: Array, s: Memory, t: int, h: Any, batch: Batch) -> Array:
    """Wang et al. 2023, a client of one round. h: lr, momentum, share, growth, low, high, drift."""
    change = batch.whole([x.numpy() for x in h.drift(h.problem, 0)["drift"]])
    s["m"] = h.momentum * s.get("m", 0.0) + g
    step = -h.lr * s.get("size", 1.0) * s["m"]
    if t > 1:
        growth = 1 + h.share * float(step @ change) + float(step @ s["last"])
        s["size"] = min(max(s.get("size", 1.0) * min(growth, h.growth), h.low), h.high)
    s["last"] = step if t > 1 else change
    return np.asarray(w + step)


# ------------------------------------------------------------------------------------------------- the curvature


def _diagonal(s: Memory, t: int, h: Any, batch: Batch) -> Array:
    """Means of Hutchinson's estimates with `draw(sample, t)`, the one with number -1 at the steps after the first."""

    def estimate(number: int) -> Array:
        z = batch.whole([h.draw(number, t, place, tuple(p.shape)) for place, p in enumerate(batch.params)])
        return z * batch.curved(z, h.problem, t)

    if t == 1:
        s["d"] = np.abs(sum(estimate(k) for k in range(h.samples)) / h.samples)
    else:
        s["d"] = h.beta2 * s["d"] + (1 - h.beta2) * estimate(-1)
    return np.asarray(np.maximum(np.abs(s["d"]), h.alpha))


def oasis(w: Array, g: Array, s: Memory, t: int, h: Any, batch: Batch) -> Array:
    """Jahani et al. 2022; where nothing has changed, the size stays. h: lr, beta2, alpha, samples, draw."""
    metric = _diagonal(s, t, h, batch)
    if t == 1:
        s.update(size=h.lr, ratio=np.inf)
    else:
        step, change = w - s["last"], g - batch.at(s["last"])[1]
        moved, turned = np.sqrt(step @ (metric * step)), np.sqrt(change @ (change / metric))
        size = min(np.sqrt(1 + s["ratio"]) * s["size"], 0.5 * moved / turned if turned else np.inf)
        if (moved or turned) and size < np.inf:
            s["ratio"], s["size"] = size / s["size"], size
    s["last"] = w
    return np.asarray(w - s["size"] * g / metric)


def oasis_momentum(w: Array, g: Array, s: Memory, t: int, h: Any, batch: Batch) -> Array:
    """Jahani et al. 2022. h: lr, beta1, beta2, alpha, samples, draw."""
    s["m"] = h.beta1 * s.get("m", 0.0) + (1 - h.beta1) * g
    return np.asarray(w - h.lr * s["m"] / _diagonal(s, t, h, batch))


# ------------------------------------------------------------------------------- transforms of gradients, before SGD


def _tracked(s: Memory, g: Array, move: Callable[[Array], Array]) -> Array:
    s["m"] = s.get("m", np.zeros_like(g))
    s["m"] = s["m"] + move(g - s["m"])
    return np.asarray(s["m"])


def median_global(w: Array, g: Array, s: Memory, t: int, h: Any, batch: Batch) -> Array:
    """Schaipp et al. 2024: the proximal step for the norm of m - g. h: lr, tau."""
    return np.asarray(w - h.lr * _tracked(s, g, lambda d: d * min(1.0, h.tau / np.linalg.norm(d))))


def median_elements(w: Array, g: Array, s: Memory, t: int, h: Any, batch: Batch) -> Array:
    """Schaipp et al. 2024: the proximal step for the sum of absolute differences. h: lr, tau."""
    return np.asarray(w - h.lr * _tracked(s, g, lambda d: np.sign(d) * np.minimum(np.abs(d), h.tau)))


def median_huber(w: Array, g: Array, s: Memory, t: int, h: Any, batch: Batch) -> Array:
    """Schaipp et al. 2024: the proximal step for Huber's function of the norm of m - g. h: lr, tau, mu."""
    return np.asarray(w - h.lr * _tracked(s, g, lambda d: d * min(h.tau / (h.tau + h.mu), h.tau / np.linalg.norm(d))))


def limited_growth(w: Array, g: Array, s: Memory, t: int, h: Any, batch: Batch) -> Array:
    """Chen et al. 2024, tensor by tensor. h: lr, limit."""
    parts, norms = batch.parts(g), s.setdefault("norms", [])
    for place, part in enumerate(parts):
        norm = float(np.linalg.norm(part))
        if t == 1:
            norms.append(norm)
        elif norm > h.limit * (norms[place] + 1e-8):
            norms[place] = h.limit * (norms[place] + 1e-8)
            parts[place] = part * norms[place] / norm
        else:
            norms[place] = norm
    return np.asarray(w - h.lr * batch.whole(parts))


def agreed(w: Array, g: Array, s: Memory, t: int, h: Any, batch: Batch) -> Array:
    """Jiang et al. 2023; `squares(t)` are the tensors of the workers' mean squares. h: lr, least, squares."""
    scaled = []
    for part, square in zip(batch.parts(g), h.squares(h.problem, t - 1)["squares"], strict=True):
        ratio = part**2 / (square.numpy() - part**2)
        scaled.append(part * np.minimum(1.0, np.maximum(h.least, ratio / max(ratio.mean(), 1e-30))))
    return np.asarray(w - h.lr * batch.whole(scaled))


# ------------------------------------------------------------------------------------- gradients at other points


class Informed:
    """An optimizer of torch that gets another gradient than that at the weights."""

    def __init__(self, base: torch.optim.Optimizer, change: Callable[[Array, Array, Any, Batch], Array], **settings: Any) -> None:
        self.base, self.change, self.settings = base, change, SimpleNamespace(**settings)
        self.params: list[Tensor] = [p for group in base.param_groups for p in group["params"]]
        self.zero_grad = base.zero_grad

    def step(self, closure: Callable[[], Tensor]) -> None:
        batch = Batch(self.params, closure)
        changed = self.change(batch.weights(), batch.gradient(), self.settings, batch)
        for p, part in zip(self.params, batch.parts(changed), strict=True):
            p.grad = torch.from_numpy(part.copy())
        self.base.step()


class Displaced(Informed):
    """An optimizer of torch that takes its step elsewhere and is moved back."""

    def step(self, closure: Callable[[], Tensor]) -> None:
        batch = Batch(self.params, closure)
        move = self.change(batch.weights(), batch.gradient(), self.settings, batch)
        batch.move(batch.weights() + move)
        closure()
        self.base.step()
        batch.move(batch.weights() - move)


def adaptive_sam(w: Array, g: Array, h: Any, batch: Batch) -> Array:
    """Kwon et al. 2021. h: rho."""
    return batch.at(w + h.rho * np.abs(w) ** 2 * g / (np.linalg.norm(np.abs(w) * g) + 1e-12))[1]


def _along(x: Array) -> Array:
    return np.asarray(x / (np.linalg.norm(x) + 1e-12))


def norm_aware(w: Array, g: Array, h: Any, batch: Batch) -> Array:
    """Zhang et al. 2023, the accelerated form. h: near, rho, beta0, beta1, gamma."""
    first = batch.at(w + h.near * _along(g))[1]
    away = h.rho * _along(first - g)
    second = batch.at(w + away)[1]
    third = batch.at(w + away + h.near * _along(second))[1]
    plain = g + abs(1 - h.beta0) * second
    flat = h.beta1 * first + (1 - h.beta1) * third
    length = np.linalg.norm(plain)
    cosine = float(plain @ flat) / (np.linalg.norm(flat) * length + 1e-12)
    return np.asarray(flat - h.gamma * (plain - cosine * length * _along(flat)))


def adversarial_move(w: Array, g: Array, h: Any, batch: Batch) -> Array:
    """Wu et al. 2020, one step of a proxy; vectors stay. h: gamma."""

    def move(weights: Array, slope: Array) -> Array:
        share = h.gamma * np.linalg.norm(weights) / (np.linalg.norm(slope) + 1e-20)
        return share * slope if weights.ndim > 1 else np.zeros_like(weights)

    return batch.whole([move(*both) for both in zip(batch.parts(w), batch.parts(g), strict=True)])


def entropy_sgd(w: Array, g: Array, s: Memory, t: int, h: Any, batch: Batch) -> Array:
    """Chaudhari et al. 2017. h: those of the rule, draw."""
    if t == 1:
        s.update(home=w, centre=w, outer=g, turn=0)
    if (t - 1) % h.steps == 0:
        s["inner"] = np.zeros_like(w)
    step = g + h.weight_decay * w
    if h.momentum:
        s["inner"] = h.momentum * s["inner"] + step
        step = step + h.momentum * s["inner"] if h.nesterov else s["inner"]
    drawn = batch.whole([h.draw(t, place, tuple(p.shape)) for place, p in enumerate(batch.params)])
    pull = h.gamma * (1 + h.scoping) ** s["turn"] * (s["home"] - w)
    x = w - h.inner_lr * (step - pull + h.noise / np.sqrt(0.5 * h.inner_lr) * drawn)
    s["centre"] = h.decay * s["centre"] + (1 - h.decay) * x
    if t % h.steps:
        return np.asarray(x)
    s["turn"] += 1
    step = s["home"] - s["centre"] + h.weight_decay * s["home"]
    if h.momentum:
        s["outer"] = h.momentum * s["outer"] + step
        step = step + h.momentum * s["outer"] if h.nesterov else s["outer"]
    s["home"] = s["centre"] = s["home"] - h.lr * step
    return np.asarray(s["home"])


# ------------------------------------------------------------------------------------------- workers and batches


class Rounds:
    """torch's SGD of a worker among several, with the quadratic synchronisation rule; the other worker stays at the start."""

    def __init__(self, params: list[Tensor], alpha: float, fewest: int, warmup: int, total: int, **settings: Any) -> None:
        self.base = torch.optim.SGD(params, **settings)
        self.alpha, self.fewest, self.warmup, self.total = alpha, fewest, warmup, total
        self.start = [p.detach().clone() for p in params]
        self.params, self.t, self.end = params, 0, 0
        self.zero_grad = self.base.zero_grad

    def step(self) -> None:
        if self.t == self.end:
            steps = self.fewest
            if self.t >= self.warmup:
                steps = max(steps, math.floor((self.alpha / self.base.param_groups[0]["lr"]) ** 2))
            self.end += max(1, min(steps, self.total - self.t))
        self.base.step()
        self.t += 1
        self.base.param_groups[0]["lr"] *= 0.8
        if self.t == self.end:
            halfway(self.params, self.start)


def halfway(params: list[Tensor], others: list[Tensor]) -> None:
    """The mean with another worker."""
    with torch.no_grad():
        for p, other in zip(params, others, strict=True):
            p.add_(other).div_(2)


def mt_dao(w: Array, g: Array, s: Memory, t: int, h: Any, batch: Batch) -> Array:
    """Iacob et al. 2025 with one slow mean; the other worker stays at the start, where its means are zero.

    h: lr, beta1, beta2, omega, eps, limit, corrected, period, period_u, period_v.
    """
    start = s.setdefault("start", w)
    g = g * min(1.0, h.limit / (np.linalg.norm(g) + 1e-6))
    s["u"] = h.beta1 * s.get("u", 0.0) + (1 - h.beta1) * g
    s["v"] = h.beta2 * s.get("v", 0.0) + (1 - h.beta2) * g * g
    weights = (1 - h.beta1**t, 1 - h.beta2**t) if h.corrected else (1.0, 1.0)
    new = w - h.lr * ((1 - h.omega) * g + h.omega * s["u"] / weights[0]) / (np.sqrt(s["v"] / weights[1]) + h.eps)
    for name in ("u", "v"):
        if t % getattr(h, f"period_{name}") == 0:
            s[name] = s[name] / 2
    return np.asarray((new + start) / 2 if t % h.period == 0 else new)


# ----------------------------------------------------------------------------------------------------- Ranger21


def _unit_norms(x: Array) -> Array:
    """The norm of each unit's weights; a vector is one unit."""
    axes = tuple(range(1, x.ndim)) if x.ndim > 1 else None
    return np.asarray(np.sqrt(np.sum(x * x, axis=axes, keepdims=True)))


def ranger21(w: Array, g: Array, s: Memory, t: int, h: Any, batch: Batch) -> Array:
    """Wright & Demeure 2021, part by part and tensor by tensor."""
    new = [_ranger21(*both, s.setdefault(place, {}), t, h) for place, both in enumerate(zip(batch.parts(w), batch.parts(g), strict=True))]
    return batch.whole(new)


def _ranger21(w: Array, g: Array, s: Memory, t: int, h: Any) -> Array:
    ratio = h.share * np.maximum(_unit_norms(w), h.least) / (_unit_norms(g) + h.eps)
    g = np.where(ratio < 1, ratio * g, g)
    if g.ndim > 1:
        g = g - g.mean(axis=tuple(range(1, g.ndim)), keepdims=True)
    if h.normalize and g.size > 2:
        g = g / (np.std(g, ddof=1) + 1e-8)
    means = s.setdefault("means", [np.zeros_like(g), np.zeros_like(g)])
    means.append(h.beta1**2 * means[-2] + (1 - h.beta1**2) * g)
    s["v"] = h.beta2 * s.get("v", 0.0) + (1 - h.beta2) * g * g
    s["most"] = np.maximum(s.get("most", 0.0), s["v"])
    second = s["most"] / (1 - h.beta2**t)
    momentum = ((1 + h.beta0) * means[-1] - h.beta0 * means[-2]) / (1 - h.beta1**t)
    update = momentum / (np.hypot(1 + h.beta0, h.beta0) * np.sqrt(second) + h.eps)
    norm = _unit_norms(w)
    update = update + h.weight_decay * (norm - 1) / (norm * np.sqrt(np.mean(second)) + h.eps) * w
    warm = max(0.5 * t * (1 - h.beta2), t / (h.rise * h.total))
    fast = w - h.lr * min(1.0, warm, max(0.0, h.total - t) / (h.down * h.total)) * update
    slow = s.setdefault("slow", w)
    if t % h.k:
        return np.asarray(fast)
    s["slow"] = h.a * fast + (1 - h.a) * slow
    return np.asarray(s["slow"])
