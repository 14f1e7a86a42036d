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


def all_squares(gradients: list[Array], common: Memory, t: int, h: Any) -> float:
    common["b"] = common.get("b", h.b0**2) + sum(float((g * g).sum()) for g in gradients)
    return float(common["b"])


def adagrad_norm(w: Array, g: Array, s: Memory, t: int, h: Any) -> Array:
    """Ward, Wu & Bottou 2019; with `whole`, the sum is that of all tensors. h: lr, b0, eps, whole."""
    if h.whole:
        total = h.shared
    else:
        total = s["b"] = s.get("b", h.b0**2) + float(np.vdot(g, g))
    return np.asarray(w - h.lr * g / (np.sqrt(total) + h.eps))


def subsets(g: Array) -> list[tuple[Any, ...]]:
    """Index of each subset: the elements of a vector, else the longer lines of each trailing matrix."""
    if g.ndim < 2:
        return list(np.ndindex(*g.shape))
    across = g.shape[-2] >= g.shape[-1]
    found: list[tuple[Any, ...]] = []
    for lead in np.ndindex(*g.shape[:-2]):
        lines = g.shape[-2] if across else g.shape[-1]
        found += [(*lead, i, slice(None)) if across else (*lead, slice(None), i) for i in range(lines)]
    return found


def adagrad_subset_norm(w: Array, g: Array, s: Memory, t: int, h: Any) -> Array:
    """Nguyen & Nguyen 2024. h: lr, initial, eps."""
    new = w.copy()
    for n, at in enumerate(subsets(g)):
        s[str(n)] = s.get(str(n), h.initial) + float(np.sum(g[at] ** 2))
        new[at] -= h.lr * g[at] / (np.sqrt(s[str(n)]) + h.eps)
    return new


def adamw_subset_norm(w: Array, g: Array, s: Memory, t: int, h: Any) -> Array:
    """Nguyen & Nguyen 2024: eps before the correction of the second moment, decay of the new weights."""
    m = _momentum(g, s, h.beta1)
    size = h.lr * np.sqrt(1 - h.beta2**t) / (1 - h.beta1**t)
    new = w.copy()
    for n, at in enumerate(subsets(g)):
        s[str(n)] = h.beta2 * s.get(str(n), 0.0) + (1 - h.beta2) * float(np.sum(g[at] ** 2))
        new[at] -= size * m[at] / (np.sqrt(s[str(n)]) + h.eps)
    return new * (1 - h.lr * h.weight_decay)
