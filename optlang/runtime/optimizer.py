"""The `torch.optim.Optimizer` around compiled programs. `factory` makes the subclasses; everything they do is here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch._compile import _disable_dynamo

from optlang.backends.base import Cell, Executable, Step, StepError
from optlang.backends.device_scalars import is_on_device
from optlang.backends.formats import REST
from optlang.backends.overflow import OVERFLOW, SCALE
from optlang.runtime import captured, checkpoint, sparse, traced
from optlang.runtime.again import Again, Known, repeats
from optlang.runtime.batch import Batch, Closure, as_number, exactly
from optlang.runtime.cases import Guard
from optlang.runtime.checkpoint import COUNT
from optlang.runtime.facts import facts_of
from optlang.runtime.interrupts import uninterrupted
from optlang.runtime.naming import Group, name_in
from optlang.runtime.parameters import gradient_of, real
from optlang.runtime.processes import mean_of
from optlang.runtime.saved import Saved
from optlang.runtime.scaling import overflowed, scale_of
from optlang.runtime.settings import plain
from optlang.runtime.sharded import Part, gradients_at, is_sharded, points_at

Shared = dict[str, Tensor]
Work = dict[tuple[Any, ...], tuple[Executable, list[Cell]]]  # by rule and shape


class RuleOptimizer(Saved):
    """What all optimizers made from rules share."""

    asks_again: ClassVar[bool]  # reads the loss, or gradients at other points: `step` needs a closure
    released: Any = None  # what steps parameters inside `backward`, where that was asked for: see `release`

    def __init__(self, /, *args: Any, **settings: Any) -> None:
        self._begin()
        super().__init__(*args, **settings)

    def _begin(self) -> None:
        """What is not part of a checkpoint; `inputs` outlive loading one."""
        self.inputs: dict[str, Any] = self.__dict__.get("inputs", {})  # values that the rule asks the training loop for, by name
        self.reports: dict[str, Any] = self.__dict__.get("reports", {})  # what the rule reported in the last step
        self.number = traced.numbered(self)
        self._list_parameters()
        self._cells: dict[Tensor, Cell] = {}
        self._parts: dict[int, Part | sparse.Touched] = {}  # what is stepped in place of the parameters at these places in this step
        self._known: Known | None = None
        self._again: dict[int, Again] = {}  # by group
        self._quick: dict[int, Again] = {}  # of these, the ones in this step
        self._guards = False  # in this step, overflows are dealt with on the device
        self._shapes: dict[int, tuple[Any, ...]] = {}  # of each group: the program for which its states have been checked

    def _list_parameters(self) -> None:
        """What compiled functions see of the optimizer: nothing that changes in training."""
        groups: list[Group] = self.__dict__.get("param_groups", [])
        self.stepped: list[Tensor] = [p for group in groups for p in group["params"]]
        self._is_spread = any(is_sharded(p) for p in self.stepped)
        self.is_traced = not self.asks_again and all(traced.takes(p, g.get("differentiable", False)) for g in groups for p in g["params"])
        self.is_captured = all(group.get("capturable") for group in groups)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """As in torch; a route splits the group by rule. Raises ValueError for a parameter that its rule cannot take."""
        super().add_param_group(param_group)
        self._list_parameters()

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._list_parameters()

    # -------------------------------------------------------------------------------------------------- step

    def step(self, closure: Closure | None = None) -> Any:
        """One update of every parameter that has a gradient. Returns what the closure returned.

        Raises before anything has changed: ValueError for a setting outside its range, RuntimeError for a missing closure.
        """
        if torch.compiler.is_compiling() and closure is None and self.is_traced:
            return traced.step(self.stepped, self.number, self.is_captured)
        return self.take(closure)

    @_disable_dynamo  # the rule is compiled, what surrounds it is not
    @torch.no_grad()
    def take(self, closure: Closure | None = None) -> Any:
        """`step` without hooks, and as it is outside of functions that are compiled."""
        self._check_mode()
        if closure is None and self.asks_again and all(plain(group.get("lr")) == 0 for group in self.param_groups):
            self._prepare()  # as distributed checkpoints ask, to see which states there are
            return None
        if closure is None and self.asks_again:
            raise RuntimeError(f"{type(self).__name__} asks the model more than once a step: call `step(closure)` with a closure "
                               "that zeroes the gradients, computes the loss, calls backward and returns the loss")  # fmt: skip
        self._guards = captured.guards(self)
        settings = self.read_settings(self._guards or None)
        captured.check_capture(self, settings)
        self._check_inputs()
        batch = None if closure is None else Batch(closure, [p for group in self.param_groups for p in group["params"]], self.asks_again)
        if self._guards or not overflowed(self):
            with exactly():
                self._update(settings, batch)
                if self.released is not None:
                    self.released.finish()
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
        known = len(self.state)
        try:
            work = self._gather(settings)
            taken = [self._begin_step(executable, self._step_of(cells, work), batch) for executable, cells in work.values()]
        except BaseException:
            self._forget(known)
            self._parts.clear()
            raise
        self.reports = {}
        with uninterrupted():
            for step, write in taken:
                write()
                self._put_back(step.cells)
                self._share(step)
                self.reports |= step.reports
            left = [cell for step, _ in taken for cell in step.left]
            quick = {} if left else self._quick
            self._count([cell for step, _ in taken for cell in step.cells if cell.group not in quick and cell not in left])
            for again in quick.values():
                again.count()
        self._remember(work)
        _tell(left)

    def _remember(self, work: Work) -> None:
        """What the next step need not find out, if it is one like this."""
        if self._parts or (self._known is not None and self._known.holds(self.state)):
            return
        self._known, self._again = None, {}
        cells = {number: [c for _, some in work.values() for c in some if c.group == number] for number in range(len(self.param_groups))}
        groups = {number: self.param_groups[number] for number in cells}
        with suppress(MemoryError, torch.OutOfMemoryError):  # the step is over
            self._again = {n: Again(g["params"], cells[n]) for n, g in groups.items() if repeats(g, cells[n], self.inputs)}
            self._known = Known(self.state)

    @property
    def _step_supports_amp_scaling(self) -> bool:
        """Whether `GradScaler` leaves unscaling and skipping to the step: as in torch where `fused` was asked for."""
        return any(group.get("fused") for group in self.param_groups)

    def _check_mode(self) -> None:
        """For rules with `eval`."""

    def _forget(self, known: int) -> None:
        """Parameters that a failed step was to be the first of have no state: all but the first ones."""
        for parameter in list(self.state)[known:]:
            del self.state[parameter]
            self._cells.pop(parameter, None)

    def _count(self, cells: list[Cell]) -> None:
        if there := [cell for cell in cells if is_on_device(cell)]:
            captured.count(there, getattr(self, "found_inf", None) if self._guards else None)
        for cell in cells:
            if not is_on_device(cell):
                cell.state[COUNT].fill_(cell.t)  # asks for no memory
            cell.gradient = None  # gradients are not kept alive

    def _check_inputs(self) -> None:
        wanted = {i.name for case in self.cases for i in case.program.inputs}
        if missing := sorted(wanted - set(self.inputs)):
            raise RuntimeError(f"{type(self).__name__} needs optimizer.inputs[{missing[0]!r}]: set it before each step")

    def _gather(self, settings: list[dict[str, Any]]) -> Work:
        """The cells of each program. A parameter without a gradient is left out, and its count does not move."""
        work: Work = {}
        index, scale = 0, None if self._guards else scale_of(self)
        there: list[Cell] = []
        self._quick = {}
        is_known = scale is None and not self.inputs and self._known is not None and self._known.holds(self.state)
        for number, (group, hypers) in enumerate(zip(self.param_groups, settings, strict=True)):
            key, executable = self.case_of(group).executable(hypers, group.get("differentiable", False), self._guard, self._is_spread)
            self._check_shapes(number, group, hypers, key)
            cells = work.setdefault(key, (executable, []))[1]
            given = self._given_to_cells(group, hypers)
            on_device = self._counts_on_device(group)
            again = self._again.get(number) if is_known and not on_device and not group.get("maximize") else None
            if again is not None and (some := again.next(group["params"], given)) is not None:
                cells += some
                self._quick[number] = again
                index += len(some)
                continue
            for place, parameter in enumerate(group["params"]):
                if parameter.grad is not None:
                    cell = self._next_of(parameter, number, place, index, given, scale, on_device)
                    cells.append(cell)
                    there += [cell] if on_device else []
                index += 1
        for cell, t in zip(there, captured.counts([cell.state for cell in there]) if there else (), strict=True):
            cell.t = t  # type: ignore[assignment]
        return {key: found for key, found in work.items() if found[1]}

    @property
    def _guard(self) -> Guard:
        """What the device is to do about an overflow."""
        return None if not self._guards else "found" if scale_of(self) is None else "scaled"

    def _counts_on_device(self, group: Group) -> bool:
        if not group.get("capturable"):
            return self._guards
        self.case_of(group).check_capturable()  # the option may have been set since
        return True

    def _given_to_cells(self, group: Group, hypers: dict[str, Any]) -> Mapping[str, Any]:
        """The hypers as the program reads them."""
        if group.get("differentiable"):
            return self.case_of(group).settings.raw(group)
        scaling = {OVERFLOW: getattr(self, "found_inf", None), SCALE: scale_of(self)} if self._guards else {}
        return {**hypers, **{name: torch.as_tensor(value) for name, value in scaling.items() if value is not None}}

    def _place_count(self, cell: Cell, on_device: bool) -> None:
        """The count is where it is counted; on the host also the number of this update is known."""
        kept, device = cell.state[COUNT], cell.weights.device if on_device else torch.device("cpu")
        if kept.device != device:
            kept = cell.state[COUNT] = kept.to(device)
        cell.t = 0 if on_device else int(kept) + 1

    def _next_of(self, parameter: Tensor, number: int, place: int, index: int, hypers: Mapping[str, Any], scale: Any = None,
                 on_device: bool = False) -> Cell:  # fmt: skip
        """The cell of a parameter for its next step."""
        cell = self._cell(parameter, number, place, index)
        cell.hypers = hypers
        self._place_count(cell, on_device)
        if sparse.is_sparse(parameter):
            cell = self._touched(cell, parameter)
        part = self._parts.get(index)
        if parameter.grad is not None:
            gradient = None if part is None else part.gradient()
            cell.gradient = gradient_of(parameter, self.param_groups[number], cell.name, scale, gradient)
        return cell

    def _touched(self, cell: Cell, parameter: Tensor) -> Cell:
        """The elements that have a gradient alone; the states are there for all of them."""
        group = self.param_groups[cell.group]
        case = self.case_of(group)
        if why := sparse.refuses(case, parameter, group):
            raise RuntimeError(f"{cell.name} has a sparse gradient, and {why}: use a dense one, as with "
                               "`torch.nn.Embedding(…, sparse=False)`")  # fmt: skip
        case.executable(case.settings.read(group, ""))[1].prepare(self._step_of([cell], {}))
        part = self._parts[cell.index] = sparse.Touched(parameter, cell.state)
        return replace(cell, weights=part.weights, state=part.states, facts=facts_of(part.weights))

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
            cell = self._next_of(group["params"][place], number, place, index, hypers)
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
        part = self._parts[index] = Part(parameter, bool(self.goes_whole(parameter, self.param_groups[group])))
        kept = self.state[parameter]
        kept.setdefault(COUNT, torch.zeros((), dtype=torch.float32))
        name = name_in(self.param_groups[group], group, place)
        given = {k: v.get(parameter) if isinstance(v, Mapping) else v for k, v in self.inputs.items()}
        inputs = {k: part.of(v) for k, v in given.items()}
        return Cell(part.weights, None, part.states(kept), {}, 0, facts_of(parameter), index, group, name, inputs, part.spread_over)

    def _put_back(self, cells: Sequence[Cell]) -> None:
        """Parts of parameters that were stepped whole."""
        for cell in cells if self._parts else ():
            if (part := self._parts.pop(cell.index, None)) is not None:
                part.put_back()

    def _begin_step(self, executable: Executable, step: Step, batch: Batch | None) -> tuple[Step, Callable[[], None]]:
        """A step computed, with what writes it."""
        cells = step.cells
        if batch is not None:
            parts = [part if isinstance(part := self._parts.get(cell.index), Part) else None for cell in cells]
            weights = [cell.weights if part is None else part.parameter for cell, part in zip(cells, parts, strict=True)]
            signs = [-1 if self.param_groups[cell.group].get("maximize", False) else 1 for cell in cells]
            asks = self.case_of(self.param_groups[cells[0].group]).asks
            step.loss = signs[0] * mean_of(as_number(batch.loss), self.stepped) if "loss" in asks else None
            step.loss_at = lambda points: signs[0] * mean_of(batch.loss_at(weights, points_at(parts, points)), self.stepped)
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


def _tell(left: Sequence[Cell]) -> None:
    """Raises MemoryError where parameters had to be left out of a step, on a GPU torch.OutOfMemoryError, as torch does."""
    if left:
        names = ", ".join(cell.name or f"parameter {cell.index}" for cell in left[:3])
        kind = torch.OutOfMemoryError if left[0].weights.is_cuda else MemoryError
        raise kind(f"memory ended during the step: {len(left)} parameters ({names}{', …' * (len(left) > 3)}) are as before it, with "
                   "their states, and all others have been stepped")  # fmt: skip
