"""States of one number each, and what parameters contribute to such: read, reduced and written by a library of our own, as torch takes
longer to say where a number is than to compute it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from optlang.backends.repeated.calls import Work, function
from optlang.backends.repeated.library import WORD
from optlang.backends.repeated.watch import Versions, Watch

Array = Any  # numpy.ndarray
Row = tuple[Array, Mapping[str, int]]  # numbers, and the places of some by their names
TYPES = (torch.float32, torch.float64, torch.bool)  # as `Single` of values.h counts them
WAYS = ("sum", "amax", "amin")  # as `reduced` does


class Elsewhere:
    """A number that torch reads and writes: it is on another device, or of another type."""

    def __init__(self, tensor: Tensor) -> None:
        self._tensor = tensor

    @property
    def value(self) -> Any:
        return self._tensor.item()

    @value.setter
    def value(self, number: Any) -> None:
        try:
            self._tensor.fill_(number)
        except RuntimeError:  # beyond its number type: then it is infinite
            self._tensor.copy_(torch.tensor(number, dtype=torch.float64))


class Singles:
    """Tensors of one number each by their names. `read`: a row for what they hold, with the place of each; `written`: the same of new
    values. Raises Unseen for what cannot be watched."""

    def __init__(self, tensors: Mapping[str, Tensor], read: Row, written: Row) -> None:
        here = {name: x for name, x in tensors.items() if _is_here(x)}
        self.watch, self._versions = Watch(list(here.values()), [False] * len(here)), Versions(list(here.values()))
        self._elsewhere = {name: Elsewhere(x) for name, x in tensors.items() if name not in here}
        self._read, self._written = read, written
        self.fetch, self._store = Work(function("fetched"), *_listed(here, read)), Work(function("stored"), *_listed(here, written))
        self.writing = self._store, self._versions.grow

    @property
    def are_here(self) -> bool:
        """Whether to `fetch` is all there is to read."""
        return not self._elsewhere

    def read(self) -> None:
        """Puts what they hold into its places. None must have moved: see `watch`."""
        self.fetch()
        for name, x in self._elsewhere.items():
            row, places = self._read
            row[places[name]] = x.value

    def write(self) -> None:
        """The new values, rounded to their types; what is beyond these is infinite. None must have moved."""
        self._store()
        row, places = self._written
        for name, x in self._elsewhere.items():
            if name in places:
                x.value = row[places[name]].item()
        self._versions.grow()


class Reduction:
    """Contributions of all parameters become values per model: each column, divided by a share, goes into its place of a row."""

    def __init__(self, ops: Sequence[str], shares: Sequence[float], row: Array, places: Sequence[int]) -> None:
        ways, targets = np.array([WAYS.index(op) for op in ops]), row.ctypes.data + WORD * np.array(places, dtype=np.int64)
        self._row, self._rest = row, (ways, np.array(shares), targets)
        self._answers: Any = None
        self.work = Work(function("reduced"), 0, len(ops), row, *self._rest)

    def of(self, answers: Array) -> None:
        """What is to be reduced: [parameters, columns]."""
        if answers is not self._answers:
            self._answers, there = answers, np.ascontiguousarray(answers, dtype=np.float64)
            self.work.give(*there.shape, there, *self._rest)


def _listed(tensors: Mapping[str, Tensor], row: Row) -> tuple[int, Array]:
    """For C++: where each number is, its type, and where it belongs in a row."""
    values, places = row
    some = [(x.data_ptr(), TYPES.index(x.dtype), values.ctypes.data + WORD * places[name]) for name, x in tensors.items() if name in places]
    return len(some), np.array(some, dtype=np.uint64).reshape(-1, 3)


def _is_here(x: Tensor) -> bool:
    return type(x) is Tensor and x.device.type == "cpu" and x.numel() == 1 and x.dtype in TYPES
