"""C++ kernels and their tables: what steps all parameters of a kind in one call."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from optlang.backends.base import Cell
from optlang.backends.cpp.kernel_cache import Kernel, Rendered, kept
from optlang.backends.cpp.layout import layout
from optlang.backends.cpp.tables import CppTable
from optlang.backends.formats import Packed
from optlang.backends.kernels import build
from optlang.backends.kernels.functions import Array, KernelFunctions, after, counters, in_order, part_of, warn
from optlang.backends.kernels.handed import Handed
from optlang.backends.repeated.library import pointer
from optlang.backends.repeated.tables import Table
from optlang.backends.torch.bound import Bound
from optlang.backends.torch.functions import Outputs

TYPES = {torch.float32: "float", torch.float64: "double", torch.bfloat16: "bf16", torch.float16: "_Float16", torch.bool: "bool"}


@dataclass(frozen=True, eq=False, repr=False)
class Loaded:
    """A kernel ready to be called. `places`: where the tensor of each column lies among those of the torch function, and which
    part of it the column is; behind those of the function lie those of what is `handed` out."""

    kernel: Kernel
    step: Any
    places: tuple[tuple[int, int], ...]
    handed: Handed


class CppFunctions(KernelFunctions):
    """Functions that run as C++ where they can."""

    name = "cpp"
    words = TYPES

    def fits(self, bound: Bound) -> bool:
        packed = [x for x in bound.tensors if isinstance(x, Packed)] if bound.is_packed else []
        return bound.weights.device.type == "cpu" and all(part.is_contiguous() for x in packed for part in x.parts)

    def made(self, bound: Bound, outputs: Outputs) -> Loaded | None:
        found = self._rendered(bound, outputs)
        if found is None:
            return None
        try:
            step = build.library(found.kernel.text, more=found.kernel.flags).step
        except build.NoCompiler as problem:
            self.trouble = str(problem)
            warn("C++", self.trouble)
            return None
        return Loaded(found.kernel, step, found.places, found.handed)

    def _rendered(self, bound: Bound, outputs: Outputs) -> Rendered | None:
        """The text for tensors of such types; None where there is no such kernel."""
        make, code = partial(self._render, bound, outputs), bound.code
        types = [str(x.key if isinstance(x, Packed) else x.dtype) for x in bound.tensors]
        return kept(make, code.tensors, bound.s.dtype, code.mark, *types) if code.mark else make()

    def _render(self, bound: Bound, outputs: Outputs) -> Rendered | None:
        from optlang.backends.cpp.lines import generate  # noqa: PLC0415 - what is kept on disk is not rendered again

        wanted = self.wanted(bound, outputs())
        if wanted is None:
            return None
        kernel = generate(wanted.outputs, bound.code.slots, wanted.types, bound.s.dtype == torch.float64)
        return Rendered(kernel, wanted.places(kernel.columns), wanted.handed)

    def launch(self, kernel: Loaded, calls: Sequence[Bound], fresh: Sequence[Sequence[torch.Tensor]] = ()) -> torch.Tensor:
        return torch.from_numpy(call(kernel, calls, fresh))

    def table(self, kernel: Any, calls: Sequence[tuple[Cell, Bound]]) -> Table:
        return CppTable(kernel, self.scalars(calls[0][1].code), calls)


def call(loaded: Loaded, calls: Sequence[Bound], fresh: Sequence[Sequence[torch.Tensor]]) -> Array:
    """One call for many parameters; [parameters, returned] numbers. Tensors whose memory is not in order go through copies."""
    kernel, count = loaded.kernel, len(calls)
    tensors = [[*bound.tensors, *row] for bound, row in zip(calls, fresh or [()] * count, strict=True)]
    given = [[part_of(row[place], part) for place, part in loaded.places] for row in tensors]
    seen = [[in_order(x, node) for x, (node, _) in zip(row, kernel.columns, strict=True)] for row in given]
    pointers = np.array([[x.data_ptr() for x in row] for row in seen], dtype=np.uint64).reshape(count, len(kernel.columns))
    rows = np.array([bound.s.data_ptr() for bound in calls], dtype=np.uint64)
    sizes = np.array([bound.weights.numel() for bound in calls], dtype=np.int64)
    found = layout(kernel.room, [tuple(bound.weights.shape) for bound in calls])
    room = np.empty((count + int(found.starts[-1])) * kernel.sums + 1)
    results = np.empty((count, kernel.returned))
    # held until the call is over: pointers hold nothing
    held = (sizes, found.starts, pointers, rows, counters(calls), room, results, found.shapes, found.lines)
    loaded.step(ctypes.c_int64(count), *map(pointer, held))
    after(kernel.columns, kernel.written, calls, given, seen)
    return results
