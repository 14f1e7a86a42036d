"""The parameters of random programs and their first values."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

Shapes = tuple[tuple[int, ...], ...]
ANY: Shapes = ((3, 4), (5,), (), (2, 3, 2))
MATRICES: Shapes = ((3, 4), (4, 3), (2, 3, 2), (1, 4))


def shapes_of(matrices: bool) -> Shapes:
    return MATRICES if matrices else ANY


def drawn(shape: Sequence[int], seed: int) -> Tensor:
    return torch.randn(tuple(shape), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
