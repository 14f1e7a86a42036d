"""The cells of a step: every parameter that has a gradient, with its states, settings and number of updates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from optlang.backends.base import Batch, Cell, Executable, Given, Step
from optlang.backends.formats import REST
from optlang.backends.overflow import OVERFLOW, SCALE
from optlang.backends.repeated.library import Unseen
from optlang.backends.repeated.tables import same
from optlang.runtime.cases import Guard
from optlang.runtime.checkpoints.fitting import COUNT, shape_problems
from optlang.runtime.checkpoints.saved import Saved
from optlang.runtime.distributed.sharded import Part, is_sharded
from optlang.runtime.facts import facts_of
from optlang.runtime.groups.naming import Group, name_in
from optlang.runtime.groups.parameters import gradient_of, real
from optlang.runtime.steps import captured, sparse
from optlang.runtime.steps.repeated import Begun, Key, LastStep, Work, inputs_of, is_special, repeats
from optlang.runtime.steps.scaling import scale_of
from optlang.runtime.steps.subclass_parameters import Opened
from optlang.runtime.tensor_subclasses import is_wrapped

Shared = dict[str, Tensor]


class Gathered(Saved):
    """Parameters become cells, by the program that steps them; what is not new about them is not found out again."""

    _is_spread: bool  # several processes hold parts of a parameter
    _is_hollow: bool  # there are no numbers

    def _begin(self) -> None:
        """What is not part of a checkpoint; `inputs` outlive loading one."""
        self.inputs: dict[str, Any] = self.__dict__.get("inputs", {})  # values that the rule asks the training loop for, by name
        self._cells: dict[Tensor, Cell] = {}
        self._parts: dict[int, Part | sparse.Touched] = {}  # what is stepped in place of the parameters at these places in this step
        self._written = None
        self._again: LastStep | None = None  # the last step, if it came twice
        self._last: list[Cell] = []  # those of the last step, if it came once
        self._guards = False  # in this step, overflows are dealt with on the device
        self._shapes: dict[int, tuple[Any, ...]] = {}  # of each group: the program for which its states have been checked

    def _gather(self, settings: list[dict[str, Any]]) -> Work:
        """The cells of each program. A parameter without a gradient is left out, and its count does not move."""
        work: Work = {}
        index, scale = 0, None if self._guards else scale_of(self)
        there: list[Cell] = []
        for number, (group, hypers) in enumerate(zip(self.param_groups, settings, strict=True)):
            key, executable = self._executable(group, hypers)
            self._check_shapes(number, group, hypers, key)
            on_device = self._counts_on_device(group)
            given = self._given_to_cells(group, hypers)
            with_gradient = [(place, p) for place, p in enumerate(group["params"]) if p.grad is not None]
            cells = [self._next(p, self._cell(p, number, place, index + place), given, scale, on_device) for place, p in with_gradient]
            work.setdefault(key, (executable, []))[1].extend(cells)
            there += cells if on_device else []
            index += len(group["params"])
        for cell, t in zip(there, captured.counts([cell.state for cell in there]) if there else (), strict=True):
            cell.t = t  # type: ignore[assignment]  # a tensor: the host does not look at these
        return {key: found for key, found in work.items() if found[1]}

    def _executable(self, group: Group, hypers: dict[str, Any]) -> tuple[Key, Executable]:
        return self.case_of(group).executable(hypers, group.get("differentiable", False), self._guard, self._is_spread)

    def _once_more(self, settings: list[dict[str, Any]], batch: Batch | None) -> Begun | None:
        """This step, begun as the last one was; None where it may be another one, which is then forgotten."""
        again = self._again
        if again is None or self._is_special():
            return None
        fits = self._fits(again, settings) and again.holds(self.param_groups, self.state)
        begun = again.begun(self.param_groups, Given(batch, self.inputs)) if fits else None
        if begun is None and not (fits and again.lacks):
            self._again = None
        return begun

    def _fits(self, again: LastStep, settings: list[dict[str, Any]]) -> bool:
        """Whether settings are for the programs of the last step: as they are as long as plain numbers alone change, see `Written`."""
        known = again.settings is settings or (again.written is self._written and self._written is not None)
        again.settings, again.written = settings, self._written
        return known or (not is_special(self.param_groups) and self._keys(settings) == again.keys)

    def _keys(self, settings: list[dict[str, Any]]) -> list[Key]:
        return [self._executable(group, hypers)[0] for group, hypers in zip(self.param_groups, settings, strict=True)]

    def _is_special(self) -> bool:
        """Whether something about this step has to be done for each parameter, whatever the groups say."""
        return bool(self._guards or self._parts) or scale_of(self) is not None

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

    def _check_shapes(self, number: int, group: Group, hypers: dict[str, Any], key: tuple[Any, ...]) -> None:
        """Whether the states of a group fit the program, once for each value of what shapes it."""
        if self._shapes.get(number) == key:
            return
        case = self.case_of(group)
        for parameter in group["params"] if case.baked else ():
            found = shape_problems(case.shaped(hypers), parameter, self.state.get(parameter, {}), hypers)
            if found:
                shown = ", ".join(f"{name} = {hypers[name]}" for name in case.baked)
                raise RuntimeError(f"{type(self).__name__}: {self.name_of(parameter)} has states of other shapes than {shown} wants: "
                                   f"{'; '.join(found)}. Set this before the first step")  # fmt: skip
        self._shapes[number] = key

    # -------------------------------------------------------------------------------------------- of one parameter

    def _next(self, parameter: Tensor, cell: Cell, hypers: Mapping[str, Any], scale: Any = None, on_device: bool = False) -> Cell:
        """The cell of a parameter as its next step takes it."""
        cell.hypers = hypers
        self._place_count(cell, on_device)
        if sparse.is_sparse(parameter):
            cell = self._touched(cell, parameter)
        part = self._parts.get(cell.index)
        if parameter.grad is not None and not self._is_hollow:
            gradient = None if part is None else part.gradient()
            cell.gradient = gradient_of(parameter, self.param_groups[cell.group], cell.name, scale, gradient)
        return cell

    def _place_count(self, cell: Cell, on_device: bool) -> None:
        """The count is where it is counted; on the host also the number of this update is known."""
        kept, device = cell.state[COUNT], cell.weights.device if on_device else torch.device("cpu")
        if kept.device != device:
            kept = cell.state[COUNT] = kept.to(device)
        cell.t = 0 if on_device or self._is_hollow else int(kept) + 1

    def _cell(self, parameter: Tensor, group: int, place: int, index: int) -> Cell:
        if is_sharded(parameter) or is_wrapped(parameter):
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
            cell.inputs = inputs_of(self.inputs, parameter)
        return cell

    def _cell_of_a_part(self, parameter: Tensor, group: int, place: int, index: int) -> Cell:
        whole = is_sharded(parameter) and bool(self.goes_whole(parameter, self.param_groups[group]))
        part = self._parts[index] = Part(parameter, whole) if is_sharded(parameter) else Opened(parameter)
        kept = self.state[parameter]
        kept.setdefault(COUNT, torch.zeros((), dtype=torch.float32))
        name = name_in(self.param_groups[group], group, place)
        inputs = {k: part.of(v) for k, v in inputs_of(self.inputs, parameter).items()}
        return Cell(part.weights, None, part.states(kept), {}, 0, facts_of(parameter), index, group, name, inputs, part.spread_over)

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

    # --------------------------------------------------------------------------------------- before and after a step

    def _step_of(self, cells: list[Cell], work: Work, comes_again: bool = False) -> Step:
        """The step of a program; `work` is all of this step. `comes_again`: see `Step`; not of what another program looks at."""
        group = self.param_groups[cells[0].group]
        case = self.case_of(group)
        groups = {n: self._kept(case.shared["group"], [self.param_groups[n]]) for n in {cell.group for cell in cells}}
        everywhere = [g for g in self.param_groups if self.case_of(g) is case]
        others = [cell for _, some in work.values() if some is not cells for cell in some] if case.sees_all else []
        shared = self._kept(case.shared["model"], everywhere)
        seed, beside = group.get("seed", 0), list(map(as_others_see, others))
        alone = len(work) < 2 or not any(one.sees_all or one.program.reports for one in self.cases)
        return Step(cells, shared, groups, seed, inputs=self.inputs, beside=beside, comes_again=comes_again and alone)

    def _kept(self, names: list[str], groups: list[Group]) -> Shared:
        """States per group or model. Every parameter's state dict holds them, so that checkpoints do; the first one counts."""
        found: Shared = {}
        for state in (self.state.get(p, {}) for group in groups for p in group["params"]) if names else ():
            for name in names:
                if name in state:
                    found.setdefault(name, state[name])
        return found

    def _put_back(self, cells: Sequence[Cell]) -> None:
        """Parts of parameters that were stepped whole."""
        for cell in cells if self._parts else ():
            if (part := self._parts.pop(cell.index, None)) is not None:
                part.put_back()

    def _comes_again(self, work: Work) -> bool:
        """Whether a step is like the last one, so that the next may be like it, too; what is kept for that takes as long as it saves."""
        cells, last = [cell for _, some in work.values() for cell in some], self._last
        self._last = [] if self._is_special() or is_special(self.param_groups) else cells
        return bool(self._last) and same(cells, last) and repeats(self.param_groups, cells)

    def _remember(self, settings: list[dict[str, Any]], work: Work, steps: Sequence[Step]) -> None:
        """What the next step need not find out, if it is one like this."""
        if self._again is not None:
            self._again.learn(steps)
        elif not any(step.passes for step in steps):
            with suppress(MemoryError, torch.OutOfMemoryError, Unseen):  # the step is over
                self._again = LastStep(self.param_groups, self.state, settings, self._keys(settings), work, steps)
                self._again.written = self._written

    def _forget(self, known: int) -> None:
        """Parameters that a failed step was to be the first of have no state: all but the first ones."""
        for parameter in list(self.state)[known:]:
            del self.state[parameter]
            self._cells.pop(parameter, None)


def as_others_see(cell: Cell) -> Cell:
    """A parameter as other rules see it: without settings, and of its states only what belongs to its weights."""
    return replace(cell, hypers={}, state={REST: cell.state[REST]} if REST in cell.state else {})
