"""Matrix, factored and low-rank rules without a package to compare with: plain NumPy steps, as in `by_hand`."""

from __future__ import annotations

from typing import Any

import numpy as np
from by_hand import Array, Memory


def _mean(x: Array, s: Memory, name: str, b: float) -> Array:
    """The decaying mean of all x so far, from 0."""
    s[name] = b * s.get(name, 0.0) + (1 - b) * x
    return np.asarray(s[name])


# ------------------------------------------------------------------------------------------------------ factored


def sm3(w: Array, g: Array, s: Memory, t: int, h: Any) -> Array:
    """Anil et al. 2019: the smallest and the largest over each row and column that hold an element. h: lr, momentum, beta, eps."""
    groups = {at: [("row", at[:-1]), ("col", at[:-2] + at[-1:])] if g.ndim > 1 else [("one", at)] for at in np.ndindex(*g.shape)}
    covers: dict[Any, float] = s.get("covers", {})
    held: dict[Any, float] = {}
    u = np.zeros_like(g)
    for at, members in groups.items():
        smallest = min(covers.get(member, 0.0) for member in members)
        nu = h.beta * smallest + (1 - h.beta) * g[at] ** 2 if h.beta else smallest + g[at] ** 2
        u[at] = g[at] / np.sqrt(nu + h.eps)
        for member in members:
            held[member] = max(held.get(member, covers.get(member, 0.0) if h.beta else 0.0), nu)
    s["covers"] = held
    return np.asarray(w - h.lr * _mean(u, s, "m", h.momentum))


# ------------------------------------------------------------------------------------------------------ low rank


def leading(g: Array, r: int) -> Array:
    """The r leading singular vectors of the shorter side as columns, the largest element of each positive."""
    left, _, right = np.linalg.svd(g, full_matrices=False)
    p = right.T[:, :r] if g.shape[0] >= g.shape[1] else left[:, :r]
    return np.asarray(p * np.sign(p[np.abs(p).argmax(axis=0), np.arange(r)]))


def _down(x: Array, p: Array, right: bool) -> Array:
    return np.asarray(x @ p if right else p.T @ x)


def _up(y: Array, p: Array, right: bool) -> Array:
    return np.asarray(y @ p.T if right else p @ y)


def frugal(w: Array, g: Array, s: Memory, t: int, h: Any) -> Array:
    """Zmushko et al. 2024. h: lr, beta1, beta2, eps, weight_decay, scale, rest, r, period, signs, columns(t) or None."""
    right = h.columns is not None or g.shape[0] >= g.shape[1]
    if (t - 1) % h.period == 0:
        s.clear()
        s["p"] = leading(g, h.r) if h.columns is None else np.eye(g.shape[1])[:, h.columns(t, g.shape[1])[: h.r]]
        s["k"] = 0
    s["k"] += 1
    y = _down(g, s["p"], right)
    m, v = _mean(y, s, "m", h.beta1), _mean(y * y, s, "v", h.beta2)
    adam = (m / (1 - h.beta1 ** s["k"])) / (np.sqrt(v / (1 - h.beta2 ** s["k"])) + h.eps)
    rest = g - _up(y, s["p"], right)
    update = _up(adam, s["p"], right) + h.rest * (np.sign(rest) if h.signs else rest)
    return np.asarray((1 - h.lr * h.weight_decay) * w - h.lr * h.scale * update)


def online_subspace_descent(w: Array, g: Array, s: Memory, t: int, h: Any) -> Array:
    """Liang et al. 2024. h: those of the rule."""
    right = g.shape[0] >= g.shape[1]
    if t == 1:
        s["p"] = leading(g, h.r)
    p = s["p"]
    y = _down(g, p, right)
    direction = _mean(y, s, "m", h.beta1) / (np.sqrt(_mean(y * y, s, "v", h.beta2)) + h.eps)
    size = h.lr * h.scale * np.sqrt(1 - h.beta2**t) / (1 - h.beta1**t)
    if t > 1:
        k = t - 1
        x = g / np.linalg.norm(g)
        spread = x.T @ x if right else x @ x.T
        inside = p @ p.T
        slope = 2 * (inside @ spread + spread @ inside - 2 * spread) @ p
        m, v = _mean(slope, s, "pm", h.beta3), _mean(slope * slope, s, "pv", h.beta4)
        move = m / (1 - h.beta3**k) / (np.sqrt(v / (1 - h.beta4**k)) + h.subspace_eps)
        s["p"] = (1 - h.rate * h.subspace_decay) * p - h.rate * move
    return np.asarray((1 - h.lr * h.weight_decay) * (w - size * _up(direction, p, right)))


def subspace_momentum(w: Array, g: Array, s: Memory, t: int, h: Any) -> Array:
    """Nguyen & Nguyen 2024, with the mean that starts anew when the subspace does. h: those of the rule."""
    right = g.shape[0] >= g.shape[1]
    if t == 1 or t % h.period == 0:
        s["p"] = leading(g, h.r)
        s.pop("m", None)
    y = _down(g, s["p"], right)
    v = _mean((g * g).sum(axis=1 if right else 0, keepdims=True), s, "v", h.beta2)
    over = _up(_mean(y, s, "m", h.beta1), s["p"], right) + g - _up(y, s["p"], right)
    size = h.lr * np.sqrt(1 - h.beta2**t) / (1 - h.beta1**t)
    return np.asarray((1 - h.lr * h.weight_decay) * (w - size * over / (np.sqrt(v) + h.eps)))


def dion(w: Array, g: Array, s: Memory, t: int, h: Any) -> Array:
    """Ahn et al. 2025. h: lr, momentum, eps, weight_decay, r, start(shape): the first q."""
    wide = g.shape[0] < g.shape[1]
    q = s["q"] if "q" in s else h.start(g.shape)
    b = s.get("m", 0.0) + g
    found = b.T if wide else b
    p = np.linalg.qr(found @ q)[0]
    r = found.T @ p
    s["m"] = b - (1 - h.momentum) * ((p @ r.T).T if wide else p @ r.T)
    s["q"] = r / (np.sqrt((r * r).sum(axis=0)) + h.eps)
    o = p @ s["q"].T
    return np.asarray((1 - h.lr * h.weight_decay) * w - h.lr * np.sqrt(g.shape[0] / g.shape[1]) * (o.T if wide else o))


def cosines(n: int) -> Array:
    """The discrete cosine transform, a wave in each row."""
    q = np.empty((n, n))
    for i in range(n):
        for j in range(n):
            q[i, j] = (1 / n if i == 0 else 2 / n) ** 0.5 * np.cos(np.pi * i * (2 * j + 1) / (2 * n))
    return q


def _best(s: Array, r: int, right: bool) -> Any:
    return np.argsort(-np.abs(s).sum(axis=0 if right else 1), kind="stable")[:r]


def dct_adamw(w: Array, g: Array, s: Memory, t: int, h: Any) -> Array:
    """Modoranu et al. 2025; moments are carried from wave to wave by name. h: those of the rule."""
    right = g.shape[0] >= g.shape[1]
    q = cosines(min(g.shape))
    a = g + s.get("e", 0.0)
    if t == 1 or t % h.period == 0:
        old = s.get("chosen")
        s["chosen"] = _best(a @ q if right else q.T @ a, h.r, right)
        if h.rotate and old is not None:
            for name in ("m", "v"):
                kept = {wave: np.take(s[name], place, axis=1 if right else 0) for place, wave in enumerate(old)}
                nothing = np.zeros(max(g.shape))
                s[name] = np.stack([kept.get(wave, nothing) for wave in s["chosen"]], axis=1 if right else 0)
    p = q[:, s["chosen"]]
    y = _down(a, p, right)
    if h.feedback:
        s["e"] = a - _up(y, p, right)
    m, v = _mean(y, s, "m", h.beta1), _mean(y * y, s, "v", h.beta2)
    adam = (m / (1 - h.beta1**t)) / (np.sqrt(v / (1 - h.beta2**t)) + h.eps)
    return np.asarray((1 - h.lr * h.weight_decay) * w - h.lr * _up(adam, p, right))


def trion(w: Array, g: Array, s: Memory, t: int, h: Any) -> Array:
    """Modoranu et al. 2025. h: those of the rule."""
    right = g.shape[0] >= g.shape[1]
    q = cosines(min(g.shape))
    b = s.get("m", 0.0) + g
    p = q[:, _best(b @ q if right else q.T @ b, h.r, right)]
    y = _down(b, p, right)
    s["m"] = b - (1 - h.momentum) * _up(y, p, right)
    x = (y.T if right else y) / max(np.linalg.norm(y), 1e-7)
    for _ in range(h.steps):
        gram = x @ x.T
        x = 3.4445 * x - 4.775 * gram @ x + 2.0315 * gram @ gram @ x
    o = _up(x.T if right else x, p, right)
    m, n = g.shape
    scale = 0.2 * max(m, n) ** 0.5 if h.match_rms else max(1.0, m / n) ** 0.5
    return np.asarray((1 - h.lr * h.weight_decay) * w - h.lr * scale * o)
