"""Small parameters that a function of torch steps together, again: see `repeat`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from optlang.backends.base import Cell
from optlang.backends.device_scalars import sent
from optlang.backends.repeated.calls import Work, function
from optlang.backends.repeated.library import Unseen
from optlang.backends.repeated.rows import Counts, Hypers, Known
from optlang.backends.repeated.tables import GRADIENT, WEIGHTS, Key, Table, whole_keys
from optlang.backends.torch import batches
from optlang.backends.torch.bound import Bound
from optlang.backends.torch.views import flat, view

if TYPE_CHECKING:
    from optlang.backends.torch.functions import Functions

Write = tuple[list[Tensor], list[Tensor]]  # where, and what


class Joined(Table):
    """Parameters whose tensors are put end to end for each step. Raises Unseen."""

    def __init__(self, functions: Functions, calls: Sequence[tuple[Cell, Bound]], compiled: bool) -> None:
        first = calls[0][1]
        keys = whole_keys(first)
        super().__init__(keys, functions.scalars(first.code), calls)
        self.functions, self.code, self.compiled, self.like = functions, first.code, compiled, first.s
        self.weights = [cell.weights for cell, _ in calls]
        self.parts = [self._flat(key, calls) for key in keys]

    def _flat(self, key: Key, calls: Sequence[tuple[Cell, Bound]]) -> list[Tensor] | None:
        """The tensors of a column as rows that share their memory; gradients are others in each step."""
        if key == GRADIENT:
            return None
        return [flat((cell.weights if key == WEIGHTS else cell.state[str(key)]).detach()) for cell, _ in calls]

    @torch.no_grad()
    def ready(self, hypers: Hypers, counts: Counts, seed: int, known: Known) -> Callable[[], None]:
        """All is computed, and what this returns writes it; that asks for no memory."""
        rows, places = self.rows(hypers, counts, known)
        gradients: list[Tensor] = [flat(p.grad) for p in self.weights]
        parts = [gradients if part is None else part for part in self.parts]
        writes: list[Write] = []
        for number, row in enumerate(rows):
            mine = np.flatnonzero(places == number).tolist() if len(rows) > 1 else None
            own = parts if mine is None else [[part[i] for i in mine] for part in parts]
            numbers = sent(tuple(row.tolist()), self.like.device, self.like.dtype)
            writes += [(own[place], values) for place, values in self.functions.together(self.code, own, numbers, self.compiled)]

        def write() -> None:
            for targets, values in writes:
                torch._foreach_copy_(targets, values)

        return write


class Stacked(Table):
    """Parameters of one shape in the memory of the host, which are put side by side for each step. Raises Unseen."""

    def __init__(self, functions: Functions, calls: Sequence[tuple[Cell, Bound]]) -> None:
        first = calls[0][1]
        code = self.code = first.code
        if first.weights.device.type != "cpu":
            raise Unseen
        keys = whole_keys(first)
        super().__init__(keys, functions.scalars(code), calls)
        self.function, self.first = functions.uncompiled(code), first.first
        tensors = [x for x in first.tensors if isinstance(x, Tensor)]  # all: what is packed is not stepped so
        seen = [view(x, node.type, code.shaped) for x, node in zip(tensors, code.tensors, strict=True)]
        self.kinds = [((len(calls), *x.shape), x.dtype) for x in seen]
        self.places = np.zeros(len(keys), dtype=np.uint64)  # where they are put
        sizes = np.array([x.nbytes for x in tensors], dtype=np.int64)
        written = np.array([place in code.written for place in range(len(keys))], dtype=np.bool_)
        given = len(calls), len(keys), self.pointers, sizes, self.places
        self._gather, self._scatter = Work(function("gathered"), *given), Work(function("scattered"), *given, written)

    @torch.no_grad()
    def ready(self, hypers: Hypers, counts: Counts, seed: int, known: Known) -> Callable[[], None]:
        """All is computed, and what this returns writes it; that asks for no memory."""
        rows, places = self.rows(hypers, counts, known)
        together = [torch.empty(shape, dtype=dtype, device="cpu") for shape, dtype in self.kinds]
        self.places[:] = [x.data_ptr() for x in together]
        self._gather()
        s = torch.from_numpy(rows[places] if len(places) > 1 and (rows != rows[0]).any() else rows[0].copy())  # NaN is not NaN
        counters = torch.from_numpy(np.pad(self.counters(counts, seed), ((0, 0), (0, 1)))) if self.draws else None
        batches.mapped(self.code, self.function, together, s, counters, self.first)
        return partial(self._write, together)

    def _write(self, together: Sequence[Tensor]) -> None:
        """Puts back what is in there, which must live until then."""
        self._scatter()
        self.versions.grow()
