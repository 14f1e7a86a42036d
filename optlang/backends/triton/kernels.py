"""Triton kernels of one executable, and what they are launched with. What is not for Triton goes the torch way."""

from __future__ import annotations

import linecache
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from optlang.backends import passes
from optlang.backends.formats import Packed
from optlang.backends.kernels import Array, KernelFunctions, after, counters, in_order, warn
from optlang.backends.torch_code import Output
from optlang.backends.torch_functions import Bound
from optlang.backends.triton import source

TYPES = {torch.float32: "float32", torch.float64: "float64", torch.bfloat16: "bfloat16", torch.float16: "float16", torch.bool: "int8"}
ALIGNED = 16  # bytes that are read at once
WARPS = 4


@dataclass(frozen=True, eq=False)
class Loaded:
    """Kernels ready to be launched, in order. `places`: of each column's tensor among those of the torch function."""

    kernel: source.Kernel
    launches: tuple[tuple[Any, bool], ...]
    places: tuple[int, ...]


class TritonFunctions(KernelFunctions):
    """Functions that run as Triton kernels where they can: on CUDA, or on the CPU if Triton interprets."""

    name = "triton"

    def fits(self, bound: Bound) -> bool:
        kind = bound.weights.device.type
        return (kind == "cuda" or (kind == "cpu" and _interprets())) and not bound.is_packed

    def made(self, bound: Bound, outputs: Sequence[Output]) -> Loaded | None:
        code = bound.code
        types = {n: "" if isinstance(x, Packed) else TYPES.get(x.dtype, "") for n, x in zip(code.tensors, bound.tensors, strict=True)}
        if passes.refuses(outputs) or not all(types.values()):
            return None
        kernel = source.generate(outputs, code.slots, types, bound.s.dtype == torch.float64)
        try:
            functions = load(kernel.text)
        except ImportError as problem:
            self.trouble = str(problem)
            warn("Triton", self.trouble)
            return None
        launches = tuple((functions[name], by_chunk) for name, by_chunk in kernel.launches)
        return Loaded(kernel, launches, tuple(code.tensors.index(node) for node, _ in kernel.columns))

    def launch(self, kernel: Loaded, calls: Sequence[Bound]) -> Tensor:
        return launch(kernel, calls)


def launch(loaded: Loaded, calls: Sequence[Bound]) -> Tensor:
    """All parameters at once, one launch for each pass; [parameters, returned] numbers on their device. Nothing is waited for."""
    kernel, count, device = loaded.kernel, len(calls), calls[0].weights.device
    given = [[_tensor(bound.tensors[place]) for place in loaded.places] for bound in calls]
    seen = [[in_order(x, node) for x, (node, _) in zip(row, kernel.columns, strict=True)] for row in given]
    pointers = np.array([[x.data_ptr() for x in row] for row in seen], dtype=np.int64).reshape(count, len(kernel.columns))
    sizes = np.array([bound.weights.numel() for bound in calls], dtype=np.int64)
    starts = np.concatenate([[0], np.cumsum(-(-sizes // source.CHUNK))])
    rows, places = _rows(calls)
    tables = _on(device, [_chunks(sizes, pointers), starts, sizes, pointers, places, counters(calls).astype(np.int64)])
    sums = torch.empty(count * kernel.sums + 1, dtype=torch.float64, device=device)
    partial = torch.empty(int(starts[-1]) * kernel.sums + 1, dtype=torch.float64, device=device)
    results = torch.empty((count, kernel.returned), dtype=torch.float64, device=device)
    arguments = (*tables[:4], rows, *tables[4:], sums, partial, results)
    with np.errstate(all="ignore"):  # of the interpreter
        for function, by_chunk in loaded.launches:
            programs = int(starts[-1]) if by_chunk else count
            if programs:
                function[(programs,)](*arguments, num_warps=WARPS)
    after(kernel.columns, kernel.written, calls, given, seen)
    return results


def _tensor(x: Tensor | Packed) -> Tensor:
    assert isinstance(x, Tensor)  # what is packed goes the torch way
    return x


def _chunks(sizes: Array, pointers: Array) -> Array:
    """[chunks, 3]: the tensor of each, its first element, and whether it is whole and in aligned memory."""
    owner = np.repeat(np.arange(len(sizes)), -(-sizes // source.CHUNK))
    first = np.concatenate([np.arange(0, size, source.CHUNK) for size in sizes])
    aligned = (pointers % ALIGNED == 0).all(1)[owner] if len(owner) else np.zeros(0, dtype=bool)
    return np.stack([owner, first, aligned & (first + source.CHUNK <= sizes[owner])], 1).astype(np.int64)


def _rows(calls: Sequence[Bound]) -> tuple[Tensor, Array]:
    """The different rows of numbers, and which of them each parameter has."""
    found = {id(bound.s): bound.s for bound in calls}
    order = {key: place for place, key in enumerate(found)}
    rows = torch.stack(list(found.values()))
    return (rows if rows.numel() else rows.new_zeros(1)), np.array([order[id(bound.s)] for bound in calls], dtype=np.int64)


def _on(device: torch.device, tables: Sequence[Array]) -> list[Tensor]:
    """Tables of whole numbers on a device, by one transfer."""
    flat = torch.from_numpy(np.concatenate([*(table.reshape(-1) for table in tables), np.zeros(1, dtype=np.int64)]))
    if device.type == "cuda":
        flat = flat.pin_memory().to(device, non_blocking=True)
    edges = np.cumsum([0, *(table.size for table in tables)])
    return [flat[low:] for low in edges[:-1]]


@lru_cache(maxsize=256)
def load(text: str) -> dict[str, Any]:
    """The functions of a generated text, which Triton reads again by its name. Raises ImportError without Triton."""
    name = f"<optlang triton {hash(text):x}>"
    linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
    namespace: dict[str, Any] = {"__name__": name}
    exec(compile(text, name, "exec"), namespace)
    return namespace


def _interprets() -> bool:
    try:
        from optlang.backends.triton.interpreted import INTERPRETED  # noqa: PLC0415 - Triton takes a second to import
    except ImportError:
        return False
    return INTERPRETED
