"""Gradient release: parameters step inside `backward`, each as soon as its gradient is there, and the gradient is freed."""

from __future__ import annotations

from threading import Lock
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from optlang.analysis.accumulation import NotLinear, parts
from optlang.backends.base import Executable
from optlang.ir import Program, walk
from optlang.runtime.groups.naming import Group
from optlang.runtime.modes import exactly
from optlang.runtime.optimizer import RuleOptimizer

Place = tuple[int, int, int]  # group, place in it, place among all parameters
COMPANY = "cannot step inside backward with several processes: gradients are not yet those of all of them"


def release_gradients(optimizer: Optimizer, *, accumulate: bool = False) -> Release:
    """Steps every parameter of an optimizer of ours inside `backward()`, as soon as its gradient is there, and frees the gradient.

    So there is never more than one gradient or two. With `accumulate`, passes add to the states instead, and `optimizer.step()` moves
    the weights. `remove()` of what is returned ends it. Not to be had together with what looks at all gradients before the step: clipping
    by their norm, GradScaler. Raises ValueError with the reason for a rule that needs all gradients at once, or for `accumulate`
    one that is not linear in the gradient; TypeError for another optimizer.
    """
    if not isinstance(optimizer, RuleOptimizer):
        raise TypeError(f"gradients are released by optimizers of rules, not by {type(optimizer).__name__}")
    return Release(optimizer, accumulate)


class Release:
    """The hooks of an optimizer's parameters. Parameters that come later are stepped as ever."""

    def __init__(self, optimizer: RuleOptimizer, accumulate: bool) -> None:
        _check(optimizer)
        self.optimizer = optimizer
        self._came = self._absorb if accumulate else self._step
        self._lock = Lock()  # each device has a thread of its own in `backward`
        self._where: dict[Tensor, Place] = {}
        self._pending: dict[Tensor, None] = {}
        self._made: dict[Any, tuple[Executable, Executable, Executable]] = {}
        if accumulate:
            for group in optimizer.param_groups:
                self._parts(group)
        parameters = [p for group in optimizer.param_groups for p in group["params"] if p.requires_grad]
        self._hooks = [p.register_post_accumulate_grad_hook(self._hook) for p in parameters]
        self._hooks.append(optimizer.register_state_dict_pre_hook(self._check_whole))
        optimizer.released = self

    def remove(self) -> None:
        """Back to ordinary steps. Raises RuntimeError in the middle of an accumulation."""
        self._check_whole(self.optimizer)
        for hook in self._hooks:
            hook.remove()
        self.optimizer.released = None

    def _check_whole(self, optimizer: Optimizer) -> None:
        if self._pending:
            raise RuntimeError(f"{type(optimizer).__name__} has taken in gradients that have not moved its weights yet: "
                               "call `step()` before")  # fmt: skip

    def _hook(self, parameter: Tensor) -> None:
        if _in_company():
            raise RuntimeError(f"{type(self.optimizer).__name__} {COMPANY}: call `remove()` of what `release_gradients` returned")
        with self._lock, torch.no_grad(), exactly():
            self._came(parameter)
            parameter.grad = None

    def _place(self, parameter: Tensor) -> Place:
        groups = self.optimizer.param_groups
        number, place, _ = self._where.get(parameter, (0, -1, 0))
        if number >= len(groups) or not 0 <= place < len(groups[number]["params"]) or groups[number]["params"][place] is not parameter:
            places = [(number, place, p) for number, group in enumerate(groups) for place, p in enumerate(group["params"])]
            self._where = {p: (number, place, index) for index, (number, place, p) in enumerate(places)}
        return self._where[parameter]

    # ----------------------------------------------------------------------------------------------------- steps

    def _step(self, parameter: Tensor) -> None:
        self.optimizer.step_one(*self._place(parameter))

    def _absorb(self, parameter: Tensor) -> None:
        """The first gradient of a step counts it; further ones belong to the same."""
        place, again = self._place(parameter), parameter in self._pending
        first, more, _ = self._parts(self.optimizer.param_groups[place[0]])
        self.optimizer.step_one(*place, more if again else first, again)
        self._pending[parameter] = None

    def finish(self) -> None:
        """Moves the weights of parameters whose states have taken in gradients."""
        for parameter in list(self._pending):
            place = self._place(parameter)
            self.optimizer.step_one(*place, self._parts(self.optimizer.param_groups[place[0]])[2], again=True)
            del self._pending[parameter]

    def _parts(self, group: Group) -> tuple[Executable, Executable, Executable]:
        """What takes a step in parts, with the settings of a group."""
        case = self.optimizer.case_of(group)
        hypers = case.settings.read(group, "")
        key = (case.label, *(hypers[h.name] for h in case.program.hypers if h.kind != "real"))
        if key not in self._made:
            try:
                found = parts(case.shaped(hypers), hypers)
            except NotLinear as problem:
                raise ValueError(f"{case.program.name} cannot accumulate gradients in its states: {problem}") from None
            self._made[key] = (case.compiled(found.first), case.compiled(found.more), case.compiled(found.move))
        return self._made[key]


def _needs_all(program: Program) -> str:
    """Why a step of a program takes the gradients of all parameters; empty where it does not."""
    if any(program.uses(op) for op in ("grad", "hvp", "loss")):
        return "asks the model again, for which all gradients must be there"
    roots = [*program.all_roots(), *(state.init for state in program.states)]
    if any(node.type.extent.level in ("group", "model") for node in walk(roots)):
        return "has values per group or model, which are of all parameters"
    return ""


def _check(optimizer: RuleOptimizer) -> None:
    name = type(optimizer).__name__
    if optimizer.released is not None:
        raise ValueError(f"{name} releases its gradients already: call `remove()` of what did that first")
    for case in optimizer.cases:
        if why := _needs_all(case.program):
            raise ValueError(f"{case.program.name} cannot step inside backward, parameter by parameter: it {why}")
    if any(group.get("differentiable") for group in optimizer.param_groups):
        raise ValueError(f"{name} is differentiable: autograd cannot go through steps that are taken inside of backward")
    if any(group.get("capturable") for group in optimizer.param_groups):
        raise ValueError(f"{name} is capturable: its counts stay on the device, and steps inside backward are counted on the host")
    if _in_company():
        raise ValueError(f"{name} {COMPANY}")


def _in_company() -> bool:
    """Whether this is one of several processes; they may have met after gradients were released."""
    distributed = torch.distributed
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1
