"""The same parameters stepped again: what one look over all of them confirms is not found out anew for each.

Anything that is not as it was is left to the long way, which says what is wrong with it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from optlang.backends.base import Cell, Executable, Given, Repeat, Step, Write
from optlang.backends.repeated.calls import Whole
from optlang.backends.repeated.library import sees
from optlang.backends.repeated.watch import Belongings, Counts
from optlang.runtime.checkpoints.fitting import COUNT
from optlang.runtime.groups.naming import Group

Key = tuple[Any, ...]
Work = dict[Key, tuple[Executable, list[Cell]]]  # by rule and shape
Settings = Sequence[Mapping[str, Any]]  # the hypers of each group
SAME = 2  # what counts are found to be that are all one number
SPECIAL = ("maximize", "differentiable", "capturable")


class Begun(NamedTuple):
    """A step begun: what is left of it to begin, and what writes the rest; `whole`: what does that and counts, where nothing is left."""

    work: Work
    writes: Sequence[Write]
    whole: Whole | None = None


class Part(NamedTuple):
    """What one executable steps; `first`: the place of its first cell among all."""

    key: Key
    executable: Executable
    cells: list[Cell]
    again: Repeat | None
    first: int

    def given(self, hypers: Settings, counts: Any, inputs: Mapping[str, Any]) -> bool:
        """Cells with what is new in this step; whether their gradients are such as can be taken as they are."""
        for cell, t in zip(self.cells, np.broadcast_to(counts, len(self.cells)).tolist(), strict=True):
            cell.gradient, cell.hypers, cell.t = cell.weights.grad, hypers[cell.group], t
            if inputs:
                cell.inputs = inputs_of(inputs, cell.weights)
        return all(cell.gradient.layout == torch.strided and not cell.gradient.is_neg() for cell in self.cells)


class LastStep:
    """A step that has been taken, to be taken again. Its counts share memory from now on. Raises Unseen."""

    def __init__(
        self, groups: Sequence[Group], state: Mapping[Any, Any], settings: Settings, keys: Sequence[Key], work: Work, steps: Sequence[Step],
    ) -> None:  # fmt: skip
        self.settings, self.keys, self.parts, cells = settings, list(keys), list[Part](), list[Cell]()
        for (key, (executable, some)), step in zip(work.items(), steps, strict=True):
            self.parts.append(Part(key, executable, list(some), step.again, len(cells)))
            cells += some
        together = torch.stack([cell.state[COUNT] for cell in cells])
        each = together.unbind()
        self.counts = together.numpy()
        for cell, count in zip(cells, each, strict=True):
            cell.state[COUNT] = count
        self.watch = Counts(each, self.counts)
        self.written: Any = None  # what the settings were read from
        self.lacks = False  # of the last step: it was decided in a way that could be learned
        self.belongings = Belongings([group["params"] for group in groups], state)
        self._leave()

    def holds(self, groups: Sequence[Group], state: Mapping[Any, Any]) -> bool:
        """Whether the same parameters are to be stepped, with the same states."""
        return self.belongings.hold([group["params"] for group in groups], state)

    def begun(self, groups: Sequence[Group], given: Given) -> Begun | None:
        """The next step, as far as it can be begun here; None where one of the parameters has to be looked at."""
        self.lacks = False
        if not (seen := self.watch.hold()):
            return None
        counts = int(self.counts[0]) + 1 if seen == SAME else (self.counts + 1).astype(np.int64)
        work: Work = {}
        writes = []
        for part in self.parts:
            mine = counts if isinstance(counts, int) else counts[part.first : part.first + len(part.cells)]
            if part.again is None:
                if not part.given(self.settings, mine, given.inputs):
                    return None
                work[part.key] = part.executable, part.cells
            elif (write := part.again.ready(self.settings, mine, groups[part.cells[0].group].get("seed", 0), given)) is not None:
                writes.append(write)
            else:
                self.lacks = part.again.lacks and self.belongings.have_gradients()
                return None
        if given.batch is not None and not self.watch.hold():
            return None  # the closure may do anything
        if len(self.parts) == len(writes) == 1 and isinstance(write := writes[0], Whole):
            return Begun(work, writes, write.followed(self.watch.grow))
        return Begun(work, writes)

    def learn(self, steps: Sequence[Step]) -> None:
        """From the same step, taken in the long way."""
        for part, step in zip(self.parts, steps, strict=True):
            if part.again is not None and step.again is not None:
                part.again.learn(step.again)
        self._leave()

    def _leave(self) -> None:
        """Where each gradient is looked at anyway, it is looked at once."""
        looking = [part for part in self.parts if part.again is not None and part.again.looks]
        self.belongings.leave(cell.weights for part in looking for cell in part.cells)

    def count(self, left: Sequence[Cell]) -> None:
        """The step is over, but for cells that could not be stepped; this asks for no memory."""
        self.watch.grow()
        for cell in left:
            cell.state[COUNT].fill_(cell.t - 1)
        for part in self.parts:
            for cell in part.cells if part.again is None else ():
                cell.gradient = None  # gradients are not kept alive


def inputs_of(inputs: Mapping[str, Any], parameter: Tensor) -> dict[str, Any]:
    """What the training loop gives for a parameter."""
    return {name: given.get(parameter) if isinstance(given, Mapping) else given for name, given in inputs.items()}


def is_special(groups: Sequence[Group]) -> bool:
    """Whether something about the steps of some parameters has to be done for each."""
    return any(group.get(option) for group in groups for option in SPECIAL)


def repeats(groups: Sequence[Group], cells: Sequence[Cell]) -> bool:
    """Whether a step of some cells can be taken again: all are parameters and gradients as they are, counted on the host."""
    if not sees() or is_special(groups):
        return False
    parameters = {id(p) for group in groups for p in group["params"]}
    plain = all(type(cell.weights) in (Tensor, torch.nn.Parameter) and id(cell.weights) in parameters for cell in cells)
    return plain and all(cell.gradient is cell.weights.grad and cell.state[COUNT].device.type == "cpu" for cell in cells)
