"""Rules of reductions without a package to compare with: written from their papers, a plain NumPy step for all parameters at once.

All tensors are one long vector here, so that what a rule asks of the whole model is an expression of NumPy.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from by_hand import Array, Memory
from closed_loop import Maker
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
    return lambda params, problem: AllByHand(list(params.values()), rule, **settings)


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
    """Kreisler et al. 2024. h: lr, reps_rel, eps."""
    if t == 1:
        r = h.reps_rel * (1 + np.linalg.norm(w))
        s.update(start=w, z=w, distances=[r], alpha=1.0, squares=[])
    s["squares"].append((s["alpha"] * np.linalg.norm(g)) ** 2)
    size = h.lr * s["distances"][-1] / (np.sqrt(sum(s["squares"])) + h.eps)
    near = w - size * g
    s["z"] = s["z"] - s["alpha"] * size * g
    s["distances"].append(max(s["distances"][-1], np.linalg.norm(s["z"] - s["start"])))
    s["alpha"] = max(1.0, 0.5 * sum(s["distances"]) / s["distances"][-1])
    return np.asarray(near + (s["z"] - near) / s["alpha"])
