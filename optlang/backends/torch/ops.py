"""Functions that generated torch code calls where torch has no one word for a thing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from optlang import philox
from optlang.backends.torch.multiplied import added as added
from optlang.backends.torch.multiplied import is_traced
from optlang.backends.torch.multiplied import product as product

Dims = Sequence[int] | None  # None: all
SYMBOLS = {"and": "&", "or": "|", "pow": "**"}  # of operators that torch writes otherwise


def draw(distribution: str, site: int, counter: Tensor, shape: Sequence[int], like: Tensor) -> Tensor:
    """Draws of a shape; `counter` is (t, seed, stream, place of the first). The same numbers as everywhere: see `philox`."""
    count = 1
    for size in shape:
        count = count * size
    index = torch.arange(count, dtype=torch.int64, device=like.device) + (counter[3] if len(shape) else 0)
    found = philox.words(index, counter[0], site, counter[1], counter[2])
    drawn: Tensor = philox.sample(distribution, found, torch, lambda x: x.to(torch.float64))
    return drawn.to(like.dtype).reshape(tuple(shape))


def eigenvectors(a: Tensor) -> Tensor:
    """As `meaning.eigenvectors`."""
    if not a.shape[-1]:
        return a
    finite = a.isfinite().all(-1, keepdim=True).all(-2, keepdim=True)
    v = torch.linalg.eigh(torch.where(finite, a, 0.0)).eigenvectors.flip(-1)
    largest = v.gather(-2, v.abs().argmax(-2, keepdim=True))
    return torch.where(finite, torch.where(largest < 0, -v, v), torch.nan)


def orthonormal(a: Tensor) -> Tensor:
    """As `meaning.orthonormal`."""
    if a.shape[-2] < a.shape[-1]:
        return torch.full_like(a, torch.nan)
    finite = a.isfinite().all(-1, keepdim=True).all(-2, keepdim=True)
    q, r = torch.linalg.qr(torch.where(finite, a, 0.0))
    negative = (r.diagonal(dim1=-2, dim2=-1) < 0).unsqueeze(-2)
    return torch.where(finite, torch.where(negative, -q, q), torch.nan)


def descending(x: Tensor) -> Tensor:
    """As `meaning.descending`."""
    order = torch.where(x.isnan(), torch.inf, x).argsort(dim=-1, descending=True, stable=True)
    return torch.eye(x.shape[-1], dtype=x.dtype, device=x.device)[order.squeeze(-2)].mT


def inverse(a: Tensor) -> Tensor:
    """As `meaning.inverse`. An upper triangle on the CPU is solved for, which takes a third of the time."""
    if _is_upper(a):
        return solved(a, torch.eye(a.shape[-1], dtype=a.dtype))
    finite = a.isfinite().all(-1, keepdim=True).all(-2, keepdim=True)
    found, info = torch.linalg.inv_ex(torch.where(finite, a, 0.0))
    return torch.where(finite & (info == 0)[..., None, None], found, torch.nan)


def solved(a: Tensor, b: Tensor, turned: bool = False, right: bool = False) -> Tensor:
    """inverse(a) @ b, or b @ inverse(a) where that is `right`; `turned`: the inverse is transposed. Triangles need no inverse."""
    if not _is_upper(a):
        found = inverse(a).mT if turned else inverse(a)
        return b @ found if right else found @ b
    fine = (a.isfinite().all(-1).all(-1) & a.diagonal(dim1=-2, dim2=-1).all(-1))[..., None, None]
    return torch.where(fine, torch.linalg.solve_triangular(a.mT if turned else a, b, upper=not turned, left=not right), torch.nan)


def _is_upper(a: Tensor) -> bool:
    return not is_traced(a) and a.device.type == "cpu" and a.shape[-1] > 0 and torch.equal(a.triu(), a)


def flat(x: Tensor, first: int) -> Tensor:
    """A parameter with `first` rows as one matrix, also where it has no elements."""
    return x.reshape(1, first, -1) if x.numel() else x.reshape(1, first, 0 if first else 1)


def runs(x: Tensor, many: int) -> Tensor:
    """A parameter as so many runs, a row each."""
    return x.reshape(many, -1) if x.numel() else x.reshape(many, 1)


def spread(x: Tensor, shape: Sequence[int]) -> Tensor:
    """Values per run, (runs, 1), once for each element of a parameter."""
    count = 1
    for size in shape:
        count = count * size
    return x.expand(x.shape[0], count // x.shape[0] if x.shape[0] else 1).reshape(tuple(shape))


def count(x: Tensor, dims: Dims) -> Tensor:
    """How many values are reduced."""
    return torch.ones_like(x).sum() if dims is None else torch.ones_like(x).sum(tuple(dims), keepdim=True)


def amax(x: Tensor, dims: Dims) -> Tensor:
    """The largest value; -inf where there are none."""
    if x.numel() == 0:
        return _of_nothing(x, dims, -torch.inf)
    return x.amax() if dims is None else x.amax(tuple(dims), keepdim=True)


def amin(x: Tensor, dims: Dims) -> Tensor:
    """The smallest value; inf where there are none."""
    if x.numel() == 0:
        return _of_nothing(x, dims, torch.inf)
    return x.amin() if dims is None else x.amin(tuple(dims), keepdim=True)


def _of_nothing(x: Tensor, dims: Dims, value: float) -> Tensor:
    shape = () if dims is None else [1 if d - x.ndim in dims else x.shape[d] for d in range(x.ndim)]
    return x.new_full(shape, value)


def quantile(x: Tensor, q: Tensor, dims: Dims) -> Tensor:
    """Linear interpolation between order statistics, for any number of values; NaN if any value is."""
    if dims is None:
        return _quantile(x.reshape(-1), q)
    kept = [d for d in range(x.ndim) if d - x.ndim not in dims]
    moved = x.permute(*kept, *(d % x.ndim for d in dims)).flatten(len(kept))
    shape = [1 if d - x.ndim in dims else x.shape[d] for d in range(x.ndim)]
    return _quantile(moved, q).reshape(shape)


def lone(x: Tensor, q: Tensor) -> Tensor:
    """Quantiles of single values."""
    return torch.where((torch.as_tensor(q) >= 0) & (torch.as_tensor(q) <= 1), x, torch.nan)


def _quantile(x: Tensor, q: Tensor) -> Tensor:
    """Over the last dimension."""
    if x.shape[-1] == 0:
        return x.new_full(x.shape[:-1], torch.nan)
    at = q.clamp(0, 1).nan_to_num() * (x.shape[-1] - 1)
    bad = x.amax(-1).isnan() | ~((q >= 0) & (q <= 1))
    return torch.where(bad, torch.nan, _between(_ordered(x, at), at))


def _ordered(x: Tensor, at: Tensor) -> Tensor:
    """Over the last dimension; on the host only those beside `at` need be where they belong, which takes far less time."""
    if is_traced(x) or at.ndim or x.device.type != "cpu" or x.dtype not in (torch.float32, torch.float64):
        return x.sort(-1).values
    place = at.detach().numpy()
    beside = sorted({int(np.floor(place)), int(np.ceil(place))})
    return torch.from_numpy(np.partition(x.resolve_neg().numpy(), beside, axis=-1))


def _between(ordered: Tensor, at: Tensor) -> Tensor:
    at = at.expand(ordered.shape[:-1])
    low, high = (ordered.gather(-1, f(at).long().unsqueeze(-1)).squeeze(-1) for f in (torch.floor, torch.ceil))
    return torch.where(low == high, low, low + (high - low) * (at - at.floor()))


# --------------------------------------------------------------- over a window, the first dimension, where NaN = empty


def window_sum(x: Tensor) -> Tensor:
    return x.nansum(0)


def window_count(x: Tensor) -> Tensor:
    return (~x.isnan()).sum(0).to(x.dtype)


def window_mean(x: Tensor) -> Tensor:
    return window_sum(x) / window_count(x)


def window_amax(x: Tensor) -> Tensor:
    return torch.where(x.isnan().all(0), torch.nan, torch.where(x.isnan(), -torch.inf, x).amax(0))


def window_amin(x: Tensor) -> Tensor:
    return torch.where(x.isnan().all(0), torch.nan, torch.where(x.isnan(), torch.inf, x).amin(0))


def window_quantile(x: Tensor, q: Tensor) -> Tensor:
    filled = (~x.isnan()).sum(0)
    ordered = x.sort(0).values.movedim(0, -1)
    at = q.clamp(0, 1).nan_to_num() * (filled - 1).clamp(min=0)
    empty = (filled == 0) | ~((q >= 0) & (q <= 1))
    return torch.where(empty, torch.nan, _between(ordered, at.to(x.dtype)))


def push(window: Tensor, x: Tensor) -> Tensor:
    """The window without its oldest value, with a newest."""
    return torch.cat([window[1:], x.expand(window.shape[1:]).unsqueeze(0).to(window.dtype)])
