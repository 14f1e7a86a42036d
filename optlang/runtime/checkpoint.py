"""Checkpoints: what a state dict must hold to be loaded, and loading that neither rounds states nor stops half-way."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from optlang import ir
from optlang.runtime.facts import facts_of
from optlang.runtime.shapes import expected_states

if TYPE_CHECKING:
    from optlang.runtime.optimizer import RuleOptimizer

COUNT = "step"  # updates of a parameter, as in torch
TRAINING = "weights_in_training"  # while the model holds the weights to evaluate with


def check(optimizer: RuleOptimizer, state_dict: Any) -> None:
    """Raises ValueError that lists everything in which a state dict does not fit; changes nothing."""
    name = type(optimizer).__name__
    if not isinstance(state_dict, Mapping) or not {"state", "param_groups"} <= set(state_dict):
        raise ValueError(f"this is not a state dict of {name}: it needs the entries `state` and `param_groups`")
    problems = _group_problems(optimizer, state_dict["param_groups"])
    if not problems:
        problems = _state_problems(optimizer, state_dict)
    if problems:
        shown = "\n".join(f"  {problem}" for problem in problems[:12])
        more = f"\n  … and {len(problems) - 12} more" if len(problems) > 12 else ""
        raise ValueError(f"this state dict does not fit {name}; nothing was loaded:\n{shown}{more}")


def _group_problems(optimizer: RuleOptimizer, saved: Any) -> list[str]:
    mine = optimizer.param_groups
    if not isinstance(saved, list) or len(saved) != len(mine):
        count = len(saved) if isinstance(saved, list) else "no"
        return [f"it has {count} parameter groups, the optimizer {len(mine)}"]
    problems = []
    for number, (group, other) in enumerate(zip(mine, saved, strict=True)):
        count = len(other.get("params", ())) if isinstance(other, Mapping) else "no"
        if count != len(group["params"]):
            problems.append(f"group {number}: {count} parameters, the optimizer has {len(group['params'])}")
            continue
        case = optimizer.case_of(group)
        if other.get("rule", case.label) != case.label:
            problems.append(f"group {number}: saved by rule {other.get('rule')}, here it is {case.label}")
        missing = [key for key in case.settings.group_defaults() if key not in other]
        if missing:
            problems.append(f"group {number}: lacks {', '.join(missing)}")
            continue
        try:
            case.settings.read(dict(other), "")
        except (TypeError, ValueError) as problem:
            problems.append(f"group {number}: {problem}")
    return problems


def _state_problems(optimizer: RuleOptimizer, state_dict: Mapping[str, Any]) -> list[str]:
    states = state_dict["state"]
    if not isinstance(states, Mapping):
        return ["`state` is not a dictionary"]
    problems: list[str] = []
    known: set[Any] = set()
    for group, other in zip(optimizer.param_groups, state_dict["param_groups"], strict=True):
        case = optimizer.case_of(group)
        hypers = case.settings.read(dict(other), "")
        program = case.shaped(hypers)
        for parameter, key in zip(group["params"], other["params"], strict=True):
            known.add(key)
            if states.get(key):
                where = optimizer.name_of(parameter)
                found = _parameter_problems(program, parameter, states[key], hypers, case.dropped)
                problems += [f"{where}: {problem}" for problem in found]
    if extra := [key for key in states if key not in known]:
        problems.append(f"states of {len(extra)} parameters that the optimizer does not have")
    return problems


def _parameter_problems(
    program: ir.Program, parameter: Tensor, state: Any, hypers: Mapping[str, Any], dropped: set[str]
) -> list[str]:
    if not isinstance(state, Mapping):
        return [f"its state is {type(state).__name__}, not a dictionary"]
    expected = {COUNT: (), **expected_states(program, tuple(parameter.shape), facts_of(parameter), hypers)}
    problems = []
    if missing := sorted(set(expected) - set(state)):
        problems.append(f"lacks {', '.join(missing)}")
    if program.evaluation is not None:
        expected[TRAINING] = tuple(parameter.shape)
    if extra := sorted(str(key) for key in set(state) - set(expected) - dropped):
        problems.append(f"has {', '.join(extra)}, which {program.name} does not keep")
    for name, shape in expected.items():
        if name in state:
            problems += _value_problems(name, state[name], shape)
    return problems


def shape_problems(program: ir.Program, parameter: Tensor, state: Mapping[str, Any], hypers: Mapping[str, Any]) -> list[str]:
    """In what the states of a parameter differ from those that a program keeps; no states are no problem."""
    expected = expected_states(program, tuple(parameter.shape), facts_of(parameter), hypers)
    return [problem for name, shape in expected.items() if name in state for problem in _value_problems(name, state[name], shape)]


def _value_problems(name: str, value: Any, shape: tuple[int, ...]) -> list[str]:
    if not isinstance(value, Tensor | int | float):
        return [f"{name} is {type(value).__name__}, not a tensor"]
    found = tuple(value.shape) if isinstance(value, Tensor) else ()
    if found != shape:
        return [f"{name} has shape {found}, not {shape}"]
    if name == COUNT and not (value >= 0 and value == int(value)):
        return [f"{name} is {float(value)}, not a number of updates"]
    return []


def restored(optimizer: RuleOptimizer, state_dict: Mapping[str, Any]) -> dict[str, Any]:
    """The states and groups of a checked state dict, as copies. torch would round states to the parameter's number type; here
    a float32 state of a bfloat16 parameter stays what it is."""
    state: defaultdict[Tensor, dict[str, Any]] = defaultdict(dict)
    groups = []
    for group, other in zip(optimizer.param_groups, state_dict["param_groups"], strict=True):
        own = {key: group[key] for key in ("param_names", "maximize", "seed", "rule") if key in group}
        groups.append({**own, **deepcopy({k: v for k, v in other.items() if k != "params"}), "params": group["params"]})
        for parameter, key in zip(group["params"], other["params"], strict=True):
            if state_dict["state"].get(key):
                state[parameter] = {name: _placed(name, value, parameter) for name, value in state_dict["state"][key].items()}
    return {"state": state, "param_groups": groups}


def _placed(name: str, given: Any, parameter: Tensor) -> Tensor:
    """A copy of a state in the number type that it has beside such a parameter."""
    value: Tensor = torch.as_tensor(given).detach()
    if name == COUNT:
        return value.to("cpu", torch.float32, copy=True)
    computing = torch.float64 if parameter.dtype == torch.float64 else torch.float32
    dtype = parameter.dtype if name == TRAINING else computing if value.is_floating_point() else value.dtype
    return value.to(parameter.device, dtype, copy=True)
