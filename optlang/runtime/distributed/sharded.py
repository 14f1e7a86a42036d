"""Parameters that several processes hold parts of: DTensors, as of FSDP2 and tensor parallelism.

A rule that goes element by element steps the part that is here, and its states are DTensors like the parameter. Values per
tensor, group and model are reduced over the processes. Where a rule needs more (rows and columns, matrices, quantiles, draws
for parts that are cut up) it gets the whole parameter from all processes in every step: each of them computes all of it, keeps
its states whole, and puts its own part back. That costs memory and traffic, but takes the same steps.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping, Sequence, Set
from hashlib import sha256
from typing import Any

import torch
from torch import Tensor

from optlang import ir
from optlang.analysis.computed import computed_for
from optlang.ir import Program
from optlang.ops import OPS
from optlang.runtime.distributed.processes import Spread, first_place, modules_of_fsdp
from optlang.runtime.facts import facts_of
from optlang.runtime.steps.batch import Batch
from optlang.runtime.tensor_subclasses import is_wrapped, numbers
from optlang.types import ELEMENT, needs_matrix


def is_sharded(parameter: Any) -> bool:
    """Whether it is a DTensor; found out without importing what defines them."""
    return hasattr(parameter, "device_mesh")


def is_zero(value: Any) -> bool:
    """Whether all elements are 0, on all processes: each must ask."""
    whole = value.full_tensor() if is_sharded(value) else value
    return not bool((whole != 0).any())


def why_whole(program: Program, parameter: Tensor, hypers: Mapping[str, Any]) -> str:
    """Why all of a parameter must be there to step a part of it; empty where it need not."""
    nodes = computed_for(program, facts_of(parameter), hypers)
    if any(state.type.window and state.type.extent != ELEMENT for state in program.states):
        return "remembers values of all elements"
    if any(OPS[node.op].role == "reduce" for node in ir.walk([s.init for s in program.states])):
        return "starts from values of all elements"
    if any(OPS[node.op].role == "matrix" or needs_matrix(node.type.extent) for node in nodes):
        return "treats parameters as matrices"
    if any(node.type.extent.run for node in nodes):
        return "takes elements together that follow each other"
    if any(node.op == "quantile" and node.value != "window" for node in nodes):
        return "puts elements in order"
    if any(node.op == "random" and node.type.extent.level == "array" for node in nodes) and first_place(parameter) is None:
        return "draws for each element"
    return ""


def reduces(program: Program) -> bool:
    """Whether parts need more than their own elements: values of all, or their places for draws."""
    nodes = ir.walk([*program.all_roots()])
    return any((OPS[node.op].role == "reduce" and node.value != "window") or node.op == "random" for node in nodes)


def refuses(parameter: Tensor, asks: Set[str], differentiable: bool, plain: bool) -> str:
    """Why such a parameter cannot be spread over processes; empty where it can. `asks`: what the rule asks the model for."""
    if differentiable:
        return "autograd cannot go through a step of its parts"
    if "hvp" in asks and is_of_fsdp(parameter):
        return "FSDP2's gradients cannot be differentiated again, as products with the Hessian want; those of tensor parallel layers can"
    if not plain:
        return "states and weights in fewer bits are kept in blocks, which parts would cut"
    return "it is complex" if parameter.is_complex() else ""


def is_of_fsdp(parameter: Any) -> bool:
    """Whether FSDP2 gathers it and hands out its gradients. What torch does not tell here shows in the first step."""
    return any(p is parameter for module in modules_of_fsdp() for p in module.parameters())


def agree(mesh: Any, what: str) -> bool:
    """Whether all processes of a mesh say the same; each must ask."""
    number = int(sha256(what.encode()).hexdigest()[:15], 16)
    extremes = torch.tensor([number, -number], device=mesh.device_type)
    for group in mesh.get_all_groups():
        torch.distributed.all_reduce(extremes, torch.distributed.ReduceOp.MAX, group=group)
    return extremes.tolist() == [number, -number]


class Part:
    """A parameter as one process steps it: its own part, or for a `whole` one all of it, gathered."""

    def __init__(self, parameter: Any, whole: bool) -> None:
        self.parameter, self.whole = parameter, whole
        self.weights = numbers(parameter.full_tensor() if whole else parameter.to_local())
        self.spread_over = None if whole else Spread(parameter)

    def gradient(self, given: Any = None) -> Tensor:
        """That of the parameter or a given one, for the same elements as the weights, summed up where it was not yet."""
        gradient: Any = self.parameter.grad if given is None else given
        if self.whole:
            whole: Tensor = gradient.full_tensor()
            return whole
        part: Tensor = gradient.redistribute(self.parameter.device_mesh, self.parameter.placements).to_local()
        return part

    def point(self, value: Tensor) -> Any:
        """A value for each of these weights as a DTensor like the parameter."""
        return self._spread(_own(value, self.parameter) if self.whole else value)

    def of(self, value: Any) -> Any:
        """A value for the same elements as the weights."""
        return (value.full_tensor() if self.whole else value.to_local()) if is_sharded(value) else value

    def states(self, kept: dict[str, Any]) -> MutableMapping[str, Any]:
        """The states as the rule sees them. Those that were loaded the other way round are turned."""
        for name, value in kept.items():
            if self.whole and is_sharded(value):
                kept[name] = value.full_tensor()
            elif not self.whole and not is_sharded(value) and self._is_like(value, self.parameter):
                kept[name] = self._spread(_own(value, self.parameter, value.ndim - self.parameter.ndim))
        return kept if self.whole else Parts(self, kept)

    def put_back(self) -> None:
        """Writes what was computed for all of it, or for a copy, into the part that is here."""
        if self.whole:
            self.parameter.to_local().copy_(_own(self.weights, self.parameter))
        elif is_wrapped(local := self.parameter.to_local()):
            local.copy_(self.weights)

    def _is_like(self, value: Any, other: Tensor) -> bool:
        """Whether a state has a number for each element, in windows with a dimension before."""
        return isinstance(value, Tensor) and other.ndim > 0 and tuple(value.shape[-other.ndim :]) == tuple(other.shape)

    def spread(self, value: Any) -> Any:
        """A state of the part as one of the parameter; one number for all of it stays what it is."""
        return self._spread(value) if self._is_like(value, self.weights) else value

    def _spread(self, local: Tensor) -> Any:
        from torch.distributed.tensor import DTensor  # noqa: PLC0415 - only where there are such parameters

        more = local.ndim - self.parameter.ndim
        shape = torch.Size([*local.shape[:more], *self.parameter.shape])
        stride = torch.empty(shape, device="meta").stride()
        mesh, placements = self.parameter.device_mesh, _moved(self.parameter.placements, more)
        return DTensor.from_local(local, mesh, placements, run_check=False, shape=shape, stride=stride)


class Parts(MutableMapping[str, Any]):
    """The states of a parameter, each the part that is here, in the memory of the DTensor that a checkpoint sees."""

    def __init__(self, part: Part, kept: dict[str, Any]) -> None:
        self.part, self.kept = part, kept

    def __getitem__(self, name: str) -> Any:
        value = self.kept[name]
        return value.to_local() if is_sharded(value) else value

    def __setitem__(self, name: str, value: Any) -> None:
        self.kept[name] = self.part.spread(value)

    def __delitem__(self, name: str) -> None:
        del self.kept[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.kept)

    def __len__(self) -> int:
        return len(self.kept)


def points_at(parts: Sequence[Part | None], points: list[Any]) -> list[Any]:
    """Other weights as the model takes them: DTensors where there are parts. The list that is given is emptied."""
    found = [x if part is None else part.point(torch.as_tensor(x)) for x, part in zip(points, parts, strict=True)]
    points.clear()
    return found


def gradients_at(batch: Batch, parameters: Sequence[Any], parts: Sequence[Part | None], points: list[Tensor]) -> list[Tensor]:
    """The gradients of a batch at other weights, which are those of the parts where there are such."""
    found = batch.gradients(parameters, points_at(parts, points))
    return [x if part is None else part.gradient(x) for x, part in zip(found, parts, strict=True)]


def products_at(batch: Batch, parameters: Sequence[Any], parts: Sequence[Part | None], vectors: list[Tensor]) -> list[Tensor]:
    """The Hessian at the weights times vectors, which are those of the parts where there are such."""
    found = batch.hessian(parameters, points_at(parts, vectors))
    return [x if part is None else part.gradient(x) for x, part in zip(found, parts, strict=True)]


def put(parameter: Any, value: Any) -> None:
    """Writes weights, which may be whole, into a parameter."""
    if is_sharded(parameter) and not is_sharded(value):
        parameter.to_local().copy_(_own(value, parameter))
    else:
        parameter.copy_(value)


def _own(whole: Tensor, like: Any, more: int = 0) -> Tensor:
    """The part of a tensor that this process holds of a parameter; `more` dimensions before it are not cut."""
    from torch.distributed.tensor import DTensor, Replicate  # noqa: PLC0415

    mesh = like.device_mesh
    everywhere = DTensor.from_local(whole, mesh, [Replicate()] * mesh.ndim, run_check=False)
    return everywhere.redistribute(mesh, _moved(like.placements, more)).to_local()


def _moved(placements: Any, more: int) -> Any:
    """Placements for a tensor with some dimensions before those that are cut."""
    from torch.distributed.tensor import Shard  # noqa: PLC0415

    return [Shard(p.dim + more) if more and isinstance(p, Shard) else p for p in placements]
