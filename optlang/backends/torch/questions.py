"""What a step that is taken again asks of the model, and what the training loop gives it: see `staged`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import torch
from torch import Tensor

from optlang.backends.base import Batch, Cell, StepError
from optlang.backends.repeated.library import Unseen
from optlang.backends.repeated.new_tensors import Column, Points
from optlang.backends.repeated.rows import one_number
from optlang.backends.repeated.saved_gradients import PLAIN, gradients_of
from optlang.backends.repeated.tables import Tables
from optlang.backends.repeated.watch import Grip, Watches
from optlang.backends.torch.work import computing, input_of
from optlang.ir import Node
from optlang.types import ELEMENT

Array = Any  # numpy.ndarray
CPU = torch.device("cpu")
Read = Sequence[Any] | None  # what kernels will read, and must live until then; None: it is not for them


@dataclass(frozen=True)
class Question:
    """`op`: "grad", "hvp" or "loss_at". What is answered for each parameter goes into a column, a loss into its `place` of a row."""

    op: str
    points: Points
    answer: Column | None
    row: Array
    place: int

    def ask(self, batch: Batch) -> Read:
        assert self.answer is not None  # of losses several are asked for at once
        cells = self.points.weights.tensors
        if self.op == "hvp":
            return self.answer.point(batch.hessian(cells, self.points.tensors()))
        found: Read = batch.at(cells, self.points, self._gradients)
        return found

    def _gradients(self, kept: Any) -> Read:
        assert self.answer is not None
        return [kept] if self.answer.point_to_gradients() else self.answer.point(gradients_of(self.points.weights.tensors))


class Asked:
    """Questions that are put to the model together. `rest`: what is looked at again then, for the closure may do anything."""

    def __init__(self, questions: Sequence[Question], rest: Watches) -> None:
        self._questions, self._rest, self._weights = questions, rest, questions[0].points.weights
        self._products = [one for one in questions if one.op == "hvp"]
        others = groupby([one for one in questions if one.op != "hvp"], lambda one: one.answer is None)
        self._others = [(is_loss, list(some)) for is_loss, some in others]  # in the order in which they are asked

    def ask(self, batch: Batch, work: Callable[[], None], keep: Grip | None) -> list[Read] | None:
        """What the model answers, when `work` has written the points. None where memory has changed, or answers are of another kind."""
        found, weights = list[Read](), self._weights
        try:
            for one in self._questions:
                one.points.begin()
            work()
            if self._products:
                found += self._of_one_graph(batch)
            weights.are_there = not self._products or weights.watch.holds()
            for is_loss, some in self._others:
                if is_loss:
                    self._losses(some, batch)
                else:
                    found += [one.ask(batch) for one in some if weights.are_there]
        finally:
            for one in self._questions:
                one.points.end()
        return found if weights.are_there and None not in found and self._rest.hold(keep) else None

    def _losses(self, some: Sequence[Question], batch: Batch) -> None:
        points = (one.points for one in some if self._weights.are_there)
        for one, loss in zip(some, batch.losses(self._weights.tensors, points), strict=False):
            one.row[one.place] = one_number(loss)

    def _of_one_graph(self, batch: Batch) -> list[Read]:
        with batch.one_graph() if len(self._products) > 1 else nullcontext():
            return [one.ask(batch) for one in self._products]


class Input:
    """An input that some tables read. Raises Unseen where it is not one number for each element."""

    def __init__(self, node: Node, tables: Sequence[Tables], cells: Sequence[Cell]) -> None:
        if node.type.kind != "real" or node.type.extent != ELEMENT:
            raise Unseen
        self._node, self._cells, self._weights = node, cells, [cell.weights for cell in cells]
        types = [computing(x.dtype) for x in self._weights]
        self._column = Column(node, tables, self._weights, types)
        self._most = {kind: max(x.numel() for x, t in zip(self._weights, types, strict=True) if t == kind) for kind in dict.fromkeys(types)}
        self._which = np.array([list(self._most).index(kind) for kind in types], dtype=np.int64)

    def point(self, inputs: Mapping[str, Any]) -> Read:
        """Kernels read what is given in this step from now on. None where the long way says what is wrong."""
        given = inputs.get(self._node.value)
        try:
            if given is not None and not isinstance(given, Mapping):
                value = given if isinstance(given, Tensor) else torch.as_tensor(np.asarray(given))
                if not value.ndim:
                    return self._filled(value)
            each: list[Any] = list(map(given.get, self._weights)) if isinstance(given, Mapping) else [given] * len(self._weights)
            found = self._column.point(each) if set(map(type, each)) <= PLAIN else None
            return found or self._column.point([self._made(x, cell) for x, cell in zip(each, self._cells, strict=True)])
        except StepError:
            return None

    def _filled(self, value: Tensor) -> Read:
        """One number for all elements: written out for the largest parameter of each type, and read for the others as well."""
        made = [torch.empty(most, dtype=kind, device=CPU).copy_(value) for kind, most in self._most.items()]
        self._column.place(np.array([x.data_ptr() for x in made])[self._which])
        return made

    def _made(self, given: Any, cell: Cell) -> Tensor:
        return input_of(self._node, given, cell).contiguous()
