"""Small parameters that an elementwise function steps end to end, again: see `repeat`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from optlang.backends.again.repeat import GRADIENT, WEIGHTS, Table, key_of
from optlang.backends.again.rows import Counts, Hypers, Known
from optlang.backends.base import Cell
from optlang.backends.device_scalars import sent
from optlang.backends.torch.views import flat

if TYPE_CHECKING:
    from optlang.backends.torch.functions import Bound, Functions

Write = tuple[list[Tensor], list[Tensor]]  # where, and what


class Joined(Table):
    """Parameters whose tensors are put end to end for each step. Raises Unseen."""

    def __init__(self, functions: Functions, calls: Sequence[tuple[Cell, Bound]], compiled: bool) -> None:
        first = calls[0][1]
        keys = [key_of(first, place, 0) for place in range(len(first.code.tensors))]
        super().__init__(keys, functions.scalars(first.code), calls)
        self.functions, self.code, self.compiled, self.like = functions, first.code, compiled, first.s
        self.weights = [cell.weights for cell, _ in calls]
        self.parts = [self._flat(key, calls) for key in keys]

    def _flat(self, key: str, calls: Sequence[tuple[Cell, Bound]]) -> list[Tensor] | None:
        """The tensors of a column as rows that share their memory; gradients are others in each step."""
        if key == GRADIENT:
            return None
        return [flat((cell.weights if key == WEIGHTS else cell.state[key]).detach()) for cell, _ in calls]

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
