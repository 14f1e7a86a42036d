"""Values per group and model as single numbers of a device, in float64: the host does not look at them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from optlang.backends.arrays import kept
from optlang.backends.base import Step, StepError
from optlang.backends.device_scalars import is_capturing, operator
from optlang.backends.places import Place
from optlang.backends.reference.interpreter import Code, Run, Wanted, at
from optlang.backends.torch import ops as torch_ops
from optlang.backends.torch.work import computing
from optlang.ir import Node, State


def together(op: str, parts: Iterable[Tensor], count: int, share: Sequence[Tensor], device: torch.device) -> Tensor:
    """What all parameters contribute, reduced to one number; `count`: of how many values."""
    if op == "count":
        return torch.full((), float(count), dtype=torch.float64, device=device)
    values = torch.cat([part.reshape(-1).to(device, torch.float64) for part in parts])
    match op:
        case "amax":
            return torch_ops.amax(values, None)
        case "amin":
            return torch_ops.amin(values, None)
        case "quantile":
            return torch_ops.quantile(values, share[0], None)
    return values.sum() / (count if op == "mean" else 1)


def applied(node: Node, args: Sequence[Tensor]) -> Tensor:
    """An operator with single numbers, or windows of them."""
    if node.value == "window":
        over_window: Callable[..., Tensor] = getattr(torch_ops, f"window_{node.op}")
        return over_window(*args)
    return torch_ops.push(*args) if node.op == "push" else operator(node.op)(args)


def first_value(state: State, value: Any, weights: Tensor) -> Tensor:
    """A state per group or model as it begins."""
    shape = (state.type.window,) if state.type.window else ()
    if isinstance(value, Tensor):
        kind = {"bool": torch.bool, "int": torch.int64}.get(state.type.kind, computing(weights.dtype))
        return value.expand(shape).to(weights.device, kind, copy=True)
    first: Tensor = kept(weights, np.broadcast_to(value, shape), state.type.kind)
    return first


def of_shape(value: Any, target: Tensor) -> Tensor:
    """A copy of a value per group or model, for a state of that shape."""
    if isinstance(value, Tensor):
        return value.expand(target.shape).to(target.dtype, copy=True)
    return torch.as_tensor(np.broadcast_to(value, tuple(target.shape)).copy(), device=target.device)


class SharedRun(Run):
    """Expressions of one step that belong to no single parameter, where the host knows neither `t` nor all hypers."""

    def __init__(self, rule: str, code: Code, step: Step) -> None:
        super().__init__(rule, code, step)
        self.device: torch.device = step.cells[0].weights.device

    def _needs(self, node: Node, place: Place) -> list[Wanted]:
        """Both sides of a block, for the host does not know which is taken."""
        return [at(arg, place) for arg in node.args] if node.op == "branch" else super()._needs(node, place)

    def _value(self, node: Node, place: Place, needed: list[Wanted]) -> Tensor:
        if not needed:
            return self._leaf(node, place)
        return applied(node, [p.values[n] for n, p in needed])

    def _leaf(self, node: Node, place: Place) -> Tensor:
        match node.op:
            case "t":
                return self._t(place)
            case "hyper":
                found = self._hyper(node.value, place)
            case "random":
                return self._draw(node, place)
            case "loss" if self.step.loss is None:
                raise StepError(f"rule `{self.rule}` reads the loss; call `optimizer.step(closure)` with a closure that returns it")
            case _:
                found = self._given(node, place)
        given = self._number(found, node.type.kind == "bool")
        return given if node.op == "state" else given.reshape(())  # a rate, or a scaler's finding, may be a row of one

    def _number(self, found: Any, is_bool: bool) -> Tensor:
        """By a kernel where the host knows it: copies from there cannot be captured."""
        if not isinstance(found, Tensor):
            value, dtype = (bool(found), torch.bool) if is_bool else (float(found), torch.float64)
            return torch.full((), value, dtype=dtype, device=self.device)
        there = found.detach().to(self.device, non_blocking=True)
        return there != 0 if is_bool else there.double()

    def _given(self, node: Node, place: Place) -> Any:
        where: Mapping[str, Any] = {"state": place.states, "input": place.inputs}.get(node.op, {})
        found = {"const": node.value, "loss": self.step.loss}.get(node.op, where.get(node.value))
        if isinstance(found, Mapping) and place.group is not None:
            found = found.get(place.group)
        if found is None:
            raise StepError(f"{place.name}: `{node.value}` of rule `{self.rule}` is needed, and there is none")
        return found

    def _t(self, place: Place) -> Tensor:
        """That of the parameter with the most updates."""
        times = [self._number(p.cell.t, False).reshape(1) for p in place.cells if p.cell is not None]
        return torch.cat(times).amax()

    def _hyper(self, name: str, place: Place) -> Any:
        """All that are concerned must agree."""
        given = [p.cell.hypers[name] for p in place.cells if p.cell is not None]
        for other in dict.fromkeys(map(id, given)):
            found = next(x for x in given if id(x) == other)
            if found is not given[0]:
                self._check_equal(name, given[0], found, place)
        return given[0]

    def _check_equal(self, name: str, first: Any, other: Any, place: Place) -> None:
        of_device = any(isinstance(x, Tensor) and x.device.type != "cpu" for x in (first, other))
        if of_device and is_capturing():
            raise StepError(f"rule `{self.rule}` uses the hyper `{name}` in a value of {place.name}, and whether the tensors of its groups "
                            "are equal cannot be seen during a capture: give the groups one and the same tensor")  # fmt: skip
        if float(first) != float(other):
            raise StepError(f"rule `{self.rule}` uses the hyper `{name}` in a value of {place.name}, but it is {float(first):g} and "
                            f"{float(other):g}; give it the same value in these parameter groups")  # fmt: skip

    def _draw(self, node: Node, place: Place) -> Tensor:
        distribution, site = node.value
        fixed = [torch.full((1,), x & 0xFFFFFFFF, device=self.device) for x in (self.step.seed, place.stream, 0)]
        counter = torch.cat([self._t(place).long().reshape(1), *fixed])
        return torch_ops.draw(distribution, site, counter, (), torch.empty(0, dtype=torch.float64, device=self.device))
