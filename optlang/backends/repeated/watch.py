"""Looks at all tensors of an optimizer at once: what Python would ask each of them takes longer than a step of small ones."""

from __future__ import annotations

import _thread
import ctypes
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from operator import is_
from typing import Any

import numpy as np
from torch import Tensor

from optlang.backends.repeated import tensor_words
from optlang.backends.repeated.calls import Work, function
from optlang.backends.repeated.library import FACTS, WORD, Unseen, library, places, pointer

Array = Any  # numpy.ndarray
CAPSULE = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)(("PyCapsule_New", ctypes.pythonapi))
INSIDE = ctypes.cast(ctypes.pythonapi.PyCapsule_GetPointer, ctypes.c_void_p)
TYPE, DATA = FACTS.index("type"), FACTS.index("data")


class Room:
    """For so many tensors, which it keeps for as long as it lives. Raises MemoryError."""

    def __init__(self, count: int) -> None:
        self._library, self._outside = library()
        if not (place := self._library.room(self._outside, ctypes.c_int64(count), INSIDE)):
            raise MemoryError
        self._capsule = CAPSULE(place, None, self._library.end_room)
        self.place = ctypes.c_void_p(place)

    def exchange(self, parameters: list[Tensor]) -> None:
        """What it keeps and the gradients of so many parameters change places."""
        self._library.exchange_gradients(self._outside, ctypes.c_void_p(id(parameters)), self.place)

    def drop(self, parameters: list[Tensor]) -> None:
        """Parameters have no gradients from now on."""
        self._library.drop_gradients(self._outside, ctypes.c_void_p(id(parameters)))


class Grip:
    """Keeps the gradients that a step has seen for as long as it lives: other threads of Python may let go of them before they are read."""

    def __init__(self) -> None:
        self._rooms: list[Room] = []

    def room(self, count: int) -> ctypes.c_void_p:
        """For so many tensors. Raises MemoryError."""
        self._rooms.append(Room(count))
        return self._rooms[-1].place


def grip() -> Grip | None:
    """None where nobody else is there, as to keep a gradient takes longer than to look at it."""
    return Grip() if _thread._count() else None


class Watch:
    """Tensors, or gradients of tensors, that lie in order; `pointers` to their memory, in a row; `facts`: what they are. Raises Unseen for
    others."""

    def __init__(self, tensors: Sequence[Tensor], are_gradients: Sequence[bool]) -> None:
        self._library, outside = library()
        self._tensors, count = tensors, len(tensors)
        self.facts = np.empty((count, len(FACTS)), dtype=np.int64)
        self._arrays = (places(tensors), np.array(are_gradients, dtype=np.bool_), self.facts)
        self._given = [outside, ctypes.c_int64(count), *map(pointer, self._arrays)]
        if not self._library.look(*self._given):
            raise Unseen
        self.pointers = self.facts[:, DATA].copy()
        self.wanted = self.pointers.ctypes.data + WORD * np.arange(count)  # where `Watches` puts them
        self._kinds, self._kind = self._sorted(count)
        self._places = np.zeros((count, 3), dtype=np.uint64)
        self._given += map(pointer, (self._kinds, self._kind, self._places, self.pointers))

    def _sorted(self, count: int) -> tuple[Array, Array]:
        """The kinds of tensors, and which is that of each."""
        masks, kind = tensor_words.masks(), np.full(count, -1, dtype=np.int64)
        if masks is None:
            return np.zeros(1), kind
        found = np.empty((count, 2, masks.shape[1]), dtype=np.uint64)
        known = self._library.sorted(*self._given[:4], *map(pointer, (masks, found, kind)))
        return found[:known].copy(), kind

    def spread(self, rows: int, columns: int, places: Sequence[int]) -> Array:
        """A table of which some columns are those that are watched here, by `Watches` from now on."""
        table = np.zeros((rows, columns), dtype=np.int64)
        table[:, places] = self.pointers.reshape(len(table), len(places))
        self.wanted = (table.ctypes.data + WORD * np.arange(table.size)).reshape(table.shape)[:, places].reshape(-1)
        return table

    def holds(self, keep: Grip | None = None) -> bool:
        """Whether all are as they were; gradients may be others of their kind. If not, `pointers` are no longer of use."""
        return bool(self._library.hold(*self._given, None if keep is None else keep.room(len(self._tensors))))


class Look:
    """At up to so many tensors, which are others each time."""

    def __init__(self, most: int) -> None:
        self._library, self._outside = library()
        self._arrays = np.zeros(most, dtype=np.uint64), np.zeros(most, dtype=np.bool_), np.empty((most, len(FACTS)), dtype=np.int64)
        self._given = [pointer(array) for array in self._arrays]

    def at(self, tensors: Sequence[Tensor]) -> Array | None:
        """[tensors, `FACTS`], to be read only until the next look; None where one of them is not to be had or not in order."""
        objects, _, facts = self._arrays
        objects[: len(tensors)] = list(map(id, tensors))
        return facts[: len(tensors)] if self._library.look(self._outside, ctypes.c_int64(len(tensors)), *self._given) else None


class Watches:
    """Several, of which some look at the same tensors: these are looked at once. From now on all hold when this does, and those `but` for
    which nobody is to look. Raises Unseen."""

    def __init__(self, some: Sequence[Watch], but: Sequence[Tensor] = ()) -> None:
        left = {(id(x), False) for x in but}
        keys = [[(id(x), bool(g)) for x, g in zip(one._tensors, one._arrays[1], strict=True)] for one in some]
        looked = {key: x for one, row in zip(some, keys, strict=True) for key, x in zip(row, one._tensors, strict=True) if key not in left}
        places = {key: place for place, key in enumerate(looked)}
        self._watch = Watch(list(looked.values()), [g for _, g in looked])
        self._some = list(some)
        pairs = [(places[key], one, n) for one, row in zip(some, keys, strict=True) for n, key in enumerate(row) if key[1]]
        found = [[self._watch.wanted[place], one.wanted[n]] for place, one, n in pairs]
        self._pairs = np.array(found, dtype=np.uint64).reshape(-1, 2).T.copy()
        self._given = [*self._watch._given, ctypes.c_int64(len(found)), *map(pointer, self._pairs)]

    def hold(self, keep: Grip | None = None) -> bool:
        """As `Watch.holds`, of all of them."""
        return bool(self._watch._library.hold_for(*self._given, None if keep is None else keep.room(len(self._watch._tensors))))


class Counts:
    """Tensors of one number each that lie in `numbers`, one behind the other. Raises Unseen."""

    def __init__(self, tensors: Sequence[Tensor], numbers: Array) -> None:
        self._library, outside = library()
        self._tensors, self._objects, self._numbers = tensors, places(tensors), numbers
        self._given = outside, ctypes.c_int64(len(tensors)), pointer(self._objects), pointer(numbers)
        if numbers.dtype != np.float32 or not self.hold():
            raise Unseen
        self.grow = Work(function("counted_on"), len(numbers), numbers)  # by one each

    def hold(self) -> int:
        """0 where one of them lies elsewhere; else 1, or 2 where all are the same number."""
        return int(self._library.counted(*self._given))


class Versions:
    """What autograd knows tensors by: it must hear of what is written behind its back. Raises Unseen."""

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        _, outside = library()
        if any(x.is_inference() for x in tensors):
            raise Unseen
        self._tensors, self._objects = tensors, places(tensors)
        self.grow = Work(function("told_written"), ctypes.addressof(outside), len(tensors), self._objects)


class Belongings:
    """Which parameters lists hold, which of them have a gradient, and which objects belong to them in a dictionary of dictionaries.
    Raises Unseen for what is no list or dictionary."""

    def __init__(self, lists: Sequence[list[Tensor]], state: Mapping[Any, Any]) -> None:
        self._library, self._outside = library()
        if not all(type(x) is list for x in lists) or not all(type(x) is dict for x in state.values()):
            raise Unseen
        self._tensors, self._lists, self._state = list(chain.from_iterable(lists)), list(lists), state
        self._held, self._objects = list(state.values()), [[key, *chain.from_iterable(value.items())] for key, value in state.items()]
        self._ids, self.looked = places(lists), np.zeros(len(self._tensors), dtype=np.bool_)
        with_gradient = np.array([p.grad is not None for p in self._tensors], dtype=np.bool_)
        self._arrays = (_numbers(map(len, lists)), places(self._tensors), with_gradient, self.looked)
        self._of_lists = [self._outside, ctypes.c_int64(len(lists)), *map(pointer, (self._ids, *self._arrays))]
        self._dictionaries, self._versions = places([state, *state.values()]), np.zeros(len(state) + 1, dtype=np.uint64)
        self._kept = (places(chain.from_iterable(self._objects)), _numbers(map(len, state.values())))
        some = pointer(self._versions)
        self._of_state = [self._outside, ctypes.c_int64(len(state) + 1), pointer(self._dictionaries), *map(pointer, self._kept), some]
        self._of_versions = [*self._of_state[:3], some]
        self._has_versions = tensor_words.word_of_versions() > 0
        self._library.kept(*self._of_state)

    def leave(self, tensors: Iterable[Tensor]) -> None:
        """To somebody else who looks whether these tensors have a gradient: they must have one in every step."""
        left = set(map(id, tensors))
        self.looked[:] = [id(x) in left for x in self._tensors]

    def have_gradients(self) -> bool:
        """Whether the same parameters have one, those included that were left to others."""
        return all((x.grad is not None) == had for x, had in zip(self._tensors, self._arrays[2].tolist(), strict=True))

    def hold(self, lists: Sequence[list[Tensor]], state: Mapping[Any, Any]) -> bool:
        """Whether nothing has come or gone."""
        if len(lists) != len(self._lists) or not (all(map(is_, lists, self._lists)) or self._takes(lists)):
            return False
        return bool(self._library.listed(*self._of_lists)) and self.keeps(state)

    def keeps(self, state: Mapping[Any, Any]) -> bool:
        """Whether a dictionary of dictionaries is as it was: all of it is looked at where Python says that something was changed."""
        if state is self._state and self._has_versions and self._library.unchanged(*self._of_versions):
            return True
        self._state, self._dictionaries[0] = state, id(state)
        return bool(self._library.kept(*self._of_state))

    def _takes(self, lists: Sequence[Any]) -> bool:
        """Whether other lists may stand for those that were."""
        self._lists, self._ids[:] = list(lists), places(lists)
        return all(type(x) is list for x in lists)


def _numbers(values: Iterable[int]) -> Array:
    return np.array(list(values), dtype=np.int64)
