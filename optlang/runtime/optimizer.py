"""The `torch.optim.Optimizer` around compiled programs. `factory` makes the subclasses; everything they do is here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch._compile import _disable_dynamo

from optlang.backends.base import Cell, Executable, Step, StepError
from optlang.backends.formats import REST
from optlang.runtime import checkpoint
from optlang.runtime.batch import Batch, Closure, exactly
from optlang.runtime.checkpoint import COUNT
from optlang.runtime.facts import facts_of
from optlang.runtime.naming import Group, name_in
from optlang.runtime.options import refuse_capture
from optlang.runtime.parameters import gradient_of, real
from optlang.runtime.saved import Saved
from optlang.runtime.scaling import overflowed, scale_of
from optlang.runtime.settings import plain
from optlang.runtime.sharded import Part, gradients_at, is_sharded

Shared = dict[str, Tensor]
Work = dict[tuple[Any, ...], tuple[Executable, list[Cell]]]  # by rule and shape


class RuleOptimizer(Saved):
    """What all optimizers made from rules share."""

    asks_again: ClassVar[bool]  # reads the loss, or gradients at other points: `step` needs a closure

    def __init__(self, /, *args: Any, **settings: Any) -> None:
        self._begin()
        super().__init__(*args, **settings)

    def _begin(self) -> None:
        """What is not part of a checkpoint; `inputs` outlive loading one."""
        self.inputs: dict[str, Any] = self.__dict__.get("inputs", {})  # values that the rule asks the training loop for, by name
        self.reports: dict[str, Any] = self.__dict__.get("reports", {})  # what the rule reported in the last step
        self._cells: dict[Tensor, Cell] = {}
        self._parts: dict[int, Part] = {}  # of the parameters in this step that several processes hold, by their places
        self._shapes: dict[int, tuple[Any, ...]] = {}  # of each group: the program for which its states have been checked

    # -------------------------------------------------------------------------------------------------- step

    @_disable_dynamo  # the rule is compiled, what surrounds it is not
    @torch.no_grad()
    def step(self, closure: Closure | None = None) -> Any:
        """One update of every parameter that has a gradient. Returns what the closure returned.

        Raises before anything has changed: ValueError for a setting outside its range, RuntimeError for a missing closure.
        """
        self._check_mode()
        refuse_capture(type(self).__name__)
        if closure is None and self.asks_again and all(plain(group.get("lr")) == 0 for group in self.param_groups):
            self._prepare()  # as distributed checkpoints ask, to see which states there are
            return None
        if closure is None and self.asks_again:
            raise RuntimeError(f"{type(self).__name__} asks the model more than once a step: call `step(closure)` with a closure "
                               "that zeroes the gradients, computes the loss, calls backward and returns the loss")  # fmt: skip
        settings = self.read_settings()
        self._check_inputs()
        batch = None if closure is None else Batch(closure, [p for group in self.param_groups for p in group["params"]], self.asks_again)
        if not overflowed(self):
            with exactly():
                self._update(settings, batch)
        return None if batch is None else batch.loss

    def _prepare(self) -> None:
        """Creates the states of parameters with gradients; moves nothing."""
        work = self._gather(self.read_settings())
        for executable, cells in work.values():
            step = self._step_of(cells, work)
            executable.prepare(step)
            self._share(step)
        self._parts.clear()

    def _update(self, settings: list[dict[str, Any]], batch: Batch | None) -> None:
        known = set(self.state)
        try:
            work = self._gather(settings)
            taken = [self._begin_step(executable, self._step_of(cells, work), batch) for executable, cells in work.values()]
        except BaseException:
            self._forget(known)
            self._parts.clear()
            raise
        self.reports = {}
        for step, write in taken:
            write()
            self._put_back(step.cells)
            self._share(step)
            self.reports |= step.reports
        self._count([cell for _, cells in work.values() for cell in cells])

    @property
    def _step_supports_amp_scaling(self) -> bool:
        """Whether `GradScaler` leaves unscaling and skipping to the step: as in torch where `fused` was asked for."""
        return any(group.get("fused") for group in self.param_groups)

    def _check_mode(self) -> None:
        """For rules with `eval`."""

    def _forget(self, known: set[Tensor]) -> None:
        """Parameters that a failed step was to be the first of have no state."""
        for parameter in set(self.state) - known:
            del self.state[parameter]
            self._cells.pop(parameter, None)

    def _count(self, cells: list[Cell]) -> None:
        for cell in cells:
            cell.state[COUNT].fill_(cell.t)
            cell.gradient = None  # gradients are not kept alive

    def _check_inputs(self) -> None:
        wanted = {i.name for case in self.cases for i in case.program.inputs}
        if missing := sorted(wanted - set(self.inputs)):
            raise RuntimeError(f"{type(self).__name__} needs optimizer.inputs[{missing[0]!r}]: set it before each step")

    def _gather(self, settings: list[dict[str, Any]]) -> Work:
        """The cells of each program. A parameter without a gradient is left out, and its count does not move."""
        work: Work = {}
        index, scale = 0, scale_of(self)
        for number, (group, hypers) in enumerate(zip(self.param_groups, settings, strict=True)):
            key, executable = self.case_of(group).executable(hypers, group.get("differentiable", False))
            self._check_shapes(number, group, hypers, key)
            cells = work.setdefault(key, (executable, []))[1]
            given = self.case_of(group).settings.raw(group) if group.get("differentiable") else hypers
            for place, parameter in enumerate(group["params"]):
                if parameter.grad is not None:
                    cell = self._cell(parameter, number, place, index)
                    cell.hypers, cell.t = given, int(cell.state[COUNT]) + 1
                    part = self._parts.get(index)
                    cell.gradient = gradient_of(parameter, group, cell.name, scale, None if part is None else part.gradient())
                    cells.append(cell)
                index += 1
        return {key: found for key, found in work.items() if found[1]}

    def _check_shapes(self, number: int, group: Group, hypers: dict[str, Any], key: tuple[Any, ...]) -> None:
        """Whether the states of a group fit the program, once for each value of what shapes it."""
        if self._shapes.get(number) == key:
            return
        case = self.case_of(group)
        for parameter in group["params"] if case.baked else ():
            found = checkpoint.shape_problems(case.shaped(hypers), parameter, self.state.get(parameter, {}), hypers)
            if found:
                shown = ", ".join(f"{name} = {hypers[name]}" for name in case.baked)
                raise RuntimeError(f"{type(self).__name__}: {self.name_of(parameter)} has states of other shapes than {shown} wants: "
                                   f"{'; '.join(found)}. Set this before the first step")  # fmt: skip
        self._shapes[number] = key

    def _cell(self, parameter: Tensor, group: int, place: int, index: int) -> Cell:
        if is_sharded(parameter):
            return self._cell_of_a_part(parameter, group, place, index)
        state = self.state[parameter]
        cell = self._cells.get(parameter)
        if cell is None or cell.group != group or cell.index != index or cell.state is not state:
            name = name_in(self.param_groups[group], group, place)
            numbers = real(parameter, self.param_groups[group].get("differentiable", False))
            cell = self._cells[parameter] = Cell(numbers, None, state, {}, 0, facts_of(numbers), index, group, name)
        elif parameter.is_complex():  # its memory may be another one by now
            cell.weights = real(parameter, self.param_groups[group].get("differentiable", False))
        if COUNT not in state:
            state[COUNT] = torch.zeros((), dtype=torch.float32)
        if self.inputs:
            cell.inputs = {k: v.get(parameter) if isinstance(v, Mapping) else v for k, v in self.inputs.items()}
        return cell

    def _cell_of_a_part(self, parameter: Tensor, group: int, place: int, index: int) -> Cell:
        part = self._parts[index] = Part(parameter, self.goes_whole(parameter, self.param_groups[group]))
        kept = self.state[parameter]
        kept.setdefault(COUNT, torch.zeros((), dtype=torch.float32))
        name = name_in(self.param_groups[group], group, place)
        given = {k: v.get(parameter) if isinstance(v, Mapping) else v for k, v in self.inputs.items()}
        inputs = {k: part.of(v) for k, v in given.items()}
        return Cell(part.weights, None, part.states(kept), {}, 0, facts_of(parameter), index, group, name, inputs)

    def _put_back(self, cells: Sequence[Cell]) -> None:
        """Parts of parameters that were stepped whole."""
        for cell in cells if self._parts else ():
            if (part := self._parts.pop(cell.index, None)) is not None:
                part.put_back()

    def _begin_step(self, executable: Executable, step: Step, batch: Batch | None) -> tuple[Step, Callable[[], None]]:
        """A step computed, with what writes it."""
        cells = step.cells
        if batch is not None:
            parts = [self._parts.get(cell.index) for cell in cells]
            weights = [cell.weights if part is None else part.parameter for cell, part in zip(cells, parts, strict=True)]
            signs = [-1 if self.param_groups[cell.group].get("maximize", False) else 1 for cell in cells]
            step.loss = signs[0] * batch.number() if "loss" in self.case_of(self.param_groups[cells[0].group]).asks else None
            step.grad = lambda points: [s * x for s, x in zip(signs, gradients_at(batch, weights, parts, points), strict=True)]
            step.hvp = lambda vectors: [s * x for s, x in zip(signs, batch.hessian(weights, vectors), strict=True)]
        try:
            executable.prepare(step)
            write = executable.begin(step)
        except StepError as problem:
            raise RuntimeError(f"{type(self).__name__}: {problem}") from problem
        return step, write

    def _step_of(self, cells: list[Cell], work: Work) -> Step:
        """The step of a program; `work` is all of this step."""
        group = self.param_groups[cells[0].group]
        case = self.case_of(group)
        groups = {n: self._kept(case.shared["group"], [self.param_groups[n]]) for n in {cell.group for cell in cells}}
        everywhere = [g for g in self.param_groups if self.case_of(g) is case]
        others = [cell for _, some in work.values() if some is not cells for cell in some] if case.sees_all else []
        shared = self._kept(case.shared["model"], everywhere)
        return Step(cells, shared, groups, group.get("seed", 0), inputs=self.inputs, beside=list(map(seen, others)))

    def _kept(self, names: list[str], groups: list[Group]) -> Shared:
        """States per group or model. Every parameter's state dict holds them, so that checkpoints do; the first one counts."""
        found: Shared = {}
        for state in (self.state.get(p, {}) for group in groups for p in group["params"]) if names else ():
            for name in names:
                if name in state:
                    found.setdefault(name, state[name])
        return found

    def _share(self, step: Step) -> None:
        for cell in step.cells if step.model or any(step.groups.values()) else ():
            cell.state.update(step.model)
            cell.state.update(step.groups[cell.group])


def seen(cell: Cell) -> Cell:
    """A parameter as other rules see it: without settings, and of its states only what belongs to its weights."""
    return replace(cell, hypers={}, state={REST: cell.state[REST]} if REST in cell.state else {})
