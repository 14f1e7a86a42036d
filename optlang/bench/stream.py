"""The floor of a step on the CPU: a kernel that reads and writes the same memory and computes nothing, built as our kernels are.

It writes what it has read, so it can go over the parameters, gradients and states of a live optimizer without changing them.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from optlang.backends.cpp.layout import CHUNK
from optlang.backends.kernels import build

# `zero` is 0, which the compiler cannot know: it must load and store all there is.
TEXT = """
#include <cstdint>
typedef int64_t i64;
typedef uint32_t u32;

static inline void keep(char* at, i64 bytes, bool writes, u32 zero) {
  u32* words = (u32*)at;
  const i64 count = bytes / 4;
  u32 seen = 0;
  if (writes) {
    #pragma omp simd
    for (i64 i = 0; i < count; i++) words[i] ^= zero;
    for (i64 i = 4 * count; i < bytes; i++) at[i] ^= (char)zero;
    return;
  }
  #pragma omp simd reduction(|:seen)
  for (i64 i = 0; i < count; i++) seen |= words[i];
  for (i64 i = 4 * count; i < bytes; i++) seen |= (u32)at[i];
  if (seen & zero) *at = 0;
}

// `starts`: the first part of each chunk, and behind the last one their number.
extern "C" void step(i64 chunks, const i64* starts, char* const* pointers, const i64* bytes, const char* writes, u32 zero) {
  #pragma omp parallel for schedule(dynamic, 4) if (chunks > 3)
  for (i64 c = 0; c < chunks; c++)
    for (i64 part = starts[c]; part < starts[c + 1]; part++) keep(pointers[part], bytes[part], writes[part], zero);
}
"""


Pass = tuple[Collection[str], Collection[str]]  # what it reads and what it writes: `w`, `g` and states, by name


def stream(optimizer: torch.optim.Optimizer, passes: Sequence[Pass] = ()) -> Callable[[], None]:
    """Reads and writes what a step of the optimizer does, once or as often as `passes` do, each time that it is called; it has been
    called once. Raises `build.NoCompiler`."""
    step = build.library(TEXT).step
    found: Sequence[Pass | None] = passes or [None]
    tables = [_table([_named(p, optimizer.state[p], one) for p in _stepped(optimizer)]) for one in found]

    def go() -> None:
        for chunks, arrays in tables:
            step(ctypes.c_int64(chunks), *(ctypes.c_void_p(x.ctypes.data) for x in arrays), ctypes.c_uint32(0))

    return go


def _table(tensors: Sequence[Sequence[tuple[Tensor, bool]]]) -> tuple[int, Sequence[Any]]:
    """The number of chunks, and what the kernel is given of them: `tensors` of each parameter, the first of which is itself or as
    large, and whether they are written."""
    chunks = [chunk for some in tensors for chunk in _chunks(some)]
    parts = [part for chunk in chunks for part in chunk]
    starts = np.cumsum([0, *map(len, chunks)], dtype=np.int64)
    pointers = np.array([pointer for pointer, _, _ in parts], dtype=np.uint64)
    sizes = np.array([size for _, size, _ in parts], dtype=np.int64)
    return len(chunks), (starts, pointers, sizes, np.array([written for _, _, written in parts], dtype=np.bool_))


def _stepped(optimizer: torch.optim.Optimizer) -> Iterator[Tensor]:
    return (p for group in optimizer.param_groups for p in group["params"] if p.grad is not None)


def _named(parameter: Tensor, state: Mapping[str, Any], one: Pass | None) -> list[tuple[Tensor, bool]]:
    """The tensors that a pass goes over, all of them without one, and whether it writes them."""
    kept = {name: x for name, x in state.items() if isinstance(x, Tensor) and x.ndim and x.is_contiguous()}
    found = {"w": parameter, "g": parameter.grad} | kept
    if one is None:
        return [(x, name != "g") for name, x in found.items() if x is not None]
    read, written = one
    names = {name: name.split(".")[0] for name in found}  # scales lie beside the state that they are of
    return [(x, names[name] in written) for name, x in found.items() if x is not None and names[name] in {*read, *written}]


def _chunks(tensors: Sequence[tuple[Tensor, bool]]) -> Iterator[Sequence[tuple[int, int, bool]]]:
    """The parts of each chunk of a parameter: where, how many bytes, and whether they are written."""
    count = max((x.numel() for x, _ in tensors), default=0)
    for low in range(0, count, CHUNK):
        high = min(low + CHUNK, count)
        yield [_part(x, low, high, count, written) for x, written in tensors]


def _part(x: Tensor, low: int, high: int, count: int, written: bool) -> tuple[int, int, bool]:
    """What a tensor has for some of the elements of its parameter."""
    start, end = (bound * x.nbytes // count for bound in (low, high))
    return x.data_ptr() + start, end - start, written
