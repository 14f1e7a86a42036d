"""Triton kernels of one executable, and what they are launched with. What is not for Triton goes the torch way."""

from __future__ import annotations

import linecache
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from optlang.backends.base import Cell
from optlang.backends.device_scalars import DeviceScalars, joined, sent
from optlang.backends.formats import Packed
from optlang.backends.kernels import Array, KernelFunctions, after, in_order, part_of, warn
from optlang.backends.repeat import Counts, Hypers, Table, key_of
from optlang.backends.torch.code import Output
from optlang.backends.torch.functions import Bound
from optlang.backends.triton import source
from optlang.backends.triton.scalars import TritonScalars
from optlang.backends.triton.tables import Tables, table_of
from optlang.host import HostScalars
from optlang.ir import Node

TYPES = {torch.float32: "float32", torch.float64: "float64", torch.bfloat16: "bfloat16", torch.float16: "float16", torch.bool: "int8"}
KINDS = {"sums": torch.float64, "partial": torch.float64, "results": torch.float64, "levels": torch.float32, "below": torch.uint8}
WARPS = 4


@dataclass(frozen=True, eq=False)
class Loaded:
    """Kernels ready to be launched, in order. `places`: where the tensor of each column lies among those of the torch function,
    and which part of it the column is."""

    kernel: source.Kernel
    launches: tuple[tuple[Any, bool], ...]
    places: tuple[tuple[int, int], ...]
    tables: dict[Any, tuple[tuple[int, ...], Tables]] = field(default_factory=dict)  # of the parameters of the last launch, by their device

    def placed(self, sizes: tuple[int, ...], device: torch.device) -> Tables:
        """The tables for parameters of some sizes."""
        kept = self.tables.get(device)
        if kept is None or kept[0] != sizes:
            kept = self.tables[device] = sizes, Tables(self.kernel, sizes, device)
        return kept[1]


class TritonFunctions(KernelFunctions):
    """Functions that run as Triton kernels where they can: on CUDA, or on the CPU if Triton interprets."""

    name = "triton"

    def fits(self, bound: Bound) -> bool:
        kind = bound.weights.device.type
        return (kind == "cuda" or (kind == "cpu" and _interprets())) and all(
            part.is_contiguous() for x in bound.tensors if isinstance(x, Packed) for part in x.parts
        )

    def made(self, bound: Bound, outputs: Sequence[Output]) -> Loaded | None:
        code = bound.code
        types = {n: x if isinstance(x, Packed) else TYPES.get(x.dtype, "") for n, x in zip(code.tensors, bound.tensors, strict=True)}
        if self.refuses(bound, outputs) or not all(types.values()):
            return None
        kernel = source.generate(outputs, code.slots, types, bound.s.dtype == torch.float64)
        try:
            functions = load(kernel.text)
            if bound.weights.device.type == "cuda":
                build([functions[name] for name, _ in kernel.launches], bound)
        except Exception as problem:  # Triton is not there, or some tool that it needs: it has many ways to say so
            self.trouble = f"{type(problem).__name__}: {problem}".strip().splitlines()[0]
            warn("Triton", self.trouble)
            return None
        launches = tuple((functions[name], by_chunk) for name, by_chunk in kernel.launches)
        return Loaded(kernel, launches, tuple((code.tensors.index(node), part) for node, part in kernel.columns))

    def on_device(self, nodes: Sequence[Node]) -> DeviceScalars:
        """By one launch."""
        return TritonScalars(nodes, _interprets())

    def launch(self, kernel: Loaded, calls: Sequence[Bound]) -> Tensor:
        return launch(kernel, calls)

    def table(self, kernel: Loaded, calls: Sequence[tuple[Cell, Bound]]) -> Table:
        return TritonTable(kernel, self.scalars(calls[0][1].code).host, calls)


class TritonTable(Table):
    """Parameters that are stepped again by Triton: tables stay on the device."""

    def __init__(self, loaded: Loaded, slots: HostScalars, calls: Sequence[tuple[Cell, Bound]]) -> None:
        super().__init__([key_of(calls[0][1], place, part) for place, part in loaded.places], slots, calls)
        self.loaded, self.device = loaded, calls[0][1].weights.device
        self.placed = loaded.placed(tuple(self.sizes.tolist()), self.device)

    def ready(self, hypers: Hypers, counts: Counts, seed: int) -> Callable[[], None]:
        """A step that only has to be taken. Raises MissingFact."""
        rows, places = self.rows(hypers, counts)
        numbers = sent(rows if rows.size else np.zeros(1, dtype=self.number), self.device)
        drawn = sent(self.counters(counts, seed), self.device) if self.draws else None
        pointers = self.placed.point(table_of(self.pointers, places))

        def take() -> None:
            start(self.loaded, self.placed, pointers, numbers, drawn)
            self.versions.grow()

        return take


def launch(loaded: Loaded, calls: Sequence[Bound]) -> Tensor:
    """All parameters at once, one launch for each pass; [parameters, returned] numbers on their device. Nothing is waited for."""
    kernel, count, device = loaded.kernel, len(calls), calls[0].weights.device
    given = [[part_of(bound.tensors[place], part) for place, part in loaded.places] for bound in calls]
    seen = [[in_order(x, node) for x, (node, _) in zip(row, kernel.columns, strict=True)] for row in given]
    placed = loaded.placed(tuple(bound.weights.numel() for bound in calls), device)
    rows, places = _rows(calls)
    pointers = np.array([[x.data_ptr() for x in row] for row in seen], dtype=np.int64).reshape(count, len(kernel.columns))
    drawn = [bound.counter for bound in calls if bound.counter is not None]
    results = start(loaded, placed, placed.point(table_of(pointers, places)), rows, joined(drawn)[:, :3].contiguous() if drawn else None)
    after(kernel.columns, kernel.written, calls, given, seen)
    return results.view(count, -1) if kernel.returned else results.new_empty(count, 0)


def start(loaded: Loaded, placed: Tables, pointers: Tensor, rows: Tensor, drawn: Tensor | None) -> Tensor:
    """Starts the kernels; the numbers that they will return, if any."""
    kernel = loaded.kernel
    results = placed.room(placed.count * kernel.returned)
    arguments = (
        *placed.fixed, pointers, rows, placed.fixed[0] if drawn is None else drawn, placed.room(placed.count * kernel.sums),
        placed.room(placed.chunks * kernel.sums), results, placed.levels, placed.below,
    )  # fmt: skip
    run(loaded, arguments, placed.chunks, placed.count)
    return results


def build(functions: Sequence[Any], like: Bound) -> None:
    """Compiles kernels for the GPU of a tensor, before anything is launched. Raises whatever Triton raises."""
    kinds = [KINDS.get(name, torch.int64) for name in source.ARGUMENTS.split(", ")]
    kinds[source.ARGUMENTS.split(", ").index("rows")] = like.s.dtype
    with torch.cuda.device(like.weights.device):
        for function in functions:
            function.warmup(*kinds, grid=(1,), num_warps=WARPS)


def run(loaded: Loaded, arguments: Sequence[Tensor], chunks: int, count: int) -> None:
    """The launches, one behind the other."""
    device = arguments[0].device
    elsewhere = device.type == "cuda" and device.index != torch.cuda.current_device()
    with torch.cuda.device(device) if elsewhere else nullcontext(), np.errstate(all="ignore"):  # errors of the interpreter
        for function, by_chunk in loaded.launches:
            if programs := chunks if by_chunk else count:
                function[(programs,)](*arguments, num_warps=WARPS)


def _rows(calls: Sequence[Bound]) -> tuple[Tensor, Array]:
    """The different rows of numbers, and which of them each parameter has."""
    found = {id(bound.s): bound.s for bound in calls}
    order = {key: place for place, key in enumerate(found)}
    rows = joined(list(found.values())) if len(found) > 1 else calls[0].s
    return (rows if rows.numel() else rows.new_zeros(1)), np.array([order[id(bound.s)] for bound in calls], dtype=np.int64)


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
