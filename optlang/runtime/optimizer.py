"""The `torch.optim.Optimizer` around compiled programs. `factory` makes the subclasses; everything they do is here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from optlang import ir
from optlang.backends.base import Cell, Executable, Step, StepError
from optlang.runtime import checkpoint
from optlang.runtime.batch import Batch, Closure
from optlang.runtime.cases import Case
from optlang.runtime.checkpoint import COUNT, TRAINING
from optlang.runtime.facts import Known, facts_of, holds, lacks_rank
from optlang.runtime.settings import Group

Shared = dict[str, Tensor]
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
        self._names: dict[Tensor, str] = {}
        self._shared: dict[tuple[Any, ...], Shared] = {}

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
        group["params"], names = _listed(group["params"], group.pop("param_names", None))
        if not self.cases[0].label:
            self._add(self.cases[0], group, group["params"], names)
            return
        chosen = [self._choose(p, names[i] if names else "") for i, p in enumerate(group["params"])]
        for case in self.cases:
            places = [i for i, found in enumerate(chosen) if found is case]
            if places:
                self._add(case, group, [group["params"][i] for i in places], [names[i] for i in places] if names else None)

    def _choose(self, parameter: Tensor, name: str) -> Case:
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
        case.settings.complete(group, self._given[case.label], settings)
        hypers = case.settings.read(group, f" (group {len(self.param_groups)})")
        program = case.shaped(hypers)
        for number, parameter in enumerate(params):
            name = names[number] if names else f"parameter {number} of group {len(self.param_groups)}"
            _check_parameter(program, parameter, name, hypers)
        if case.label:
            group["rule"] = case.label
        group["params"] = list(zip(names, params, strict=True)) if names else params
        super().add_param_group(group)
        for parameter, name in zip(params, names or [], strict=False):
            self._names[parameter] = name

    def name_of(self, parameter: Tensor) -> str:
        """The name that a parameter was given with, or its place."""
        if parameter in self._names:
            return self._names[parameter]
        for number, group in enumerate(self.param_groups):
            for place, other in enumerate(group["params"]):
                if other is parameter:
                    names = group.get("param_names")
                    return str(names[place]) if names else f"parameter {place} of group {number}"
        return "a parameter"

    # -------------------------------------------------------------------------------------------------- step

    @torch.no_grad()
    def step(self, closure: Closure | None = None) -> Any:  # type: ignore[override]
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
        work = self._gather(settings)
        for key, (executable, cells) in work.items():
            self._run(key, executable, cells, batch)
        counts = [cell.state[COUNT] for _, cells in work.values() for cell in cells]
        if counts:
            torch._foreach_add_(counts, 1)
        return None if batch is None else batch.loss

    def _read_settings(self) -> list[dict[str, float | int | bool]]:
        return [self.case_of(g).settings.read(g, f" (group {i})") for i, g in enumerate(self.param_groups)]

    def _check_inputs(self) -> None:
        wanted = {i.name for case in self.cases for i in case.program.inputs}
        if missing := sorted(wanted - set(self.inputs)):
            raise RuntimeError(f"{type(self).__name__} needs optimizer.inputs[{missing[0]!r}]: set it before each step")

    def _gather(self, settings: list[dict[str, Any]]) -> dict[tuple[Any, ...], tuple[Executable, list[Cell]]]:
        """The cells of each program. A parameter without a gradient is left out, and its count does not move."""
        work: dict[tuple[Any, ...], tuple[Executable, list[Cell]]] = {}
        index = 0
        for number, (group, hypers) in enumerate(zip(self.param_groups, settings, strict=True)):
            key, executable = self.case_of(group).executable(hypers)
            cells = work.setdefault(key, (executable, []))[1]
            for parameter in group["params"]:
                if parameter.grad is not None:
                    cell = self._cell(parameter, number, index)
                    cell.hypers, cell.t = hypers, int(cell.state[COUNT]) + 1
                    cell.gradient = _gradient(parameter, group["maximize"], self)
                    cells.append(cell)
                index += 1
        return {key: found for key, found in work.items() if found[1]}

    def _cell(self, parameter: Tensor, group: int, index: int) -> Cell:
        cell = self._cells.get(parameter)
        if cell is None or cell.group != group or cell.state is not self.state[parameter]:
            state = self.state[parameter]
            state.setdefault(COUNT, torch.zeros((), dtype=torch.float32))
            name = self.name_of(parameter)
            cell = self._cells[parameter] = Cell(parameter, None, state, {}, 0, facts_of(parameter), index, group, name)
        if self.inputs:
            cell.inputs = {k: v.get(parameter) if isinstance(v, Mapping) else v for k, v in self.inputs.items()}
        return cell

    def _run(self, key: tuple[Any, ...], executable: Executable, cells: list[Cell], batch: Batch | None) -> None:
        step = self._step_of(key, cells)
        if batch is not None:
            weights = [cell.weights for cell in cells]
            signs = [-1 if self.param_groups[cell.group]["maximize"] else 1 for cell in cells]
            step.loss = batch.loss.detach() if isinstance(batch.loss, Tensor) else batch.loss
            step.grad = lambda points: [s * x for s, x in zip(signs, batch.gradients(weights, points), strict=True)]
            step.hvp = lambda vectors: [s * x for s, x in zip(signs, batch.hessian(weights, vectors), strict=True)]
        try:
            executable.prepare(step)
            executable.step(step)
        except StepError as problem:
            raise RuntimeError(f"{type(self).__name__}: {problem}") from problem
        self.reports.update(step.reports)
        self._share(key, step)

    def _step_of(self, key: tuple[Any, ...], cells: list[Cell]) -> Step:
        numbers = {cell.group for cell in cells}
        groups = {number: self._kept((*key, number), [c for c in cells if c.group == number], "group") for number in numbers}
        seed = self.param_groups[cells[0].group].get("seed", 0)
        return Step(cells, self._kept(key, cells, "model"), groups, seed, inputs=self.inputs)

    def _kept(self, key: tuple[Any, ...], cells: list[Cell], level: str) -> Shared:
        """States per group or model. Every parameter's state dict holds them, so that checkpoints do."""
        if key not in self._shared:
            program = self.case_of(self.param_groups[cells[0].group]).program
            names = [s.name for s in program.states if s.type.extent.level == level]
            self._shared[key] = {n: c.state[n] for n in names for c in cells if n in c.state}
        return self._shared[key]

    def _share(self, key: tuple[Any, ...], step: Step) -> None:
        for cell in step.cells:
            for shared in (step.model, step.groups[cell.group]):
                for name, value in shared.items():
                    cell.state[name] = value

    # ------------------------------------------------------------------------------------------- checkpoints

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:  # type: ignore[override]
        """As in torch, but whole or not at all: ValueError lists everything that does not fit. States keep their number type."""
        checkpoint.check(self, state_dict)
        super().load_state_dict(dict(state_dict))
        checkpoint.restore_types(self, state_dict)

    def __setstate__(self, state: dict[str, Any]) -> None:
        kept = {key: value for key, value in state.items() if key != "_given"}
        if "_given" in state:
            self._given = state["_given"]
        self._begin()
        super().__setstate__(kept)

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


class Evaluating(RuleOptimizer):
    """For rules with `eval = …`: other weights to evaluate with than to train with."""

    @torch.no_grad()
    def eval(self) -> None:
        """Puts the weights to evaluate with into the model; call `train` before the next step."""
        if any(TRAINING in state for state in self.state.values()):
            return
        for key, (executable, cells) in self._stepped().items():
            values = executable.evaluation(self._step_of(key, cells))
            for cell in cells:
                cell.state[TRAINING] = cell.weights.detach().clone()
            for cell, value in zip(cells, values, strict=True):
                cell.weights.copy_(value)

    @torch.no_grad()
    def train(self, mode: bool = True) -> None:
        """Puts the weights that are trained back, exactly; `train(False)` is `eval()`."""
        if not mode:
            self.eval()
            return
        for parameter, state in self.state.items():
            if TRAINING in state:
                parameter.copy_(state.pop(TRAINING))

    def _stepped(self) -> dict[tuple[Any, ...], tuple[Executable, list[Cell]]]:
        """The cells that have taken a step."""
        work: dict[tuple[Any, ...], tuple[Executable, list[Cell]]] = {}
        index = 0
        for number, (group, hypers) in enumerate(zip(self.param_groups, self._read_settings(), strict=True)):
            key, executable = self.case_of(group).executable(hypers)
            for parameter in group["params"]:
                if self.state.get(parameter, {}).get(COUNT, 0) > 0:
                    cell = self._cell(parameter, number, index)
                    cell.hypers, cell.t = hypers, int(cell.state[COUNT])
                    work.setdefault(key, (executable, []))[1].append(cell)
                index += 1
        return work


def _again(cls: type[RuleOptimizer]) -> RuleOptimizer:
    return cls.__new__(cls)


def _listed(params: Any, names: Any) -> tuple[list[Any], list[str] | None]:
    """Tensors and their names, from a tensor, an iterable of tensors or of pairs."""
    if isinstance(params, Tensor):
        params = [params]
    if isinstance(params, set):
        raise TypeError("parameters in a set have no order: give a list")
    listed = list(params)
    if listed and isinstance(listed[0], tuple):
        if not all(isinstance(pair, tuple) and len(pair) == 2 for pair in listed):
            raise TypeError("either all parameters are given as (name, tensor) or none")
        return [p for _, p in listed], [str(name) for name, _ in listed]
    return listed, list(names) if names is not None else None


def _check_parameter(program: ir.Program, parameter: Any, name: str, hypers: Mapping[str, Any]) -> None:
    if not isinstance(parameter, Tensor):
        return  # torch says so in its own words
    if parameter.is_complex():
        raise ValueError(f"{name} is complex: give `torch.view_as_real` of it, so that its parts are two real numbers")
    if lacks_rank(program, facts_of(parameter), hypers):
        raise ValueError(
            f"{program.name} treats parameters as matrices, but {name} has shape {tuple(parameter.shape)}: "
            "send it to another rule with a `route`, as MuonWithAdamW does"
        )


def _gradient(parameter: Tensor, maximize: bool, optimizer: RuleOptimizer) -> Tensor:
    gradient = parameter.grad
    assert gradient is not None
    if gradient.layout != torch.strided:
        raise RuntimeError(
            f"{optimizer.name_of(parameter)} has a sparse gradient, which rules do not take: "
            "use a dense one, as with `torch.nn.Embedding(…, sparse=False)`"
        )
    return -gradient if maximize else gradient
