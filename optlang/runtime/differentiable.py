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
from optlang.backends.device_scalars import operator
from optlang.backends.torch_code import CellCode, Output, generate
from optlang.backends.torch_functions import load
from optlang.backends.torch_views import view
from optlang.backends.torch_work import computing, input_of, new_state, truth_of
from optlang.host import HostScalars, MissingFact
from optlang.ir import Node, Program
from optlang.ops import ASKING
from optlang.plan import Truth, plan
from optlang.runtime.settings import plain
from optlang.types import ELEMENT, Type

WEIGHTS = Type("real", ELEMENT)
Function = Callable[..., tuple[Tensor, ...]]


def refuses(program: Program) -> str:
    """Why autograd cannot go through the steps of a program; empty where it can."""
    if any(program.uses(op) for op in ASKING):
        return "asks the model again, in the middle of the step"
    roots = [*program.roots(), *(state.init for state in program.states)]
    if any(node.type.extent.level in ("group", "model") for node in ir.walk(roots)):
        return "has values per group or model, which are computed apart"
    return ""


class Differentiable:
    """An executable for cells with raw hypers: numbers or tensors of one element."""

    def __init__(self, program: Program) -> None:
        self.plan = plan(program)
        self._conditions = [HostScalars((condition,)) for condition in self.plan.conditions]
        self._made: dict[Any, tuple[CellCode, Function]] = {}

    def prepare(self, step: Step) -> None:
        """Missing states, from their `init`; one that starts as the weights hangs on them."""
        with torch.enable_grad():
            for cell in step.cells:
                truth = self._truth(cell)
                missing = [s for s in self.plan.program.states if s.name not in cell.state and self._exists(s, truth)]
                for state in missing:
                    room = new_state(state, cell.weights)
                    [value] = self._values(("init", state.name), [state.init], [(room, state.type)], cell, truth, step)
                    cell.state[state.name] = value

    def begin(self, step: Step) -> Callable[[], None]:
        """Computes new weights and states; what it returns puts them there."""
        with torch.enable_grad():
            taken = [(cell, *self._step(cell, step)) for cell in step.cells]

        def finish() -> None:
            with torch.enable_grad():
                for cell, weights, states in taken:
                    cell.weights.copy_(weights)
                    cell.state.update(states)

        return finish

    def step(self, step: Step) -> None:
        """One update of every cell."""
        self.begin(step)()

    def way(self, index: int) -> Way:
        """Always the same."""
        return Way("torch", "uncompiled, as autograd goes through the step")

    def evaluation(self, step: Step) -> list[Tensor]:
        """The weights to evaluate with, as new tensors."""
        node = self.plan.program.evaluation
        if node is None:
            return [cell.weights.clone() for cell in step.cells]
        return [self._values("evaluation", [node], [(c.weights, WEIGHTS)], c, self._truth(c), step)[0] for c in step.cells]

    # --------------------------------------------------------------------------------------------- one parameter

    def _step(self, cell: Cell, step: Step) -> tuple[Tensor, dict[str, Tensor]]:
        if cell.weights.is_leaf and cell.weights.requires_grad:
            raise StepError(f"{cell.name} is a leaf of the graph, which autograd cannot go through in place: with differentiable=True "
                            "give the optimizer clones, as `[p.clone() for p in model.parameters()]`")  # fmt: skip
        truth, program = self._truth(cell), self.plan.program
        states = [s for s in program.states if self._exists(s, truth)]
        nodes = [program.weights, *(program.updates[s.name] for s in states)]
        rooms = [(cell.weights, WEIGHTS), *((cell.state[s.name], s.type) for s in states)]
        weights, *values = self._values("step", nodes, rooms, cell, truth, step)
        return weights, {s.name: value for s, value in zip(states, values, strict=True)}

    def _truth(self, cell: Cell) -> Truth:
        known = Cell(cell.weights, None, {}, _plain(cell.hypers), cell.t, cell.facts, cell.index, cell.group)
        return tuple(truth_of(condition, known) for condition in self._conditions)

    def _exists(self, state: ir.State, truth: Truth) -> bool:
        return state.guard is None or truth[self.plan.conditions.index(state.guard)] is True

    def _values(self, key: Any, nodes: list[Node], rooms: list[tuple[Tensor, Type]], cell: Cell, truth: Truth, step: Step) -> list[Tensor]:
        """Expressions of a parameter, in the shapes and number types of the tensors that they are to replace."""
        dtype = cell.weights.dtype
        if (key, truth, dtype) not in self._made:
            outputs = [Output(node) for node in self.plan.decided(nodes, truth)]
            code = generate("step", outputs, (), dtype in (torch.float16, torch.bfloat16), dtype == torch.float64)
            self._made[key, truth, dtype] = code, load(code)
        code, function = self._made[key, truth, dtype]
        if code.shaped and cell.weights.ndim < 2:
            raise StepError(f"{cell.name} has shape {tuple(cell.weights.shape)}, but rule `{self.plan.program.name}` needs a matrix")
        tensors = [view(_tensor(node, cell), node.type, code.shaped) for node in code.tensors]
        counter = torch.tensor([cell.t, step.seed & 0xFFFFFFFF, cell.index & 0xFFFFFFFF], device=cell.weights.device)
        first = cell.weights.shape[0] if code.shaped else 0
        values = function(*tensors, _rates(code.slots, cell), counter, first)
        return [_like(room, value, type_, code.shaped) for (room, type_), value in zip(rooms, values, strict=True)]


def _like(room: Tensor, value: Tensor, type_: Type, shaped: bool) -> Tensor:
    return value.expand_as(view(room, type_, shaped)).reshape(room.shape).to(room.dtype)


def _tensor(node: Node, cell: Cell) -> Tensor:
    """Weights and states as copies, for they are written in place before the graph is gone through."""
    if node.op == "w":
        return cell.weights.clone()  # type: ignore[no-any-return]
    if node.op == "g":
        if cell.gradient is None or cell.gradient.shape != cell.weights.shape:
            raise StepError(f"{cell.name} has no gradient of its own shape; call `backward()` first")
        return cell.gradient  # type: ignore[no-any-return]
    return input_of(node, cell) if node.op == "input" else cell.state[node.value]


# ------------------------------------------------------------------------------------------------------------- rates


def _plain(hypers: Mapping[str, Any]) -> dict[str, Any]:
    return {name: plain(value) for name, value in hypers.items()}


def _rates(slots: tuple[Node, ...], cell: Cell) -> Tensor:
    """What a function takes from hypers, `t` and facts. Raises StepError for a fact that the parameter does not have."""
    dtype, device = computing(cell.weights.dtype), cell.weights.device
    if any(isinstance(value, Tensor) and value.requires_grad for value in cell.hypers.values()):
        return torch.stack(_in_torch(slots, cell)).to(device, dtype) if slots else torch.empty(0)
    try:
        return torch.tensor(_scalars(slots)(_plain(cell.hypers), cell.t, cell.facts), dtype=dtype, device=device)
    except MissingFact as missing:
        raise StepError(f"{cell.name}: {missing} (its shape is {tuple(cell.weights.shape)})") from None


@cache
def _scalars(slots: tuple[Node, ...]) -> HostScalars:
    return HostScalars(slots)


def _in_torch(slots: tuple[Node, ...], cell: Cell) -> list[Tensor]:
    """Numbers of one element in float64, which hang on the hypers."""
    values: dict[Node, Tensor] = {}
    for node in ir.walk(slots):
        values[node] = _leaf(node, cell) if not node.args else operator(node.op)([values[arg] for arg in node.args])
    return [values[slot].double() for slot in slots]


def _leaf(node: Node, cell: Cell) -> Tensor:
    found: Any = {"const": node.value, "t": cell.t}.get(node.op)
    if found is None:
        found = cell.hypers[node.value] if node.op == "hyper" else cell.facts.get(node.value)
    if found is None:
        raise StepError(f"{cell.name}: `{node.value}` is needed, and this parameter has none (its shape is {tuple(cell.weights.shape)})")
    if isinstance(found, Tensor):
        return found.reshape(()).to("cpu", torch.float64)
    return torch.tensor(found, dtype=torch.bool if node.type.kind == "bool" else torch.float64)
