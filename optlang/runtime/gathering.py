"""The cells of a step: every parameter that has a gradient, with its states, settings and number of updates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from optlang.backends.base import Cell, Executable, Step
from optlang.backends.formats import REST
from optlang.backends.overflow import OVERFLOW, SCALE
from optlang.runtime import captured, checkpoint, sparse
from optlang.runtime.again import Again, Known, repeats
from optlang.runtime.cases import Guard
from optlang.runtime.checkpoint import COUNT
from optlang.runtime.facts import facts_of
from optlang.runtime.naming import Group, name_in
from optlang.runtime.parameters import gradient_of, real
from optlang.runtime.saved import Saved
from optlang.runtime.scaling import scale_of
from optlang.runtime.sharded import Part, is_sharded

Shared = dict[str, Tensor]
Work = dict[tuple[Any, ...], tuple[Executable, list[Cell]]]  # by rule and shape


class Gathered(Saved):
    """Parameters become cells, by the program that steps them; what is not new about them is not found out again."""

    _is_spread: bool  # several processes hold parts of a parameter

    def _begin(self) -> None:
        """What is not part of a checkpoint; `inputs` outlive loading one."""
        self.inputs: dict[str, Any] = self.__dict__.get("inputs", {})  # values that the rule asks the training loop for, by name
        self._cells: dict[Tensor, Cell] = {}
        self._parts: dict[int, Part | sparse.Touched] = {}  # what is stepped in place of the parameters at these places in this step
        self._known: Known | None = None
        self._again: dict[int, Again] = {}  # by group
        self._quick: dict[int, Again] = {}  # of these, the ones in this step
        self._guards = False  # in this step, overflows are dealt with on the device
        self._shapes: dict[int, tuple[Any, ...]] = {}  # of each group: the program for which its states have been checked

    def _gather(self, settings: list[dict[str, Any]]) -> Work:
        """The cells of each program. A parameter without a gradient is left out, and its count does not move."""
        work: Work = {}
        index, scale = 0, None if self._guards else scale_of(self)
        there: list[Cell] = []
        is_known = scale is None and not self.inputs and self._known is not None and self._known.holds(self.state)
        self._quick = {}
        for number, (group, hypers) in enumerate(zip(self.param_groups, settings, strict=True)):
            key, executable = self.case_of(group).executable(hypers, group.get("differentiable", False), self._guard, self._is_spread)
            self._check_shapes(number, group, hypers, key)
            on_device = self._counts_on_device(group)
            again = self._again.get(number) if is_known and not on_device and not group.get("maximize") else None
            cells = self._cells_of(number, index, self._given_to_cells(group, hypers), scale, on_device, again)
            work.setdefault(key, (executable, []))[1].extend(cells)
            there += cells if on_device else []
            index += len(group["params"])
        for cell, t in zip(there, captured.counts([cell.state for cell in there]) if there else (), strict=True):
            cell.t = t  # type: ignore[assignment]
        return {key: found for key, found in work.items() if found[1]}

    def _cells_of(self, number: int, first: int, given: Mapping[str, Any], scale: Any, on_device: bool, again: Again | None) -> list[Cell]:
        """Those of a group, whose first parameter is at place `first` of all. `again`: what the last step knew of it."""
        parameters = self.param_groups[number]["params"]
        if again is not None and (cells := again.next(parameters, given)) is not None:
            self._quick[number] = again
            return cells
        with_gradient = [(place, p) for place, p in enumerate(parameters) if p.grad is not None]
        return [self._next_of(p, number, place, first + place, given, scale, on_device) for place, p in with_gradient]

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
            found = checkpoint.shape_problems(case.shaped(hypers), parameter, self.state.get(parameter, {}), hypers)
            if found:
                shown = ", ".join(f"{name} = {hypers[name]}" for name in case.baked)
                raise RuntimeError(f"{type(self).__name__}: {self.name_of(parameter)} has states of other shapes than {shown} wants: "
                                   f"{'; '.join(found)}. Set this before the first step")  # fmt: skip
        self._shapes[number] = key

    # -------------------------------------------------------------------------------------------- of one parameter

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

    def _place_count(self, cell: Cell, on_device: bool) -> None:
        """The count is where it is counted; on the host also the number of this update is known."""
        kept, device = cell.state[COUNT], cell.weights.device if on_device else torch.device("cpu")
        if kept.device != device:
            kept = cell.state[COUNT] = kept.to(device)
        cell.t = 0 if on_device else int(kept) + 1

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

    def _put_back(self, cells: Sequence[Cell]) -> None:
        """Parts of parameters that were stepped whole."""
        for cell in cells if self._parts else ():
            if (part := self._parts.pop(cell.index, None)) is not None:
                part.put_back()

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

    def _forget(self, known: int) -> None:
        """Parameters that a failed step was to be the first of have no state: all but the first ones."""
        for parameter in list(self.state)[known:]:
            del self.state[parameter]
            self._cells.pop(parameter, None)


def seen(cell: Cell) -> Cell:
    """A parameter as other rules see it: without settings, and of its states only what belongs to its weights."""
    return replace(cell, hypers={}, state={REST: cell.state[REST]} if REST in cell.state else {})
