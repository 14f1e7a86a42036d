"""The floor of a step on the CPU: a kernel that reads and writes the same memory and computes nothing, built as our kernels are.

It writes what it has read, so it can go over the parameters, gradients and states of a live optimizer without changing them.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from optlang.backends import build
from optlang.backends.cpp.layout import CHUNK

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


def stream(optimizer: torch.optim.Optimizer) -> Callable[[], None]:
    """What goes over all that a step of the optimizer reads and writes; it has taken one. Raises `build.NoCompiler`."""
    step = build.library(TEXT).step
    chunks = [chunk for p in _stepped(optimizer) for chunk in _chunks(p, optimizer.state[p])]
    parts = [part for chunk in chunks for part in chunk]
    starts = np.cumsum([0, *map(len, chunks)], dtype=np.int64)
    pointers = np.array([pointer for pointer, _, _ in parts], dtype=np.uint64)
    sizes = np.array([size for _, size, _ in parts], dtype=np.int64)
    writes = np.array([written for _, _, written in parts], dtype=np.bool_)

    def go() -> None:
        places = (ctypes.c_void_p(x.ctypes.data) for x in (starts, pointers, sizes, writes))
        step(ctypes.c_int64(len(chunks)), *places, ctypes.c_uint32(0))

    return go


def _stepped(optimizer: torch.optim.Optimizer) -> Iterator[Tensor]:
    return (p for group in optimizer.param_groups for p in group["params"] if p.grad is not None)


def _chunks(parameter: Tensor, state: Mapping[str, Any]) -> Iterator[Sequence[tuple[int, int, bool]]]:
    """The parts of each chunk of a parameter: where, how many bytes, and whether they are written."""
    assert parameter.grad is not None
    kept = [x for x in state.values() if isinstance(x, Tensor) and x.ndim and x.is_contiguous()]
    for low in range(0, parameter.numel(), CHUNK):
        high = min(low + CHUNK, parameter.numel())
        yield [_part(x, low, high, parameter) for x in (parameter, parameter.grad, *kept)]


def _part(x: Tensor, low: int, high: int, parameter: Tensor) -> tuple[int, int, bool]:
    """What a tensor has for some elements of its parameter."""
    start, end = (bound * x.nbytes // parameter.numel() for bound in (low, high))
    return x.data_ptr() + start, end - start, x is not parameter.grad
