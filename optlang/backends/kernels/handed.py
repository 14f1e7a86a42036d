"""What kernels hand out: one number, or a value for each element, for which there is a new tensor that they write into."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from optlang.backends.outputs import Output, handed_out, is_handed_out
from optlang.backends.torch.bound import Bound
from optlang.ir import Node
from optlang.types import ELEMENT


class Handed(NamedTuple):
    """`nodes` stand for new tensors of some `types`; `order`: whether what is handed out is such a tensor, or a number."""

    nodes: tuple[Node, ...]
    types: tuple[torch.dtype, ...]
    order: tuple[bool, ...]

    def fresh(self, calls: Sequence[Bound]) -> list[list[Tensor]]:
        """New tensors for each call."""
        return [[torch.empty(x.weights.numel(), dtype=dtype, device=x.weights.device) for dtype in self.types] for x in calls]

    def merged(self, tensors: Sequence[Sequence[Tensor]], numbers: Tensor) -> list[Sequence[Tensor]]:
        """All that is handed out for each call."""
        columns = [column.unbind() for column in numbers.unbind(1)]
        singles = zip(*columns, strict=True) if columns else [()] * len(numbers)
        return [self._merged(row, single) for row, single in zip(tensors, singles, strict=True)]

    def _merged(self, tensors: Sequence[Tensor], numbers: Sequence[Tensor]) -> tuple[Tensor, ...]:
        left, right = iter(tensors), iter(numbers)
        return tuple(next(left if is_tensor else right) for is_tensor in self.order)


def stored(outputs: Sequence[Output]) -> list[Output]:
    """Outputs with a tensor to write into for what is handed out element by element."""
    return [
        Output(o.node, handed_out(place, o.node.type)) if o.target is None and o.node.type.extent == ELEMENT else o
        for place, o in enumerate(outputs)
    ]


def handed(outputs: Sequence[Output], number: torch.dtype) -> Handed:
    """What `stored` outputs hand out, computed in some type."""
    nodes = [o.target for o in outputs if o.target is not None and _is_handed(o)]
    return of_nodes(nodes, [_is_handed(o) for o in outputs if o.target is None or _is_handed(o)], number)


def of_nodes(nodes: Sequence[Node], order: Sequence[bool], number: torch.dtype) -> Handed:
    """With the types of what nodes stand for."""
    return Handed(tuple(nodes), tuple(torch.bool if node.type.kind == "bool" else number for node in nodes), tuple(order))


def _is_handed(output: Output) -> bool:
    return output.target is not None and is_handed_out(output.target)
