"""The last part of a step, which writes: every parameter is stepped with its states or left as it is, also where memory ends."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from optlang.backends.base import Cell
from optlang.backends.torch.bound import Bound

Run = Callable[[Sequence[Bound]], None]
WORDS = ("not enough memory", "out of memory", "can't allocate memory")  # of torch's RuntimeErrors on the CPU


def write_all(calls: Sequence[Bound], cells: Sequence[Cell], run: Run) -> list[Cell]:
    """Runs functions that write when all is computed, one for each cell. Gives the cells that were left out for want of memory.

    What failed for that is tried once more after memory has been collected.
    """
    before = [_versions(bound) for bound in calls]
    try:
        run(calls)
    except (MemoryError, RuntimeError) as problem:
        if not is_of_memory(problem):
            raise
        _collect()
    else:
        return []
    left = [place for place, bound in enumerate(calls) if _versions(bound) == before[place]]
    try:
        run([calls[place] for place in left])
    except (MemoryError, RuntimeError) as problem:
        if not is_of_memory(problem):
            raise
    return [cells[place] for place in left if _versions(calls[place]) == before[place]]


def is_of_memory(problem: BaseException) -> bool:
    return isinstance(problem, MemoryError | torch.OutOfMemoryError) or any(word in str(problem) for word in WORDS)


def _versions(bound: Bound) -> tuple[int, ...]:
    """Numbers that grow when a tensor of a parameter is written."""
    parts = [part for x in bound.tensors for part in ((x,) if isinstance(x, Tensor) else x.parts)]
    return tuple(0 if part.is_inference() else part._version for part in parts)


def _collect() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
