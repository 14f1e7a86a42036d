"""Parameters of one shape through one call: a function of one parameter, mapped over a batch of them, or of their matrices.

Products and factorisations of many small matrices cost far less in one call than in many.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from optlang.backends.formats import Packed
from optlang.backends.torch.bound import Bound
from optlang.backends.torch.code import CellCode
from optlang.backends.torch.views import put_back, view

Rows = Sequence[Sequence[Tensor]]  # of each call its tensors
LARGEST = 1 << 18  # elements of one batch on the CPU: what it touches stays in the cache, and large matrices gain nothing
LARGEST_ELSEWHERE = 1 << 25  # it is copied


def batches(calls: Sequence[Bound], joins: Callable[[Bound], bool]) -> list[list[int]]:
    """The places of calls that go together, in order of their first ones. `joins`: whether a call may have company."""
    found: dict[Any, list[list[int]]] = {}
    for place, bound in enumerate(calls):
        fits = joins(bound) and bound.weights.numel() > 0
        some = found.setdefault(_kind(bound) if fits else place, [])
        if not some or len(some[-1]) * bound.weights.numel() >= _room(bound):
            some.append([])
        some[-1].append(place)
    return sorted((batch for some in found.values() for batch in some), key=min)


def _room(bound: Bound) -> int:
    return LARGEST if bound.weights.device.type == "cpu" else LARGEST_ELSEWHERE


def _kind(bound: Bound) -> Any:
    tensors = tuple((x.key, x.shape) if isinstance(x, Packed) else (x.dtype, x.shape) for x in bound.tensors)
    return bound.code, bound.weights.shape, bound.weights.device, tensors


def run(function: Callable[..., Any], calls: Sequence[Bound]) -> list[Sequence[Tensor]]:
    """What the function returns for each call; what it wrote goes where it belongs."""
    code = calls[0].code
    opened = [[x.open() if isinstance(x, Packed) else x for x in bound.tensors] for bound in calls]
    seen = [[view(x, node.type, code.shaped) for x, node in zip(row, code.tensors, strict=True)] for row in opened]
    together = [torch.stack(column) for column in zip(*seen, strict=True)]
    counters = [bound.counter for bound in calls if bound.counter is not None]
    s = calls[0].s if all(bound.s is calls[0].s for bound in calls) else torch.stack([bound.s for bound in calls])
    results = mapped(code, function, together, s, torch.stack(counters) if counters else None, calls[0].first)
    new = {place: together[place].unbind() for place in code.written}
    packed = [place for place in new if isinstance(calls[0].tensors[place], Packed)]
    _write(packed, opened, seen, new)
    closed = [pair for bound, row in zip(calls, opened, strict=True) for place in packed for pair in _closed(bound, place, row[place])]
    # from here on nothing asks for memory
    _write([place for place in new if place not in packed], opened, seen, new)
    for target, value in closed:
        target.copy_(value)
    return [tuple(x[i] for x in results) for i in range(len(calls))]


def mapped(
    code: CellCode, function: Callable[..., Any], together: Sequence[Tensor], s: Tensor, counters: Tensor | None, first: Any
) -> Sequence[Tensor]:
    """What a function returns for parameters of one shape, whose tensors lie side by side; it writes into these. `s`: one row of numbers
    for all, or one for each."""
    count = len(together[0])
    if code.of_matrices and s.ndim == 1:
        results = function(*(x.flatten(0, 1) for x in together), s, None, first) or ()
        return [x.unflatten(0, (count, -1)) for x in results]
    if count == 1:
        results = function(*(x[0] for x in together), s, None if counters is None else counters[0], first) or ()
        return [x[None] for x in results]
    places = (*(0 for _ in together), 0 if s.ndim > 1 else None, None if counters is None else 0, None)
    found: Sequence[Tensor] = torch.vmap(lambda *given: function(*given) or (), places)(*together, s, counters, first)
    return found


def _write(places: Sequence[int], opened: Rows, seen: Rows, new: Mapping[int, Sequence[Tensor]]) -> None:
    for place in places:
        torch._foreach_copy_([row[place] for row in seen], list(new[place]))
        for whole, part in zip(opened, seen, strict=True):
            put_back(whole[place], part[place])


def _closed(bound: Bound, place: int, value: Tensor) -> list[tuple[Tensor, Tensor]]:
    stored = bound.tensors[place]
    assert isinstance(stored, Packed)
    return stored.closed(value, bound.counter)
