"""Tensors for tests: drawn by a seed, and through a file and back."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor


def some(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    """Normal numbers, the same for the same shape and seed, in whatever type they are stored then."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float32).to(dtype)


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Kernels run on so many; elsewhere in the tests there is one."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def through_a_file(state: Any) -> Any:
    """What `torch.load` gives back of what `torch.save` has written."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)
