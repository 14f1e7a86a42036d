"""What one parameter gives a function: its tensors, and the numbers that hypers, `t` and facts make."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from optlang.backends.base import Cell, StepError
from optlang.backends.device_scalars import is_on_device, sent
from optlang.backends.formats import Packed, Storage
from optlang.backends.places import full_shape
from optlang.backends.torch.bound import Bound
from optlang.backends.torch.code import CellCode
from optlang.backends.torch.functions import Functions
from optlang.backends.torch.work import TorchStep, Work, computing, input_of
from optlang.host import MissingFact
from optlang.ir import Node
from optlang.types import ELEMENT, Type, runs

PER_ELEMENT = Type("real", ELEMENT)


class Binding:
    """Of the functions of one rule."""

    def __init__(self, rule: str, functions: Functions, storage: Storage) -> None:
        self.rule, self.functions, self.storage = rule, functions, storage
        self.packs = bool(storage.states) or storage.weights is not None

    def bound(self, code: CellCode, work: Work, now: TorchStep, states: Any) -> Bound:
        """A function with the tensors and numbers of one parameter. Raises StepError where one of them is not to be had."""
        cell = work.cell
        if code.shaped and cell.weights.ndim < 2:
            raise StepError(f"{cell.name or f'parameter {cell.index}'} has shape {tuple(cell.weights.shape)}, but rule "
                            f"`{self.rule}` needs a matrix; send it to another rule with a `route`")  # fmt: skip
        tensors = [self._tensor(node, work, now, states) for node in code.tensors]
        packed = [x for x in tensors if isinstance(x, Packed)] if self.packs else []
        counter = now.counter(cell) if code.draws or any(x.form.draws for x in packed) else None
        return Bound(code, cell.weights, tensors, self._numbers(code, work, now), counter, first_of(code, cell.weights), bool(packed))

    def _tensor(self, node: Node, work: Work, now: TorchStep, states: Any) -> Tensor | Packed:
        cell = work.cell
        if node.op == "w":
            return self.storage.weight(cell.state, cell.weights)
        if node in work.marks:
            return work.marks[node]
        if node.type.extent.level in ("group", "model"):
            assert now.run is not None and work.place is not None
            [value] = now.run([(node, work.place)])
            return torch.as_tensor(value, dtype=computing(cell.weights.dtype), device=cell.weights.device)
        if node.op == "g":
            if cell.gradient is None:
                raise StepError(f"{cell.name or f'parameter {cell.index}'} has no gradient; call `backward()` first")
            if cell.gradient.shape != cell.weights.shape:
                raise StepError(f"{cell.name or f'parameter {cell.index}'}: its gradient has shape {tuple(cell.gradient.shape)}, "
                                f"the parameter itself {tuple(cell.weights.shape)}")  # fmt: skip
            gradient: Tensor = cell.gradient
            return gradient
        if node.op == "input":
            return input_of(node, cell.inputs.get(node.value), cell)
        if node.value not in states:
            raise StepError(f"{cell.name or f'parameter {cell.index}'}: the state `{node.value}` is not there; call `prepare` before")
        return self._state(node, cell, states)

    def _state(self, node: Node, cell: Cell, states: Any) -> Tensor | Packed:
        """A state as large as its kind and the weights make it, beside these: kernels trust in that."""
        weights, found = cell.weights, self.storage.state(node.value, states, cell.weights)
        shape = weights.shape if node.type == PER_ELEMENT else full_shape(node.type, tuple(weights.shape))
        parts = found.parts if isinstance(found, Packed) else (found,)
        fits = found.fits() if isinstance(found, Packed) else found.shape == shape
        if fits and all(part.device == weights.device for part in parts):
            return found
        raise StepError(
            f"{cell.name or f'parameter {cell.index}'}: the state `{node.value}` has shape {_shapes(parts)} on {parts[0].device}, which "
            f"does not fit {tuple(shape)} on {weights.device}; where weights got another shape or device after a step, delete their "
            "entry of `optimizer.state`, and their states begin anew"
        )

    def _numbers(self, code: CellCode, work: Work, now: TorchStep) -> Tensor:
        """The values of a function's slots, in float64 until here."""
        cell = work.cell
        try:
            return self._row_of_the_device(code, work, now) if is_on_device(cell) else self._row_of_the_host(code, work, now)
        except MissingFact as missing:
            raise StepError(
                f"{cell.name or f'parameter {cell.index}'}: {missing} (its shape is {tuple(cell.weights.shape)}); "
                "choose with `when rank >= 2 { … } else { … }`, or send it to another rule with a `route`"
            ) from None

    def _row_of_the_host(self, code: CellCode, work: Work, now: TorchStep) -> Tensor:
        """Found once for parameters of a group that have the same facts."""
        cell, slots = work.cell, self.functions.scalars(code)
        kind = cell.weights.device, cell.weights.dtype
        key = (code, cell.group, id(cell.hypers), cell.t, *kind, *map(cell.facts.get, slots.host.facts))
        if key not in now.scalars:
            values = slots.host(cell.hypers, cell.t, cell.facts)
            if slots.shared:
                assert now.run is not None and work.place is not None
                values += tuple(float(x) for x in now.run([(node, work.place) for node in slots.shared]))
                values = tuple(values[i] for i in slots.order)
            same = (values, *kind)
            if same not in now.scalars:
                now.scalars[same] = sent(values, cell.weights.device, computing(cell.weights.dtype))
            now.scalars[key] = now.scalars[same]
        row: Tensor = now.scalars[key]
        return row

    def _row_of_the_device(self, code: CellCode, work: Work, now: TorchStep) -> Tensor:
        """The same where the host knows neither `t` nor all hypers, for all parameters that share these."""
        cell = work.cell
        key = (code, id(cell.hypers), cell.weights.device)
        if key not in now.scalars:
            cells = [w.cell for w in now.works if w.truth == work.truth and w.cell.hypers is cell.hypers]
            cells = [c for c in cells if (c.weights.device, c.weights.dtype) == (cell.weights.device, cell.weights.dtype)]
            slots = self.functions.scalars(code)
            rows = slots.device(cells, cell.weights.device)
            if slots.shared:
                columns = torch.cat([rows, _shared(slots.shared, cells, now)], 1).unbind(1)
                rows = torch.stack([columns[place] for place in slots.order], 1)
            now.scalars[key] = dict(zip(map(id, cells), rows.to(computing(cell.weights.dtype)).unbind(), strict=True))
        row: Tensor = now.scalars[key][id(cell)]
        return row


def _shapes(parts: Sequence[Tensor]) -> str:
    return " and ".join(str(tuple(part.shape)) for part in parts)


def _shared(nodes: Sequence[Node], cells: Sequence[Cell], now: TorchStep) -> Tensor:
    """[cells, nodes] the values per group and model."""
    assert now.run is not None
    places = {id(work.cell): work.place for work in now.works}
    rows: dict[tuple[int, ...], Tensor] = {}
    found = []
    for cell in cells:
        place = places[id(cell)]
        assert place is not None
        values = now.run([(node, place) for node in nodes])
        key = tuple(map(id, values))
        if key not in rows:
            rows[key] = torch.stack([value.double() for value in values])
        found.append(rows[key])
    return torch.stack(found)


def first_of(code: CellCode, weights: Tensor) -> int | tuple[int, ...]:
    """What a function calls `first`."""
    first = weights.shape[0] if code.shaped else 0
    return (first, *(runs(weights.numel(), length)[0] for length in code.runs)) if code.runs else first
