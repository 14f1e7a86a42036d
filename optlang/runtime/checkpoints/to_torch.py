"""The way back: a state dict with which torch's own class takes over from a rule."""

from __future__ import annotations

from typing import Any

from torch.optim import Optimizer

from optlang.printing.fingerprint import FINGERPRINT
from optlang.runtime import precision
from optlang.runtime.checkpoints.fitting import COUNT
from optlang.runtime.checkpoints.foreign import ORIGINS, Origin, is_of_the_library
from optlang.runtime.checkpoints.saved import Saved

TAKEN_BACK = {origin.rule: origin for origin in ORIGINS if not origin.nested}


def torch_state_dict(optimizer: Optimizer) -> dict[str, Any]:
    """With it torch's own class goes on from here: `torch.optim.AdamW(…).load_state_dict(optlang.torch_state_dict(ours))`.

    For the library's Adam, AdamW, AMSGrad, SGD, Momentum and Nesterov, and for Lion as lion-pytorch has it. States in fewer bits are
    handed on as numbers. Raises ValueError for other rules and for complex parameters, TypeError for an optimizer that is not of a rule.
    """
    if not isinstance(optimizer, Saved):
        raise TypeError(f"torch_state_dict takes an optimizer of a rule, not {type(optimizer).__name__}")
    origin = _origin(optimizer)
    if any(p.is_complex() for group in optimizer.param_groups for p in group["params"]):
        raise ValueError("states of complex parameters are pairs of real numbers here, and not so in torch")
    found = optimizer.state_dict()
    # where a rule does not count steps, torch's optimizer does not either
    names = {ours: theirs for theirs, ours in origin.states.items()} | ({COUNT: COUNT} if optimizer.cases[0].program.uses("t") else {})
    states = {}
    for group, saved in zip(optimizer.param_groups, found["param_groups"], strict=True):
        for parameter, key in zip(group["params"], saved["params"], strict=True):
            opened, _ = precision.opened(found["state"].get(key, {}), parameter.shape)
            states[key] = {names[name]: value for name, value in opened.items() if name in names}
    groups = [{**origin.options, **{key: value for key, value in group.items() if key != FINGERPRINT}} for group in found["param_groups"]]
    return {"state": {key: state for key, state in states.items() if state}, "param_groups": groups}


def _origin(optimizer: Saved) -> Origin:
    program = optimizer.cases[0].program
    if len(optimizer.cases) > 1 or program.name not in TAKEN_BACK or not is_of_the_library(program):
        raise ValueError(f"torch has no optimizer with the steps of {type(optimizer).__name__}, only with those of the library's "
                         f"{', '.join(TAKEN_BACK)}")  # fmt: skip
    return TAKEN_BACK[program.name]
