"""What one step of the torch backend works on: its parameters, and the tensors that they bring or need."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from optlang import ir
from optlang.backends.base import Cell, Step, StepError
from optlang.backends.device_scalars import counts, is_on_device, sent
from optlang.backends.places import Place, shape_of
from optlang.backends.reference.interpreter import Run
from optlang.host import HostScalars, MissingFact
from optlang.ir import Node
from optlang.plan import Truth


@dataclass(eq=False, repr=False)
class Work:
    """One parameter in one step."""

    cell: Cell
    truth: Truth
    place: Place | None  # of the values per group and model
    marks: dict[Node, Tensor] = field(default_factory=dict)  # gradients and products that the model was asked for


@dataclass(eq=False, repr=False)
class TorchStep:
    """One step, with what its parameters share."""

    step: Step
    works: list[Work]
    beside: list[Work]  # parameters of other rules
    run: Run | None
    compiled: bool
    scalars: dict[Any, Any] = field(default_factory=dict)
    counters: dict[int, Tensor] = field(default_factory=dict)
    places: dict[int, Work] = field(default_factory=dict)

    def work_at(self, place: Place) -> Work:
        """The parameter of a place."""
        if not self.places:
            self.places.update((id(work.place), work) for work in (*self.works, *self.beside))
        return self.places[id(place)]

    def counter(self, cell: Cell) -> Tensor:
        """(t, seed, stream, first place) of the draws of a parameter, made for all parameters of a device at once."""
        if id(cell) not in self.counters:
            device = cell.weights.device
            cells = [work.cell for work in [*self.works, *self.beside] if work.cell.weights.device == device]
            seed = self.step.seed & 0xFFFFFFFF
            plain = [[0 if is_on_device(c) else c.t, seed, c.index & 0xFFFFFFFF, c.spread.offset or 0 if c.spread else 0] for c in cells]
            rows = _fixed(tuple(map(tuple, plain)), device) if is_on_device(cell) else sent(plain, device, torch.int64)
            if is_on_device(cell):
                rows = rows.clone()
                rows[:, 0] = counts(cells)
            self.counters.update(zip(map(id, cells), rows.unbind(), strict=True))
        return self.counters[id(cell)]


@lru_cache(maxsize=64)
def _fixed(rows: tuple[tuple[int, ...], ...], device: torch.device) -> Tensor:
    """Whole numbers that stay on the device, for a captured graph goes on reading them."""
    return sent(rows, device, torch.int64)


def decision(condition: HostScalars, hypers: Mapping[str, Any], t: int, facts: Mapping[str, int]) -> bool | None:
    """What decides a block before the step, of numbers that the host knows; None where a fact is missing."""
    try:
        return bool(condition(hypers, t, facts)[0])
    except (MissingFact, KeyError):  # a hyper that a parameter of another rule does not have
        return None


def computing(dtype: torch.dtype) -> torch.dtype:
    """Arithmetic is float32, or float64 where the parameter is."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def new_state(state: ir.State, weights: Tensor) -> Tensor:
    inner = shape_of(state.type.extent, tuple(weights.shape))
    shape = (state.type.window, *inner) if state.type.window else inner
    dtype = torch.bool if state.type.kind == "bool" else computing(weights.dtype)
    return torch.empty(shape, dtype=dtype, device=weights.device)


def input_of(node: Node, given: Any, cell: Cell) -> Tensor:
    """An input as a parameter reads it."""
    if given is None:
        raise StepError(f"{cell.name or f'parameter {cell.index}'}: the input `{node.value}` is missing; supply it before each step")
    value = (given if isinstance(given, Tensor) else torch.as_tensor(np.asarray(given))).to(cell.weights.device)  # in 64 bits
    inner = shape_of(node.type.extent, tuple(cell.weights.shape))
    if value.ndim and tuple(value.shape) != inner:
        raise StepError(f"{cell.name or f'parameter {cell.index}'}: the input `{node.value}` has shape {tuple(value.shape)}, not {inner}")
    return (value.to(computing(cell.weights.dtype)) if node.type.kind != "bool" else value).expand(inner)
