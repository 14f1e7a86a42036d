"""The step of all cells: computed as a whole, then written, or not at all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import is_
from typing import Any, ClassVar

import torch
from torch import Tensor

from optlang.backends.base import Cell, Executable, Step, StepError
from optlang.backends.device_scalars import is_on_device
from optlang.backends.repeated.saved_gradients import Gradients
from optlang.runtime.checkpoints.fitting import COUNT
from optlang.runtime.distributed.sharded import Part, gradients_at, is_sharded, points_at, products_at
from optlang.runtime.distributed.wrappers import is_flattened
from optlang.runtime.gathering import Gathered
from optlang.runtime.groups.naming import Group
from optlang.runtime.groups.parameters import is_hollow
from optlang.runtime.modes import NOTHING
from optlang.runtime.steps import captured, traced
from optlang.runtime.steps.batch import Batch
from optlang.runtime.steps.interrupts import uninterrupted


class Stepped(Gathered):
    """Cells become a step of each program, and what is computed is written with no interrupt between."""

    asks_again: ClassVar[bool]  # reads the loss, or gradients at other points: `step` needs a closure
    reports: dict[str, Any]  # what the rule reported in the last step

    def _list_parameters(self) -> None:
        """What compiled functions see of the optimizer: nothing that changes in training."""
        groups: list[Group] = self.__dict__.get("param_groups", [])
        self.stepped: list[Tensor] = self._parameters() if groups else []
        self._gradients = Gradients(self.stepped)
        self._is_spread = any(is_sharded(p) for p in self.stepped)
        self._is_hollow = is_hollow(self.stepped) and not any(group.get("fused") for group in groups)  # which torch refuses
        self.is_traced = not self.asks_again and all(traced.takes(p, g.get("differentiable", False)) for g in groups for p in g["params"])
        self.is_captured = all(group.get("capturable") for group in groups)

    def _look_over(self) -> None:
        """Whether groups hold the parameters that were listed, in the first step also whether these have kept their shapes."""
        now = self._parameters()
        if not self._cells and any(map(is_flattened, now)):
            self._check_others([])
        if len(now) != len(self.stepped) or not all(map(is_, now, self.stepped)):
            self._check_others(self.stepped)
            self._list_parameters()

    def _parameters(self) -> list[Tensor]:
        return [p for group in self.param_groups for p in group["params"]]

    def _prepare(self) -> None:
        """Creates the states of parameters with gradients; moves nothing."""
        self._look_over()
        work = self._gather(self.read_settings())
        for executable, cells in work.values():
            step = self._step_of(cells, work)
            executable.prepare(step)
            self._share(step)
        self._parts.clear()

    def _update(self, settings: list[dict[str, Any]], batch: Batch | None) -> None:
        known = len(self.state)
        try:
            begun = self._once_more(settings, batch)
            if begun is not None and begun.whole is not None:
                self.reports = begun.whole() or {}
                return
            if begun is None:
                self._look_over()
            work, writes = (self._gather(settings), ()) if begun is None else begun[:2]
            comes_again = begun is None and self._comes_again(work)
            taken = [self._begin_step(executable, self._step_of(cells, work, comes_again), batch) for executable, cells in work.values()]
        except BaseException:
            self._forget(known)
            self._parts.clear()
            raise
        self.reports = {}
        with uninterrupted():
            for write in writes:
                self.reports |= write() or {}
            for step, write in taken:
                write()
                self._put_back(step.cells)
                self._share(step)
            for step in self._in_order([step for step, _ in taken]) if taken else ():
                self.reports |= step.reports
            left = [cell for step, _ in taken for cell in step.left] if taken else []
            if begun is None or self._again is None:
                self._count([cell for step, _ in taken for cell in step.cells if cell not in left])
            else:
                self._again.count(left)
        if comes_again and not left:
            self._remember(settings, work, [step for step, _ in taken])
        _tell(left)

    def _in_order(self, steps: list[Step]) -> list[Step]:
        """As the rules stand in a route: of reports of one name the last counts."""
        return steps if len(steps) < 2 else sorted(steps, key=lambda s: self.cases.index(self.case_of(self.param_groups[s.cells[0].group])))

    def _begin_step(self, executable: Executable, step: Step, batch: Batch | None) -> tuple[Step, Callable[[], None]]:
        """A step computed, with what writes it."""
        cells = step.cells
        if batch is not None:
            parts = [part if isinstance(part := self._parts.get(cell.index), Part) else None for cell in cells]
            weights = [cell.weights if part is None else part.parameter for cell, part in zip(cells, parts, strict=True)]
            signs = [-1 if self.param_groups[cell.group].get("maximize", False) else 1 for cell in cells]
            asks = self.case_of(self.param_groups[cells[0].group]).asks
            step.loss = signs[0] * batch.mean_loss() if "loss" in asks else None
            step.loss_at = lambda points: signs[0] * batch.loss_at(weights, points_at(parts, points))
            step.grad = lambda points: _signed(signs, gradients_at(batch, weights, parts, points))
            step.hvp = lambda vectors: _signed(signs, products_at(batch, weights, parts, vectors))
            step.one_graph = batch.one_graph
        try:
            executable.prepare(step)
            with NOTHING if batch is None else batch.asked():
                write = executable.begin(step)
        except StepError as problem:
            raise RuntimeError(f"{type(self).__name__}: {problem}") from problem
        return step, write

    def _set_aside(self) -> Gradients:
        """Those that closures cannot reach while the model is asked again; parameters were looked over before."""
        return self._gradients

    def _spread(self) -> Sequence[Tensor]:
        return self.stepped if self._is_spread else ()

    def _count(self, cells: list[Cell]) -> None:
        if there := [cell for cell in cells if is_on_device(cell)]:
            captured.count(there, getattr(self, "found_inf", None) if self._guards else None)
        for cell in cells:
            if not is_on_device(cell):
                cell.state[COUNT].fill_(cell.t)  # asks for no memory
            cell.gradient = None  # gradients are not kept alive

    def _share(self, step: Step) -> None:
        for cell in step.cells if step.model or any(step.groups.values()) else ():
            cell.state.update(step.model)
            cell.state.update(step.groups[cell.group])

    def _check_mode(self) -> None:
        """For rules with `eval`."""

    def step_one(self, number: int, place: int, index: int, chosen: Executable | None = None, again: bool = False) -> None:
        """A step of one parameter by itself. `chosen` is what takes it if not the rule; `again`: it belongs to the last step."""
        self._check_mode()
        self._guards = False
        group = self.param_groups[number]
        hypers = self.case_of(group).settings.read(group, f" (group {number})")
        key, executable = self.case_of(group).executable(hypers)
        self._check_shapes(number, group, hypers, key)
        known = len(self.state)
        try:
            parameter = group["params"][place]
            cell = self._next(parameter, self._cell(parameter, number, place, index), hypers)
            cell.t -= again
            step = self._step_of([cell], {})
            executable.prepare(step)
            write = (chosen or executable).begin(step)
        except BaseException as problem:
            self._forget(known)
            self._parts.clear()
            if isinstance(problem, StepError):
                raise RuntimeError(f"{type(self).__name__}: {problem}") from problem
            raise
        with uninterrupted():
            write()
            self._put_back([cell])
            self._count([cell for cell in step.cells if cell not in step.left])
        _tell(step.left)


def _signed(signs: Sequence[int], found: Sequence[Tensor]) -> list[Tensor]:
    """What groups that are maximized have is turned; new memory for the others would take as long as the model."""
    return [x if sign > 0 else -x for sign, x in zip(signs, found, strict=True)]


def _tell(left: Sequence[Cell]) -> None:
    """Raises MemoryError where parameters had to be left out of a step, on a GPU torch.OutOfMemoryError, as torch does."""
    if left:
        names = ", ".join(cell.name or f"parameter {cell.index}" for cell in left[:3])
        kind = torch.OutOfMemoryError if left[0].weights.is_cuda else MemoryError
        raise kind(f"memory ended during the step: {len(left)} parameters ({names}{', …' * (len(left) > 3)}) are as before it, with "
                   "their states, and all others have been stepped")  # fmt: skip
