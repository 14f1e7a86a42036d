"""Hooks and profiler records around a step, as torch has them.

A record takes as long as a third of a step of small tensors, so it is only opened where somebody reads it.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import torch
from torch.optim import Optimizer
from torch.optim import optimizer as of_all

from optlang.backends.repeated.library import address_in_torch

P = ParamSpec("P")
R = TypeVar("R")


def with_hooks(func: Callable[P, R]) -> Callable[P, R]:
    """A step as torch wraps it, or by itself where nobody listens."""
    wrapped = Optimizer.profile_hook_step(func)

    @wraps(func)
    def taken(*args: P.args, **more: P.kwargs) -> R:
        return (wrapped if torch.compiler.is_compiling() or _is_heard(args[0]) else func)(*args, **more)

    return taken


def _is_heard(optimizer: Any) -> bool:
    """Whether somebody reads records, or has hooks. `taken` names this alone: cloudpickle sends what it names, and no pointer can be."""
    own = optimizer._optimizer_step_pre_hooks or optimizer._optimizer_step_post_hooks
    return bool(_is_recorded() or own or of_all._global_optimizer_pre_hooks or of_all._global_optimizer_post_hooks)


def _asking() -> Callable[[], bool]:
    """What asks torch whether anybody reads records: profilers do, and other observers."""
    try:
        place = address_in_torch("libtorch_cpu._ZN2at12hasCallbacksEv")
    except (OSError, AttributeError):
        place = None
    return ctypes.PYFUNCTYPE(ctypes.c_bool)(place) if place else lambda: True


_is_recorded = _asking()
