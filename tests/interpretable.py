"""Kernels of torch's compiler in Triton's interpreter, which lacks functions of CUDA, goes number by number through others, and cuts
bits off where a GPU rounds. Wants TRITON_INTERPRET=1 before Triton is imported.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import numpy as np
import torch
import triton.language as tl
from torch._inductor.runtime import triton_helpers
from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

Array = Any
LIBRARY: dict[str, Any] = {"nearbyint": np.rint, "rsqrt": lambda x: 1 / np.sqrt(x)}  # what NumPy does not have by CUDA's name


@contextmanager
def interpretable() -> Iterator[None]:
    """In here kernels that are loaded can be interpreted."""
    with mock.patch.multiple(triton_helpers, **HELPERS), mock.patch.object(InterpreterBuilder, "cast_impl", cast):
        yield


def of_block(data: Array, kind: Any) -> Any:
    """Numbers as a block of a kernel."""
    data = np.asarray(data)
    return tl.core.tensor(TensorHandle(data, kind), tl.block_type(kind, list(data.shape)) if data.ndim else kind)


def data_of(x: Any) -> Array:
    return x.handle.data if isinstance(x, tl.core.tensor) else x


class Libdevice:
    """CUDA's library of functions, as NumPy computes them."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        function = LIBRARY.get(name) or getattr(np, name)

        def of_blocks(*args: Any) -> Any:
            like = next(x for x in args if isinstance(x, tl.core.tensor))
            found = np.asarray(function(*map(data_of, args)))
            kind = tl.int32 if found.dtype == bool else like.dtype
            return of_block(found.astype(np.int32 if found.dtype == bool else like.handle.data.dtype), kind)

        return of_blocks


def _reduced(function: Any) -> Any:
    """Over a dimension."""

    def reduced(x: Any, dim: Any) -> Any:
        return of_block(function.reduce(data_of(x), axis=int(getattr(dim, "value", dim))), x.dtype)

    return reduced


def _chosen(better: Any) -> Any:
    """One of two, NaN before all."""

    def chosen(a: Any, b: Any) -> Any:
        like = a if isinstance(a, tl.core.tensor) else b
        first, second = data_of(a), data_of(b)
        return of_block(np.where(better(first, second) | (first != first), first, second), like.dtype)

    return chosen


def sorted_with_places(x: Any, places: Any, count: Any, dim: Any = None, stable: Any = False, descending: Any = False) -> Any:
    """Along the last dimension, NaN as the largest; what lies beyond a count goes to the end."""
    values, where = np.broadcast_arrays(data_of(x), data_of(places))
    beyond = where >= data_of(count) if count is not None else np.zeros(where.shape, dtype=bool)
    nan = values != values
    order = np.lexsort((-values, ~nan, beyond) if descending else (values, nan, beyond), axis=-1)
    return tuple(of_block(np.take_along_axis(data, order, -1), like.dtype) for data, like in ((values, x), (where, places)))


def cast(self: Any, src: Any, kind: Any) -> Any:
    """From one number type to another; to bfloat16 by rounding to the nearest, as on a GPU, where the interpreter cuts bits off."""
    source, target = src.dtype.scalar, kind.scalar
    data = src.data
    if source == tl.bfloat16:
        data = (data.astype(np.uint32) << 16).view(np.float32)
    if target == tl.bfloat16:
        rounded = torch.from_numpy(np.array(data, dtype=np.float32)).to(torch.bfloat16)
        return TensorHandle(rounded.view(torch.int16).numpy().view(np.uint16), target)
    return TensorHandle(data.astype(NUMBERS.get(target) or np.dtype(target.name.replace("fp", "float"))), target)


NUMBERS = {tl.int1: np.dtype(bool)}
HELPERS: dict[str, Any] = {
    "libdevice": Libdevice(), "any": _reduced(np.logical_or), "prod": _reduced(np.multiply), "sort_with_index": sorted_with_places,
    "max2": _reduced(np.maximum), "min2": _reduced(np.minimum), "maximum": _chosen(np.greater), "minimum": _chosen(np.less),
}  # fmt: skip
