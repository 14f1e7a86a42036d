"""What processes that share parameters tell each other: sums and extremes of their parts, the loss, products with the Hessian."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from math import prod
from typing import Any

import torch
from torch import Tensor, distributed

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


def mean_of(loss: Any, parameters: Iterable[Any], models: Sequence[Any]) -> Any:
    """The loss of all processes that hold parts or copies: the mean of theirs, as their gradients are averaged."""
    meshes = [p.device_mesh for p in parameters if hasattr(p, "device_mesh")]
    if not meshes and not models:
        return loss
    mesh = max(meshes, key=lambda mesh: mesh.size(), default=None)
    groups = [model.process_group for model in models] + ([] if mesh is None else mesh.get_all_groups())
    device = mesh.device_type if mesh is not None else next(models[0].parameters()).device
    found = torch.as_tensor(loss).detach().double().clone().to(device)
    for group in dict.fromkeys(groups):
        _average(found, group)
    return found


def modules_of_fsdp() -> list[Any]:
    """Those whose parameters FSDP2 gathers; none where torch does not tell."""
    from torch.distributed import _composable_state, fsdp  # noqa: PLC0415 - only where there are such parameters

    return [m for m in getattr(_composable_state, "_module_state_mapping", ()) if isinstance(m, fsdp.FSDPModule)]


def show(parameters: Iterable[Any]) -> None:
    """Lets models see what was written into parameters. FSDP2 keeps what it gathered for a pass until one backward, and there was none
    if the pass was to compute a loss alone, or to evaluate."""
    if any(hasattr(p, "device_mesh") for p in parameters):
        for module in modules_of_fsdp():
            module.reshard()


def watched(apart: bool = False) -> AbstractContextManager[list[Any]]:
    """Gives the models of DistributedDataParallel, or of `replicate`, that are called in here. `apart`: each process keeps its own
    gradients, which can be differentiated again; averages in place cannot."""
    return _watched(apart) if distributed.is_available() and distributed.is_initialized() else nullcontext([])


@contextmanager
def _watched(apart: bool) -> Iterator[list[Any]]:
    models: list[Any] = []
    held_back: set[Any] = set()
    from torch.nn.parallel import DistributedDataParallel  # noqa: PLC0415

    plain: Any = DistributedDataParallel._pre_forward

    def begin(model: Any, *args: Any, **more: Any) -> Any:
        models.append(model)
        if apart and model.require_backward_grad_sync:
            held_back.add(model)
            model.require_backward_grad_sync = False
        return plain(model, *args, **more)

    setattr(DistributedDataParallel, "_pre_forward", begin)  # noqa: B010 - `replicate` calls this and no other
    try:
        yield models
    finally:
        setattr(DistributedDataParallel, "_pre_forward", plain)  # noqa: B010
        for model in held_back:
            model.require_backward_grad_sync = True


def averaged(values: Sequence[Tensor], parameters: Sequence[Tensor], models: Iterable[Any]) -> None:
    """Averages a value for each parameter over the processes of the models that have it, in place."""
    for model in dict.fromkeys(models):
        inside = {id(p) for p in model.parameters()}
        for value in [x for x, p in zip(values, parameters, strict=True) if id(p) in inside]:
            _average(value, model.process_group)


def _average(value: Tensor, group: Any) -> None:
    distributed.all_reduce(value, group=group)
    value /= distributed.get_world_size(group)
