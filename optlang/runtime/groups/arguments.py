"""What an optimizer is made with: parameters, and settings by place, by name, or of a route by rule.

All functions raise TypeError; `name` is the optimizer's, for messages.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from optlang.errors import did_you_mean
from optlang.runtime.cases import Case
from optlang.runtime.groups.naming import Group


def with_params(name: str, args: tuple[Any, ...], settings: dict[str, Any]) -> tuple[Any, ...]:
    """The parameters, and the settings by place behind them."""
    if "params" in settings:
        args = (settings.pop("params"), *args)
    if not args or (isinstance(args[0], torch.nn.Module) and not isinstance(args[0], torch.nn.ParameterList)):
        what = type(args[0]).__name__ if args else "nothing"
        raise TypeError(f"{name} takes the parameters of a model, not {what}: `{name}(model.named_parameters())`")
    return args


def by_name(name: str, cases: Sequence[Case], args: Sequence[Any], settings: dict[str, Any]) -> dict[str, Any]:
    """All settings. Those given by place take the order of the rule's hypers; a pair stands for two betas, as in torch."""
    naming = cases[0].settings.naming
    names = naming.by_place if not cases[0].label else []
    names = naming.as_pair(names) if any(isinstance(value, tuple | list) for value in args) else names
    if len(args) > len(names):
        raise TypeError(f"{name} takes at most {len(names)} settings by place, not {len(args)}; name them")
    for setting, value in zip(names, args, strict=False):
        if setting in settings:
            raise TypeError(f"{name} got `{setting}` twice")
        settings[setting] = value
    return settings


def by_case(name: str, cases: Sequence[Case], given: dict[str, Any]) -> dict[str, Group]:
    """The settings of each rule, by its label in the route; of a lone rule under an empty one."""
    if len(cases) == 1 and not cases[0].label:
        return {"": cases[0].settings.taken(given)}
    labels = {case.label: case for case in cases}
    if unknown := [setting for setting in given if setting not in labels]:
        hint = f"{unknown[0]}={given[unknown[0]]!r}"
        if isinstance(given[unknown[0]], Mapping):
            near = did_you_mean(unknown[0], labels)
            advice = f"did you mean `{near}`?" if near else f"its rules are {', '.join(labels)}"
            raise TypeError(f"{name} has no rule `{unknown[0]}`; {advice}")
        raise TypeError(
            f"{name} is a route: give settings by rule, as in {cases[0].label}={{…}}, not {hint}; its rules are {', '.join(labels)}"
        )
    for label, settings in given.items():
        if not isinstance(settings, Mapping):
            raise TypeError(f"{name}: settings of {label} are a dictionary, as {label}={{'lr': 0.1}}, not {settings!r}")
    return {label: case.settings.taken(given.get(label, {})) for label, case in labels.items()}
