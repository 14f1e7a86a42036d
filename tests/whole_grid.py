"""Launches in Triton's interpreter with all their programs at once.

The interpreter takes one program after the other, a Python call for each operation of each. Here every value has the programs of a
launch, or one for all of them, as a dimension before its own, so that an operation is called once for all. Programs go in step, and what
one writes another sees from the next operation on; that they may not depend on it is as on a GPU. Where a value of a program decides
which way Python goes, or programs wait for each other, a launch begins again with one after the other.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import numpy as np
import triton.language as tl
from torch import Tensor
from triton.runtime import interpreter
from triton.runtime.interpreter import InterpreterBuilder, TensorHandle, interpreter_builder

Array = Any
MOST = 1 << 21  # elements of a block, over the programs that go together


class Apart(Exception):
    """Programs of a launch go different ways, or wait for each other."""


@contextmanager
def all_programs_at_once() -> Iterator[None]:
    """In here kernels may be launched by `launched`, and only so."""
    with ExitStack() as around:
        around.enter_context(mock.patch.multiple(InterpreterBuilder, **BUILDER))
        around.enter_context(mock.patch.multiple(interpreter, ReduceOps=Reduced, ScanOps=Scanned))
        for module in (tl, tl.core):  # once, and not again with each call of a function
            around.callback(interpreter._patch_lang(_seeing(module)).restore)
        around.enter_context(mock.patch.object(interpreter, "_patch_lang", lambda function: interpreter._LangPatchScope()))
        around.enter_context(mock.patch.multiple(tl.core.tensor, __bool__=_truth, __index__=_number))
        yield


def _seeing(module: Any) -> Any:
    """A function as the interpreter knows it by its module's names."""
    return mock.Mock(__globals__={"tl": module})


def launched(kernel: Any, given: Sequence[Any], grid: Sequence[int], constants: Mapping[str, int]) -> None:
    """As `kernel[grid](*given, **constants)`."""
    before = [(x, x.clone()) for x in given if isinstance(x, Tensor)]
    elements = math.prod(value for name, value in constants.items() if name.endswith("BLOCK"))
    try:
        _launched(kernel, given, grid, constants, max(1, MOST // elements))
    except interpreter.InterpreterError as problem:
        if Apart.__name__ not in str(problem):
            raise
        for x, was in before:
            x.copy_(was)
        _launched(kernel, given, grid, constants, 1)


def _launched(kernel: Any, given: Sequence[Any], grid: Sequence[int], constants: Mapping[str, int], together: int) -> None:
    full = (*grid, 1, 1)[:3]
    programs = np.indices(full, dtype=np.int32).reshape(3, -1)
    for begin in range(0, programs.shape[1], together):
        with mock.patch.multiple(interpreter_builder, create=True, programs=programs[:, begin : begin + together], full=full):
            kernel[(1,)](*given, **constants)


# ------------------------------------------------------------------------------------------------------------ operations


def with_programs(data: Array, like: Any) -> Any:
    """Numbers of all programs as a value of a kernel."""
    shape = list(data.shape[1:])
    return tl.core.tensor(TensorHandle(data, like.scalar), tl.block_type(like.scalar, shape) if shape else like.scalar)


def _program(self: Any, axis: int) -> TensorHandle:
    return TensorHandle(self.programs[axis], tl.int32)


def _programs(self: Any, axis: int) -> TensorHandle:
    return TensorHandle(np.array([self.full[axis]], dtype=np.int32), tl.int32)


def _range(self: Any, kind: Any, start: int, stop: int) -> TensorHandle:
    return TensorHandle(np.arange(start, stop, dtype=np.int32)[None], tl.int32)


def _spread(self: Any, kind: Any, arg: TensorHandle) -> TensorHandle:
    """A single value to a block."""
    data = arg.data.reshape(-1, *[1] * len(kind.shape))
    return TensorHandle(np.broadcast_to(data, (len(data), *kind.shape)), arg.dtype.scalar)


def _single(self: Any, arg: TensorHandle) -> TensorHandle:
    return TensorHandle(arg.data.reshape(len(arg.data)), arg.dtype.scalar)


def _broadcast(self: Any, arg: TensorHandle, shape: Sequence[int]) -> TensorHandle:
    return TensorHandle(np.broadcast_to(arg.data, (len(arg.data), *shape)), arg.dtype.scalar)


def _with_dimension(self: Any, arg: TensorHandle, axis: int) -> TensorHandle:
    return TensorHandle(np.expand_dims(arg.data, axis + 1), arg.dtype.scalar)


def _reshaped(self: Any, arg: TensorHandle, shape: Sequence[int], allow_reorder: bool) -> TensorHandle:
    return TensorHandle(arg.data.reshape(len(arg.data), *shape), arg.dtype.scalar)


def _transposed(self: Any, arg: TensorHandle, order: Sequence[int]) -> TensorHandle:
    return TensorHandle(np.transpose(arg.data, [0, *(axis + 1 for axis in order)]), arg.dtype.scalar)


def _joined(self: Any, a: TensorHandle, b: TensorHandle) -> TensorHandle:
    return TensorHandle(np.stack(np.broadcast_arrays(a.data, b.data), axis=-1), a.dtype.scalar)


def _end_to_end(self: Any, a: TensorHandle, b: TensorHandle) -> TensorHandle:
    count = max(len(a.data), len(b.data))
    return TensorHandle(np.concatenate([np.broadcast_to(x.data, (count, *x.data.shape[1:])) for x in (a, b)], axis=1), a.dtype.scalar)


def _load(self: Any, pointers: TensorHandle, mask: TensorHandle, other: TensorHandle | None, *how: Any) -> TensorHandle:
    kind = pointers.get_element_ty()
    numbers = interpreter._get_np_dtype(kind)
    where, allowed, instead = _together(pointers.data, mask.data, other.data if other is not None else np.zeros(1, numbers))
    return TensorHandle(interpreter._interpreter.load(where, allowed, instead, numbers), kind)


def _store(self: Any, pointers: TensorHandle, value: TensorHandle, mask: TensorHandle, *how: Any) -> None:
    interpreter._interpreter.store(*_together(pointers.data, value.data, mask.data))


def _together(*data: Array) -> list[Array]:
    """Arrays of one size, of programs each."""
    most = max(x.ndim for x in data)
    filled = [x.reshape(len(x), *[1] * (most - x.ndim), *x.shape[1:]) for x in data]
    return [np.ascontiguousarray(x) for x in np.broadcast_arrays(*filled)]


def _wait(self: Any, *given: Any) -> None:
    if self.programs.shape[1] > 1:
        raise Apart
    raise NotImplementedError("an atomic operation")


def _truth(self: Any) -> bool:
    """As the interpreter has it: every block is true."""
    return bool(_number(self)) if not self.shape else True


def _number(self: Any) -> int:
    if self.handle.data.size > 1:
        raise Apart
    return int(self.handle.data.squeeze())


BUILDER: dict[str, Any] = {
    "create_get_program_id": _program, "create_get_num_programs": _programs, "create_make_range": _range, "create_splat": _spread,
    "create_unsplat": _single, "create_broadcast": _broadcast, "create_expand_dims": _with_dimension, "create_reshape": _reshaped,
    "create_trans": _transposed, "create_join": _joined, "create_cat": _end_to_end, "create_masked_load": _load,
    "create_masked_store": _store, "create_atomic_rmw": _wait, "create_atomic_cas": _wait,
}  # fmt: skip


# ------------------------------------------------------------------------------------------------------------ reductions


class Reduced:
    """Over a dimension, neighbours first, as a tree; sums as NumPy takes them."""

    def __init__(self, axis: int | None, combine: Any, keep_dims: bool) -> None:
        self.axis, self.combine, self.keep = axis, combine, keep_dims

    def apply(self, given: Any) -> Any:
        values = given if isinstance(given, tuple) else (given,)
        data = [x.handle.data if self.axis is not None else x.handle.data.reshape(len(x.handle.data), -1) for x in values]
        place = 1 + (self.axis or 0)
        if self.combine is tl.standard._sum_combine:
            found = [np.add.reduce(data[0], axis=place, dtype=data[0].dtype)]
        else:
            found = [x.squeeze(place) for x in self._tree(data, [x.dtype for x in values], place)]
        if self.keep:
            places = [place] if self.axis is not None else range(1, values[0].handle.data.ndim)
            found = [np.expand_dims(x, tuple(places)) for x in found]
        answers = tuple(with_programs(x, like.dtype) for x, like in zip(found, values, strict=True))
        return answers if isinstance(given, tuple) else answers[0]

    def _tree(self, data: list[Array], kinds: list[Any], place: int) -> list[Array]:
        while (count := data[0].shape[place]) > 1:
            pairs = [[np.take(x, range(first, count, 2), axis=place) for x in data] for first in (0, 1)]
            data = combined(self.combine, *pairs, kinds)
        return data


class Scanned:
    """Along a dimension; in so many rounds as a count has binary digits."""

    def __init__(self, axis: int, combine: Any, reverse: bool) -> None:
        self.place, self.combine, self.turn = 1 + axis, combine, reverse

    def apply(self, given: Any) -> Any:
        values = given if isinstance(given, tuple) else (given,)
        data = [np.moveaxis(x.handle.data, self.place, 1) for x in values]
        data = [x[:, ::-1].copy() if self.turn else x.copy() for x in data]
        by, count = 1, data[0].shape[1]
        while by < count:
            later = combined(self.combine, [np.roll(x, by, axis=1) for x in data], data, [x.dtype for x in values])
            data = [np.concatenate([x[:, :by], y[:, by:]], axis=1) for x, y in zip(data, later, strict=True)]
            by *= 2
        data = [np.moveaxis(x[:, ::-1] if self.turn else x, 1, self.place) for x in data]
        answers = tuple(with_programs(x, like.dtype) for x, like in zip(data, values, strict=True))
        return answers if isinstance(given, tuple) else answers[0]


def combined(combine: Any, first: list[Array], second: list[Array], kinds: list[Any]) -> list[Array]:
    """What a function makes of two blocks, or of two tuples of such."""
    function: Callable[..., Any] = combine.fn if hasattr(combine, "fn") else combine
    blocks = [with_programs(x, kind) for side in (first, second) for x, kind in zip(side, kinds, strict=True)]
    found = function(*blocks)
    return [x.handle.data for x in (found if isinstance(found, tuple) else (found,))]
