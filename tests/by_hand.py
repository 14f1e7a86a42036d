"""Rules without a package to compare with: written from their papers, a plain NumPy step for one parameter at a time.

They share nothing with the compiler: no expression, no plan, no state but a dictionary.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from closed_loop import Maker
from torch import Tensor

Array = np.ndarray[Any, np.dtype[np.float64]]
Memory = dict[str, Any]
Step = Callable[[Array, Array, Memory, int, Any], Array]  # w, g, memory, t, settings: the new w


class ByHand:
    """Steps of a function of arrays. `before` sees all gradients first, and what it returns is `settings.shared`."""

    def __init__(
        self, params: list[Tensor], step: Step, before: Callable[[list[Array], Memory, int, Any], Any] | None, **settings: Any
    ) -> None:
        self.params, self.rule, self.before = params, step, before
        self.settings = SimpleNamespace(**settings)
        self.memories: list[Memory] = [{} for _ in params]
        self.common: Memory = {}
        self.t = 0

    def zero_grad(self) -> None:
        for p in self.params:
            p.grad = None

    def step(self) -> None:
        self.t += 1
        gradients = [p.grad.numpy().copy() for p in self.params if p.grad is not None]
        if self.before:
            self.settings.shared = self.before(gradients, self.common, self.t, self.settings)
        for p, g, memory in zip(self.params, gradients, self.memories, strict=True):
            new = self.rule(p.detach().numpy().copy(), g, memory, self.t, self.settings)
            p.data.copy_(torch.from_numpy(new))


def by_hand(step: Step, before: Callable[[list[Array], Memory, int, Any], Any] | None = None, **settings: Any) -> Maker:
    return lambda params, problem: ByHand(list(params.values()), step, before, **settings)


# ----------------------------------------------------------------------------------------------- sign methods


def _momentum(g: Array, s: Memory, b: float) -> Array:
    s["m"] = g * (1 - b) if "m" not in s else s["m"] * b + g * (1 - b)
    return np.asarray(s["m"])


def power_sign(w: Array, g: Array, s: Memory, t: int, h: Any) -> Array:
    """Bello et al. 2017, element by element. h: lr, base, beta, f(t)."""
    m = _momentum(g, s, h.beta)
    new = w.copy()
    for at in np.ndindex(*w.shape):
        agreement = float(np.sign(g[at]) * np.sign(m[at]))
        new[at] -= h.lr * np.exp(np.log(h.base) * h.f * agreement) * g[at]
    return new


def add_sign(w: Array, g: Array, s: Memory, t: int, h: Any) -> Array:
    """Bello et al. 2017, element by element. h: lr, alpha, beta, f."""
    m = _momentum(g, s, h.beta)
    new = w.copy()
    for at in np.ndindex(*w.shape):
        new[at] -= h.lr * (h.alpha + h.f * float(np.sign(g[at]) * np.sign(m[at]))) * g[at]
    return new


# ------------------------------------------------------------------------------------------------------ SGD


def randomly_scaled(w: Array, g: Array, s: Memory, t: int, h: Any) -> Array:
    """Zhang & Cutkosky 2024. h: lr, momentum, weight_decay, draw(t)."""
    step = h.lr * h.draw(t)
    return np.asarray(w * (1 - step * h.weight_decay) - step * _momentum(g, s, h.momentum))


# ---------------------------------------------------------------------------------------------- accumulators


def subsets(g: Array, most: int) -> list[tuple[Any, ...]]:
    """Index of each subset: as many elements as fit, of `most` at most; or the elements of a vector, the longer lines of matrices."""
    if most:
        length = max(n for n in range(1, most + 1) if g.size % n == 0)
        return [np.unravel_index(range(first, first + length), g.shape) for first in range(0, g.size, length)]
    if g.ndim < 2:
        return list(np.ndindex(*g.shape))
    across = g.shape[-2] >= g.shape[-1]
    found: list[tuple[Any, ...]] = []
    for lead in np.ndindex(*g.shape[:-2]):
        lines = g.shape[-2] if across else g.shape[-1]
        found += [(*lead, i, slice(None)) if across else (*lead, slice(None), i) for i in range(lines)]
    return found


def adagrad_subset_norm(w: Array, g: Array, s: Memory, t: int, h: Any) -> Array:
    """Nguyen & Nguyen 2024. h: lr, initial, eps; k, or 0 for lines."""
    new = w.copy()
    for n, at in enumerate(subsets(g, h.k)):
        s[str(n)] = s.get(str(n), h.initial) + float(np.sum(g[at] ** 2))
        new[at] -= h.lr * g[at] / (np.sqrt(s[str(n)]) + h.eps)
    return new


def adamw_subset_norm(w: Array, g: Array, s: Memory, t: int, h: Any) -> Array:
    """Nguyen & Nguyen 2024: eps before the correction of the second moment, decay of the new weights. h: Adam's; k, or 0 for lines."""
    m = _momentum(g, s, h.beta1)
    size = h.lr * np.sqrt(1 - h.beta2**t) / (1 - h.beta1**t)
    new = w.copy()
    for n, at in enumerate(subsets(g, h.k)):
        s[str(n)] = h.beta2 * s.get(str(n), 0.0) + (1 - h.beta2) * float(np.sum(g[at] ** 2))
        new[at] -= size * m[at] / (np.sqrt(s[str(n)]) + h.eps)
    return new * (1 - h.lr * h.weight_decay)


# -------------------------------------------------------------------------------------------- the Adam family


def ada_momentum(w: Array, g: Array, s: Memory, t: int, h: Any) -> Array:
    """Wang et al. 2021, decay apart. h: those of Adam."""
    m = _momentum(g, s, h.beta1)
    s["v"] = h.beta2 * s.get("v", 0.0) + (1 - h.beta2) * m * m + h.eps
    direction = (m / (1 - h.beta1**t)) / (np.sqrt(s["v"]) / np.sqrt(1 - h.beta2**t))
    return np.asarray(w * (1 - h.lr * h.weight_decay) - h.lr * direction)


def inna_prop(w: Array, g: Array, s: Memory, t: int, h: Any) -> Array:
    """Bolte et al. 2024. h: lr, alpha, beta, sigma, eps, weight_decay."""
    if t == 1:
        s["v"], s["y"] = np.zeros_like(w), (1 - h.alpha * h.beta) * w
    w = w * (1 - h.lr * h.weight_decay)
    s["v"] = h.sigma * s["v"] + (1 - h.sigma) * g**2
    scaled = g / (np.sqrt(s["v"]) / np.sqrt(1 - h.sigma**t) + h.eps)
    s["y"] = s["y"] + h.lr * ((1 / h.beta - h.alpha) * w - s["y"] / h.beta)
    phase = ((1 - h.alpha * h.beta) * w - s["y"]) / (h.beta - h.lr)
    return np.asarray(w + h.lr * phase - h.lr * h.beta * scaled)


def sum_of_norms(gradients: list[Array], common: Memory, t: int, h: Any) -> float:
    return sum(float(np.linalg.norm(g)) for g in gradients)


def critical_momenta(w: Array, g: Array, s: Memory, t: int, h: Any) -> Array:
    """Malviya et al. 2024: a list of [priority, momentum]. h: those of AdamW, capacity, fade."""
    kept = s.setdefault("kept", [])
    if t == 1:
        update, entry = np.zeros_like(g), g
    else:
        s["m"] = h.beta1 * s.get("m", np.zeros_like(g)) + (1 - h.beta1) * g
        update, entry = s["m"] + sum(m for _, m in kept) / len(kept), s["m"]
    worst = min(kept, key=lambda pair: pair[0], default=None)
    if len(kept) < h.capacity:
        kept.append([h.shared, entry])
    elif h.shared > worst[0]:
        worst[:] = [h.shared, entry]
    for pair in kept:
        pair[0] *= h.fade
    s["v"] = h.beta2 * s.get("v", np.zeros_like(g)) + (1 - h.beta2) * update**2
    root = np.sqrt(s["v"]) / np.sqrt(1 - h.beta2**t)
    return np.asarray(w * (1 - h.lr * h.weight_decay) - h.lr / (1 - h.beta1**t) * update / (root + h.eps))


def optimistic_amsgrad(w: Array, g: Array, s: Memory, t: int, h: Any) -> Array:
    """Wang et al. 2021: the half step of the last iterate, then a step along the guess that the gradient repeats itself; `coded`, that
    it was right before, with Adam's corrections."""
    half, guess, old = s.get("half", w), s.get("guess", np.zeros_like(g)), s.get("m", np.zeros_like(g))
    first = np.full_like(g, 0.0 if h.coded else h.eps)
    s["m"] = h.beta1 * old + (1 - h.beta1) * g
    s["v"] = h.beta2 * s.get("v", first) + (1 - h.beta2) * (g - guess) ** 2
    s["h"] = np.maximum(s.get("h", first), s["v"])
    size = h.lr / (np.sqrt(s["h"]) + (h.eps if h.coded else 0.0))
    size = size * np.sqrt(1 - h.beta2**t) / (1 - h.beta1**t) if h.coded else size
    s["half"], s["guess"] = half - size * s["m"], g
    return np.asarray(s["half"] - size * (h.beta1 * old + (1 - h.beta1) * (guess if h.coded else g)))


class WholeSwats:
    """Keskar & Socher 2017, one decision for all tensors, which are one long vector here."""

    def __init__(self, params: list[Tensor], lr: float, beta1: float, beta2: float, eps: float, tol: float, weight_decay: float) -> None:
        self.params, self.lr, self.beta1, self.beta2 = params, lr, beta1, beta2
        self.eps, self.tol, self.weight_decay = eps, tol, weight_decay
        size = sum(p.numel() for p in params)
        self.m, self.v, self.velocity = np.zeros(size), np.zeros(size), np.zeros(size)
        self.average, self.rate, self.t = 0.0, 0.0, 0

    def zero_grad(self) -> None:
        for p in self.params:
            p.grad = None

    def step(self) -> None:
        self.t += 1
        w = np.concatenate([p.detach().numpy().ravel() for p in self.params])
        g = np.concatenate([p.grad.numpy().ravel() for p in self.params if p.grad is not None]) + self.weight_decay * w
        new = w + (self.sgd(g) if self.rate else self.adam(g))
        at = 0
        for p in self.params:
            p.data.copy_(torch.from_numpy(new[at : at + p.numel()].reshape(tuple(p.shape))))
            at += p.numel()

    def sgd(self, g: Array) -> Array:
        self.velocity = self.beta1 * self.velocity + g
        return -self.rate * (1 - self.beta1) * self.velocity

    def adam(self, g: Array) -> Array:
        self.m = self.beta1 * self.m + (1 - self.beta1) * g
        self.v = self.beta2 * self.v + (1 - self.beta2) * g * g
        size = self.lr * np.sqrt(1 - self.beta2**self.t) / (1 - self.beta1**self.t)
        move = np.asarray(-size * self.m / (np.sqrt(self.v) + self.eps))
        if (along := float(move @ g)) != 0:
            projected = float(move @ move) / -along
            self.average = self.beta2 * self.average + (1 - self.beta2) * projected
            mean = self.average / (1 - self.beta2**self.t)
            if self.t > 1 and mean > 0 and abs(mean - projected) < self.tol:
                self.rate = mean
        return move


def mars_shampoo(w: Array, g: Array, s: Memory, t: int, h: Any) -> Array:
    """Yuan et al. 2024 for matrices, the first gradient not corrected. h: lr, beta1, gamma, weight_decay."""
    c = g + h.gamma * h.beta1 / (1 - h.beta1) * (g - s.get("g", g))
    s["g"] = g
    if (length := float(np.linalg.norm(c))) > 1:
        c = c / length
    m = _momentum(c, s, h.beta1) / (1 - h.beta1)
    wide = m.T if m.shape[0] > m.shape[1] else m
    x = wide / max(np.linalg.norm(wide), 1e-7)
    for _ in range(5):
        gram = x @ x.T
        x = 3.4445 * x - 4.775 * gram @ x + 2.0315 * gram @ gram @ x
    o = (x.T if m.shape[0] > m.shape[1] else x) * max(1.0, m.shape[0] / m.shape[1]) ** 0.5
    return np.asarray(w * (1 - h.lr * h.weight_decay) - h.lr * o)
