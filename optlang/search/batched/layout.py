"""How the parameters of many copies of a model lie in memory: one row per run, parameters of one shape side by side.

A *domain* is the part of a model that an expression is computed for, as places in `Layout.groups`: blocks that ask for
`rank >= 2` split a model into domains. Matrices come before vectors, so such a domain is one slice of every row.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import pairwise

import torch
from torch import Tensor

from optlang.analysis.computed import Facts
from optlang.runtime.facts import facts_of

Domain = tuple[int, ...]
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Group:
    """Parameters of one shape. `column` and `place`: where the first of them begins, in elements and in parameters."""

    names: tuple[str, ...]
    shape: Shape
    column: int
    place: int

    @property
    def count(self) -> int:
        return len(self.names)

    @property
    def width(self) -> int:
        """Elements of all of them."""
        return self.count * math.prod(self.shape)

    @cached_property
    def facts(self) -> Facts:
        return facts_of(torch.empty(self.shape, device="meta"))


class Layout:
    """The columns of one model's parameters in a row of all their elements. Raises ValueError for one without elements."""

    def __init__(self, shapes: Mapping[str, Shape]) -> None:
        if empty := [name for name, shape in shapes.items() if 0 in shape]:
            raise ValueError(f"the parameter `{empty[0]}` has the shape {shapes[empty[0]]}: a search trains models without such parameters")
        self.shapes = dict(shapes)
        self.groups = tuple(_groups(shapes))
        self.all: Domain = tuple(range(len(self.groups)))
        self.numel = sum(group.width for group in self.groups)
        self.order = [name for group in self.groups for name in group.names]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Layout) and self.groups == other.groups

    def __hash__(self) -> int:
        return hash(self.groups)

    def width(self, domain: Domain) -> int:
        """Elements of a domain."""
        return sum(self.groups[place].width for place in domain)

    def count(self, domain: Domain) -> int:
        """Parameters of a domain."""
        return sum(self.groups[place].count for place in domain)

    def flat(self, values: Mapping[str, Tensor]) -> Tensor:
        """[runs, *shape] by name as [runs, numel]."""
        return torch.cat([values[name].reshape(len(values[name]), -1) for name in self.order], 1)

    def views(self, flat: Tensor) -> dict[str, Tensor]:
        """[runs, numel] as [runs, *shape] by name, sharing memory."""
        found: dict[str, Tensor] = {}
        for group in self.groups:
            parts = block(flat[:, group.column : group.column + group.width], group)
            found |= {name: parts[:, number] for number, name in enumerate(group.names)}
        return {name: found[name] for name in self.shapes}

    @lru_cache(maxsize=64)  # noqa: B019 - a handful of layouts live as long as their tasks
    def columns(self, domain: Domain) -> list[tuple[int, int]]:
        """Where each group of a domain begins and ends in a row of the domain's elements."""
        return _spans(self.groups[place].width for place in domain)

    @lru_cache(maxsize=64)  # noqa: B019
    def places(self, domain: Domain) -> list[tuple[int, int]]:
        """The same in a row with one value for each of the domain's parameters."""
        return _spans(self.groups[place].count for place in domain)


def _groups(shapes: Mapping[str, Shape]) -> Iterable[Group]:
    alike: dict[Shape, list[str]] = {}
    for name, shape in shapes.items():
        alike.setdefault(tuple(shape), []).append(name)
    column = place = 0
    for shape in sorted(alike, key=lambda s: len(s) < 2):  # stable: matrices first, else as the model has them
        group = Group(tuple(alike[shape]), shape, column, place)
        yield group
        column, place = column + group.width, place + group.count


def _spans(sizes: Iterable[int]) -> list[tuple[int, int]]:
    ends: list[tuple[int, int]] = []
    for size in sizes:
        start = ends[-1][1] if ends else 0
        ends.append((start, start + size))
    return ends


def block(columns: Tensor, group: Group) -> Tensor:
    """The columns of a group as [runs, parameters, *shape], sharing memory."""
    return torch.unflatten(columns, 1, (group.count, *group.shape))


def cut(whole: Tensor, spans: Sequence[tuple[int, int]], wanted: Sequence[int]) -> Tensor | list[Tensor]:
    """The spans of a row that are wanted: one view where they touch, else the pieces."""
    pieces = [spans[number] for number in wanted]
    if all(a[1] == b[0] for a, b in pairwise(pieces)):
        return whole[:, pieces[0][0] : pieces[-1][1]]
    return [whole[:, start:end] for start, end in pieces]
