"""Tensors that are new in each step that is taken again.

These are the points to which weights are moved, which kernels hand out, and what the model and the training loop give for each parameter.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from optlang.backends.repeated.calls import Work, function
from optlang.backends.repeated.library import Unseen
from optlang.backends.repeated.tables import Tables
from optlang.backends.repeated.watch import DATA, TYPE, Look, Versions, Watch
from optlang.ir import Node

Array = Any  # numpy.ndarray


class Weights:
    """Those of some parameters of one number type, which one call copies. Raises Unseen."""

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        if len({x.dtype for x in tensors}) != 1:
            raise Unseen
        self.tensors, self.dtype = tensors, tensors[0].dtype
        self.watch, self._versions = Watch(tensors, [False] * len(tensors)), Versions(tensors)
        self._sizes = [x.numel() for x in tensors]
        self.count = sum(self._sizes)
        bytes_of = np.array(self._sizes, dtype=np.int64) * self.dtype.itemsize
        self._starts, self._other = self.starts(self.dtype), np.zeros_like(bytes_of)
        self._take = Work(function("moved"), len(tensors), self._other, self.watch.pointers, bytes_of)
        self._put = Work(function("moved"), len(tensors), self.watch.pointers, self._other, bytes_of)

    def starts(self, dtype: torch.dtype) -> Array:
        """Where those of each parameter begin among numbers of a type, in bytes."""
        sizes = np.array(self._sizes, dtype=np.int64) * dtype.itemsize
        return np.cumsum(sizes) - sizes

    def views(self, values: Tensor) -> list[Tensor]:
        """As many values, those of one parameter behind those of another, in the shapes of weights."""
        return [x.view(like.shape) for x, like in zip(torch.split(values, self._sizes), self.tensors, strict=True)]

    def copied(self) -> Tensor:
        """What they are."""
        if not self.watch.holds():
            return torch.cat([x.detach().reshape(-1) for x in self.tensors])
        made = torch.empty(self.count, dtype=self.dtype, device="cpu")
        np.add(self._starts, made.data_ptr(), out=self._other)
        self._take()
        return made

    def put(self, values: Tensor) -> None:
        """Makes them others, wherever they are by now."""
        if values.dtype != self.dtype or not self.watch.holds():
            torch._foreach_copy_([x.detach() for x in self.tensors], self.views(values))
            return
        np.add(self._starts, values.data_ptr(), out=self._other)
        self._put()
        self._versions.grow()


class Points:
    """What kernels hand out in a column of their tables: a number for each element of some weights, in memory that is new in each step."""

    def __init__(self, node: Node, tables: Tables, weights: Weights, dtype: torch.dtype) -> None:
        self._node, self._tables, self.weights, self._dtype = node, tables, weights, dtype
        self._starts = weights.starts(dtype)
        self._values: Tensor | None = None

    def begin(self) -> None:
        """Kernels may write from now on."""
        self._values = torch.empty(self.weights.count, dtype=self._dtype, device="cpu")
        self._tables.point(self._node, self._starts + self._values.data_ptr())

    def end(self) -> None:
        """Gives the memory back."""
        self._values = None

    def tensors(self) -> list[Tensor]:
        assert self._values is not None
        return self.weights.views(self._values)

    @contextmanager
    def moved(self) -> Iterator[None]:
        """See `Moving`."""
        assert self._values is not None
        kept = self.weights.copied()
        try:
            self.weights.put(self._values)
            self.end()  # they would lie beside all that the model computes
            yield
        finally:
            self.weights.put(kept)


class Column:
    """A column of tables for which there are other tensors in each step, of the shapes of weights and of some types. Raises Unseen."""

    def __init__(self, node: Node, tables: Sequence[Tables], weights: Sequence[Tensor], types: Sequence[torch.dtype]) -> None:
        self._node, self._tables = node, tables
        self._look = Look(len(weights))
        if (kind := self._look.at(weights)) is None:
            raise Unseen
        self._kind = kind[:, :DATA].copy()
        samples = self._look.at([torch.empty(0, dtype=dtype, device="cpu") for dtype in types])
        assert samples is not None
        self._kind[:, TYPE] = samples[:, TYPE]

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
        for some in self._tables:
            some.point(self._node, pointers)
