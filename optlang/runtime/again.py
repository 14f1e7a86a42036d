"""The same parameters stepped again: what one look over all of them confirms is not found out anew for each.

Only loops that Python runs fast. Anything that is not as it was is left to the long way, which says what is wrong with it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import repeat
from operator import attrgetter, is_, is_not, itemgetter
from typing import Any

import torch
from torch import Tensor

from optlang.backends.base import Cell
from optlang.runtime.checkpoint import COUNT

GRADIENT, LAYOUT = attrgetter("grad"), attrgetter("layout")


class Known:
    """Which parameters have states, and which dictionaries these are."""

    def __init__(self, state: Mapping[Any, Any]) -> None:
        self.parameters, self.states = list(state), list(state.values())

    def holds(self, state: Mapping[Any, Any]) -> bool:
        same = len(state) == len(self.states)
        return same and all(map(is_, state, self.parameters)) and all(map(is_, state.values(), self.states))


class Again:
    """The cells of a group of which every parameter has taken a step. Their counts share memory from now on."""

    def __init__(self, parameters: Sequence[Tensor], cells: Sequence[Cell]) -> None:
        self.parameters, self.cells = list(parameters), list(cells)
        self.states = [cell.state for cell in cells]
        self.together = torch.stack([state[COUNT] for state in self.states])
        self.after = self.together  # the counts when this step is over
        self.counts = list(self.together.unbind())
        for state, count in zip(self.states, self.counts, strict=True):
            state[COUNT] = count

    def next(self, parameters: Sequence[Tensor], hypers: Mapping[str, Any]) -> list[Cell] | None:
        """The cells for their next step; None where one of the parameters has to be looked at."""
        if len(parameters) != len(self.parameters) or not all(map(is_, parameters, self.parameters)):
            return None
        gradients = list(map(GRADIENT, parameters))
        if not (all(map(is_not, gradients, repeat(None))) and all(map(is_, map(LAYOUT, gradients), repeat(torch.strided)))):
            return None
        if not all(map(is_, map(itemgetter(COUNT), self.states), self.counts)):
            return None
        self.after = self.together + 1
        for cell, gradient, t in zip(self.cells, gradients, self.after.int().tolist(), strict=True):
            cell.gradient, cell.hypers, cell.t = gradient, hypers, t
        return self.cells

    def count(self) -> None:
        """The step is over; this asks for no memory."""
        self.together.copy_(self.after)
        for cell in self.cells:
            cell.gradient = None  # gradients are not kept alive


def repeats(group: Mapping[str, Any], cells: Sequence[Cell], inputs: Mapping[str, Any]) -> bool:
    """Whether nothing about the steps of a group has to be done for each parameter."""
    options = group.get("maximize") or group.get("differentiable") or group.get("capturable")
    plain = all(type(cell.weights) in (Tensor, torch.nn.Parameter) and isinstance(cell.state.get(COUNT), Tensor) for cell in cells)
    here = plain and all(cell.state[COUNT].device.type == "cpu" and not cell.weights.is_meta for cell in cells)
    whole = len(cells) == len(group["params"]) > 0 and all(c.weights is p for c, p in zip(cells, group["params"], strict=True))
    return whole and here and not options and not inputs and not any(p.is_complex() for p in group["params"])
