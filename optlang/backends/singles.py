"""States of one number each, and what parameters contribute to such: read, reduced and written by a library of our own, as torch takes
longer to say where a number is than to compute it."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from optlang.backends.watch import WORD, Versions, Watch, library, pointer

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
        self._library, _ = library()
        self.watch, self._versions = Watch(list(here.values()), [False] * len(here)), Versions(list(here.values()))
        self._elsewhere = {name: Elsewhere(x) for name, x in tensors.items() if name not in here}
        self._read, self._written = read, written
        self._given = [_listed(here, row) for row in (read, written)]

    def read(self) -> None:
        """Puts what they hold into its places. None must have moved: see `watch`."""
        self._library.fetched(*self._given[0][1])
        for name, x in self._elsewhere.items():
            row, places = self._read
            row[places[name]] = x.value

    def write(self) -> None:
        """The new values, rounded to their types; what is beyond these is infinite. None must have moved."""
        self._library.stored(*self._given[1][1])
        row, places = self._written
        for name, x in self._elsewhere.items():
            if name in places:
                x.value = row[places[name]].item()
        self._versions.grow()


class Reduction:
    """Contributions of all parameters become values per model: each column, divided by a share, goes into its place of a row."""

    def __init__(self, ops: Sequence[str], shares: Sequence[float], row: Array, places: Sequence[int]) -> None:
        self._library, _ = library()
        ways, targets = np.array([WAYS.index(op) for op in ops]), row.ctypes.data + WORD * np.array(places, dtype=np.int64)
        self._held = row, ways, np.array(shares), targets
        self._columns, self._given = ctypes.c_int64(len(ops)), [*map(pointer, self._held[1:])]
        self._answers: tuple[Any, Any] = None, ()

    def reduce(self, answers: Array) -> None:
        """Of [parameters, columns]."""
        if answers is not self._answers[0]:
            there = np.ascontiguousarray(answers, dtype=np.float64)
            self._answers = answers, (there, ctypes.c_int64(len(there)), self._columns, pointer(there))
        self._library.reduced(*self._answers[1][1:], *self._given)


def _listed(tensors: Mapping[str, Tensor], row: Row) -> tuple[Array, list[Any]]:
    """For C++: where each number is, its type, and where it belongs in a row."""
    values, places = row
    some = [(x.data_ptr(), TYPES.index(x.dtype), values.ctypes.data + WORD * places[name]) for name, x in tensors.items() if name in places]
    found = np.array(some, dtype=np.uint64).reshape(-1, 3)
    return found, [ctypes.c_int64(len(found)), pointer(found)]


def _is_here(x: Tensor) -> bool:
    return type(x) is Tensor and x.device.type == "cpu" and x.numel() == 1 and x.dtype in TYPES
