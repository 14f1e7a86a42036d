"""Calls of our own library: what one is given lies in one piece of memory, so that several can be made by one."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np

from optlang.backends.repeated.library import library, pointer

Array = Any  # numpy.ndarray


class Work:
    """A function of our own with all that it is given in one piece of memory: pointers, and whole numbers that are not negative."""

    def __init__(self, function: Any, *given: Any) -> None:
        self.function, self.words = function, np.zeros(len(given), dtype=np.uint64)
        self._pointer = pointer(self.words)
        self.give(*given)

    def give(self, *given: Any) -> None:
        """Something else in its place."""
        self._held = given
        self.words[:] = [x.ctypes.data if isinstance(x, np.ndarray) else x for x in given]

    def __call__(self) -> None:
        self.function(self._pointer)


class Placing(Work):
    """Puts pointers, or what lies so much behind `base`, into `slots`: the addresses for some of them, by their places."""

    def __init__(self, pointers: Array, slots: Sequence[tuple[int, int]]) -> None:
        places, to = np.array(slots, dtype=np.uint64).reshape(-1, 2).T.copy()
        super().__init__(function("placed"), len(to), pointers.ctypes.data + pointers.strides[0] * places, to, 0)
        self._pointers = pointers

    def behind(self, base: int) -> None:
        self.words[-1] = base
        self()


class Whole:
    """Work that writes all of a step by one call, so that no interrupt comes in between. `held`: what must live until then, for it is
    read; `told`: what the step tells."""

    def __init__(self, works: Sequence[Work], told: Callable[[], dict[str, Any]] | None = None) -> None:
        self._works, self._told, self._call = works, told, in_order(works)
        self._followed: Whole | None = None
        self.held: Any = None

    def __call__(self) -> dict[str, Any] | None:
        self._call()
        self.held = None
        return None if self._told is None else self._told()

    def followed(self, last: Work) -> Whole:
        """The same with more work at its end."""
        if self._followed is None or self._followed._works[-1] is not last:
            self._followed = Whole([*self._works, last], self._told)
        self._followed.held, self.held = self.held, None
        return self._followed


def in_order(some: Sequence[Work]) -> Work:
    """All of it by one call: Python takes longer to begin it than most of it takes."""
    table = np.array([[address(one.function), one.words.ctypes.data] for one in some], dtype=np.uint64)
    made = Work(function("in_order"), len(some), table)
    made._held = (*some, table)
    return made


@cache
def function(name: str) -> Any:
    """Of the library, while others may use Python."""
    return getattr(ctypes.CDLL(library()[0]._name), name)


def address(function: Any) -> int:
    """Where a function is."""
    return ctypes.cast(function, ctypes.c_void_p).value or 0
