"""The accuracy guard: is a form, computed in float32, as close to the true value as the form as written?

Both forms are computed in float32 on `samples`: ordinary numbers, numbers that cancel, and numbers of all sizes, zeros, infinities
and NaN among them. What is known before the step is computed in float64 and rounded once, as in a real step. The truth is the form
as written in float64. Two things are asked for. At no sample may the new form be wrong (infinite or NaN where the truth is
not, finite where it is, or off by more than a thousandth) where the form as written is right. And over ordinary numbers, and over
those that cancel, its errors, in units of the last place, may on average be larger by no more than `MARGIN`. What is lost below the
smallest normal float32 does not count: devices flush it to zero.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from optlang.ir import Hyper, Node, walk
from optlang.simplify.matching import above
from optlang.simplify.samples import LARGEST, SAMPLED, SMALLEST, Samples, Setting

Array = Any
# One more rounding beside two makes errors larger by a fifth. What makes less is which constants are rounded: beside 1 - beta^t, just
# below 1, its reciprocal has larger units of the last place. Of the library, no rewrite lies between 1.09 and 1.28.
MARGIN = 1.18


def accepts(
    before: Node, after: Node, leaves: frozenset[Node], hypers: Mapping[str, Hyper], nonnegative: frozenset[Node] = frozenset()
) -> bool:
    """Whether `after` may replace `before`. Both are looked into down to `leaves`; forms that cannot be sampled may not."""
    read = {n.value for n in walk([leaf for leaf in leaves if leaf.host]) if n.op == "hyper"}
    settings = tuple(sorted((name, h.default, h.bounds, h.kind) for name, h in hypers.items() if name in read))
    return verdict(before, after, leaves, settings, leaves & nonnegative)


@lru_cache(4096)
def verdict(before: Node, after: Node, leaves: frozenset[Node], settings: tuple[Setting, ...], nonnegative: frozenset[Node]) -> bool:
    """What `accepts` finds, from nothing but what it depends on, so that it is found once for all rules that ask the same."""
    sampled = frozenset(leaf for leaf in leaves if not leaf.host)  # what is known before the step is computed from its own leaves
    if any(n.op not in SAMPLED for root in (before, after) for n in above(root, sampled) if n.args):
        return False
    with np.errstate(all="ignore"):
        samples = Samples(before, after, leaves, settings, nonnegative)
        truth = samples.values(before, np.float64)
        return no_worse(truth, samples.values(before, np.float32), samples.values(after, np.float32), samples.blocks)


def no_worse(truth: Array, old: Array, new: Array, blocks: Sequence[slice] = (slice(None),)) -> bool:
    """The guard's judgement over arrays of true values and of what two forms gave in float32."""
    with np.errstate(all="ignore"):
        truth, old, new = np.broadcast_arrays(truth, old, new)
        if truth.dtype == bool:
            return bool(np.all((old != truth) | (new == truth)))
        wrong = _wrong(truth, old)
        if np.any(_wrong(truth, new) & ~wrong):
            return False
        return all(_errs_no_more(*(x[block][~wrong[block]] for x in (truth, old, new))) for block in blocks)


def _errs_no_more(truth: Array, old: Array, new: Array) -> bool:
    usual = np.isfinite(truth) & (np.abs(truth) > 1e-30) & (np.abs(truth) < 1e30)
    if not usual.any():
        return True
    was, now = (_ulps(truth[usual], x[usual]) for x in (old, new))
    return bool(now.mean() <= MARGIN * was.mean())


def _wrong(truth: Array, x: Array) -> Array:
    x = x.astype(np.float64)
    off = np.abs(x - truth) > 1e-3 * np.abs(truth) + SMALLEST
    beyond = (np.abs(truth) > 0.999 * LARGEST) & (np.abs(x) > 0.99 * LARGEST) & (np.sign(x) == np.sign(truth))
    both_nan = np.isnan(truth) & np.isnan(x)
    return ~(both_nan | beyond) & (off | (np.isfinite(truth) != np.isfinite(x)) | (np.isnan(truth) != np.isnan(x)))


def _ulps(truth: Array, x: Array) -> Array:
    return np.minimum(np.abs(x.astype(np.float64) - truth) / (np.abs(truth) * 2.0**-24), 64.0)
