"""Triton kernels of one executable, and what they are launched with. What is not for Triton goes the torch way."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from optlang.backends.base import Cell
from optlang.backends.device_scalars import DeviceScalars, joined, sent
from optlang.backends.formats import Packed
from optlang.backends.kernels.functions import Array, KernelFunctions, after, in_order, part_of, warn
from optlang.backends.kernels.handed import Handed
from optlang.backends.repeated.rows import Counts, Hypers, Known
from optlang.backends.repeated.tables import Called, Table, keys_of
from optlang.backends.torch.bound import Bound, Slots
from optlang.backends.torch.functions import Outputs
from optlang.backends.triton import lines, source
from optlang.backends.triton.building import FUSION, Options, built
from optlang.backends.triton.layout import layout
from optlang.backends.triton.loading import load
from optlang.backends.triton.scalars import TritonScalars
from optlang.backends.triton.tables import Launch, Tables, table_of
from optlang.ir import Node

TYPES = {torch.float32: "float32", torch.float64: "float64", torch.bfloat16: "bfloat16", torch.float16: "float16", torch.bool: "int8"}
Shapes = tuple[tuple[int, ...], ...]


@dataclass(frozen=True, eq=False)
class Loaded:
    """Kernels ready to be launched, in order. `places`: where the tensor of each column lies among those of the torch function,
    and which part of it the column is; behind those of the function lie those of what is `handed` out. `number`: what is computed in."""

    kernel: source.Kernel
    launches: tuple[tuple[Any, str], ...]
    places: tuple[tuple[int, int], ...]
    handed: Handed
    number: torch.dtype
    tables: dict[Any, tuple[Shapes, Tables]] = field(default_factory=dict)  # of the parameters of the last launch, by their device
    options: dict[Any, Options] = field(default_factory=dict)

    def placed(self, shapes: Shapes, device: torch.device) -> Tables:
        """The tables for parameters of some shapes."""
        kept = self.tables.get(device)
        if kept is None or kept[0] != shapes:
            made = Tables(self.kernel, shapes, device)
            made.launches = [
                (function, table, programs, {**FUSION, **self.compiled(function, constants, device), **constants})
                for grids in made.waves
                for function, over in self.launches
                for table, programs, constants in grids[over]
                if programs
            ]
            kept = self.tables[device] = shapes, made
        return kept[1]

    def compiled(self, function: Any, constants: Mapping[str, int], device: torch.device) -> Options:
        """What a function is launched with, for what it is compiled for. Raises whatever Triton raises."""
        if device.type != "cuda":
            return {}
        key = function.__name__, tuple(constants.items())
        if key not in self.options:
            self.options[key] = built(self.kernel, function, constants, self.number, device)
        return self.options[key]


class TritonFunctions(KernelFunctions):
    """Functions that run as Triton kernels where they can: on CUDA, or on the CPU if Triton interprets."""

    name = "triton"
    words = TYPES

    def fits(self, bound: Bound) -> bool:
        kind = bound.weights.device.type
        return (kind == "cuda" or (kind == "cpu" and _interprets())) and all(
            part.is_contiguous() for x in bound.tensors if isinstance(x, Packed) for part in x.parts
        )

    def made(self, bound: Bound, outputs: Outputs) -> Loaded | None:
        wanted, number = self.wanted(bound, outputs()), bound.s.dtype
        if wanted is None:
            return None
        kernel = lines.generate(wanted.outputs, bound.code.slots, wanted.types, number == torch.float64)
        try:
            functions = load(kernel.text)
            launches = tuple((functions[name], over) for name, over in kernel.launches)
            made = Loaded(kernel, launches, wanted.places(kernel.columns), wanted.handed, number)
            [grids] = layout(kernel.room, [tuple(bound.weights.shape)]).waves
            for function, over in made.launches:
                for grid in grids[over]:
                    made.compiled(function, grid.constants, bound.weights.device)
        except Exception as problem:  # Triton is not there, or some tool that it needs: it has many ways to say so
            self.trouble = f"{type(problem).__name__}: {problem}".strip().splitlines()[0]
            warn("Triton", self.trouble)
            return None
        return made

    def on_device(self, nodes: Sequence[Node]) -> DeviceScalars:
        """By one launch."""
        return TritonScalars(nodes, _interprets())

    def launch(self, kernel: Loaded, calls: Sequence[Bound], fresh: Sequence[Sequence[Tensor]] = ()) -> Tensor:
        return launch(kernel, calls, fresh)

    def table(self, kernel: Loaded, calls: Sequence[tuple[Cell, Bound]]) -> Table:
        return TritonTable(kernel, self.scalars(calls[0][1].code), calls)


class TritonTable(Called):
    """Parameters that are stepped again by Triton: tables stay on the device."""

    def __init__(self, loaded: Loaded, slots: Slots, calls: Sequence[tuple[Cell, Bound]]) -> None:
        super().__init__(keys_of(loaded.kernel.columns, loaded.places, calls[0][1]), slots, calls)
        self.loaded, self.device = loaded, calls[0][1].weights.device
        self.placed = loaded.placed(tuple(self.shapes), self.device)

    def call(self, hypers: Hypers, counts: Counts, seed: int, known: Known) -> Callable[[], Array]:
        """A call of the kernels that only has to be made; [cells, returned] numbers, for which the host waits."""
        rows, places = self.rows(hypers, counts, known)
        numbers = sent(rows if rows.size else np.zeros(1, dtype=rows.dtype), self.device)
        drawn = sent(self.counters(counts, seed), self.device) if self.draws else None
        pointers = self.placed.point(table_of(self.pointers, places))

        def made() -> Array:
            results = start(self.loaded, self.placed, pointers, numbers, drawn)
            return results.view(self.count, -1).cpu().numpy() if self.loaded.kernel.returned else None

        return made


def launch(loaded: Loaded, calls: Sequence[Bound], fresh: Sequence[Sequence[Tensor]] = ()) -> Tensor:
    """All parameters at once, one launch for each pass; [parameters, returned] numbers on their device. Nothing is waited for."""
    kernel, count, device = loaded.kernel, len(calls), calls[0].weights.device
    tensors = [[*bound.tensors, *row] for bound, row in zip(calls, fresh or [()] * count, strict=True)]
    given = [[part_of(row[place], part) for place, part in loaded.places] for row in tensors]
    seen = [[in_order(x, node) for x, (node, _) in zip(row, kernel.columns, strict=True)] for row in given]
    placed = loaded.placed(tuple(tuple(bound.weights.shape) for bound in calls), device)
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
    arguments = [
        placed.starts, placed.sizes, pointers, rows, placed.starts if drawn is None else drawn, placed.room(placed.count * kernel.sums),
        placed.room(placed.chunks * kernel.sums), results, placed.levels, placed.bins,
    ]  # fmt: skip
    arguments += [placed.shapes, placed.room(placed.lines, rows.dtype)] if kernel.room else []
    run(placed.launches, arguments)
    return results


def run(launches: Sequence[Launch], arguments: Sequence[Tensor]) -> None:
    """The launches, one behind the other."""
    device = arguments[0].device
    elsewhere = device.type == "cuda" and device.index != torch.cuda.current_device()
    with torch.cuda.device(device) if elsewhere else nullcontext(), np.errstate(all="ignore"):  # errors of the interpreter
        for function, table, programs, options in launches:
            function[(programs,)](table, *arguments, **options)


def _rows(calls: Sequence[Bound]) -> tuple[Tensor, Array]:
    """The different rows of numbers, and which of them each parameter has."""
    found = {id(bound.s): bound.s for bound in calls}
    order = {key: place for place, key in enumerate(found)}
    rows = joined(list(found.values())) if len(found) > 1 else calls[0].s
    return (rows if rows.numel() else rows.new_zeros(1)), np.array([order[id(bound.s)] for bound in calls], dtype=np.int64)


def _interprets() -> bool:
    try:
        from optlang.backends.triton.interpreted import INTERPRETED  # noqa: PLC0415 - Triton takes a second to import
    except ImportError:
        return False
    return INTERPRETED
