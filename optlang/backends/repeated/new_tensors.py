"""Tensors that are new in each step that is taken again.

These are the points to which weights are moved, which kernels hand out, and what the model and the training loop give for each parameter.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from optlang.backends.repeated.calls import Placing, Work, function, in_order
from optlang.backends.repeated.library import Unseen
from optlang.backends.repeated.tables import Tables
from optlang.backends.repeated.watch import DATA, TYPE, Look, Versions, Watch
from optlang.ir import Node

Array = Any  # numpy.ndarray


class Weights:
    """Those of some parameters of one number type, which one call exchanges for others. Raises Unseen."""

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        if len({x.dtype for x in tensors}) != 1:
            raise Unseen
        self.tensors, self.dtype = tensors, tensors[0].dtype
        self.watch = Watch(tensors, [False] * len(tensors))
        self._sizes = [x.numel() for x in tensors]
        self.count = sum(self._sizes)
        self.are_there = True  # where they have been, when they were put back the last time
        self._are_exchanged = np.zeros(1, dtype=np.bool_)
        starts, sizes = self.starts(self.dtype), np.array(self._sizes, dtype=np.int64) * self.dtype.itemsize
        self._others = Work(function("exchanged"), len(tensors), self.watch.pointers, starts, sizes, self._are_exchanged, 0)
        self._exchange = in_order([self._others, Versions(tensors).grow])

    def starts(self, dtype: torch.dtype) -> Array:
        """Where those of each parameter begin among numbers of a type, in bytes."""
        sizes = np.array(self._sizes, dtype=np.int64) * dtype.itemsize
        return np.cumsum(sizes) - sizes

    def views(self, values: Tensor) -> list[Tensor]:
        """As many values, those of one parameter behind those of another, in the shapes of weights."""
        return [x.view(like.shape) for x, like in zip(torch.split(values, self._sizes), self.tensors, strict=True)]

    def at(self, values: Tensor, ask: Callable[[], Any]) -> Any:
        """What is answered while they and other values have changed places; they are put back wherever their memory is by then. Until now
        it must be where it was."""
        self._others.words[-1], self._are_exchanged[0] = values.data_ptr(), False
        try:
            self._exchange()
            return ask()
        finally:
            if self._are_exchanged[0]:  # or an interrupt came first
                self._put_back(values)

    def _put_back(self, values: Tensor) -> None:
        self.are_there = self.watch.holds()
        if self.are_there:
            self._exchange()
        else:
            torch._foreach_copy_([x.detach() for x in self.tensors], self.views(values))


class Points:
    """What kernels hand out in a column of their tables: a number for each element of some weights, in memory that is new in each step."""

    def __init__(self, node: Node, tables: Tables, weights: Weights, dtype: torch.dtype) -> None:
        self.weights, self._dtype = weights, dtype
        self._placing = Placing(weights.starts(dtype), tables.slots(node))
        self._values: Tensor | None = None

    def begin(self) -> None:
        """Kernels may write from now on."""
        self._values = torch.empty(self.weights.count, dtype=self._dtype, device="cpu")
        self._placing.behind(self._values.data_ptr())

    def end(self) -> None:
        """Gives the memory back."""
        self._values = None

    def tensors(self) -> list[Tensor]:
        assert self._values is not None
        return self.weights.views(self._values)

    def at(self, ask: Callable[[], Any]) -> Any:
        """See `Moving`. The points lie nowhere else from now on: they would lie beside all that the model computes."""
        assert self._values is not None
        values = self._values if self._dtype == self.weights.dtype else self._values.to(self.weights.dtype)
        self.end()
        return self.weights.at(values, ask)


class Column:
    """A column of tables for which there are other tensors in each step, of the shapes of weights and of some types. Raises Unseen."""

    def __init__(self, node: Node, tables: Sequence[Tables], weights: Sequence[Tensor], types: Sequence[torch.dtype]) -> None:
        self._look = Look(len(weights))
        if (kind := self._look.at(weights)) is None:
            raise Unseen
        self._kind = kind[:, :DATA].copy()
        samples = self._look.at([torch.empty(0, dtype=dtype, device="cpu") for dtype in types])
        assert samples is not None
        self._kind[:, TYPE] = samples[:, TYPE]
        self._weights, self._pointers = weights, np.zeros(len(weights), dtype=np.int64)
        self._placing = Placing(self._pointers, [slot for some in tables for slot in some.slots(node)])
        self._gradients: Watch | None = None

    def point_to_gradients(self) -> bool:
        """Kernels read those that the weights have now, which must live until they are done. False where they are of another kind."""
        if self._gradients is None or not self._gradients.holds():
            self._gradients = self._watched()
        if self._gradients is None:
            return False
        self.place(self._gradients.pointers)
        return True

    def _watched(self) -> Watch | None:
        try:
            found = Watch(self._weights, [True] * len(self._weights))
        except Unseen:
            return None
        return found if (found.facts[:, :DATA] == self._kind).all() else None

    def point(self, tensors: Sequence[Tensor]) -> Sequence[Tensor] | None:
        """Kernels read these from now on, or what has the same numbers in order, which must live until they are done. None where
        tensors are of another kind."""
        if (found := self._look.at(tensors)) is None and all(x.layout == torch.strided for x in tensors):
            tensors = [x.resolve_neg().contiguous() for x in tensors]
            found = self._look.at(tensors)
        if found is None or (found[:, :DATA] != self._kind).any():
            return None
        self.place(found[:, DATA])
        return tensors

    def place(self, pointers: Array) -> None:
        """Kernels read the memory there from now on."""
        self._pointers[:] = pointers
        self._placing()
