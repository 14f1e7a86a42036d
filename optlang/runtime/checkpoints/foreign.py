"""Checkpoints of other optimizers: `torch.optim`, lion-pytorch and HeavyBall 3, as those of the library's rules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from optlang import ir, library
from optlang.analysis.live_states import without_dead
from optlang.printing.fingerprint import FINGERPRINT, fingerprint_of
from optlang.runtime.cases import Case
from optlang.runtime.checkpoints.fitting import COUNT
from optlang.runtime.groups.naming import OF_SCHEDULERS

ADAM = {"exp_avg": "m", "exp_avg_sq": "v"}
HEAVY = {"update_by_adam_exp_avg_0": "m", "update_by_adam_exp_avg_sq_0": "v"}
HEAVY_PLAIN = {"caution": False, "cautious_weight_decay": False, "mars": False, "ecc": None, "param_ecc": None, "warmup_steps": 0}


@dataclass(frozen=True)
class Origin:
    """States of another optimizer by the names that a rule of the library has for them.

    `options` are the settings with which both take the same steps; those that a checkpoint does not have count as given.
    """

    rule: str
    states: Mapping[str, str]
    options: Mapping[str, Any] = field(default_factory=dict)
    nested: bool = False  # HeavyBall keeps states by the views of a parameter, and means without their bias


ORIGINS = (
    Origin("Adam", ADAM, {"amsgrad": False, "decoupled_weight_decay": False}),
    Origin("AdamW", ADAM, {"amsgrad": False, "decoupled_weight_decay": True}),
    Origin("AMSGrad", ADAM | {"max_exp_avg_sq": "h"}, {"amsgrad": True, "decoupled_weight_decay": False}),
    Origin("SGD", {}, {"momentum": 0, "dampening": 0, "nesterov": False}),
    Origin("Momentum", {"momentum_buffer": "m"}, {"dampening": 0, "nesterov": False}),
    Origin("Nesterov", {"momentum_buffer": "m"}, {"dampening": 0, "nesterov": True}),
    Origin("Lion", {"exp_avg": "m"}),
    Origin("AdamW", HEAVY, HEAVY_PLAIN, nested=True),
)
SIGNS = {"amsgrad", "dampening", "nesterov", "momentum_buffer", *(name for origin in ORIGINS for name in origin.states)}


def is_foreign(state_dict: Mapping[str, Any]) -> bool:
    """Whether a state dict looks like one of the optimizers that are known here."""
    groups, states = state_dict.get("param_groups"), state_dict.get("state")
    if not isinstance(groups, list) or not isinstance(states, Mapping) or not all(isinstance(g, Mapping) for g in groups):
        return False
    if any(FINGERPRINT in group or "rule" in group for group in groups):
        return False
    return any(SIGNS & {*group} for group in groups) or any(SIGNS & {*_flat(state)} for state in states.values())


def converted(case: Case, state_dict: Mapping[str, Any]) -> Mapping[str, Any]:
    """The state dict as one of this rule; itself where it is none that the rule can take.

    Raises ValueError where it was made with settings with which the other optimizer takes other steps.
    """
    states = {key: _flat(state) for key, state in state_dict["state"].items()}
    named = [o for o in ORIGINS if o.rule == case.program.name]
    if not named or not is_of_the_library(case.program):
        return state_dict
    found = [o for o in named if _takes(o, states)]
    if problems := _problems((found or named)[0], state_dict["param_groups"]):
        raise ValueError(f"this state dict does not fit {case.program.name}; nothing was loaded:\n{problems}")
    if not found:
        return state_dict
    wanted = {*case.settings.group_defaults(), "params", "param_names", "maximize", *OF_SCHEDULERS}
    groups = [{key: value for key, value in group.items() if key in wanted} for group in state_dict["param_groups"]]
    of = {key: group for group in state_dict["param_groups"] for key in group["params"]}
    start = {} if case.program.uses("t") else {COUNT: 1.0}  # some optimizers do not count, nor do their rules
    convert = _from_heavyball if found[0].nested else _renamed
    return {"state": {k: start | convert(found[0], s, of.get(k, {})) for k, s in states.items() if s}, "param_groups": groups}


def _flat(state: Any) -> dict[str, Any]:
    """The states of a parameter; those of its only view where they are kept by views."""
    if not isinstance(state, Mapping):
        return {}
    only = state.get(0)
    found = only if set(state) == {0} and isinstance(only, Mapping) else state
    return {key: value for key, value in found.items() if value is not None and key != "is_initialized"}


def _takes(origin: Origin, states: Mapping[Any, dict[str, Any]]) -> bool:
    return all(set(state) - {COUNT} in ({*origin.states}, set()) for state in states.values())


@cache
def _library_fingerprint(name: str) -> str:
    from optlang import lower  # noqa: PLC0415 - only who loads checkpoints of others reads rules again
    from optlang.front import parser  # noqa: PLC0415

    file, _ = parser.parse(library.find(name))
    program = lower.lower(file, name, {})
    return fingerprint_of(without_dead(program)) if isinstance(program, ir.Program) else ""


def is_of_the_library(program: ir.Program) -> bool:
    """A rule of the same name that someone else wrote may mean something else by `m`."""
    return fingerprint_of(program) == _library_fingerprint(program.name)


def _problems(origin: Origin, groups: list[Mapping[str, Any]]) -> str:
    found = []
    for number, group in enumerate(groups):
        for name, value in origin.options.items():
            harmless = name == "decoupled_weight_decay" and not group.get("weight_decay")
            if group.get(name, value) != value and not harmless:
                found.append(f"  group {number}: saved with {name}={group[name]!r}, but {origin.rule} takes the steps of {name}={value!r}")
    return "\n".join(found)


def _renamed(origin: Origin, state: Mapping[str, Any], group: Mapping[str, Any]) -> dict[str, Any]:
    names = {**origin.states, COUNT: COUNT}
    return {ours: state[theirs] for theirs, ours in names.items() if theirs in state}


def _from_heavyball(origin: Origin, state: Mapping[str, Any], group: Mapping[str, Any]) -> dict[str, Any]:
    count = float(state.get(COUNT, group.get("step_count", 0)))
    betas = dict(zip(origin.states.values(), group["betas"], strict=True))
    made = {ours: state[theirs] * (1 - float(betas[ours]) ** count) for theirs, ours in origin.states.items()}
    return {COUNT: count, **made}


