"""Looks at all tensors of an optimizer at once: what Python would ask each of them takes longer than a step of small ones.

A small library of our own calls the functions of Python and torch that are exported by name. It is tried on a few tensors
before it is believed; where anything is not as expected there is none, and steps are gathered anew each time.
"""

from __future__ import annotations

import _thread
import ctypes
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from itertools import chain
from operator import is_
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from optlang.backends.again import kinds
from optlang.backends.kernels import build

Array = Any  # numpy.ndarray
WORD = ctypes.sizeof(ctypes.c_void_p)
PYTHON = ("PyList_Size", "PyDict_Size", "PyList_GetItem", "PyDict_Next")
TORCH = ("libc10._ZNK3c1010TensorImpl4gradEv", "libtorch_cpu._ZN5torch8autograd4impl12bump_versionERKN2at6TensorE",
         "libtorch_cpu._ZN2at6native6is_negERKNS_6TensorE", "libtorch_cpu.aoti_torch_get_data_ptr",
         "libtorch_cpu.aoti_torch_get_numel", "libtorch_cpu.aoti_torch_get_dim", "libtorch_cpu.aoti_torch_get_sizes",
         "libtorch_cpu.aoti_torch_get_strides", "libtorch_cpu.aoti_torch_get_dtype", "libtorch_cpu.aoti_torch_get_layout",
         "libtorch_cpu.aoti_torch_get_device_type", "libtorch_cpu.aoti_torch_get_device_index",
         "libtorch_cpu.aoti_torch_assign_tensors")  # fmt: skip
FLAGS = ("-fexceptions", "-lstdc++", "-lgcc_s", "-O3")  # beside those of kernels: these have no exceptions, and loops that ask for vectors
ASSIGN, NONE = len(PYTHON) + len(TORCH) - 1, len(PYTHON) + len(TORCH) + 1  # places of `assign` and `none` in `Outside` of watch.h
CAPSULE = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)(("PyCapsule_New", ctypes.pythonapi))
INSIDE = ctypes.cast(ctypes.pythonapi.PyCapsule_GetPointer, ctypes.c_void_p)
FACTS = ("type", "device", "shape", "size", "data")  # of `Facts` in watch.h


class Unseen(Exception):
    """Something cannot be watched."""


class Grip:
    """Keeps the gradients that a step has seen for as long as it lives: other threads of Python may let go of them before they are read.

    Raises MemoryError.
    """

    def __init__(self) -> None:
        self._library, self._outside = library()
        self._capsules: list[Any] = []

    def room(self, count: int) -> ctypes.c_void_p:
        """For so many tensors."""
        place = self._library.room(self._outside, ctypes.c_int64(count), INSIDE)
        if not place:
            raise MemoryError
        self._capsules.append(CAPSULE(place, None, self._library.end_room))
        return ctypes.c_void_p(place)


def grip() -> Grip | None:
    """None where nobody else is there, as to keep a gradient takes longer than to look at it."""
    return Grip() if _thread._count() else None


class Watch:
    """Tensors, or gradients of tensors, that lie in order; `pointers` to their memory, in a row. Raises Unseen for others."""

    def __init__(self, tensors: Sequence[Tensor], are_gradients: Sequence[bool]) -> None:
        self._library, outside = library()
        self._tensors, count = tensors, len(tensors)
        facts = np.empty((count, len(FACTS)), dtype=np.int64)
        self._arrays = (_places(tensors), np.array(are_gradients, dtype=np.bool_), facts)
        self._given = [outside, ctypes.c_int64(count), *map(pointer, self._arrays)]
        if not self._library.look(*self._given):
            raise Unseen
        self.pointers = facts[:, FACTS.index("data")].copy()
        self._kinds, self._kind = self._sorted(count)
        self._places = np.zeros((count, 3), dtype=np.uint64)
        self._given += map(pointer, (self._kinds, self._kind, self._places, self.pointers))

    def _sorted(self, count: int) -> tuple[Array, Array]:
        """The kinds of tensors, and which is that of each."""
        masks, kind = kinds.masks(), np.full(count, -1, dtype=np.int64)
        if masks is None:
            return np.zeros(1), kind
        found = np.empty((count, 2, masks.shape[1]), dtype=np.uint64)
        known = self._library.sorted(*self._given[:4], *map(pointer, (masks, found, kind)))
        return found[:known].copy(), kind

    def holds(self, keep: Grip | None = None) -> bool:
        """Whether all are as they were; gradients may be others of their kind. If not, `pointers` are no longer of use."""
        return bool(self._library.hold(*self._given, None if keep is None else keep.room(len(self._tensors))))


class Watches:
    """Several, of which some look at the same tensors: these are looked at once. From now on all hold when this does. Raises Unseen."""

    def __init__(self, some: Sequence[Watch]) -> None:
        keys = [[(id(x), bool(g)) for x, g in zip(one._tensors, one._arrays[1], strict=True)] for one in some]
        looked = {key: x for one, row in zip(some, keys, strict=True) for key, x in zip(row, one._tensors, strict=True)}
        places = {key: place for place, key in enumerate(looked)}
        self._watch = Watch(list(looked.values()), [g for _, g in looked])
        self._some = list(some)
        pairs = [(places[key], one, n) for one, row in zip(some, keys, strict=True) for n, key in enumerate(row) if key[1]]
        found = [[self._watch.pointers.ctypes.data + WORD * place, one.pointers.ctypes.data + WORD * n] for place, one, n in pairs]
        self._pairs = np.array(found, dtype=np.uint64).reshape(-1, 2).T.copy()
        self._given = [*self._watch._given, ctypes.c_int64(len(found)), *map(pointer, self._pairs)]

    def hold(self, keep: Grip | None = None) -> bool:
        """As `Watch.holds`, of all of them."""
        return bool(self._watch._library.hold_for(*self._given, None if keep is None else keep.room(len(self._watch._tensors))))


class Counts:
    """Tensors of one number each that lie in `numbers`, one behind the other. Raises Unseen."""

    def __init__(self, tensors: Sequence[Tensor], numbers: Array) -> None:
        self._library, outside = library()
        self._tensors, self._objects, self._numbers = tensors, _places(tensors), numbers
        self._given = outside, ctypes.c_int64(len(tensors)), pointer(self._objects), pointer(numbers)
        if numbers.dtype != np.float32 or not self.hold():
            raise Unseen

    def hold(self) -> int:
        """0 where one of them lies elsewhere; else 1, or 2 where all are the same number."""
        return int(self._library.counted(*self._given))


class Versions:
    """What autograd knows tensors by: it must hear of what is written behind its back. Raises Unseen."""

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self._library, outside = library()
        self._tensors, self._objects = tensors, _places(tensors)
        self._given = outside, ctypes.c_int64(len(tensors)), pointer(self._objects)
        if any(x.is_inference() for x in tensors):
            raise Unseen

    def grow(self) -> None:
        if not self._library.tell(*self._given):
            torch.autograd.graph.increment_version(self._tensors)


class Belongings:
    """Which parameters lists hold, which of them have a gradient, and which objects belong to them in a dictionary of dictionaries.
    Raises Unseen for what is no list or dictionary."""

    def __init__(self, lists: Sequence[list[Tensor]], state: Mapping[Any, Any]) -> None:
        self._library, self._outside = library()
        if not all(type(x) is list for x in lists) or not all(type(x) is dict for x in state.values()):
            raise Unseen
        self._tensors, self._lists, self._state = list(chain.from_iterable(lists)), list(lists), state
        self._held, self._objects = list(state.values()), [[key, *chain.from_iterable(value.items())] for key, value in state.items()]
        self._ids, self.looked = _places(lists), np.zeros(len(self._tensors), dtype=np.bool_)
        with_gradient = np.array([p.grad is not None for p in self._tensors], dtype=np.bool_)
        self._arrays = (_numbers(map(len, lists)), _places(self._tensors), with_gradient, self.looked)
        self._of_lists = [self._outside, ctypes.c_int64(len(lists)), *map(pointer, (self._ids, *self._arrays))]
        self._dictionaries, self._versions = _places([state, *state.values()]), np.zeros(len(state) + 1, dtype=np.uint64)
        self._kept = (_places(chain.from_iterable(self._objects)), _numbers(map(len, state.values())))
        some = pointer(self._versions)
        self._of_state = [self._outside, ctypes.c_int64(len(state) + 1), pointer(self._dictionaries), *map(pointer, self._kept), some]
        self._of_versions = [*self._of_state[:3], some]
        self._has_versions = kinds.word_of_versions() > 0
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
        self._lists, self._ids[:] = list(lists), _places(lists)
        return all(type(x) is list for x in lists)


def sees() -> bool:
    """Whether anything can be watched in this process."""
    return _found() is not None


def pointer(array: Array) -> ctypes.c_void_p:
    """Where the numbers of an array are."""
    return ctypes.c_void_p(array.ctypes.data)


def _places(objects: Iterable[Any]) -> Array:
    return np.array(list(map(id, objects)), dtype=np.uint64)


def _numbers(values: Iterable[int]) -> Array:
    return np.array(list(values), dtype=np.int64)


def library() -> tuple[ctypes.PyDLL, Any]:
    found = _found()
    if found is None:
        raise Unseen
    return found


@cache
def _found() -> tuple[ctypes.PyDLL, Any] | None:
    """The library and what it is given of torch and Python; None where they do not go together."""
    try:
        place = _place_of_tensors()
        text = _text()
        library = ctypes.PyDLL(build.library(text, "look", FLAGS)._name)  # keeps Python waiting, whose objects it looks at
        library.room.restype = ctypes.c_void_p
        words: list[Any] = [*(_address(getattr(ctypes.pythonapi, name)) for name in PYTHON), *map(address_in_torch, TORCH), place]
        words += [_nothing(words[len(PYTHON)]), kinds.word_of_versions()]
        outside = (ctypes.c_void_p * len(words))(*words)
        _try(library, outside)
    except (OSError, AttributeError, build.NoCompiler, Unseen):
        return None
    return library, outside


def _text() -> str:
    """The source of the library, for tensors as this torch keeps them."""
    masks = kinds.masks()
    sizes = f"#define WORDS {1 if masks is None else masks.shape[1]}\n#define RANKS {kinds.RANKS}\n"
    return sizes + "".join((Path(__file__).parent / name).read_text(encoding="utf-8") for name in ("watch.h", "values.h"))


def _address(function: Any) -> int | None:
    return ctypes.cast(function, ctypes.c_void_p).value


def address_in_torch(name: str) -> int | None:
    """The address of a function in one of torch's libraries, which are loaded."""
    library, _, symbol = name.partition(".")
    return _address(_library_of_torch(library)[symbol])


@cache
def _library_of_torch(name: str) -> ctypes.CDLL:
    """Its file is looked for once: the folder is a long one."""
    return ctypes.CDLL(str(next((Path(torch.__file__).parent / "lib").glob(f"{name}.*"), name)))


def _place_of_tensors() -> int:
    """Where Python's objects keep torch's tensors, in bytes."""
    some = [torch.ones(2, device="cpu"), torch.nn.Parameter(torch.ones(3, device="cpu"))]
    words = [(ctypes.c_void_p * (type(x).__basicsize__ // WORD)).from_address(id(x)) for x in some]
    places = [{k for k, word in enumerate(row) if word == x._cdata} for row, x in zip(words, some, strict=True)]
    if len(common := set.intersection(*places)) != 1:
        raise Unseen
    return common.pop() * WORD


def _nothing(gradient: int) -> int | None:
    """What stands where there is no gradient."""
    ask = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)(gradient)
    found = {ctypes.c_void_p.from_address(ask(x._cdata)).value for x in (torch.ones(2), torch.nn.Parameter(torch.ones(2)))}
    if len(found) != 1:
        raise Unseen
    return found.pop()


def _try(library: ctypes.PyDLL, outside: Any) -> None:
    """Raises Unseen where what is seen of some tensors is not what they say."""
    x, y = torch.nn.Parameter(torch.ones(3, 2, device="cpu")), torch.ones(2, 3, dtype=torch.float64, device="cpu")
    nothing = _seen(library, outside, x, gradient=True)
    x.grad = torch.ones(3, 2, device="cpu")
    facts = [_seen(library, outside, x), _seen(library, outside, x, gradient=True), _seen(library, outside, y)]
    kinds = {tuple(found[:3]) for found in facts if found is not None}
    memory = [found[3:] for found in facts if found is not None]
    if nothing is not None or len(kinds) != 2 or memory != [[z.numel(), z.data_ptr()] for z in (x, x.grad, y)]:
        raise Unseen
    strange = (x.detach().T, y[:, :1].expand(2, 3), torch._neg_view(y), y.to_sparse(), y.to("meta"))
    if any(_seen(library, outside, z) is not None for z in strange) or not _keeps(library, outside, x):
        raise Unseen


def _keeps(library: ctypes.PyDLL, outside: Any, x: Tensor) -> bool:
    """Whether a tensor is kept by whom it is assigned to, and let go of again."""
    assign = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)(outside[ASSIGN])
    given, keep = (ctypes.c_void_p * 1)(x._cdata), (ctypes.c_void_p * 1)(outside[NONE])
    uses: Any = x._use_count  # type: ignore[attr-defined]
    counts = [uses(), assign(given, keep), uses(), library.let_go(outside, ctypes.c_int64(1), keep), uses()][::2]
    return counts == [counts[0], counts[0] + 1, counts[0]] and keep[0] == outside[NONE]


def _seen(library: ctypes.PyDLL, outside: Any, x: Tensor, gradient: bool = False) -> list[int] | None:
    """The facts of one tensor, or of its gradient."""
    facts = np.zeros(len(FACTS), dtype=np.int64)
    arrays = _places([x]), np.array([gradient]), facts
    return facts.tolist() if library.look(outside, ctypes.c_int64(1), *map(pointer, arrays)) else None
