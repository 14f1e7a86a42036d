"""Parameter groups of optimizers: which rule a parameter goes to, settings by rule and by group, and what they are in words."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from optlang import ir
from optlang.runtime.cases import Case
from optlang.runtime.describing import assigned, description, mistakes, stepped
from optlang.runtime.distributed import sharded
from optlang.runtime.distributed.wrappers import are_rows, check_all_there, check_flattened, check_rows
from optlang.runtime.groups.arguments import by_case, by_name, with_params
from optlang.runtime.groups.naming import CYCLED, OWN_KEYS, Group, name_in
from optlang.runtime.groups.options import OPTIONS, check_options
from optlang.runtime.groups.parameters import check_parameters, listed
from optlang.runtime.groups.routing import Backends, Routes, holds, known_of
from optlang.runtime.groups.settings import Written
from optlang.runtime.overlap import overlap
from optlang.runtime.tensor_subclasses import is_wrapped


class Grouped(torch.optim.Optimizer):
    """Parameters in groups, each with its rule and its settings."""

    cases: ClassVar[list[Case]]
    rule: ClassVar[ir.Program | ir.Routing]
    _written: Written | None  # the settings, when they were read the last time

    def __init__(self, /, *args: Any, **settings: Any) -> None:
        name = type(self).__name__
        params, *places = with_params(name, args, settings)
        given = by_name(name, self.cases, places, settings)
        defaults: Group = {option: given.pop(option, value) for option, value in OPTIONS.items()}
        if any(case.program.uses("random") for case in self.cases):
            defaults["seed"] = given.pop("seed", 0)
        self._given = by_case(name, self.cases, given)
        if len(self.cases) == 1:
            case = self.cases[0]
            defaults |= case.settings.naming.packed({**case.settings.defaults, **self._given[case.label]})
        else:
            defaults |= self._defaults_of_a_route()
        check_options(name, defaults)
        super().__init__(params, defaults)

    def _defaults_of_a_route(self) -> Group:
        """Where tools and schedulers look to see which settings there are; every group has its own."""
        groups = [case.settings.group_defaults() for case in self.cases]
        lr = {"lr": groups[0]["lr"]} if all("lr" in group for group in groups) else {}
        cycled = next((key for key in CYCLED if any(key in group for group in groups)), None)
        return lr if cycled is None else lr | {cycled: next(group[cycled] for group in groups if group.get(cycled))}

    def case_of(self, group: Group) -> Case:
        """The program of a group."""
        label = group.get("rule", "")
        return next(case for case in self.cases if case.label == label)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """As in torch; a route splits the group by rule. Raises ValueError for a parameter that its rule cannot take."""
        if not isinstance(param_group, dict):
            raise TypeError(f"a parameter group is a dictionary, not {type(param_group).__name__}")
        if "params" not in param_group:
            raise ValueError("a parameter group needs the entry `params`, with its parameters")
        group = dict(param_group)
        group["params"], names = listed(group["params"], group.pop("param_names", None))
        before = len(self.param_groups)
        check_all_there(self.cases[0].program, self.cases[0].label)
        try:
            for case, places in self._sorted(group["params"], names):
                self._add(case, group, [group["params"][i] for i in places], [names[i] for i in places] if names else None)
            self._check_agreement(before)
            self._check_memory()
        except BaseException:  # Ctrl-C, too
            del self.param_groups[before:]  # all of it or nothing
            raise
        if found := mistakes(self, before):
            warnings.warn(found, stacklevel=3)

    def _check_memory(self) -> None:
        named = [(name_in(g, number, place), p) for number, g in enumerate(self.param_groups) for place, p in enumerate(g["params"])]
        if what := overlap(named):
            raise ValueError(f"{type(self).__name__}: {what}")

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
        known = known_of(parameter, name)
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
        check_options(type(self).__name__, {**self.defaults, **group})
        case.settings.complete(group, self._given[case.label], settings)
        hypers = case.settings.read(group, f" (group {len(self.param_groups)})")
        program = case.shaped(hypers)
        if group.get("differentiable", self.defaults["differentiable"]):
            _check_differentiable(case, program)
        if group.get("capturable", self.defaults["capturable"]):
            case.check_capturable()
        number = len(self.param_groups)
        named = list(zip(names or [f"parameter {i} of group {number}" for i in range(len(params))], params, strict=True))
        self._check_parameters(case, program, named, {**self.defaults, **group}, hypers)
        if case.label:
            group["rule"] = case.label
        group["params"] = list(zip(names, params, strict=True)) if names else params
        super().add_param_group(group)
        self.read_settings()

    def _check_parameters(
        self, case: Case, program: ir.Program, named: list[tuple[str, Any]], group: Group, hypers: Mapping[str, Any]
    ) -> None:
        check_all_there(program, case.label)
        for name, parameter in named:
            check_flattened(program, case.label, parameter, name)
        check_parameters(program, named, hypers)
        case.check_weights(named)
        for name, parameter in named:
            self._check_spread(case, parameter, name, group)

    def _check_others(self, known: Sequence[Tensor]) -> None:
        """Parameters that somebody has put into groups in place of others, as Accelerate does with those of FSDP2, are checked like added
        ones."""
        there = {id(p) for p in known}
        flat = are_rows(known, [p for group in self.param_groups for p in group["params"]])
        for number, group in enumerate(self.param_groups):
            named = [(name_in(group, number, place), p) for place, p in enumerate(group["params"]) if id(p) not in there]
            if named:
                case = self.case_of(group)
                if flat:
                    check_rows(case.program, case.label)
                hypers = case.settings.read(dict(group), f" (group {number})")
                self._check_parameters(case, case.shaped(hypers), named, group, hypers)
        self._check_memory()
        self._check_agreement(0)

    def _check_agreement(self, first: int) -> None:
        """Raises ValueError where processes that hold parts of a parameter were told otherwise about the groups from `first` on."""
        groups = self.param_groups[first:]
        spread: Any = next((p for group in groups for p in group["params"] if sharded.is_sharded(p)), None)
        if spread is None:
            return
        cases = [(self.case_of(group), group) for group in groups]
        said = [(c.program.name, c.identity(group)[0], c.settings.read(dict(group), ""), len(group["params"])) for c, group in cases]
        if not sharded.agree(spread.device_mesh, repr(said)):
            mine = "; ".join(f"{name} (fingerprint {mark}) with {hypers} for {count} parameters" for name, mark, hypers, count in said)
            raise ValueError(f"the processes disagree about rules, settings or parameters; rank {torch.distributed.get_rank()} has {mine}: "
                             "give all of them the same")  # fmt: skip

    def _check_spread(self, case: Case, parameter: Any, name: str, group: Group) -> None:
        if is_wrapped(parameter) and group["differentiable"]:
            kind = type(parameter).__name__
            raise ValueError(f"{case.program.name} cannot step {name} with differentiable=True: it is a {kind}, of which a copy is stepped")
        if not sharded.is_sharded(parameter):
            return
        if why := sharded.refuses(parameter, case.asks, group["differentiable"], case.keeps_float32):
            raise ValueError(f"{case.program.name} cannot step {name}, which several processes hold parts of: {why}")

    def goes_whole(self, parameter: Tensor, group: Group) -> str:
        """Why all of a parameter that several processes hold parts of is gathered for each step; empty where parts are stepped."""
        case = self.case_of(group)
        hypers = case.settings.read(group, "")
        whys = [sharded.why_whole(case.shaped(hypers), parameter, hypers)]
        whys += [sharded.why_whole(other.program, parameter, {}) for other in self.cases if other.sees_all and other is not case]
        return next(filter(None, whys), "")

    def name_of(self, parameter: Tensor) -> str:
        """The name that a parameter was given with, or its place."""
        for number, group in enumerate(self.param_groups):
            for place, other in enumerate(group["params"]):
                if other is parameter:
                    return name_in(group, number, place)
        return "a parameter"

    def read_settings(self, unread: bool | None = False) -> list[dict[str, Any]]:
        """The hypers of every group. Raises ValueError for one outside its range and for groups that cannot differ like that.

        `unread`: tensors stay on the device; None: only in groups with `capturable`.
        """
        if self._written is not None and not unread and (known := self._written.read(self.param_groups)) is not None:
            return known
        for group in self.param_groups:
            check_options(type(self).__name__, group)
        on_device = [g.get("capturable", False) if unread is None else unread for g in self.param_groups]
        groups = list(zip(self.param_groups, on_device, strict=True))
        of = [self.case_of(group).settings for group in self.param_groups]
        settings = [one.read(g, f" (group {i})", there) for i, (one, (g, there)) in enumerate(zip(of, groups, strict=True))]
        for case in self.cases:
            mine = [i for i, group in enumerate(self.param_groups) if self.case_of(group) is case]
            case.check_together([settings[i] for i in mine], [self.param_groups[i] for i in mine])
        self._written = None if any(on_device) else Written(self.param_groups, settings, of)
        return settings

    def routes(self) -> Routes:
        """Each parameter with its shape, its rule, and the facts by which it got there. `print` shows a table."""
        return assigned(self)

    def backends(self) -> Backends:
        """Each parameter with its shape, what stepped it the last time, and why. `print` shows a table."""
        return stepped(self)

    def describe(self) -> str:
        """What is optimized by which rule, and the memory that its states take."""
        return description(self)


def _check_differentiable(case: Case, program: ir.Program) -> None:
    """Raises ValueError for a rule through whose steps nothing is learned."""
    from optlang.runtime.steps.differentiable import refuses  # noqa: PLC0415 - only who learns settings pays for it

    if why := refuses(program) or ("has values per model, which in a route are over the parameters of all rules" if case.sees_all else ""):
        raise ValueError(f"{program.name} cannot be differentiable: it {why}")
    if not case.keeps_float32:
        raise ValueError(f"{program.name} cannot be differentiable with state or weights in fewer bits: rounding has no gradient")
