"""The same parameters stepped again by C++: see `repeat`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from optlang.backends.base import Cell
from optlang.backends.cpp.layout import layout
from optlang.backends.repeated.calls import Work, address, function
from optlang.backends.repeated.rows import Counts, Hypers, Known
from optlang.backends.repeated.tables import Called, keys_of
from optlang.backends.torch.bound import Bound, Slots

if TYPE_CHECKING:
    from optlang.backends.cpp.kernels import Loaded

Array = Any  # numpy.ndarray


class CppTable(Called):
    """Parameters that are stepped again by C++."""

    takes_new = True

    def __init__(self, loaded: Loaded, slots: Slots, calls: Sequence[tuple[Cell, Bound]]) -> None:
        super().__init__(keys_of(loaded.kernel.columns, loaded.places, calls[0][1]), slots, calls)
        self.step, sums = loaded.step, loaded.kernel.sums  # the kernel stays as long as this
        self.layout = layout(loaded.kernel.room, self.shapes)
        self.room = np.empty((len(calls) + int(self.layout.starts[-1])) * sums + 1)
        self.results = np.empty((len(calls), loaded.kernel.returned))
        self.drawn = np.zeros((len(calls), 3), dtype=np.uint32)
        self.row_of = np.zeros(len(calls), dtype=np.int64)
        self._placed: tuple[Array, Array] = np.empty(0), np.empty(0)  # the rows, and which of them each parameter has
        found = self.layout
        given = (self.sizes, found.starts, self.pointers, self.row_of, self.drawn, self.room, self.results, found.shapes, found.lines)
        self._kernel = Work(function("called"), address(self.step), len(calls), *given)

    def call(self, hypers: Hypers, counts: Counts, seed: int, known: Known) -> Callable[[], Array]:
        """A call of the kernel that only has to be made; [cells, returned] numbers."""
        rows, places = self.rows(hypers, counts, known)
        self._place(rows, places, counts, seed)
        return self._made

    def settle(self, hypers: Hypers, counts: int, seed: int) -> None:
        places = self.own_rows.settle(hypers, counts)  # may change where rows are
        self._place(self.numbers.found, places, counts, seed)

    def works(self, known: Known) -> list[Work]:
        rows = self.numbers.given
        if not isinstance(self.among, slice) or len(rows) != len(self.own_rows.kinds):
            return []
        given = [Work(function("copied"), *rows.shape, len(self.shared), known, rows)] if self.shared else []
        return [*given, self.numbers.made, self._kernel]

    def answered(self) -> Array:
        return self.results

    def _place(self, rows: Array, places: Array, counts: Counts, seed: int) -> None:
        if rows is not self._placed[0] or places is not self._placed[1]:
            self._placed = rows, places
            self.row_of[:] = rows.ctypes.data + rows.strides[0] * places
        if self.draws:
            self.drawn[:] = self.counters(counts, seed)

    def _made(self) -> Array:
        self._kernel()
        return self.results
