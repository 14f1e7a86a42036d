"""A call of a generated function: the tensors and numbers of one parameter that it is given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor

from optlang.backends.device_scalars import DeviceScalars
from optlang.backends.formats import Packed
from optlang.backends.torch.code import CellCode
from optlang.host import HostScalars
from optlang.ir import Node

NOT_ASKED = object()


class Slots(NamedTuple):
    """Numbers known from hypers, then those per group and model; `order` puts them where the function looks.

    `device`: all of them, where the host does not know them and none is per group or model.
    """

    host: HostScalars
    device: DeviceScalars
    shared: tuple[Node, ...]
    order: tuple[int, ...]


@dataclass(eq=False, slots=True, repr=False)
class Bound:
    """A function with what one parameter gives it."""

    code: CellCode
    weights: Tensor
    tensors: list[Tensor | Packed]
    s: Tensor
    counter: Tensor | None
    first: int | tuple[int, ...]
    is_packed: bool = False  # whether a tensor is stored in another form than that of its numbers
    kernel: Any = NOT_ASKED  # what takes it, if not torch

    def opened(self) -> list[Tensor]:
        """The tensors as numbers. Where one is packed, others that are written are copies as well: see `close`."""
        copied = self.code.written if self.is_packed else ()
        return [x.open() if isinstance(x, Packed) else x.clone() if place in copied else x for place, x in enumerate(self.tensors)]

    def close(self, opened: Sequence[Tensor]) -> None:
        """New values go where they belong, if any is packed. Once the first is written, nothing asks for memory any more."""
        writes: list[tuple[Tensor, Tensor]] = []
        for place in self.code.written if self.is_packed else ():
            stored = self.tensors[place]
            writes += stored.closed(opened[place], self.counter) if isinstance(stored, Packed) else [(stored, opened[place])]
        for target, value in writes:
            target.copy_(value)
