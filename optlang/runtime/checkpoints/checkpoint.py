"""Checkpoints: what a state dict must hold to be loaded, and loading that neither rounds states nor stops half-way."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Mapping
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from optlang.printing.fingerprint import FINGERPRINT, RULES, differences
from optlang.runtime import precision
from optlang.runtime.checkpoints.fitting import COUNT, TRAINING, parameter_problems
from optlang.runtime.groups.naming import OWN_KEYS, Group
from optlang.runtime.groups.options import OF_THE_MACHINE, check_options
from optlang.runtime.groups.parameters import real
from optlang.runtime.groups.routing import plain_name

if TYPE_CHECKING:
    from optlang.runtime.cases import Case
    from optlang.runtime.groups.grouped import Grouped

LEFT = ("params", FINGERPRINT, *OF_THE_MACHINE)  # of a saved group


def check(optimizer: Grouped, state_dict: Any) -> None:
    """Raises ValueError that lists everything in which a state dict does not fit; changes nothing."""
    name = type(optimizer).__name__
    if not isinstance(state_dict, Mapping) or not {"state", "param_groups"} <= set(state_dict):
        raise ValueError(f"this is not a state dict of {name}: it needs the entries `state` and `param_groups`")
    mine, saved = optimizer.param_groups, state_dict["param_groups"]
    problems = _count_problems(mine, saved) or [*_rule_problems(optimizer, state_dict), *_setting_problems(optimizer, saved)]
    if problems := problems or _moved(mine, saved) or _state_problems(optimizer, state_dict):
        shown = "\n".join(f"  {problem}" for problem in problems[:12])
        more = f"\n  … and {len(problems) - 12} more" if len(problems) > 12 else ""
        raise ValueError(f"this state dict does not fit {name}; nothing was loaded:\n{shown}{more}")


def _count_problems(mine: list[Group], saved: Any) -> list[str]:
    if not isinstance(saved, list) or len(saved) != len(mine):
        count = len(saved) if isinstance(saved, list) else "no"
        return [f"it has {count} parameter groups, the optimizer {len(mine)}"]
    problems = []
    for number, (group, other) in enumerate(zip(mine, saved, strict=True)):
        params = other.get("params") if isinstance(other, Mapping) else None
        count = len(params) if isinstance(params, list | tuple) else "no"
        if count != len(group["params"]):
            problems.append(f"group {number}: {count} parameters, the optimizer has {len(group['params'])}")
        elif not all(isinstance(key, Hashable) for key in params or ()):
            problems.append(f"group {number}: `params` are not keys of states")
        elif not all(isinstance(name, str) for name in _listed(other.get("param_names"))):
            problems.append(f"group {number}: `param_names` is not a list of names")
    return problems


def _listed(given: Any) -> list[Any]:
    """What should be a list or nothing; of anything else itself alone."""
    return list(given) if isinstance(given, list | tuple) else [] if given is None else [given]


def _setting_problems(optimizer: Grouped, saved: list[Group]) -> list[str]:
    problems = []
    for number, (group, other) in enumerate(zip(optimizer.param_groups, saved, strict=True)):
        case = optimizer.case_of(group)
        if other.get("rule", case.label) != case.label:
            problems.append(f"group {number}: saved by rule {other.get('rule')}, here it is {case.label}")
        settings = dict(other)
        case.settings.naming.fold(settings)
        missing = [key for key in case.settings.group_defaults() if key not in settings]
        if missing:
            problems.append(f"group {number}: lacks {', '.join(missing)}")
            continue
        try:
            case.settings.read(settings, "")
            check_options(case.settings.what, {key: value for key, value in settings.items() if key not in OF_THE_MACHINE})
        except (TypeError, ValueError) as problem:
            problems.append(f"group {number}: {problem}")
    return problems


def _rule_problems(optimizer: Grouped, state_dict: Mapping[str, Any]) -> list[str]:
    """Groups that another rule has saved; the same name does not make it the same rule."""
    texts = state_dict.get(RULES)
    problems = []
    for number, (group, other) in enumerate(zip(optimizer.param_groups, state_dict["param_groups"], strict=True)):
        here, text = optimizer.case_of(group).identity(other)
        there = other.get(FINGERPRINT, here)
        if there != here:
            saved = texts.get(there) if isinstance(texts, Mapping) else None
            shown = f":\n{differences(saved, text)}" if isinstance(saved, str) else ""
            problems.append(f"group {number}: saved by another rule (its fingerprint is {there}, here it is {here}); to go on with "
                            f"the equations that are here, delete `{FINGERPRINT}` from the saved group{shown}")  # fmt: skip
    return problems


def _moved(mine: list[Group], saved: list[Group]) -> list[str]:
    """Other names, or the same spread otherwise over the groups: states would go to the wrong parameters."""
    here, there = ({plain_name(n): i for i, g in enumerate(groups) for n in g.get("param_names") or ()} for groups in (mine, saved))
    if not here or not there:
        return []
    if here.keys() != there.keys():
        return _renamed(sorted(there.keys() - here.keys()), sorted(here.keys() - there.keys()))
    return [f"{name}: saved in group {there[name]}, here it is in group {i}" for name, i in here.items() if there[name] != i]


def _renamed(there: list[str], here: list[str]) -> list[str]:
    lost = [f"{name}: saved, but not a parameter here" for name in there]
    new = [f"{name}: not in what was saved" for name in here]
    return [*lost, *new, "delete `param_names` from the saved groups to load by place, as torch does"]


def _keys(group: Group, saved: Group) -> list[Any]:
    """The saved keys of a group's parameters: by name where both sides have the same names, else by place as in torch."""
    mine, theirs = ([plain_name(name) for name in side.get("param_names") or ()] for side in (group, saved))
    if len(set(mine)) < len(mine) or len(theirs) != len(saved["params"]) or set(mine) != set(theirs):
        return list(saved["params"])
    place = dict(zip(theirs, saved["params"], strict=True))
    return [place[name] for name in mine]


def _state_problems(optimizer: Grouped, state_dict: Mapping[str, Any]) -> list[str]:
    states = state_dict["state"]
    if not isinstance(states, Mapping):
        return ["`state` is not a dictionary"]
    problems: list[str] = []
    known: set[Any] = set()
    for group, other in zip(optimizer.param_groups, state_dict["param_groups"], strict=True):
        case = optimizer.case_of(group)
        hypers = case.settings.read(dict(other), "")
        program = case.shaped(hypers)
        for parameter, key in zip(group["params"], _keys(group, other), strict=True):
            known.add(key)
            if states.get(key):
                where = optimizer.name_of(parameter)
                beside = None if FINGERPRINT in other else case.dropped
                found = parameter_problems(program, parameter, states[key], hypers, beside)
                problems += [f"{where}: {problem}" for problem in found]
    if extra := [key for key in states if key not in known and not isinstance(key, str)]:  # hooks keep things by name
        problems.append(f"states of {len(extra)} parameters that the optimizer does not have")
    return problems


def restored(optimizer: Grouped, state_dict: Mapping[str, Any]) -> dict[str, Any]:
    """The states and groups of a checked state dict, as copies. torch would round states to the parameter's number type; here
    a float32 state of a bfloat16 parameter stays what it is."""
    state: defaultdict[Tensor, dict[str, Any]] = defaultdict(dict)
    known: set[Any] = set()
    groups: list[Group] = []
    shared: dict[Any, Any] = {}
    for group, other in zip(optimizer.param_groups, state_dict["param_groups"], strict=True):
        own = {key: group[key] for key in OWN_KEYS if key in group}
        kept = {**own, **deepcopy({k: v for k, v in other.items() if k not in LEFT}), "params": group["params"]}
        keys = _keys(group, other)
        if keys != list(other["params"]):
            kept["param_names"] = group["param_names"]
        groups.append(kept)
        known.update(keys)
        for parameter, key in zip(group["params"], keys, strict=True):
            if state_dict["state"].get(key):
                case = optimizer.case_of(group)
                state[parameter] = _stored(state_dict["state"][key], parameter, case, kept)
                _join(state[parameter], case, len(groups), shared)
    of_hooks: Any = {key: deepcopy(value) for key, value in state_dict["state"].items() if isinstance(key, str) and key not in known}
    state.update(of_hooks)
    return {"state": state, "param_groups": groups}


def _join(state: dict[str, Any], case: Case, group: int, shared: dict[Any, Any]) -> None:
    """What is kept per group or model is one tensor again, and not a copy beside each parameter: the first one counts."""
    for level, names in case.shared.items():
        for name in names:
            if name in state:
                place = (case.label, name, group if level == "group" else "model")
                state[name] = shared.setdefault(place, state[name])


def _stored(saved: Mapping[str, Any], parameter: Tensor, case: Case, group: Group) -> dict[str, Any]:
    """Saved states as they are stored beside such a parameter."""
    opened, _ = precision.opened(saved, real(parameter).shape)
    hypers = case.settings.read(dict(group), "")
    states = case.shaped(hypers).states
    own = {COUNT, TRAINING, *(state.name for state in states)}
    plain = {name: _placed(name, opened[name], parameter, bool(group.get("capturable"))) for name in opened if name in own}
    plain |= {one.name: plain[one.name].bool() for one in states if one.type.kind == "bool" and one.name in plain}
    of_tools = {name: _copied(value, parameter) for name, value in opened.items() if name not in own}
    return precision.closed(saved, plain, case.storage(hypers), real(parameter)) | of_tools


def _copied(value: Any, parameter: Tensor) -> Any:
    """What a tool around the optimizer keeps beside a parameter, where that is."""
    return value.detach().to(parameter.device, copy=True) if isinstance(value, Tensor) else deepcopy(value)


def _placed(name: str, given: Any, parameter: Tensor, capturable: bool) -> Tensor:
    """A copy of a state in the number type that it has beside such a parameter; the count is on the host unless `capturable`."""
    value: Tensor = torch.as_tensor(given).detach()
    if name == COUNT:
        return value.to(parameter.device if capturable else "cpu", torch.float32, copy=True)
    own = real(parameter).dtype
    computing = torch.float64 if own == torch.float64 else torch.float32
    return value.to(parameter.device, own if name == TRAINING else computing, copy=True)
