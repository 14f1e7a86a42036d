"""Kernels and their tables: what steps all parameters of a kind in one call. What is not for C++ goes the torch way."""

from __future__ import annotations

import ctypes
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from optlang.backends.base import Cell, Step
from optlang.backends.cpp import build, source
from optlang.backends.cpp.repeat import GRADIENT, WEIGHTS, Table, Tables, fits, same
from optlang.backends.formats import Packed
from optlang.backends.torch_code import CellCode, Output
from optlang.backends.torch_functions import Bound, Functions
from optlang.backends.torch_views import put_back, view
from optlang.ir import Node, W

TYPES = {torch.float32: "float", torch.float64: "double", torch.bfloat16: "bf16", torch.float16: "_Float16", torch.bool: "bool"}
STAGES = ("final", "level")  # what is worth a kernel: not what runs once
Array = Any  # numpy.ndarray


@dataclass(frozen=True, eq=False)
class Loaded:
    """A kernel ready to be called. `places`: where the tensor of each column lies among those of the torch function, and which
    part of it the column is."""

    kernel: source.Kernel
    step: Any
    places: tuple[tuple[int, int], ...]


class CppFunctions(Functions):
    """Functions that run as C++ where they can. `always`: also where a step is so small that torch is as quick."""

    def __init__(self, always: bool) -> None:
        super().__init__()
        self.always = always
        self._outputs: dict[CellCode, tuple[Output, ...]] = {}
        self._kernels: dict[Any, Loaded | None] = {}
        self._tables: Tables | None = None
        self._last: Sequence[Cell] = ()

    def code(self, key: Any, outputs: Sequence[Output], dtype: torch.dtype, names: tuple[tuple[str, Node], ...] = ()) -> CellCode:
        """As in torch; what a function computes is remembered for the kernel."""
        known = self.has(key, dtype)
        code = super().code(key, outputs, dtype, names)
        if not known:
            self._outputs[code] = tuple(outputs)
        return code

    def run(self, bound: Bound, compiled: bool) -> Any:
        """One function with one parameter."""
        kernel = self._kernel(bound) if compiled or self.always else None
        if kernel is None:
            return super().run(bound, compiled)
        return tuple(torch.from_numpy(call(kernel, [bound])[0]).unbind())

    def run_all(self, calls: Sequence[Bound], compiled: bool) -> None:
        """All parameters that share a kernel are stepped by one call."""
        rest: list[Bound] = []
        together: dict[Loaded, list[Bound]] = {}
        for bound in calls:
            kernel = self._kernel(bound) if compiled or self.always else None
            if kernel is None:
                rest.append(bound)
            else:
                together.setdefault(kernel, []).append(bound)
        for kernel, some in together.items():
            call(kernel, some)
        super().run_all(rest, compiled)

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
            kernel = self._kernel(bound)
            if kernel is None:
                return
            groups.setdefault(kernel, []).append((cell, bound))
        if all(fits(kernel.kernel, kernel.places, [bound for _, bound in some]) for kernel, some in groups.items()):
            self._tables = Tables(cells, [self._table(kernel, some) for kernel, some in groups.items()])

    def _table(self, loaded: Loaded, some: Sequence[tuple[Cell, Bound]]) -> Table:
        first = some[0][1]
        keys = tuple(_key(first, place, part) for place, part in loaded.places)
        return Table(loaded.kernel, loaded.step, keys, self.scalars(first.code).host, [cell for cell, _ in some], first)

    def _kernel(self, bound: Bound) -> Loaded | None:
        """The kernel of a function for tensors of such types; None where there is none."""
        if bound.code.name not in STAGES or bound.weights.device.type != "cpu":
            return None
        if not all(part.is_contiguous() for x in bound.tensors if isinstance(x, Packed) for part in x.parts):
            return None
        key = (bound.code, *(x.key if isinstance(x, Packed) else x.dtype for x in bound.tensors))
        if key not in self._kernels:
            self._kernels[key] = self._made(bound)
        return self._kernels[key]

    def _made(self, bound: Bound) -> Loaded | None:
        code, outputs = bound.code, self._outputs[bound.code]
        types = {n: x if isinstance(x, Packed) else TYPES.get(x.dtype, "") for n, x in zip(code.tensors, bound.tensors, strict=True)}
        if source.refuses(outputs) or not all(types.values()):
            return None
        kernel = source.generate(outputs, code.slots, types, bound.s.dtype == torch.float64)
        try:
            step = build.library(kernel.text).step
        except build.NoCompiler as problem:
            _warn(str(problem))
            return None
        return Loaded(kernel, step, tuple((code.tensors.index(node), part) for node, part in kernel.columns))


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
    seen = [[_in_order(x, node) for x, (node, _) in zip(row, kernel.columns, strict=True)] for row in given]
    pointers = np.array([[x.data_ptr() for x in row] for row in seen], dtype=np.uint64).reshape(count, len(kernel.columns))
    rows = np.array([bound.s.data_ptr() for bound in calls], dtype=np.uint64)
    sizes = np.array([bound.weights.numel() for bound in calls], dtype=np.int64)
    starts = np.concatenate([[0], np.cumsum(-(-sizes // source.CHUNK))])
    room = np.empty((count + int(starts[-1])) * kernel.sums + 1)
    results = np.empty((count, kernel.returned))
    loaded.step(ctypes.c_int64(count), *map(_pointer, (sizes, starts, pointers, rows, _counters(calls), room, results)))
    _after(kernel, calls, given, seen)
    return results


def part_of(tensor: Tensor | Packed, part: int) -> Tensor:
    """One of the tensors that store a tensor, in most cases itself."""
    return tensor.parts[part] if isinstance(tensor, Packed) else tensor


def _in_order(tensor: Tensor, node: Node) -> Tensor:
    return tensor if tensor.is_contiguous() else view(tensor, node.type, False)


def _counters(calls: Sequence[Bound]) -> Array:
    """(t, seed, stream) of each parameter."""
    if calls[0].counter is None:
        return np.zeros(3 * len(calls), dtype=np.uint32)
    return np.array([bound.counter.tolist() for bound in calls if bound.counter is not None], dtype=np.int64).astype(np.uint32)


def _pointer(array: Array) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)


def _after(kernel: source.Kernel, calls: Sequence[Bound], given: Sequence[Sequence[Tensor]], seen: Sequence[Sequence[Tensor]]) -> None:
    """What was written into copies goes where it belongs; autograd is told what was written behind its back."""
    for place in kernel.written:
        for before, after in zip(given, seen, strict=True):
            if before[place] is not after[place]:
                put_back(before[place], after[place])
    if any(kernel.columns[place][0] is W for place in kernel.written):
        torch.autograd.graph.increment_version([bound.weights for bound in calls])


def _warn(problem: str) -> None:
    """Once for each reason: Python shows the same warning from the same line only once."""
    warnings.warn(f"optlang steps with torch instead of C++, and slower: {problem}", RuntimeWarning, stacklevel=2)
