"""Kernels without a GPU: Triton's interpreter runs them in NumPy, which lacks the device's mathematics; here it is.

The interpreter is chosen by TRITON_INTERPRET=1 before Triton is imported for the first time.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
from triton import knobs

from optlang.meaning import maps
from optlang.ops import OPS

INTERPRETED: bool = bool(knobs.runtime.interpret)


def _fma(x: Any, y: Any, z: Any) -> Any:
    """A product and a sum of float32, rounded once: what float64 rounds is made odd, so that to round it again does no harm."""
    product, added = x.astype(np.float64) * y, np.asarray(z, dtype=np.float64)
    total = product + added
    back = total - product
    rest = (product - (total - back)) + (added - back)
    is_even = (total.view(np.int64) & 1) == 0
    return np.where((rest != 0) & is_even & np.isfinite(total), np.nextafter(total, np.copysign(np.inf, rest)), total)


MORE: dict[str, Any] = {"fmod": np.fmod, "log": np.log, "cos": np.cos, "fma_rn": _fma, "rcp_rn": np.reciprocal}


class Libdevice:
    """The functions that the operator table spells `libdevice.NAME(…)`, as NumPy computes them."""

    def __init__(self) -> None:
        self._found: dict[str, Any] = dict(MORE)
        for row in OPS.values():
            if match := re.match(r"libdevice\.(\w+)\(", row.triton):
                self._found[match[1]] = maps()[row.name]

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return lambda *args: _of_blocks(self._found[name], args)


def _of_blocks(function: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    from triton.language import core  # noqa: PLC0415
    from triton.runtime.interpreter import TensorHandle  # noqa: PLC0415

    blocks = [x for x in args if isinstance(x, core.tensor)]  # the others are Python's numbers
    like = max(blocks, key=lambda x: x.handle.data.size)
    with np.errstate(all="ignore"):
        found = function(*(x.handle.data if isinstance(x, core.tensor) else like.handle.data.dtype.type(x) for x in args))
    data = np.broadcast_to(np.asarray(found, dtype=like.handle.data.dtype), like.handle.data.shape).copy()
    return core.tensor(TensorHandle(data, like.handle.dtype), like.type)
