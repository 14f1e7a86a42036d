"""What processes that hold parts of the same parameters tell each other: sums and extremes, and the loss."""

from __future__ import annotations

from collections.abc import Iterable
from math import prod
from typing import Any

import torch
from torch import Tensor

Shape = tuple[int, ...]
REDUCTIONS = {"sum": "SUM", "mean": "SUM", "amax": "MAX", "amin": "MIN"}


class Spread:
    """How the part of a parameter that is here goes with those of other processes."""

    def __init__(self, parameter: Any) -> None:
        mesh, placements = parameter.device_mesh, parameter.placements
        self.shape: Shape = tuple(parameter.shape)
        self.device = parameter.to_local().device
        self.cut = [dim for dim, placement in enumerate(placements) if not placement.is_replicate()]
        self.groups = [mesh.get_group(dim) for dim in self.cut]
        self.offset = first_place(parameter)

    @property
    def key(self) -> Any:
        """The same for parameters whose values are reduced by the same processes."""
        return tuple(map(id, self.groups)), self.device

    def reduced(self, op: str, values: Tensor) -> Tensor:
        """One value for each of what the processes computed for their parts: their sum, or the largest or smallest."""
        from torch.distributed import ReduceOp, all_reduce  # noqa: PLC0415 - only where there are such parameters

        there = values.to(self.device)
        for group in self.groups:
            all_reduce(there, getattr(ReduceOp, REDUCTIONS[op]), group)
        return there.to(values.device)


def first_place(parameter: Any) -> int | None:
    """The place in the whole parameter of the first element that is here; None where those here do not follow each other there."""
    from torch.distributed.tensor import Shard  # noqa: PLC0415
    from torch.distributed.tensor._utils import compute_local_shape_and_global_offset  # noqa: PLC0415

    cut = [placement for placement in parameter.placements if not placement.is_replicate()]
    if not cut:
        return 0
    if len(cut) > 1 or type(cut[0]) is not Shard or cut[0].dim != 0:
        return None
    _, offset = compute_local_shape_and_global_offset(parameter.shape, parameter.device_mesh, parameter.placements)
    rest: int = prod(tuple(parameter.shape[1:]))
    return int(offset[0]) * rest


def mean_of(loss: Any, parameters: Iterable[Any]) -> Any:
    """The loss of all processes that hold parts: the mean of theirs, as their gradients are averaged."""
    meshes = [p.device_mesh for p in parameters if hasattr(p, "device_mesh")]
    if not meshes:
        return loss
    from torch.distributed import all_reduce  # noqa: PLC0415

    mesh = max(meshes, key=lambda mesh: mesh.size())
    found = torch.as_tensor(loss).detach().double().clone().to(mesh.device_type)
    for group in mesh.get_all_groups():
        all_reduce(found, group=group)
    return found / mesh.size()
