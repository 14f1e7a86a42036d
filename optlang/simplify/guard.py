"""The accuracy guard: is a form, computed in float32, as close to the true value as the form as written?

Both forms are computed in float32 on samples: ordinary numbers, very large and small ones, zeros of both signs, infinities
and NaN. What is known before the step is computed in float64 and rounded once, as in a real step. The truth is the form
as written in float64. Two things are asked for. At no sample may the new form be wrong (infinite or NaN where the truth is
not, finite where it is, or off by more than a thousandth) where the form as written is right. And over all samples at
which both are right its errors, in units of the last place, may on average and in their largest hundredth be no larger,
up to the noise of sampling. What is lost below the smallest normal float32 does not count: devices flush it to zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np

from optlang.host import MAPS
from optlang.ir import Bounds, Hyper, Node, walk
from optlang.meaning import number
from optlang.simplify.matching import above

Array = Any
ROWS, VALUES = 640, 8  # independent settings of the hypers, and elements under each
TOGETHER = 32  # more rows, in which all tensors lie at one edge of the range
SMALLEST, LARGEST = 2.0**-126, float(np.finfo(np.float32).max)
EXTREMES = np.array([0.0, -0.0, 1e-45, 1e-38, 1e-30, 1e-20, 1e20, 1e30, LARGEST, np.inf, np.nan, 1.0], dtype=np.float32)
MEAN_NOISE, TAIL_NOISE = 1.03, 1.05
STEPS = np.array([1, 2, 3, 5, 10, 100, 1000, 100_000], dtype=np.float64)
EDGES = np.array([LARGEST, SMALLEST])  # where a sum or a product of two leaves the range
REDUCTIONS = {"sum": np.sum, "mean": np.mean, "amax": np.max, "amin": np.min}
SAMPLED = frozenset([*MAPS, *REDUCTIONS, "branch"])


def accepts(
    before: Node, after: Node, leaves: frozenset[Node], hypers: Mapping[str, Hyper], nonnegative: frozenset[Node] = frozenset()
) -> bool:
    """Whether `after` may replace `before`. Both are looked into down to `leaves`; forms that cannot be sampled may not."""
    read = {n.value for n in walk([leaf for leaf in leaves if leaf.host]) if n.op == "hyper"}
    settings = tuple(sorted((name, h.default, h.bounds, h.kind) for name, h in hypers.items() if name in read))
    return _accepts(before, after, leaves, settings, leaves & nonnegative)


@lru_cache(4096)
def _accepts(before: Node, after: Node, leaves: frozenset[Node], settings: tuple[Any, ...], nonnegative: frozenset[Node]) -> bool:
    sampled = frozenset(leaf for leaf in leaves if not leaf.host)  # what is known before the step is computed from its own leaves
    if any(n.op not in SAMPLED for root in (before, after) for n in above(root, sampled) if n.args):
        return False
    with np.errstate(all="ignore"):
        samples = Samples(before, after, leaves, settings, nonnegative)
        truth = samples.values(before, np.float64)
        return no_worse(truth, samples.values(before, np.float32), samples.values(after, np.float32))


def no_worse(truth: Array, old: Array, new: Array) -> bool:
    """The guard's judgement over arrays of true values and of what two forms gave in float32."""
    with np.errstate(all="ignore"):
        return _no_worse(*np.broadcast_arrays(truth, old, new))


def _no_worse(truth: Array, old: Array, new: Array) -> bool:
    if truth.dtype == bool:
        return bool(np.all((old != truth) | (new == truth)))
    wrong_old, wrong_new = _wrong(truth, old), _wrong(truth, new)
    if np.any(wrong_new & ~wrong_old):
        return False
    usual = ~wrong_old & np.isfinite(truth) & (np.abs(truth) > 1e-30) & (np.abs(truth) < 1e30)
    if not usual.any():
        return True
    was, now = (_ulps(truth[usual], x[usual]) for x in (old, new))
    return bool(now.mean() <= MEAN_NOISE * was.mean() and np.quantile(now, 0.99) <= TAIL_NOISE * np.quantile(was, 0.99))


def _wrong(truth: Array, x: Array) -> Array:
    x = x.astype(np.float64)
    off = np.abs(x - truth) > 1e-3 * np.abs(truth) + SMALLEST
    beyond = (np.abs(truth) > 0.999 * LARGEST) & (np.abs(x) > 0.99 * LARGEST) & (np.sign(x) == np.sign(truth))
    both_nan = np.isnan(truth) & np.isnan(x)
    return ~(both_nan | beyond) & (off | (np.isfinite(truth) != np.isfinite(x)) | (np.isnan(truth) != np.isnan(x)))


def _ulps(truth: Array, x: Array) -> Array:
    return np.minimum(np.abs(x.astype(np.float64) - truth) / (np.abs(truth) * 2.0**-24), 64.0)


class Samples:
    """Values for the leaves of two forms, and the values of the forms on them."""

    def __init__(self, before: Node, after: Node, leaves: frozenset[Node], settings: tuple[Any, ...], nonnegative: frozenset[Node]) -> None:
        self.random = np.random.default_rng(20140612)
        self.near = np.random.default_rng(1962)  # apart, so that the other rows are as ever
        self.edge = self.near.choice(EDGES, (TOGETHER, 1))
        self.leaves: dict[Node, Array] = {}
        for node in walk([before, after]):
            if node in leaves and not node.host:
                self.leaves[node] = self._tensor(node, node in nonnegative)
            elif not node.args and node.host:
                known = self._known(node, settings)
                self.leaves[node] = np.concatenate([known, known[:TOGETHER]]) if np.ndim(known) else known

    def _tensor(self, node: Node, nonnegative: bool) -> Array:
        shape = (ROWS, VALUES if node.type.extent.level == "array" else 1)
        if node.type.kind == "bool":
            return self.random.random((ROWS + TOGETHER, shape[1])) < 0.5
        usual = 10.0 ** self.random.uniform(-6, 4, shape)
        wide = 10.0 ** self.random.uniform(-44, 38, shape)
        extreme = self.random.choice(EXTREMES, shape)
        strange = np.where(self.random.random(shape) < 0.5, wide, extreme)
        rows = np.arange(ROWS)[:, None] < ROWS * 0.6  # the first rows are ordinary throughout
        x = np.where(rows, usual, np.where(self.random.random(shape) < 0.5, strange, usual))
        signed = x if nonnegative else np.where(self.random.random(shape) < 0.5, -x, x)
        signed = np.concatenate([signed, self._at_edge(shape[1], nonnegative)])
        return np.where(nonnegative & (signed == 0), 0.0, signed).astype(np.float32)

    def _at_edge(self, values: int, nonnegative: bool) -> Array:
        x = self.edge * self.near.uniform(0.3, 1, (TOGETHER, values))
        return x if nonnegative else np.where(self.near.random(x.shape) < 0.5, -x, x)

    def _known(self, node: Node, settings: tuple[Any, ...]) -> Array:
        """A leaf that is known before the step: its value in each row."""
        if node.op == "const":
            return number(node.value)
        if node.op == "t":
            return self.random.choice(STEPS, (ROWS, 1))
        if node.op == "fact":
            return np.floor(2.0 ** self.random.uniform(0, 12, (ROWS, 1)))
        found = [rest for name, *rest in settings if name == node.value]
        default, bounds, kind = found[0] if found else (1.0, None, "real")
        if kind == "bool":
            return self.random.random((ROWS, 1)) < 0.5
        return self._hyper(float(default), bounds, kind == "int")

    def _hyper(self, default: float, bounds: Bounds | None, whole: bool) -> Array:
        near = (default or 0.01) * 10.0 ** self.random.uniform(-2, 2, (ROWS, 1))
        if bounds is not None and bounds.high <= 1 and bounds.low >= 0:
            near = 1 - 10.0 ** self.random.uniform(-4, 0, (ROWS, 1))
        chosen = np.where(self.random.random((ROWS, 1)) < 0.3, default, np.rint(near) if whole else near)
        if bounds is None:
            return chosen
        return np.where((chosen >= bounds.low) & (chosen <= bounds.high), chosen, default)

    def values(self, root: Node, dtype: Any) -> Array:
        """The root at every sample, tensors in `dtype`, numbers known before the step in float64 and rounded once."""
        found: dict[Node, Array] = {}
        for node in above(root, frozenset(self.leaves)):
            args = [self._value(arg, found, dtype, node.host) for arg in node.args]
            found[node] = _apply(node, args) if node.host else _as(_apply(node, args), dtype)
        return self._value(root, found, dtype, False)

    def _value(self, node: Node, found: dict[Node, Array], dtype: Any, exact: bool) -> Array:
        value = found.get(node, self.leaves.get(node))
        return value if exact else _as(value, dtype)


def _as(value: Array, dtype: Any) -> Array:
    return value if value.dtype == bool else value.astype(dtype)


def _apply(node: Node, args: list[Array]) -> Array:
    if node.op in REDUCTIONS:
        return REDUCTIONS[node.op](args[0], axis=-1, keepdims=True)  # type: ignore[operator]
    if node.op == "pow" and node.args[1].op == "const" and node.args[1].value == 2:
        return args[0] * args[0]
    if node.op == "branch":
        return np.where(args[0], args[1], args[2])
    return MAPS[node.op](*args)
