"""What kernels find their tensors by: tables on the device, sent again only where something in them has changed.

While a CUDA graph is recorded nothing may be copied from the host's own memory; then a kernel fetches the table from memory
that both can read, at every replay. So whatever a graph reads is kept for good, and never written into again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce
from operator import or_
from typing import Any

import numpy as np
import torch
from torch import Tensor

from optlang.backends.base import StepError
from optlang.backends.device_scalars import is_capturing
from optlang.backends.triton import source
from optlang.backends.triton.layout import layout

Array = Any  # numpy.ndarray
BLOCK = 1024
SPARES = 2  # captures without an ordinary step between them
Grids = dict[str, list[tuple[Tensor, int, Mapping[str, int]]]]  # the table of each, its programs, and what kernels are compiled for
Launch = tuple[Any, Tensor, int, Mapping[str, int]]  # a function, the table of its programs, how many these are, and its options
_held: list[Any] = []  # what captured graphs read


class Tables:
    """Those of one kernel over parameters of some shapes."""

    def __init__(self, kernel: source.Kernel, shapes: Sequence[tuple[int, ...]], device: torch.device) -> None:
        if is_capturing():
            raise StepError("a CUDA graph is being captured, but these parameters have not been stepped together before: take an "
                            "ordinary step first, with the same parameters")  # fmt: skip
        self.device, self.count = device, len(shapes)
        found = layout(kernel.room, shapes)
        self.chunks, self.lines = int(found.starts[-1]), found.room
        grids = [grid for wave in found.waves for some in wave.values() for grid in some]
        sent = _on(device, [found.starts, found.sizes, found.shapes, *(grid.table for grid in grids)])
        self.starts, self.sizes, self.shapes, *tables = sent
        there = iter([(table, len(grid.table), grid.constants) for grid, table in zip(grids, tables, strict=True)])
        self.waves: list[Grids] = [{over: [next(there) for _ in some] for over, some in wave.items()} for wave in found.waves]
        self.launches: list[Launch] = []
        self.levels, self.bins = kernel.tables.levels.to(device), kernel.tables.bins.to(device)
        self.nothing = torch.zeros(1, dtype=torch.float64, device=device)
        self.width = len(kernel.columns) + source.BESIDE
        self.known: Array = np.full((self.count, self.width), -1, dtype=np.int64)
        self.pointers = torch.zeros(self.known.size, dtype=torch.int64, device=device)
        self.spares = [_shared(self.known.size, device) for _ in range(SPARES)]
        _fetch(self.spares[0], self.pointers)  # so that the kernel is there when a graph needs it

    def point(self, table: Array) -> Tensor:
        """The table of pointers on the device."""
        if is_capturing():
            return self._in_graph(table)
        if not np.array_equal(table, self.known):
            [self.pointers] = _on(self.device, [table])
            self.known = table
        while len(self.spares) < SPARES:
            self.spares.append(_shared(table.size, self.device))
        return self.pointers

    def room(self, count: int, dtype: torch.dtype = torch.float64) -> Tensor:
        """For so many results of chunks, tensors or lines, whatever is in it."""
        return torch.empty(count, dtype=dtype, device=self.device) if count else self.nothing.to(dtype)

    def _in_graph(self, table: Array) -> Tensor:
        if np.array_equal(table, self.known):
            _held.append((self, self.pointers))
            return self.pointers
        if not self.spares:
            raise StepError("a CUDA graph is being captured for the third time in a row: take an ordinary step between captures")
        shared, target = self.spares.pop(), torch.empty_like(self.pointers)
        shared.numpy()[: table.size] = table.reshape(-1)
        _fetch(shared, target)
        _held.append((self, shared, target))
        return target


def table_of(pointers: Array, places: Array) -> Array:
    """[tensors, columns + 2]: pointers, whether all of them are aligned, and the place of the row of numbers."""
    made = np.empty((len(pointers), pointers.shape[1] + source.BESIDE), dtype=np.int64)
    made[:, : -source.BESIDE] = pointers
    made[:, -2] = reduce(or_, pointers.T, np.zeros(len(pointers), dtype=np.int64)) & 15 == 0
    made[:, -1] = places
    return made


def _on(device: torch.device, tables: Sequence[Array]) -> list[Tensor]:
    """Tables of whole numbers on a device, by one transfer; each begins where 16 bytes do, so that kernels are compiled once."""
    padded = [np.concatenate([table.reshape(-1), np.zeros(2 - table.size % 2, dtype=np.int64)]) for table in tables]
    flat = torch.from_numpy(np.concatenate(padded))
    if device.type == "cuda":
        flat = flat.pin_memory().to(device, non_blocking=True)
    return list(torch.split(flat, [len(table) for table in padded]))


def _shared(size: int, device: torch.device) -> Tensor:
    """Memory of the host that the device can read."""
    return torch.zeros(max(size, 1), dtype=torch.int64, pin_memory=device.type == "cuda")


def _fetch(shared: Tensor, target: Tensor) -> None:
    from optlang.backends.triton.prelude import fetch  # noqa: PLC0415 - Triton takes a second to import

    if target.numel():
        fetch[(-(-target.numel() // BLOCK),)](shared, target, target.numel(), BLOCK)
