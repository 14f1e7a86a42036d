"""Autocast and default devices that users have switched on around a step: inside of the step they are off."""

from __future__ import annotations

from contextlib import AbstractContextManager, ExitStack, nullcontext
from typing import Any

import torch

CASTING = ("cpu", "cuda", "xpu", "mps")
NOTHING: AbstractContextManager[Any] = nullcontext()


def autocasting() -> list[str]:
    """The kinds of devices for which automatic casts are on."""
    return [kind for kind in CASTING if torch.is_autocast_enabled(kind)] if torch._C._is_any_autocast_enabled() else []


def has_modes() -> bool:
    """Whether torch's functions may do something else than usual: `torch.set_default_device` is such a mode."""
    return bool(torch._C._len_torch_function_stack())


def exactly() -> AbstractContextManager[Any]:
    """In here rules compute in their own number types and on the devices of their parameters, as if nothing were switched on."""
    kinds, modes = autocasting(), has_modes()
    if not kinds and not modes:
        return NOTHING
    around = ExitStack()
    for kind in kinds:
        around.enter_context(torch.autocast(kind, enabled=False))
    if modes:
        around.enter_context(torch.device("cpu"))
    return around
