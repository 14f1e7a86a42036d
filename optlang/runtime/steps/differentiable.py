"""Steps that autograd goes through: gradients of what comes after them with respect to weights, gradients, states and hypers.

As `differentiable=True` of torch: parameters are no leaves and are written in place; states are new tensors after every
step, so the graph of one step is not spoilt by the next. Rates are computed in torch where a hyper asks for its gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import torch
from torch import Tensor

from optlang import ir
from optlang.backends.base import Cell, Step, StepError, Way
from optlang.backends.outputs import Output
from optlang.backends.places import shape_of
from optlang.backends.torch.binding import first_of
from optlang.backends.torch.code import CellCode, generate
from optlang.backends.torch.conditions import Conditions
from optlang.backends.torch.loading import load
from optlang.backends.torch.views import view
from optlang.backends.torch.work import computing, input_of, new_state
from optlang.host import HostScalars, MissingFact
from optlang.ir import Node, Program
from optlang.ops import ASKING
from optlang.plan import Barrier, Truth, plan
from optlang.runtime.groups.settings import plain
from optlang.runtime.steps.differentiable_shared import SHARED, Site, Sites, value
from optlang.types import ELEMENT, Type

WEIGHTS = Type("real", ELEMENT)
Function = Callable[..., tuple[Tensor, ...]]


def refuses(program: Program) -> str:
    """Why autograd cannot go through the steps of a program; empty where it can."""
    if any(program.uses(op) for op in ASKING):
        return "asks the model again, in the middle of the step"
    return ""


class Differentiable:
    """An executable for cells with raw hypers: numbers or tensors of one element."""

    def __init__(self, program: Program) -> None:
        self.plan = plan(program)
        self._conditions = Conditions(self.plan.conditions)
        self._made: dict[Any, tuple[CellCode, Function]] = {}
        self._own = [s for s in self.plan.program.states if s.type.extent.level not in SHARED]
        self._shared = [s for s in self.plan.program.states if s.type.extent.level in SHARED]

    def prepare(self, step: Step) -> None:
        """Missing states, from their `init`; one that starts as the weights hangs on them."""
        with torch.enable_grad():
            sites = Sites(step)
            for state in self._shared:
                for place in sites.of(state.type.extent.level):
                    if state.name not in place.states:
                        first = value(state.init, place)
                        found = first.expand(state.type.window) if state.type.window else first
                        place.states[state.name] = _kept(found, step.cells[0].weights)
            for site in sites.cells:
                [cell] = site.cells
                truth = self._truth(cell)
                missing = [s for s in self._own if s.name not in cell.state and self.plan.keeps(s, truth)]
                for state in missing:
                    room = new_state(state, cell.weights)
                    [found] = self._values(("init", state.name), [state.init], [(room, state.type)], site, truth, step)
                    cell.state[state.name] = found

    def begin(self, step: Step) -> Callable[[], None]:
        """Computes new weights and states; what it returns puts them there."""
        with torch.enable_grad():
            sites = self._gathered(step) if step.cells else None
            taken = [(site.cells[0], *self._step(site, step)) for site in sites.cells] if sites else []
            shared = self._shared_updates(sites) if sites else []
            reports = {name: value(node, sites.model).item() for name, node in (self.plan.program.reports or {}).items()} if sites else {}

        def finish() -> None:
            with torch.enable_grad():
                for cell, weights, states in taken:
                    cell.weights.copy_(weights)
                    cell.state.update(states)
                for holder, name, found in shared:
                    holder[name] = found
            step.reports.update(reports)

        return finish

    def step(self, step: Step) -> None:
        """One update of every cell."""
        self.begin(step)()

    def way(self, index: int) -> Way:
        """Always the same."""
        return Way("torch", "uncompiled, as autograd goes through the step")

    def _gathered(self, step: Step) -> Sites:
        """The sites of a step, with the values that need all parameters."""
        sites, program = Sites(step), self.plan.program
        truths = [self._truth(cell) for cell in step.cells]
        roots = [program.weights, *program.updates.values(), *(program.reports or {}).values()]
        for level in self.plan.levels(roots, dict.fromkeys(truths)):
            for barrier in level:
                cells = zip(sites.cells, truths, strict=True) if barrier.asked is not None else ()
                sites.gather(barrier, [self._asked(barrier, site, truth, step) for site, truth in cells])
        return sites

    def _asked(self, barrier: Barrier, site: Site, truth: Truth, step: Step) -> Tensor:
        """What a parameter contributes to a value of all."""
        node, weights = barrier.asked, site.cells[0].weights
        assert node is not None
        room = torch.empty(shape_of(node.type.extent, tuple(weights.shape)), dtype=computing(weights.dtype))
        return self._values(("level", barrier.mark), [node], [(room, node.type)], site, truth, step)[0]

    def _shared_updates(self, sites: Sites) -> list[tuple[Any, str, Tensor]]:
        weights = sites.cells[0].cells[0].weights
        wanted = [(place, state) for state in self._shared for place in sites.of(state.type.extent.level)]
        return [(p.states, s.name, _kept(value(self.plan.program.updates[s.name], p), weights)) for p, s in wanted]

    def evaluation(self, step: Step) -> list[Tensor]:
        """The weights to evaluate with, as new tensors."""
        node = self.plan.program.evaluation
        if node is None:
            return [cell.weights.clone() for cell in step.cells]
        sites = self._gathered(step).cells
        found = [(site, site.cells[0].weights, self._truth(site.cells[0])) for site in sites]
        return [self._values("evaluation", [node], [(w, WEIGHTS)], site, truth, step)[0] for site, w, truth in found]

    # --------------------------------------------------------------------------------------------- one parameter

    def _step(self, site: Site, step: Step) -> tuple[Tensor, dict[str, Tensor]]:
        [cell] = site.cells
        if cell.weights.is_leaf and cell.weights.requires_grad:
            raise StepError(f"{cell.name} is a leaf of the graph, which autograd cannot go through in place: with differentiable=True "
                            "give the optimizer clones, as `[p.clone() for p in model.parameters()]`")  # fmt: skip
        truth, program = self._truth(cell), self.plan.program
        states = [s for s in self._own if self.plan.keeps(s, truth)]
        nodes = [program.weights, *(program.updates[s.name] for s in states)]
        rooms = [(cell.weights, WEIGHTS), *((cell.state[s.name], s.type) for s in states)]
        weights, *values = self._values("step", nodes, rooms, site, truth, step)
        return weights, {s.name: value for s, value in zip(states, values, strict=True)}

    def _truth(self, cell: Cell) -> Truth:
        known = Cell(cell.weights, None, {}, _plain(cell.hypers), cell.t, cell.facts, cell.index, cell.group)
        return self._conditions.truth(known)

    def _values(self, key: Any, nodes: list[Node], rooms: list[tuple[Tensor, Type]], site: Site, truth: Truth, step: Step) -> list[Tensor]:
        """Expressions of a parameter, in the shapes and number types of the tensors that they are to replace."""
        [cell] = site.cells
        dtype = cell.weights.dtype
        if (key, truth, dtype) not in self._made:
            outputs = [Output(node) for node in self.plan.decided(nodes, truth)]
            code = generate("step", outputs, (), dtype in (torch.float16, torch.bfloat16), dtype == torch.float64, in_place=False)
            self._made[key, truth, dtype] = code, load(code)
        code, function = self._made[key, truth, dtype]
        if code.shaped and cell.weights.ndim < 2:
            raise StepError(f"{cell.name} has shape {tuple(cell.weights.shape)}, but rule `{self.plan.program.name}` needs a matrix")
        tensors = [view(_tensor(node, site), node.type, code.shaped) for node in code.tensors]
        counter = torch.tensor([cell.t, step.seed & 0xFFFFFFFF, cell.index & 0xFFFFFFFF, 0], device=cell.weights.device)
        values = function(*tensors, _rates(code.slots, site), counter, first_of(code, cell.weights))
        return [_like(room, value, type_, code.shaped) for (room, type_), value in zip(rooms, values, strict=True)]


def _kept(found: Tensor, weights: Tensor) -> Tensor:
    """A value per group or model as it is stored."""
    return found if found.dtype == torch.bool else found.to(weights.device, computing(weights.dtype))


def _like(room: Tensor, value: Tensor, type_: Type, shaped: bool) -> Tensor:
    return value.expand_as(view(room, type_, shaped)).reshape(room.shape).to(room.dtype)


def _tensor(node: Node, site: Site) -> Tensor:
    """Weights and states as copies, for they are written in place before the graph is gone through."""
    [cell] = site.cells
    if node.type.extent.level in SHARED:
        return value(node, site).to(cell.weights.device, computing(cell.weights.dtype))
    if node.op == "w":
        weights: Tensor = cell.weights
        return weights.clone()
    if node.op == "g":
        if cell.gradient is None or cell.gradient.shape != cell.weights.shape:
            raise StepError(f"{cell.name} has no gradient of its own shape; call `backward()` first")
        gradient: Tensor = cell.gradient
        return gradient
    return input_of(node, cell.inputs.get(node.value), cell) if node.op == "input" else cell.state[node.value]


# ------------------------------------------------------------------------------------------------------------- rates


def _plain(hypers: Mapping[str, Any]) -> dict[str, Any]:
    return {name: plain(value) for name, value in hypers.items()}


def _rates(slots: tuple[Node, ...], site: Site) -> Tensor:
    """What a function takes from hypers, `t`, facts and values of all. Raises StepError for a fact that the parameter does not have."""
    [cell] = site.cells
    dtype, device = computing(cell.weights.dtype), cell.weights.device
    hangs = any(isinstance(x, Tensor) and x.requires_grad for x in cell.hypers.values())
    if hangs or any(node.type.extent.level in SHARED for node in ir.walk(slots)):
        return torch.stack([value(slot, site).double() for slot in slots]).to(device, dtype) if slots else torch.empty(0)
    try:
        return torch.tensor(_scalars(slots)(_plain(cell.hypers), cell.t, cell.facts), dtype=dtype, device=device)
    except MissingFact as missing:
        raise StepError(f"{cell.name}: {missing} (its shape is {tuple(cell.weights.shape)})") from None


@cache
def _scalars(slots: tuple[Node, ...]) -> HostScalars:
    return HostScalars(slots)
