"""Tensors as the generated functions want them: flat, or as (batch, rows, cols); values per run as (runs, 1)."""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor

from optlang.types import Type


def view(tensor: Tensor, type_: Type, shaped: bool) -> Tensor:
    """A tensor of one parameter without a copy where its memory is in order, else a copy in order."""
    if type_.extent.level != "array":
        return tensor
    if type_.extent.run:
        return tensor.contiguous()
    lead, inner = (tensor.shape[:1], tensor.shape[1:]) if type_.window else ((), tensor.shape)
    seen = tensor.reshape(*lead, prod(inner[:-2]), *inner[-2:]) if shaped else tensor.reshape(*lead, prod(inner))
    return seen.contiguous()


def flat(tensor: Tensor) -> Tensor:
    """A tensor as a row; many are rows already."""
    return tensor if tensor.ndim == 1 else tensor.reshape(-1)


def alone(tensor: Tensor) -> Tensor:
    """The same memory as a tensor of its own: a compiled function would tell views apart by what they are views of."""
    if tensor._base is None:
        return tensor
    made = torch.empty(0, dtype=tensor.dtype, device=tensor.device)
    return made.set_(tensor.untyped_storage(), tensor.storage_offset(), tensor.shape, tensor.stride())


def put_back(tensor: Tensor, seen: Tensor) -> None:
    """What was written into a copy goes into the tensor itself."""
    if not tensor.is_contiguous():
        tensor.copy_(seen.view(tensor.shape))


def like(tensor: Tensor, value: Tensor, type_: Type, shaped: bool) -> Tensor:
    """A value of a generated function as a new tensor like the parameter."""
    made = torch.empty(tensor.shape, dtype=tensor.dtype, device=tensor.device)
    view(made, type_, shaped).copy_(value)
    return made


def seen_like(tensor: Tensor, value: Tensor, type_: Type, shaped: bool) -> Tensor:
    """The same where it is only read: without a copy of what is such a tensor already."""
    is_such = value.dtype == tensor.dtype and value.numel() == tensor.numel() and value.is_contiguous()
    return value.view(tensor.shape) if is_such else like(tensor, value, type_, shaped)
