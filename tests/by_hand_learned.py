"""Rules that ask for losses alone, and learned ones: written from their papers, for all parameters as one long vector."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
from by_hand import Array, Memory
from by_hand_reductions import Batch


def two_points(w: Array, g: Array, s: Memory, t: int, h: Any, batch: Batch) -> Array:
    """Malladi et al. 2023, as one walk: to one point, to the other, back. h: lr, eps, weight_decay, draw."""
    [z] = h.draw(batch, t)
    ahead, _ = batch.at(w + h.eps * z)
    behind, _ = batch.at(w - h.eps * z)
    return np.asarray(w * (1 - h.lr * h.weight_decay) - h.lr * (ahead - behind) / (2 * h.eps) * z)


def coordinates(w: Array, g: Array, s: Memory, t: int, h: Any, batch: Batch) -> Array:
    """Chen et al. 2024, of the coordinates with the largest draws. h: lr, momentum, weight_decay, mu, draw."""
    estimate = h.weight_decay * w
    for u in h.draw(batch, t):
        place = int(np.argmax(u))
        there = w.copy()
        there[place] += h.mu
        estimate[place] += (batch.at(there)[0] - batch.loss) / h.mu
    s["m"] = h.momentum * s.get("m", 0.0) + estimate
    return np.asarray(w - h.lr * s["m"])


def ranks(w: Array, g: Array, s: Memory, t: int, h: Any, batch: Batch) -> Array:
    """Tang et al. 2024, edge by edge of the graph of comparisons; `coded`, with one more for each best point. h: lr, mu, k, coded, draw."""
    points = sorted(h.draw(batch, t), key=lambda z: batch.at(w + h.mu * z)[0])
    edges = [(a, b) for a, b in combinations(range(len(points)), 2) if a < h.k]
    more = sum(points[: h.k]) if h.coded else 0.0
    return np.asarray(w - h.lr * (sum(points[b] - points[a] for a, b in edges) - more) / len(edges))


def model_building(w: Array, g: Array, s: Memory, t: int, h: Any, batch: Batch) -> Array:
    """Birbil et al. 2022: both kinds of steps. h: lr, eta, c."""
    there = w - h.lr * g
    loss, gradient = batch.at(there)
    if loss <= batch.loss - h.c * h.lr * np.dot(g, g):
        return there
    return np.asarray(w + batch.whole([_rebuilt(*x, h) for x in zip(batch.parts(g), batch.parts(gradient), strict=True)]))


def _rebuilt(g: Array, other: Array, h: Any) -> Array:
    s, y = -h.lr * g, other - g
    if not s.any():
        return s
    size, change = np.linalg.norm(s), np.linalg.norm(y)
    sigma = 0.5 * (size * (change + np.linalg.norm(g) / h.eta) - np.vdot(y, s))
    bend = np.vdot(y, s) + 2 * sigma
    theta = bend**2 - (size * change) ** 2
    along = -(size**2) / (2 * sigma)
    of_s = along / theta * (change**2 * np.vdot(s, g) - bend * np.vdot(y, g))
    of_y = along / theta * (size**2 * np.vdot(y, g) - bend * np.vdot(s, g))
    return np.asarray(of_s * s + along * g + of_y * y)


def per_parameter_mlp(w: Array, g: Array, s: Memory, t: int, h: Any) -> Array:
    """Metz et al. 2022, one tensor: all features of all elements as a matrix, and the layers as products with it."""

    def mean(name: str, x: Array, beta: float) -> Array:
        s[name] = beta * s.get(name, 0.0) + (1 - beta) * x
        return np.asarray(s[name])

    m, v = [mean(f"m{k}", g, b) for k, b in enumerate((h.beta1, h.beta2, h.beta3))], mean("v", g * g, h.beta4)
    squares, long = g * g + 1e-30, int(np.argmax(g.shape[::-1]) == 0) if g.ndim == 2 else None
    long_means, short_means, factors, mixed = [], [], [], []
    for k, b in enumerate((h.beta5, h.beta6, h.beta7)):
        if long is None:
            x = y = mean(f"x{k}", squares, b)
            factor, other = 1 / np.sqrt(np.maximum(x + 1e-9, 1e-9)), 1 / np.sqrt(x + 1e-6)
        else:
            x = mean(f"x{k}", squares.mean(axis=long, keepdims=True), b)
            y = mean(f"y{k}", squares.mean(axis=1 - long, keepdims=True), b)
            factor = other = 1 / np.sqrt(np.maximum(x / (x.mean() + 1e-9), 1e-9) * np.maximum(y, 1e-9))
        for found, one in zip((long_means, short_means, factors, mixed), (x, y, factor, other), strict=True):
            found.append(one)
    q = 1 / np.sqrt(v + 1e-6)
    features = [g, w, *m, v, *(x * q for x in m), q, *(g * x for x in factors), *long_means, *short_means]
    features += [1 / np.sqrt(x + 1e-8) for x in (*long_means, *short_means)] + [x * y for x, y in zip(m, mixed, strict=True)]
    even = [np.broadcast_to(x / np.sqrt(1e-5 + np.mean(x * x)), g.shape).ravel() for x in features]
    clocks = [np.full(g.size, np.tanh((t - 1) / x - 1)) for x in (1, 3, 10, 30, 100, 300, 1e3, 3e3, 1e4, 3e4, 1e5)]
    layer = np.stack([*even, *clocks], axis=1)
    for weights in (h.first, h.second):
        layer = np.maximum(layer @ weights[:-1] + weights[-1], 0.0)
    direction, exponent = (layer @ h.third[:-1] + h.third[-1]).T.reshape(2, *g.shape)
    return np.asarray(w - h.lr * direction * np.exp(h.stretch * exponent))


def proximal(w: Array, g: Array, s: Memory, t: int, h: Any, batch: Batch) -> Array:
    """Liu et al. 2023: the proximal operator of the l1 norm, element by element. h: lr, penalty, network."""
    p, a = (batch.whole([x.numpy() for x in part]) for part in h.network(h.problem, t - 1).values())
    y = np.array([_shrunk(x, h.lr * size * h.penalty) for x, size in zip(w - h.lr * p * g, p, strict=True)])
    before, s["y"] = s.get("y", w), y
    return np.asarray(y + a * (y - before))


def _shrunk(x: float, by: float) -> float:
    return 0.0 if abs(x) <= by else x - by if x > 0 else x + by
