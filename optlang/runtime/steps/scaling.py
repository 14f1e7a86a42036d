"""Gradients of a scaled loss: what `GradScaler` leaves to an optimizer that says it can, in `found_inf` and `grad_scale`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from optlang.runtime.groups.grouped import Grouped


def overflowed(optimizer: Grouped) -> bool:
    """Whether some gradient is infinite or no number, as the scaler has found: then nothing is stepped."""
    found = getattr(optimizer, "found_inf", None)
    return found is not None and bool(found)


def scale_of(optimizer: Grouped) -> Any:
    """What the gradients are to be divided by; None where they are as they should be."""
    return getattr(optimizer, "grad_scale", None)


def unscaled(gradient: Tensor, scale: Any) -> Tensor:
    """The gradient of the loss itself, also in the place of the scaled one. Of 16 bits it is wider than its place, so that
    small values are not lost before the step."""
    one_over = torch.as_tensor(scale, device=gradient.device).double().reciprocal().reshape(())
    if gradient.element_size() >= 4:
        return gradient.mul_(one_over.to(gradient.dtype))
    wide = gradient.float() * one_over.float()
    gradient.copy_(wide)
    return wide
