"""Steps without the host: counts, hypers and overflows stay on the device, so that a CUDA graph may hold a whole step.

As in torch, `capturable=True` asks for it: then hypers that are tensors may be written into between replays, and plain numbers
are those of the capture. A step that finds an overflow of scaled gradients on a GPU is taken in this way as well.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from optlang import ir
from optlang.backends.device_scalars import is_capturing, joined
from optlang.ops import CALLS
from optlang.runtime.checkpoints.fitting import COUNT

if TYPE_CHECKING:
    from optlang.backends.base import Cell
    from optlang.runtime.gathering import Gathered
    from optlang.runtime.groups.grouped import Grouped

WAITING = {"eigenvectors": "eigenvectors", "orthonormal": "orthonormal bases"}  # torch looks at what it found; see its issue 188355


def refuses(program: ir.Program) -> str:
    """Why the host must take part in the steps of a program; empty where it need not."""
    if any(program.uses(op) for op in CALLS):
        return "it asks the model again, and a graph cannot draw the random numbers of the first pass once more"
    nodes = ir.walk([*program.roots(), *(state.init for state in program.states)])
    if found := next((WAITING[node.op] for node in nodes if node.op in WAITING), ""):
        return f"it takes {found}, for which the host waits"
    return ""


def guards(optimizer: Grouped) -> bool:
    """Whether an overflow that a scaler has found is dealt with on the device."""
    found = getattr(optimizer, "found_inf", None)
    if not isinstance(found, Tensor) or not (found.is_cuda or all(group.get("capturable") for group in optimizer.param_groups)):
        return False
    return not any(optimizer.case_of(g).waits or g.get("differentiable") for g in optimizer.param_groups)


def check_capture(optimizer: Gathered, settings: Sequence[Mapping[str, Any]]) -> None:
    """Raises RuntimeError for a step that a CUDA graph cannot hold, or would not hold all of."""
    if not is_capturing():
        return
    what = f"{type(optimizer).__name__}.step()"
    for group, hypers in zip(optimizer.param_groups, settings, strict=True):
        if not group.get("capturable"):
            raise RuntimeError(f"{what} cannot be captured in a CUDA graph with capturable=False, for its rates are computed on the host: "
                               "make it with capturable=True, or step after the replay")  # fmt: skip
        for parameter in group["params"]:
            _check_parameter(optimizer, what, parameter)
        for name, value in [*hypers.items(), *_inputs(optimizer.inputs)]:
            if isinstance(value, Tensor) and not value.is_cuda:
                raise RuntimeError(f"{what} is being captured in a CUDA graph, but {name} lies on the {value.device.type}, where no replay "
                                   "would see it change: move it to the GPU, or give a number")  # fmt: skip


def _inputs(given: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in given.items():
        yield from ((f"the input {name}", one) for one in (value.values() if isinstance(value, Mapping) else [value]))


def _check_parameter(optimizer: Grouped, what: str, parameter: Tensor) -> None:
    if parameter.requires_grad and parameter.grad is None:
        raise RuntimeError(f"{what} is being captured in a CUDA graph, but {optimizer.name_of(parameter)} has no gradient, so no replay "
                           "would ever step it: call backward before, or set requires_grad=False")  # fmt: skip
    count = optimizer.state.get(parameter, {}).get(COUNT)
    if parameter.grad is not None and (count is None or count.device != parameter.device):
        raise RuntimeError(f"{what} is being captured in a CUDA graph, but {optimizer.name_of(parameter)} has no state on the GPU yet, so "
                           "every replay would make it anew: take a step before the capture")  # fmt: skip


def counts(states: Sequence[MutableMapping[str, Any]]) -> list[Tensor]:
    """The numbers of updates after this one, each on its device. From now on the counts of a device share memory."""
    found: dict[int, Tensor] = {}
    for places in _by_device([state[COUNT] for state in states]):
        base = joined([states[place][COUNT] for place in places])
        if base is not states[places[0]][COUNT]._base and not is_capturing():
            for place, row in zip(places, base.unbind(), strict=True):
                states[place][COUNT] = row
        found |= zip(places, (base + 1).unbind(), strict=True)
    return [found[place] for place in range(len(states))]


def count(cells: Sequence[Cell], overflow: Tensor | None) -> None:
    """The updates are over; after an overflow there was none."""
    steps = [cell.state[COUNT] for cell in cells]
    for places in _by_device(steps):
        mine = [steps[place] for place in places]
        taken = torch.ones((), device=mine[0].device)
        if overflow is not None:
            taken = (overflow.reshape(()).to(mine[0].device, non_blocking=True) == 0).float()
        base = joined(mine)
        if base is mine[0]._base:
            base += taken
        else:
            torch._foreach_add_(mine, [taken] * len(mine))


def _by_device(tensors: Sequence[Tensor]) -> list[list[int]]:
    """The places of tensors on one device."""
    found: dict[torch.device, list[int]] = {}
    for place, tensor in enumerate(tensors):
        found.setdefault(tensor.device, []).append(place)
    return list(found.values())
