"""Tensors of classes that keep other tensors in their place, as torchao's do: where their numbers lie only the class knows."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

PLAIN = (Tensor, torch.nn.Parameter)  # what need not be asked


def is_wrapped(x: Any) -> bool:
    """Whether a class answers all operators itself. DTensors are stepped by their parts, and fake tensors have no numbers."""
    kind = type(x)
    if kind in PLAIN or not isinstance(x, Tensor) or kind.__torch_dispatch__ is Tensor.__torch_dispatch__:
        return False
    return not (hasattr(x, "device_mesh") or isinstance(x, FakeTensor)) and (x.is_cpu or hasattr(kind, "__tensor_flatten__"))


def numbers(x: Any) -> Any:
    """A tensor with memory of its own: itself, or a copy of the numbers that one of such a class stands for."""
    return torch.empty(x.shape, dtype=x.dtype, device=x.device).copy_(x.detach()) if is_wrapped(x) else x
