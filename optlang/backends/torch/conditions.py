"""What decides the blocks of a rule before a step, for each parameter."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from optlang.backends.base import Cell
from optlang.backends.device_scalars import is_on_device
from optlang.backends.torch.work import decision
from optlang.host import HostScalars
from optlang.ir import Node
from optlang.plan import Truth


class Conditions:
    """The conditions of a rule's blocks, in the order of its plan."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        self._each = [HostScalars((node,)) for node in nodes]
        self._facts = sorted({name for condition in self._each for name in condition.facts})

    @property
    def changing(self) -> list[HostScalars]:
        """Those that need not hold in each step alike."""
        return [condition for condition in self._each if condition.hypers or condition.reads_t]

    def truth(self, cell: Cell) -> Truth:
        """What they are for a parameter; None where a fact is missing, or only the device can tell."""
        return tuple(_decided(condition, cell) for condition in self._each)

    def truths(self, cells: Sequence[Cell]) -> list[Truth]:
        """Those of some cells: of cells with the same settings, counts and facts only once."""
        if not self._each:
            return [()] * len(cells)
        kinds = [(id(cell.hypers), cell.t, *map(cell.facts.get, self._facts)) for cell in cells]
        known = {kind: self.truth(cell) for kind, cell in dict(zip(kinds, cells, strict=True)).items()}
        return [known[kind] for kind in kinds]


def _decided(condition: HostScalars, cell: Cell) -> bool | None:
    if is_on_device(cell) and (condition.reads_t or any(isinstance(cell.hypers[name], Tensor) for name in condition.hypers)):
        return None
    return decision(condition, cell.hypers, cell.t, cell.facts)
