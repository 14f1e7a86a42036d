"""What torch's tensors of a kind have in common, word by word of their memory: to compare that is quicker than to ask for each fact.

Nothing is known beforehand about where torch keeps what. Tensors that are alike show which words tell them from each other and
nothing else; tensors that are not show whether the other words tell. Where anything is not as expected, facts are asked for.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from functools import cache
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor

Array = Any  # numpy.ndarray
WORD = 8  # bytes
MOST = 32  # words of a tensor
SHAPE = (2, 3, 4, 5, 6)  # of as many dimensions as are kept in the tensor itself
RANKS = len(SHAPE) + 1
FEW, ROUNDS = 6, 16  # pieces of memory that the system hands out again first, and how often it is asked


@cache
def masks() -> Array | None:
    """[ranks, words]: the bits that tensors with so many dimensions have in common if they are of a kind. None where it cannot be told."""
    alike = _alike()
    if not (count := _room(alike)):
        return None
    filled = [_in_memory_full_of(byte, count * WORD) for byte in (0, 255)]
    if not all(filled):
        return None
    alike += chain.from_iterable(filled)
    rows = np.array([words(x, count) for x in alike])
    sizes, strides = (_place(rows[0], some) for some in (SHAPE, alike[0].stride()))
    if sizes is None or strides is None:
        return None
    common = _in_common(rows)
    found = np.tile(common[: int(common.nonzero()[0].max(initial=0)) + 1], (RANKS, 1))  # nothing behind a tensor is read
    for rank in range(RANKS):
        for place in (sizes, strides):
            found[rank, place + rank : place + len(SHAPE)] = 0  # of dimensions that are not there anything may be kept
    return found if _is_right(found) else None


def _in_common(rows: Array) -> Array:
    """The bytes of each word that are the same in all rows; pointers and what else differs in its lower half have nothing in common."""
    others = np.bitwise_or.reduce(rows ^ rows[0]).view(np.uint8).reshape(-1, WORD)
    others[(others[:, : WORD // 2] != 0).any(1)] = 255
    return np.where(others == 0, np.uint8(255), np.uint8(0)).reshape(-1).view(np.uint64)


def _in_memory_full_of(byte: int, size: int) -> list[Tensor]:
    """Tensors of which some are in memory that was left so: what torch does not write keeps that byte. None if the system uses others."""
    system = ctypes.CDLL(None)
    system.malloc.argtypes, system.malloc.restype = [ctypes.c_size_t], ctypes.c_void_p
    system.free.argtypes, system.free.restype = [ctypes.c_void_p], None
    found: list[Tensor] = []
    for _ in range(ROUNDS):  # pieces that others have left may come first; those that are kept here do not come again
        places = {place for _ in range(FEW) if (place := system.malloc(size))}
        for place in places:
            ctypes.memset(place, byte, size)
        for place in places:
            system.free(place)
        found += [torch.empty(SHAPE, dtype=torch.float32, device="cpu") for _ in range(FEW)]
        if any(x._cdata in places for x in found[-FEW:]):
            return found
    return []


def words(x: Tensor, count: int) -> Array:
    """The first words of a tensor as torch keeps it."""
    return np.array((ctypes.c_uint64 * count).from_address(x._cdata), dtype=np.uint64)


def _alike() -> list[Tensor]:
    """Tensors of one kind, otherwise as different as can be."""
    with torch.enable_grad():
        plain, parameter = (torch.ones(SHAPE, dtype=torch.float32, device="cpu") for _ in range(2))
        parameter = torch.nn.Parameter(parameter)
        parameter.grad = torch.zeros_like(plain)
        square = parameter * parameter  # keeps what it was made of
    return [plain, parameter, parameter.grad, square, plain.detach(), plain.clone(), square.detach()]


def _room(tensors: Sequence[Tensor]) -> int:
    """How many words all of them surely have; 0 where the system does not say."""
    try:
        size = ctypes.CDLL(None).malloc_usable_size
    except (AttributeError, OSError, TypeError):
        return 0
    size.argtypes, size.restype = [ctypes.c_void_p], ctypes.c_size_t
    return min(MOST, min(int(size(x._cdata)) for x in tensors) // WORD)


def _place(row: Array, numbers: Sequence[int]) -> int | None:
    """Where these numbers follow each other, if that is one place."""
    found = [place for place in range(len(row) - len(numbers) + 1) if row[place : place + len(numbers)].tolist() == list(numbers)]
    return found[0] if len(found) == 1 else None


def _is_right(found: Array) -> bool:
    """Whether tensors that are alike are taken for that, and no others."""
    x = torch.ones(3, 4, dtype=torch.float32, device="cpu")
    z = torch.ones(3, 4, dtype=torch.complex64, device="cpu")
    same = [x.clone(), torch.nn.Parameter(x.clone()), torch.ones(2, 3, 4, dtype=torch.float32, device="cpu")[0]]
    others = [
        x.view(4, 3), x.view(12), x.view(3, 4, 1), x.view(4, 3).T, x[:, :1].expand(3, 4), x[:2], x[:, :2], x.double(), x.int(),
        x.bfloat16(), x.half(), x.view(torch.int32), x.to("meta"), x.to_sparse(), torch._neg_view(x), z, z.conj(),
    ]  # fmt: skip
    return (
        all(_is_of(found, x, y) for y in same)
        and not any(_is_of(found, x, y) or _is_of(found, y, x) for y in others)
        and not _is_of(found, z, z.conj())
    )


def _is_of(found: Array, x: Tensor, y: Tensor) -> bool:
    """Whether `y` is of the kind of `x`."""
    mask, count = found[x.dim()], found.shape[1]
    return not ((words(x, count) ^ words(y, count)) & mask).any()


@cache
def word_of_versions() -> int:
    """The word of a dictionary that is another one after every change; 0 where Python keeps none."""
    values = [object(), object(), object()]
    d: dict[Any, Any] = {"a": values[0], "b": values[1]}
    other = {"a": values[2], "c": values[0]}
    changes: list[Any] = [
        lambda: d.update(a=values[1]), lambda: d.__setitem__("a", values[0]), lambda: d.__setitem__("a", values[1]),
        lambda: d.setdefault("c", values[2]), lambda: d.pop("c"), lambda: d.__delitem__("b"), lambda: d.__setitem__("b", values[1]),
        d.popitem, lambda: d.__ior__(other), lambda: d.update(other, b=values[2]), d.clear, lambda: d.update(other), d.clear,
    ]  # fmt: skip
    count = dict.__basicsize__ // WORD
    rows = []
    for change in changes:
        before = _words_of(d, count)
        d.get("a"), list(d.items()), len(d), dict(d)
        if before != _words_of(d, count):
            return 0  # reading is no change
        rows.append(before)
        change()
    rows.append(_words_of(d, count))
    telling = [place for place in range(count) if len({row[place] for row in rows}) == len(rows)]
    return telling[0] if len(telling) == 1 else 0


def _words_of(x: Any, count: int) -> list[int]:
    return list((ctypes.c_uint64 * count).from_address(id(x)))
