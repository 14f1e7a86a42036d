"""Parameter groups of optimizers: which rule a parameter goes to, settings by rule and by group, and what they are in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from optlang import ir
from optlang.runtime.cases import Case
from optlang.runtime.checkpoint import COUNT
from optlang.runtime.facts import Known, facts_of, holds
from optlang.runtime.parameters import check_parameter, listed
from optlang.runtime.settings import Group, check_own

OWN_KEYS = ("params", "param_names", "maximize", "seed", "rule")


class Grouped(torch.optim.Optimizer):
    """Parameters in groups, each with its rule and its settings."""

    cases: ClassVar[list[Case]]
    rule: ClassVar[ir.Program | ir.Routing]

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
        super().__init__(params, defaults)

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
        self.read_settings()

    def name_of(self, parameter: Tensor) -> str:
        """The name that a parameter was given with, or its place."""
        for number, group in enumerate(self.param_groups):
            for place, other in enumerate(group["params"]):
                if other is parameter:
                    return name_in(group, number, place)
        return "a parameter"

    def read_settings(self) -> list[dict[str, float | int | bool]]:
        """The hypers of every group. Raises ValueError for one outside its range and for groups that cannot differ like that."""
        settings = [self.case_of(g).settings.read(g, f" (group {i})") for i, g in enumerate(self.param_groups)]
        for case in self.cases:
            mine = [i for i, group in enumerate(self.param_groups) if self.case_of(group) is case]
            case.check_together([settings[i] for i in mine], [self.param_groups[i] for i in mine])
        return settings

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


def name_in(group: Group, number: int, place: int) -> str:
    names = group.get("param_names")
    return str(names[place]) if names else f"parameter {place} of group {number}"
