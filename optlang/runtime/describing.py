"""What an optimizer is and what it takes, in words."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

from torch import Tensor

from optlang.runtime.cases import Case
from optlang.runtime.facts import facts_of
from optlang.runtime.naming import Group
from optlang.runtime.parameters import real
from optlang.runtime.shapes import expected_states
from optlang.runtime.sharded import is_sharded

if TYPE_CHECKING:
    from optlang.runtime.grouped import Grouped

Sizes = dict[str, int]  # bytes, by the name of a state


def description(optimizer: Grouped) -> str:
    """Rule, backend, and for each group its parameters, states with their bytes, and settings."""
    lines = [f"{type(optimizer).__name__}: {optimizer.rule.doc}".rstrip(": "), optimizer.cases[0].way]
    for number, group in enumerate(optimizer.param_groups):
        count = sum(p.numel() for p in group["params"])
        rule = f" {group['rule']}" if "rule" in group else ""
        size = f"{len(group['params'])} parameters, {count:,} elements"
        parts = [size, _gathered(optimizer, group), _states(optimizer, group), _settings(optimizer, group)]
        lines.append(f"group {number}{rule}: {'; '.join(part for part in parts if part)}")
    return "\n".join(lines)


def _gathered(optimizer: Grouped, group: Group) -> str:
    """What several processes send each other in a step, where a rule is none for each element by itself."""
    found = [p for p in group["params"] if is_sharded(p) and optimizer.goes_whole(p, group)]
    size = sum(2 * p.numel() * p.element_size() for p in found)
    return f"{len(found)} of them gathered whole in every step, {size:,} bytes with their gradients" if found else ""


def _settings(optimizer: Grouped, group: Group) -> str:
    hypers = optimizer.case_of(group).settings.read(group, "")
    return ", ".join(f"{name}={value}" if isinstance(value, bool) else f"{name}={value:g}" for name, value in hypers.items())


def _states(optimizer: Grouped, group: Group) -> str:
    """The bytes of the states that are there, and of those that will be when every parameter has been stepped."""
    case = optimizer.case_of(group)
    wanted, there = _wanted(case, group), _there(optimizer, case, group)
    if not wanted:
        return "no states"
    now, all_of_them = sum(there.values()), sum(wanted.values())
    size = f"{now:,}" if now == all_of_them else f"{now:,} of {all_of_them:,}"
    return f"{size} bytes of state: {', '.join(wanted)}"


def _wanted(case: Case, group: Group) -> Sizes:
    program = case.shaped(case.settings.read(group, ""))
    kinds = {s.name: s.type.kind for s in program.states}
    found: Sizes = {}
    for parameter in map(real, group["params"]):
        shapes = expected_states(program, tuple(parameter.shape), facts_of(parameter), case.settings.read(group, ""))
        for name, shape in shapes.items():
            width = 1 if kinds[name] == "bool" else 8 if parameter.element_size() == 8 else 4
            found[name] = width * prod(shape) + (0 if case.is_shared(name) else found.get(name, 0))
    return found


def _there(optimizer: Grouped, case: Case, group: Group) -> Sizes:
    states = {s.name for s in case.shaped(case.settings.read(group, "")).states}
    kept: dict[str, dict[int, int]] = {}
    for parameter in group["params"]:
        for name, value in optimizer.state.get(parameter, {}).items():
            if name in states and isinstance(value, Tensor):
                kept.setdefault(name, {})[id(value)] = value.numel() * value.element_size()
    return {name: sum(sizes.values()) for name, sizes in kept.items()}
