"""What an optimizer is and what it takes, in words."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

from torch import Tensor

from optlang.backends.base import NOT_YET
from optlang.printing import as_printed
from optlang.runtime.cases import Case
from optlang.runtime.distributed.sharded import is_sharded
from optlang.runtime.facts import facts_of, is_matrix_rule
from optlang.runtime.groups.naming import Group, name_in
from optlang.runtime.groups.parameters import real
from optlang.runtime.groups.routing import Assigned, Backends, Routes, Stepped, known_of, looks_like, reason_for
from optlang.runtime.shapes import expected_states

if TYPE_CHECKING:
    from optlang.runtime.groups.grouped import Grouped

LISTED = 5
Sizes = dict[str, int]  # bytes, by the name of a state


class Description(str):
    """A text that notebooks show as `print` does, not in quotes and in one line."""

    _repr_pretty_ = as_printed


def description(optimizer: Grouped) -> Description:
    """Rule, backend, and for each group its parameters, states with their bytes, and settings."""
    lines = [f"{type(optimizer).__name__}: {optimizer.rule.doc}".rstrip(": "), optimizer.cases[0].options]
    for number, group in enumerate(optimizer.param_groups):
        count = sum(p.numel() for p in group["params"])
        rule = f" {group['rule']}" if "rule" in group else ""
        size = f"{len(group['params'])} parameters, {count:,} elements"
        parts = [size, _gathered(optimizer, group), _states(optimizer, group), _settings(optimizer, group)]
        lines.append(f"group {number}{rule}: {'; '.join(part for part in parts if part)}")
    return Description("\n".join(lines))


def _gathered(optimizer: Grouped, group: Group) -> str:
    """What several processes send each other in a step, where a rule is none for each element by itself."""
    case = optimizer.case_of(group)
    spread = [p for p in group["params"] if is_sharded(p)]
    found = [(p, why) for p in spread if (why := optimizer.goes_whole(p, group))]
    size = sum(2 * p.numel() * p.element_size() for p, _ in found)
    reasons = ", ".join(dict.fromkeys(why for _, why in found))
    gathered = f"{len(found)} of them gathered whole in every step, {size:,} bytes with their gradients, since the rule {reasons}"
    said = [gathered] if found else []
    if case.reduces and len(found) < len(spread):
        said.append(f"{len(spread) - len(found)} of them stepped in parts, with values of all reduced over the processes")
    return "; ".join(said)


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


# ------------------------------------------------------------------------------------------------------- routes


def assigned(optimizer: Grouped) -> Routes:
    """Each parameter with its rule and the reason."""
    found = Routes()
    for number, group in enumerate(optimizer.param_groups):
        case = optimizer.case_of(group)
        conditions = [other.condition for other in optimizer.cases[: optimizer.cases.index(case) + 1]]
        for place, p in enumerate(group["params"]):
            name = name_in(group, number, place)
            reason = reason_for(conditions, known_of(p, name if "param_names" in group else ""))
            found.append(Assigned(name, tuple(p.shape), case.label or case.program.name, reason))
    return found


def stepped(optimizer: Grouped) -> Backends:
    """Each parameter with its backend and the reason."""
    found = Backends()
    index = 0
    for number, group in enumerate(optimizer.param_groups):
        case = optimizer.case_of(group)
        executable = case.executable(case.settings.read(group, ""), group.get("differentiable", False))[1]
        for place, p in enumerate(group["params"]):
            way = executable.way(index) if optimizer.state.get(p) else NOT_YET  # optimizers of a rule share what steps them
            found.append(Stepped(name_in(group, number, place), tuple(p.shape), *way))
            index += 1
    return found


def mistakes(optimizer: Grouped, first: int) -> str:
    """Which embeddings and heads the groups from `first` on send to rules for matrices; empty where there are none."""
    found = []
    for number, group in enumerate(optimizer.param_groups[first:], first):
        case = optimizer.case_of(group)
        for place, p in enumerate(group["params"]):
            name = name_in(group, number, place)
            role = looks_like(name, tuple(p.shape)) if p.ndim >= 2 else ""
            if role and is_matrix_rule(case.program, facts_of(p), case.settings.defaults):
                found.append(f"{name} looks like {role}, and goes to {case.program.name}")
    if not found:
        return ""
    more = f"; and {len(found) - LISTED} more" if len(found) > LISTED else ""
    return (f"{type(optimizer).__name__}: {'; '.join(found[:LISTED])}{more}. A rule for matrices takes rows for directions of a map, which "
            'those of a table of words are not: send them to another rule, with `named("…")` in a route')  # fmt: skip
