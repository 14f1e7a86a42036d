"""The `torch.optim.Optimizer` around compiled programs. `factory` makes the subclasses; everything they do is here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from optlang import ir
from optlang.backends.base import Cell, Executable, Step, StepError
from optlang.runtime import checkpoint
from optlang.runtime.batch import Batch, Closure
from optlang.runtime.cases import Case
from optlang.runtime.checkpoint import COUNT, TRAINING
from optlang.runtime.facts import Known, facts_of, holds
from optlang.runtime.parameters import check_parameter, gradient_of, listed
from optlang.runtime.settings import Group, check_own

Shared = dict[str, Tensor]
Work = dict[tuple[Any, ...], tuple[Executable, list[Cell]]]  # by rule and shape
OWN_KEYS = ("params", "param_names", "maximize", "seed", "rule")


class RuleOptimizer(torch.optim.Optimizer):
    """What all optimizers made from rules share."""

    cases: ClassVar[list[Case]]
    rule: ClassVar[ir.Program | ir.Routing]
    asks_again: ClassVar[bool]  # reads the loss, or gradients at other points: `step` needs a closure
    _origin: ClassVar[tuple[Any, ...] | None] = None

    def __init__(self, params: Any, *args: Any, **settings: Any) -> None:
        given = self._by_name(args, settings)
        defaults: Group = {"maximize": given.pop("maximize", False)}
        if any(case.program.uses("random") for case in self.cases):
            defaults["seed"] = given.pop("seed", 0)
        self._given = self._given_by_case(given)
        if len(self.cases) == 1:
            case = self.cases[0]
            wanted = {**case.settings.defaults, **self._given[case.label]}
            defaults |= case.settings.packed(wanted)
        elif all("lr" in case.settings.hypers for case in self.cases):
            defaults["lr"] = self.cases[0].settings.defaults["lr"]  # some tools look for it; every group has its own
        self._begin()
        super().__init__(params, defaults)

    def _begin(self) -> None:
        """What is not part of a checkpoint."""
        self.inputs: dict[str, Any] = {}  # values that the rule asks the training loop for, by name
        self.reports: dict[str, Any] = {}  # what the rule reported in the last step
        self._cells: dict[Tensor, Cell] = {}
        self._shapes: dict[int, tuple[Any, ...]] = {}  # of each group: the program for which its states have been checked

    # ---------------------------------------------------------------------------------------------- settings

    def _by_name(self, args: tuple[Any, ...], settings: dict[str, Any]) -> dict[str, Any]:
        """Settings given by place take the order of the rule's hypers."""
        names = [name for name in self.cases[0].settings.hypers if "." not in name] if len(self.cases) == 1 else []
        if len(args) > len(names):
            raise TypeError(f"{type(self).__name__} takes at most {len(names)} settings by place, not {len(args)}; name them")
        for name, value in zip(names, args, strict=False):
            if name in settings:
                raise TypeError(f"{type(self).__name__} got `{name}` twice")
            settings[name] = value
        return settings

    def _given_by_case(self, given: dict[str, Any]) -> dict[str, Group]:
        if len(self.cases) == 1 and not self.cases[0].label:
            return {"": self.cases[0].settings.taken(given)}
        labels = {case.label: case for case in self.cases}
        if unknown := [name for name in given if name not in labels]:
            hint = f"{unknown[0]}={given[unknown[0]]!r}"
            raise TypeError(
                f"{type(self).__name__} is a route: give settings by rule, as in {self.cases[0].label}={{…}}, not {hint}; "
                f"its rules are {', '.join(labels)}"
            )
        for label, settings in given.items():
            if not isinstance(settings, Mapping):
                raise TypeError(f"{type(self).__name__}: settings of {label} are a dictionary, as {label}={{'lr': 0.1}}, not {settings!r}")
        return {label: case.settings.taken(given.get(label, {})) for label, case in labels.items()}

    def case_of(self, group: Group) -> Case:
        """The program of a group."""
        label = group.get("rule", "")
        return next(case for case in self.cases if case.label == label)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """As in torch; a route splits the group by rule. Raises ValueError for a parameter that its rule cannot take."""
        if not isinstance(param_group, dict):
            raise TypeError(f"a parameter group is a dictionary, not {type(param_group).__name__}")
        group = dict(param_group)
        group["params"], names = listed(group["params"], group.pop("param_names", None))
        before = len(self.param_groups)
        try:
            for case, places in self._sorted(group["params"], names):
                self._add(case, group, [group["params"][i] for i in places], [names[i] for i in places] if names else None)
        except Exception:
            del self.param_groups[before:]  # all of it or nothing
            raise

    def _sorted(self, params: list[Any], names: list[str] | None) -> list[tuple[Case, list[int]]]:
        """The rules of a group with the places of their parameters."""
        if not self.cases[0].label:
            return [(self.cases[0], list(range(len(params))))]
        chosen = [self._choose(p, names[i] if names else "") for i, p in enumerate(params)]
        found = [(case, [i for i, other in enumerate(chosen) if other is case]) for case in self.cases]
        return [(case, places) for case, places in found if places]

    def _choose(self, parameter: Any, name: str) -> Case:
        if not isinstance(parameter, Tensor):
            raise TypeError(f"parameters are tensors, not {type(parameter).__name__}")
        known = Known(facts_of(parameter), name, str(parameter.dtype).removeprefix("torch."))
        for case in self.cases:
            if case.condition is None or holds(case.condition, known):
                return case
        raise ValueError(
            f"{type(self).__name__} sends {name or f'the parameter of shape {tuple(parameter.shape)}'} to no rule; "
            "end the route with `otherwise use …`"
        )

    def _add(self, case: Case, written: Group, params: list[Any], names: list[str] | None) -> None:
        group = {key: value for key, value in written.items() if key != "params"}
        settings = {key: value for key, value in group.items() if key not in OWN_KEYS}
        check_own(type(self).__name__, {**self.defaults, **group})
        case.settings.complete(group, self._given[case.label], settings)
        hypers = case.settings.read(group, f" (group {len(self.param_groups)})")
        program = case.shaped(hypers)
        for number, parameter in enumerate(params):
            name = names[number] if names else f"parameter {number} of group {len(self.param_groups)}"
            check_parameter(program, parameter, name, hypers)
        if case.label:
            group["rule"] = case.label
        group["params"] = list(zip(names, params, strict=True)) if names else params
        super().add_param_group(group)
        self._read_settings()

    def name_of(self, parameter: Tensor) -> str:
        """The name that a parameter was given with, or its place."""
        for number, group in enumerate(self.param_groups):
            for place, other in enumerate(group["params"]):
                if other is parameter:
                    return _name(group, number, place)
        return "a parameter"

    # -------------------------------------------------------------------------------------------------- step

    @torch.no_grad()
    def step(self, closure: Closure | None = None) -> Any:
        """One update of every parameter that has a gradient. Returns what the closure returned.

        Raises before anything has changed: ValueError for a setting outside its range, RuntimeError for a missing closure.
        """
        if any(TRAINING in state for state in self.state.values()):
            raise RuntimeError("the model holds the weights to evaluate with; call `optimizer.train()` before training goes on")
        if closure is None and self.asks_again:
            raise RuntimeError(f"{type(self).__name__} asks the model more than once a step: call `step(closure)` with a closure "
                               "that zeroes the gradients, computes the loss, calls backward and returns the loss")  # fmt: skip
        settings = self._read_settings()
        self._check_inputs()
        batch = None if closure is None else Batch(closure, [p for group in self.param_groups for p in group["params"]])
        known = set(self.state)
        try:
            work = self._gather(settings)
            taken = [self._begin_step(executable, cells, batch) for executable, cells in work.values()]
        except BaseException:
            self._forget(known)
            raise
        for step, write in taken:
            write()
            self._share(step)
        self._count([cell for _, cells in work.values() for cell in cells])
        return None if batch is None else batch.loss

    def _forget(self, known: set[Tensor]) -> None:
        """Parameters that a failed step was to be the first of have no state."""
        for parameter in set(self.state) - known:
            del self.state[parameter]
            self._cells.pop(parameter, None)

    def _count(self, cells: list[Cell]) -> None:
        if cells:
            torch._foreach_add_([cell.state[COUNT] for cell in cells], 1)
        for cell in cells:
            cell.gradient = None  # gradients are not kept alive

    def _read_settings(self) -> list[dict[str, float | int | bool]]:
        """The hypers of every group. Raises ValueError for one outside its range and for groups that cannot differ like that."""
        settings = [self.case_of(g).settings.read(g, f" (group {i})") for i, g in enumerate(self.param_groups)]
        for case in self.cases:
            mine = [i for i, group in enumerate(self.param_groups) if self.case_of(group) is case]
            case.check_together([settings[i] for i in mine], [self.param_groups[i] for i in mine])
        return settings

    def _check_inputs(self) -> None:
        wanted = {i.name for case in self.cases for i in case.program.inputs}
        if missing := sorted(wanted - set(self.inputs)):
            raise RuntimeError(f"{type(self).__name__} needs optimizer.inputs[{missing[0]!r}]: set it before each step")

    def _gather(self, settings: list[dict[str, Any]]) -> Work:
        """The cells of each program. A parameter without a gradient is left out, and its count does not move."""
        work: Work = {}
        index = 0
        for number, (group, hypers) in enumerate(zip(self.param_groups, settings, strict=True)):
            key, executable = self.case_of(group).executable(hypers)
            self._check_shapes(number, group, hypers, key)
            cells = work.setdefault(key, (executable, []))[1]
            for place, parameter in enumerate(group["params"]):
                if parameter.grad is not None:
                    cell = self._cell(parameter, number, place, index)
                    cell.hypers, cell.t = hypers, int(cell.state[COUNT]) + 1
                    cell.gradient = gradient_of(parameter, group.get("maximize", False), cell.name)
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
        state = self.state[parameter]
        cell = self._cells.get(parameter)
        if cell is None or cell.group != group or cell.index != index or cell.state is not state:
            name = _name(self.param_groups[group], group, place)
            cell = self._cells[parameter] = Cell(parameter, None, state, {}, 0, facts_of(parameter), index, group, name)
        if COUNT not in state:
            state[COUNT] = torch.zeros((), dtype=torch.float32)
        if self.inputs:
            cell.inputs = {k: v.get(parameter) if isinstance(v, Mapping) else v for k, v in self.inputs.items()}
        return cell

    def _begin_step(self, executable: Executable, cells: list[Cell], batch: Batch | None) -> tuple[Step, Callable[[], None]]:
        """A step computed, with what writes it."""
        step = self._step_of(cells)
        if batch is not None:
            weights = [cell.weights for cell in cells]
            signs = [-1 if self.param_groups[cell.group].get("maximize", False) else 1 for cell in cells]
            step.loss = signs[0] * batch.number() if "loss" in self.case_of(self.param_groups[cells[0].group]).asks else None
            step.grad = lambda points: [s * x for s, x in zip(signs, batch.gradients(weights, points), strict=True)]
            step.hvp = lambda vectors: [s * x for s, x in zip(signs, batch.hessian(weights, vectors), strict=True)]
        try:
            executable.prepare(step)
            write = executable.begin(step)
        except StepError as problem:
            raise RuntimeError(f"{type(self).__name__}: {problem}") from problem
        self.reports = step.reports
        return step, write

    def _step_of(self, cells: list[Cell]) -> Step:
        group = self.param_groups[cells[0].group]
        case = self.case_of(group)
        groups = {n: self._kept(case.shared["group"], [self.param_groups[n]]) for n in {cell.group for cell in cells}}
        everywhere = [g for g in self.param_groups if self.case_of(g) is case]
        return Step(cells, self._kept(case.shared["model"], everywhere), groups, group.get("seed", 0), inputs=self.inputs)

    def _kept(self, names: list[str], groups: list[Group]) -> Shared:
        """States per group or model. Every parameter's state dict holds them, so that checkpoints do; the first one counts."""
        found: Shared = {}
        for state in (self.state.get(p, {}) for group in groups for p in group["params"]) if names else ():
            for name in names:
                if name in state:
                    found.setdefault(name, state[name])
        return found

    def _share(self, step: Step) -> None:
        for cell in step.cells:
            for shared in (step.model, step.groups[cell.group]):
                for name, value in shared.items():
                    cell.state[name] = value

    # ------------------------------------------------------------------------------------------- checkpoints

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """As in torch, but whole or not at all: ValueError lists everything that does not fit. States keep their number type."""
        given = dict(state_dict) if isinstance(state_dict, Mapping) else state_dict
        for hook in self._optimizer_load_state_dict_pre_hooks.values():
            given = hook(self, given) or given
        checkpoint.check(self, given)
        self.__setstate__(checkpoint.restored(self, given))
        for after in self._optimizer_load_state_dict_post_hooks.values():
            after(self)

    def __setstate__(self, state: dict[str, Any]) -> None:
        if "inputs" not in self.__dict__:
            self._begin()
        self._cells.clear()
        self._shapes.clear()
        super().__setstate__(state)

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_given": self._given}

    def __reduce__(self) -> tuple[Any, ...]:
        if self._origin is None:
            return super().__reduce__()  # type: ignore[return-value]
        return _again, (type(self),), self.__getstate__()

    # ---------------------------------------------------------------------------------------------- describe

    def describe(self) -> str:
        """What is optimized by which rule, and the memory that its states take."""
        lines = [f"{type(self).__name__}: {self.rule.doc}".rstrip(": ")]
        for number, group in enumerate(self.param_groups):
            count = sum(p.numel() for p in group["params"])
            states = [v for p in group["params"] for k, v in self.state.get(p, {}).items() if isinstance(v, Tensor) and k != COUNT]
            size = sum({id(v): v.numel() * v.element_size() for v in states}.values())
            hypers = self.case_of(group).settings.read(group, "")
            shown = ", ".join(f"{name}={value:g}" if not isinstance(value, bool) else f"{name}={value}" for name, value in hypers.items())
            rule = f" {group['rule']}" if "rule" in group else ""
            lines.append(f"group {number}{rule}: {len(group['params'])} parameters, {count:,} elements, {size:,} bytes of state; {shown}")
        return "\n".join(lines)


def _name(group: Group, number: int, place: int) -> str:
    names = group.get("param_names")
    return str(names[place]) if names else f"parameter {place} of group {number}"


def _again(cls: type[RuleOptimizer]) -> RuleOptimizer:
    return cls.__new__(cls)
