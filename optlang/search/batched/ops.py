"""The operators as torch functions that write into a tensor they are given: `function(*operands, out=tensor)`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from optlang.backends.torch import ops as torch_ops
from optlang.ops import OPS

Function = Callable[..., Any]


def cbrt(x: Tensor, *, out: Tensor) -> None:
    torch.mul(x.sign(), x.abs().pow_(1 / 3), out=out)


def isnan(x: Tensor, *, out: Tensor) -> None:
    torch.ne(x, x, out=out)


def isfinite(x: Tensor, *, out: Tensor) -> None:
    out.copy_(torch.isfinite(x))


_SPECIAL: dict[str, Function] = {
    "cbrt": cbrt, "isnan": isnan, "isfinite": isfinite, "mod": torch.remainder, "and": torch.logical_and,
    "or": torch.logical_or, "not": torch.logical_not, "branch": torch.where, "where": torch.where,
}  # fmt: skip
_ELEMENTWISE = ("map", "select")
MAPS: dict[str, Function] = {
    name: _SPECIAL.get(name) or getattr(torch, name) for name, row in OPS.items() if row.role in _ELEMENTWISE
}


def count(x: Tensor, dims: Sequence[int], *, out: Tensor) -> None:
    out.copy_(torch.ones_like(x).sum(tuple(dims), keepdim=True).view_as(out))


def quantile(x: Tensor, dims: Sequence[int], q: Tensor, *, out: Tensor) -> None:
    """`q` has one value, or one for each result."""
    kept = [d for d in range(x.ndim) if d not in dims]
    rows = x.permute(*kept, *dims).flatten(len(kept))
    share = q if q.ndim == 0 else q.expand(out.shape).reshape(rows.shape[:-1])
    out.copy_(torch_ops._quantile(rows, share).view_as(out))


REDUCTIONS: dict[str, Function] = {
    "sum": lambda x, dims, *, out: torch.sum(x, dims, keepdim=True, out=out),
    "mean": lambda x, dims, *, out: torch.mean(x, dims, keepdim=True, out=out),
    "amax": lambda x, dims, *, out: torch.amax(x, dims, keepdim=True, out=out),
    "amin": lambda x, dims, *, out: torch.amin(x, dims, keepdim=True, out=out),
    "count": count,
    "quantile": quantile,
}


def _of_matrices(function: Callable[[Tensor], Tensor]) -> Function:
    return lambda x, *, out: out.copy_(function(x))


def reshaped(x: Tensor, *, out: Tensor) -> None:
    """The same values in the same order, in another shape."""
    out.copy_(x.reshape(out.shape))


def joined(parts: Sequence[Tensor], *, out: Tensor) -> None:
    """All values of each run in one row."""
    torch.cat([part.flatten(1) for part in parts], 1, out=out)


MATRICES: dict[str, Function] = {
    "matmul": torch.matmul, "as_param": reshaped,
    **{name: _of_matrices(getattr(torch_ops, name)) for name in ("eigenvectors", "orthonormal", "descending", "inverse")},
}  # fmt: skip
