"""What the operators mean, in NumPy: the functions that NumPy has by the names in the operator table, and those it lacks.

Everything is float64 or bool. What mathematics leaves undefined is NaN or infinite, never an exception: call these under
`numpy.errstate(all="ignore")`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import numpy as np

from optlang.ops import ROWS

Array = Any  # numpy.ndarray or numpy scalar, float64 or bool
Axes = int | tuple[int, ...]
Reduction = Callable[..., Array]  # (x, axes) -> x reduced over axes; quantile takes q as well


def number(value: float | bool) -> Array:
    """A literal, hyper or fact as a NumPy scalar: bool stays bool, everything else is float64."""
    if isinstance(value, bool | np.bool_):
        return np.bool_(value)
    try:
        return np.float64(value)
    except OverflowError:  # a whole number beyond float64
        return np.float64(np.inf if value > 0 else -np.inf)


def maps() -> dict[str, Callable[..., Array]]:
    """The element by element operators by their names in the table."""
    return {row.name: _named(row.numpy) for row in ROWS if row.numpy}


def _named(name: str) -> Callable[..., Array]:
    found: Callable[..., Array] | None = getattr(np, name, None) or globals().get(name)
    if found is None:
        raise LookupError(f"a row of `optlang/ops.py` names `{name}`, which NumPy does not have: define it in `optlang/meaning.py`")
    return found


def signum(x: Array) -> Array:
    """-1, 0 or 1, and 0 for NaN: torch's meaning on every device, which all trusted implementations have."""
    return np.subtract(x > 0, x < 0, dtype=np.float64)


# ------------------------------------------------------------------------------------------------------ reductions
# Each takes (x, axes) and keeps the reduced axes as size 1. Of no values at all: sum 0, mean NaN, largest -inf, smallest inf.


def total(x: Array, axes: Axes) -> Array:
    return np.add.reduce(x, axis=axes, keepdims=True, dtype=np.float64)  # what `np.sum` calls, without what it looks at before


def mean(x: Array, axes: Axes) -> Array:
    return total(x, axes) / count(x, axes)


def largest(x: Array, axes: Axes) -> Array:
    return np.max(x, axis=axes, keepdims=True, initial=-np.inf)


def smallest(x: Array, axes: Axes) -> Array:
    return np.min(x, axis=axes, keepdims=True, initial=np.inf)


def count(x: Array, axes: Axes) -> Array:
    return np.sum(np.ones_like(x, dtype=np.float64), axis=axes, keepdims=True)


def quantile(x: Array, axes: Axes, q: Array) -> Array:
    """Linear interpolation between order statistics; NaN if any value is."""
    return np.where(np.any(np.isnan(x), axis=axes, keepdims=True), np.nan, window_quantile(x, axes, q))


# -------------------------------------------------------------------------------- the same over a window, NaN = empty


def window_total(x: Array, axes: Axes) -> Array:
    return total(np.where(np.isnan(x), 0.0, x), axes)


def window_mean(x: Array, axes: Axes) -> Array:
    return window_total(x, axes) / window_count(x, axes)


def window_largest(x: Array, axes: Axes) -> Array:
    return np.where(window_count(x, axes) > 0, largest(np.where(np.isnan(x), -np.inf, x), axes), np.nan)


def window_smallest(x: Array, axes: Axes) -> Array:
    return np.where(window_count(x, axes) > 0, smallest(np.where(np.isnan(x), np.inf, x), axes), np.nan)


def window_count(x: Array, axes: Axes) -> Array:
    return total(~np.isnan(x), axes)


def window_quantile(x: Array, axes: Axes, q: Array) -> Array:
    """As `quantile`, over the values that are not NaN; NaN where there are none and for q outside [0, 1]."""
    places = np.sort(_together(x, axes), axis=-1)  # NaNs go last
    filled = np.sum(~np.isnan(places), axis=-1, keepdims=True)
    result = np.full(filled.shape, np.nan)
    if places.shape[-1] and 0 <= q <= 1:
        at = q * np.maximum(filled - 1, 0)
        low = np.take_along_axis(places, np.floor(at).astype(np.int64), -1)
        high = np.take_along_axis(places, np.ceil(at).astype(np.int64), -1)
        result = np.where(low == high, low, low + (high - low) * (at - np.floor(at)))  # equal infinities stay themselves
    return result.reshape(total(x, axes).shape)


def _together(x: Array, axes: Axes) -> Array:
    """The reduced axes as one last axis."""
    picked = sorted(axis % x.ndim for axis in (axes if isinstance(axes, tuple) else (axes,)))
    kept = [axis for axis in range(x.ndim) if axis not in picked]
    size = int(np.prod([x.shape[axis] for axis in picked], dtype=np.int64))
    return x.transpose(kept + picked).reshape([x.shape[axis] for axis in kept] + [size])


OVER_VALUES: dict[str, Reduction] = {
    "sum": total, "mean": mean, "amax": largest, "amin": smallest, "count": count, "quantile": quantile,
}  # fmt: skip
OVER_WINDOW: dict[str, Reduction] = {
    "sum": window_total, "mean": window_mean, "amax": window_largest, "amin": window_smallest, "count": window_count,
    "quantile": window_quantile,
}  # fmt: skip


# --------------------------------------------------------------------------------------------- matrices and windows


def flatten(x: Array) -> Array:
    """(a, b, c, …) as the matrix (a, b·c·…)."""
    return x.reshape(x.shape[0], int(np.prod(x.shape[1:], dtype=np.int64)))


def transposed(x: Array) -> Array:
    return np.swapaxes(x, -1, -2)


def eigenvectors(a: Array) -> Array:
    """(…, n, n) symmetric: a column each, that of the largest eigenvalue first, its largest element positive. NaN where a is not finite."""
    if not a.shape[-1]:
        return a
    finite = np.isfinite(a).all(axis=(-2, -1), keepdims=True)
    v = np.linalg.eigh(np.where(finite, a, 0.0)).eigenvectors[..., ::-1]
    largest = np.take_along_axis(v, np.argmax(np.abs(v), axis=-2, keepdims=True), -2)
    return np.where(finite, v * np.where(largest < 0, -1.0, 1.0), np.nan)


def orthonormal(a: Array) -> Array:
    """(…, m, n) with m ≥ n: Q of a = QR, where R has a positive diagonal. NaN where a is not finite, or m < n."""
    finite = np.isfinite(a).all(axis=(-2, -1), keepdims=True)
    if a.shape[-2] < a.shape[-1]:
        return np.full(a.shape, np.nan)
    q, r = np.linalg.qr(np.where(finite, a, 0.0))
    signs = np.where(np.diagonal(r, axis1=-2, axis2=-1) < 0, -1.0, 1.0)[..., None, :]
    return np.where(finite, q * signs, np.nan)


def descending(x: Array) -> Array:
    """(…, 1, n): the permutation matrix (…, n, n) for which x @ P descends; equal values stay in order, and NaN comes first."""
    order = np.argsort(-np.where(np.isnan(x), np.inf, x), axis=-1, kind="stable")
    return np.swapaxes(np.eye(x.shape[-1])[order[..., 0, :]], -1, -2)


def inverse(a: Array) -> Array:
    """(…, n, n), by its LU decomposition. NaN where a is not finite or has no inverse."""
    found = np.full(a.shape, np.nan)
    for at in np.ndindex(a.shape[:-2]):
        if np.isfinite(a[at]).all():
            with contextlib.suppress(np.linalg.LinAlgError):
                found[at] = np.linalg.inv(a[at])
    return found


def push(window: Array, newest: Array) -> Array:
    """(n, …) and (…) to (n, …): without the oldest value, which is the first, and with the newest at the end."""
    return np.concatenate([window[1:], np.broadcast_to(newest, window.shape[1:])[None]])
