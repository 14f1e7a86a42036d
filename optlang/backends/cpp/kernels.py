"""C++ kernels and their tables: what steps all parameters of a kind in one call."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from optlang.backends import passes
from optlang.backends.base import Cell, Step
from optlang.backends.cpp import build, source
from optlang.backends.cpp.repeat import GRADIENT, WEIGHTS, Table, Tables, fits, same
from optlang.backends.formats import Packed
from optlang.backends.kernels import Array, KernelFunctions, after, counters, in_order, part_of, warn
from optlang.backends.torch_code import Output
from optlang.backends.torch_functions import Bound
from optlang.ir import W

TYPES = {torch.float32: "float", torch.float64: "double", torch.bfloat16: "bf16", torch.float16: "_Float16", torch.bool: "bool"}


@dataclass(frozen=True, eq=False)
class Loaded:
    """A kernel ready to be called. `places`: where the tensor of each column lies among those of the torch function, and which
    part of it the column is."""

    kernel: source.Kernel
    step: Any
    places: tuple[tuple[int, int], ...]


class CppFunctions(KernelFunctions):
    """Functions that run as C++ where they can."""

    name = "cpp"

    def __init__(self, always: bool) -> None:
        super().__init__(always)
        self._tables: Tables | None = None
        self._last: Sequence[Cell] = ()

    def fits(self, bound: Bound) -> bool:
        return bound.weights.device.type == "cpu" and all(
            part.is_contiguous() for x in bound.tensors if isinstance(x, Packed) for part in x.parts
        )

    def made(self, bound: Bound, outputs: Sequence[Output]) -> Loaded | None:
        code = bound.code
        types = {n: x if isinstance(x, Packed) else TYPES.get(x.dtype, "") for n, x in zip(code.tensors, bound.tensors, strict=True)}
        if passes.refuses(outputs) or not all(types.values()):
            return None
        kernel = source.generate(outputs, code.slots, types, bound.s.dtype == torch.float64)
        try:
            step = build.library(kernel.text).step
        except build.NoCompiler as problem:
            self.trouble = str(problem)
            warn("C++", self.trouble)
            return None
        return Loaded(kernel, step, tuple((code.tensors.index(node), part) for node, part in kernel.columns))

    def launch(self, kernel: Loaded, calls: Sequence[Bound]) -> torch.Tensor:
        return torch.from_numpy(call(kernel, calls))

    def again(self, step: Step) -> Callable[[], None] | None:
        """A step from the tables of the last one."""
        return None if self._tables is None else self._tables.again(step.cells, step.seed)

    def remember(self, cells: Sequence[Cell], calls: Sequence[Bound], compiled: bool) -> None:
        """Tables of parameters that are stepped a second time in the same way; they take as long to make as they save."""
        came, self._last, self._tables = same(cells, self._last), list(cells), None
        if not came or not (compiled or self.always):
            return
        groups: dict[Loaded, list[tuple[Cell, Bound]]] = {}
        for cell, bound in zip(cells, calls, strict=True):
            kernel = self.kernel(bound)
            if not isinstance(kernel, Loaded):
                return
            groups.setdefault(kernel, []).append((cell, bound))
        if all(fits(kernel.kernel, kernel.places, [bound for _, bound in some]) for kernel, some in groups.items()):
            self._tables = Tables(cells, [self._table(kernel, some) for kernel, some in groups.items()])

    def _table(self, loaded: Loaded, some: Sequence[tuple[Cell, Bound]]) -> Table:
        first = some[0][1]
        keys = tuple(_key(first, place, part) for place, part in loaded.places)
        return Table(loaded.kernel, loaded.step, keys, self.scalars(first.code).host, [cell for cell, _ in some], first)


def _key(bound: Bound, place: int, part: int) -> str:
    """Where a cell has a column's tensor: see `repeat.column`."""
    node, tensor = bound.code.tensors[place], bound.tensors[place]
    if node.op == "state" or part:
        name = str(node.value) if node.op == "state" else "w"
        return f"{name}.{tensor.form.beside}" if part and isinstance(tensor, Packed) else name
    return WEIGHTS if node is W else GRADIENT


def call(loaded: Loaded, calls: Sequence[Bound]) -> Array:
    """One call for many parameters; [parameters, returned] numbers. Tensors whose memory is not in order go through copies."""
    kernel, count = loaded.kernel, len(calls)
    given = [[part_of(bound.tensors[place], part) for place, part in loaded.places] for bound in calls]
    seen = [[in_order(x, node) for x, (node, _) in zip(row, kernel.columns, strict=True)] for row in given]
    pointers = np.array([[x.data_ptr() for x in row] for row in seen], dtype=np.uint64).reshape(count, len(kernel.columns))
    rows = np.array([bound.s.data_ptr() for bound in calls], dtype=np.uint64)
    sizes = np.array([bound.weights.numel() for bound in calls], dtype=np.int64)
    starts = np.concatenate([[0], np.cumsum(-(-sizes // source.CHUNK))])
    room = np.empty((count + int(starts[-1])) * kernel.sums + 1)
    results = np.empty((count, kernel.returned))
    loaded.step(ctypes.c_int64(count), *map(_pointer, (sizes, starts, pointers, rows, counters(calls), room, results)))
    after(kernel.columns, kernel.written, calls, given, seen)
    return results


def _pointer(array: Array) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)
