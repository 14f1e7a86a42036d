"""Matrix, factored and low-rank rules without a package to compare with: plain NumPy steps, as in `by_hand`."""

from __future__ import annotations

from typing import Any

import numpy as np
from by_hand import Array, Memory


def _mean(x: Array, s: Memory, name: str, b: float) -> Array:
    """The decaying mean of all x so far, from 0."""
    s[name] = b * s.get(name, 0.0) + (1 - b) * x
    return np.asarray(s[name])


# ------------------------------------------------------------------------------------------------ trust regions


def _along(w: Array, direction: Array, h: Any) -> Array:
    return np.asarray((1 - h.lr * h.weight_decay) * w - h.lr * direction)


def frobenius(w: Array, g: Array, s: Memory, t: int, h: Any) -> Array:
    """Kovalev 2025. h: lr, momentum, eps, weight_decay."""
    m = _mean(g, s, "m", h.momentum)
    return _along(w, m / (np.linalg.norm(m.ravel()) + h.eps), h)


def rows(w: Array, g: Array, s: Memory, t: int, h: Any) -> Array:
    """Kovalev 2025, row by row. h: as `frobenius`."""
    m = _mean(g, s, "m", h.momentum)
    return _along(w, np.stack([line / (np.linalg.norm(line) + h.eps) for line in m]), h)


def columns(w: Array, g: Array, s: Memory, t: int, h: Any) -> Array:
    """Kovalev 2025, column by column. h: as `frobenius`."""
    turned: Memory = s.setdefault("turned", {})
    return rows(w.T, g.T, turned, t, h).T


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
