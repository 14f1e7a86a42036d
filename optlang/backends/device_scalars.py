"""Numbers known before the step, computed by torch: where the host must not look at them, or gradients go through them.

As `host.HostScalars`, in float64. What depends on neither `t` nor a hyper that is a tensor is still computed on the host, so
that a graph which is captured holds only what can change from replay to replay.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from itertools import repeat
from operator import attrgetter, is_
from typing import Any

import numpy as np
import torch
from torch import Tensor

from optlang import ir
from optlang.backends.base import Cell
from optlang.backends.torch import ops as torch_ops
from optlang.host import HostScalars
from optlang.ir import Node
from optlang.ops import OPS

Operand = Any  # Tensor, or a Python number that the host knows
BASE = attrgetter("_base")


def is_on_device(cell: Cell) -> bool:
    """Whether a parameter's count, and what its hypers hold, are the device's business."""
    return isinstance(cell.t, Tensor)


def is_capturing() -> bool:
    """Whether what is launched goes into a CUDA graph."""
    return torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing()  # type: ignore[no-untyped-call]


def sent(values: Any, device: torch.device, dtype: torch.dtype | None = None) -> Tensor:
    """Numbers of the host as a tensor on a device. The host does not wait for the device."""
    made = torch.from_numpy(values) if isinstance(values, np.ndarray) else torch.tensor(values, dtype=dtype)
    return made.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else made.to(device)


def joined(rows: Sequence[Tensor]) -> Tensor:
    """Tensors of one shape as one: that whose rows they are, if they are all of them, in their order."""
    base = rows[0]._base
    if base is None or base.shape != (len(rows), *rows[0].shape) or not all(map(is_, map(BASE, rows), repeat(base))):
        return torch.stack(list(rows))
    step = base.stride(0) * base.element_size()
    places = [base.data_ptr() + step * place for place in range(len(rows))]
    return base if base.is_contiguous() and list(map(Tensor.data_ptr, rows)) == places else torch.stack(list(rows))


def counts(cells: Sequence[Cell]) -> Tensor:
    """The counts of parameters of which `is_on_device` holds."""
    found: list[Any] = [cell.t for cell in cells]
    return joined(found)


@cache
def operator(op: str) -> Callable[[Sequence[Tensor]], Tensor]:
    """An operator of the table in its torch spelling, for single numbers."""
    row = OPS[op]
    if op == "branch":
        return lambda args: torch.where(args[0], args[1], args[2])
    if row.role == "reduce":  # of one number
        return lambda args: torch.ones_like(args[0]) if op == "count" else args[0]
    names = [f"args[{i}]" for i in range(3)]
    text = f"{names[0]} {torch_ops.SYMBOLS.get(op, row.symbol)} {names[1]}" if row.symbol else row.torch.format(*names)
    spelled: Callable[[Sequence[Tensor]], Tensor] = eval(f"lambda args: {text}", {"torch": torch, "ops": torch_ops})  # of the table alone
    return spelled


class DeviceScalars:
    """Some host expressions of one program, for many parameters at once."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        self.nodes = tuple(nodes)
        self._split: dict[frozenset[str], tuple[list[Node], HostScalars]] = {}
        self._facts: dict[Any, Tensor] = {}

    def __call__(self, cells: Sequence[Cell], device: torch.device) -> Tensor:
        """[cells, nodes] float64, for cells with the same hypers. Raises MissingFact."""
        hypers = cells[0].hypers
        inner, host = self._parts(frozenset(name for name, value in hypers.items() if isinstance(value, Tensor)))
        values: dict[Node, Operand] = dict(zip(host.nodes, self._known(host, cells, device), strict=True))
        times = counts(cells).double()
        for node in inner:
            values[node] = self._value(node, values, hypers, times)
        columns = [_filled(values[node], times).double().expand(len(cells)) for node in self.nodes]
        return torch.stack(columns, 1) if columns else times.new_empty(len(cells), 0)

    def _parts(self, moving: frozenset[str]) -> tuple[list[Node], HostScalars]:
        """What is computed on the device if these hypers are tensors, operands first; and what the host gives it."""
        if moving not in self._split:
            reads = ir.fold(self.nodes, lambda n, args: n.op == "t" or (n.op == "hyper" and n.value in moving) or any(args))
            inner = [node for node in ir.walk(self.nodes) if reads[node]]
            outer = dict.fromkeys(x for x in [*self.nodes, *(arg for n in inner for arg in n.args)] if not reads[x])
            self._split[moving] = inner, HostScalars(outer)
        return self._split[moving]

    def _known(self, host: HostScalars, cells: Sequence[Cell], device: torch.device) -> list[Operand]:
        """One number where all cells agree; else a column of them, which stays where it is: facts do not change."""
        rows = list(dict.fromkeys(host(cell.hypers, 0, cell.facts) for cell in cells))
        if len(rows) == 1 or not host.nodes:
            return list(rows[0])
        found = []
        for column in zip(*(host(cell.hypers, 0, cell.facts) for cell in cells), strict=True):
            dtype = torch.bool if isinstance(column[0], bool) else torch.float64
            key = (column, dtype, device)  # to Python, truths are equal to numbers
            if key not in self._facts:
                self._facts[key] = sent(column, device, dtype)
            found.append(self._facts[key])
        return found

    def _value(self, node: Node, values: Mapping[Node, Operand], hypers: Mapping[str, Any], times: Tensor) -> Tensor:
        if node.op == "t":
            return times
        if node.op == "hyper":
            given: Tensor = hypers[node.value].detach().reshape(()).to(times.device)
            return given != 0 if node.type.kind == "bool" else given.double()
        return operator(node.op)([_filled(values[arg], times) for arg in node.args])


def _filled(value: Operand, like: Tensor) -> Tensor:
    """A number as a tensor, by a kernel: copies from the host cannot be captured."""
    if isinstance(value, Tensor):
        return value
    return torch.full((), value, dtype=torch.bool if isinstance(value, bool) else torch.float64, device=like.device)
