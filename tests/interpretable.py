"""Kernels of torch's compiler in Triton's interpreter, which lacks functions of CUDA, cuts bits off where a GPU rounds, and goes through
programs one by one (see `whole_grid`). Wants TRITON_INTERPRET=1 before Triton is imported.
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
from whole_grid import all_programs_at_once, with_programs

Array = Any
LIBRARY: dict[str, Any] = {"nearbyint": np.rint, "rsqrt": lambda x: 1 / np.sqrt(x)}  # what NumPy does not have by CUDA's name


@contextmanager
def interpretable() -> Iterator[None]:
    """In here kernels that are loaded can be interpreted."""
    with (
        all_programs_at_once(), mock.patch.object(InterpreterBuilder, "cast_impl", cast),
        mock.patch.object(triton_helpers, "libdevice", Libdevice()),
    ):  # fmt: skip
        yield


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
            return with_programs(found.astype(np.int32 if found.dtype == bool else like.handle.data.dtype), kind)

        return of_blocks


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
