"""The parameters of random programs and their first values."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor

Shapes = tuple[tuple[int, ...], ...]
ANY: tuple[Shapes, ...] = (((3, 4), (5,), (), (2, 3, 2)), ((2, 3), (4,)), ((), (1,), (3, 1, 2)), ((6,), (0, 3), (2, 2)))
MATRICES: tuple[Shapes, ...] = (((3, 4), (4, 3), (2, 3, 2), (1, 4)), ((2, 3), (3, 2)), ((1, 1), (2, 1, 3)), ((3, 3), (0, 2), (2, 2)))


def shapes_of(matrices: bool, number: int = 0) -> Shapes:
    return (MATRICES if matrices else ANY)[number]


@cache
def drawn(shape: tuple[int, ...], seed: int) -> Tensor:
    """Normal numbers in float64, to be read alone."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def first_values(shapes: Sequence[Sequence[int]]) -> list[Tensor]:
    return [drawn(tuple(shape), place).clone() for place, shape in enumerate(shapes)]


def slope(values: Tensor, shape: tuple[int, ...], step: int, place: int) -> Tensor:
    """The gradient of `loss`, in float64, for values of that shape or several such."""
    return ((values - drawn(shape, 99 + 10 * step + place)) + 3 * torch.cos(3 * values)) / 3


def loss(values: Tensor, step: int, place: int) -> Tensor:
    """A third of half the squared way to a goal that moves, with hills."""
    return ((values - drawn(tuple(values.shape), 99 + 10 * step + place)) ** 2 / 2 + torch.sin(3 * values)).sum() / 3
